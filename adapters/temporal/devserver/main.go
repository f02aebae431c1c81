// Command devserver is a Temporal server in one process over one SQLite file, for
// tests and for trying the adapter out. It can be killed at any moment and started
// again over the same file. It listens on the loopback interface alone and asks
// nobody who they are.
//
// It is a module of its own so that the adapter's users get none of its
// requirements.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
)

const loopback = "127.0.0.1"

func main() {
	port := flag.Int("port", 7233, "port of the frontend, on 127.0.0.1; 0: a free one")
	file := flag.String("db", "", "the SQLite file; made if it is not there")
	level := flag.String("log", "fatal", "level of the log")
	flag.Parse()
	if *file == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*port, *file, *level); err != nil {
		fmt.Fprintln(os.Stderr, "devserver:", err)
		os.Exit(1)
	}
}

// run serves until it is interrupted. Its one line on standard output is the address,
// once it can be used.
func run(port int, file, level string) error {
	c, err := configuration(port, file)
	if err != nil {
		return err
	}
	if err := prepare(c, file); err != nil {
		return err
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithLogger(log.NewZapLogger(log.BuildZapLogger(log.Config{Stdout: false, Level: level}))),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithDynamicConfigClient(dynamicconfig.StaticClient{
			dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
		}),
	)
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := ready(ctx, c.PublicClient.HostPort); err == nil {
		fmt.Println(c.PublicClient.HostPort)
	}
	<-ctx.Done()
	return server.Stop()
}

// ready waits until workflows are taken.
func ready(ctx context.Context, address string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := client.DialContext(ctx, client.Options{HostPort: address, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
		if err == nil {
			_, err = c.DescribeTaskQueue(ctx, "none", enumspb.TASK_QUEUE_TYPE_WORKFLOW)
			c.Close()
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// prepare makes the schema of a new file, and the namespace "default".
func prepare(c *config.Config, file string) error {
	storage := c.Persistence.DataStores[sqliteplugin.PluginName].SQL
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := sqlite.SetupSchema(storage); err != nil {
			return fmt.Errorf("make the schema: %w", err)
		}
	} else if err := forget(file); err != nil {
		return err
	}
	namespace, err := sqlite.NewNamespaceConfig(c.ClusterMetadata.CurrentClusterName, "default", false, nil)
	if err != nil {
		return fmt.Errorf("configure the namespace: %w", err)
	}
	if err := sqlite.CreateNamespaces(storage, namespace); err != nil {
		return fmt.Errorf("make the namespace: %w", err)
	}
	return nil
}

// forget deletes what says that services of an earlier process live: one that was
// killed would be taken for alive, and asked, for most of a minute.
func forget(file string) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	if _, err := db.Exec("DELETE FROM cluster_membership"); err != nil {
		return errors.Join(fmt.Errorf("forget the services before: %w", err), db.Close())
	}
	return db.Close()
}

// configuration is that of all services in one process.
func configuration(port int, file string) (*config.Config, error) {
	ports := make([]int, 8)
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	if port == 0 {
		port = ports[7]
	}
	service := func(grpc, membership int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: grpc, MembershipPort: membership, BindOnIP: loopback}}
	}
	frontend := net.JoinHostPort(loopback, strconv.Itoa(port))
	c := &config.Config{
		Persistence: config.Persistence{
			DefaultStore: sqliteplugin.PluginName, VisibilityStore: sqliteplugin.PluginName, NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{sqliteplugin.PluginName: {SQL: &config.SQL{
				PluginName: sqliteplugin.PluginName, DatabaseName: file,
				ConnectAttributes: map[string]string{"mode": "rwc", "_journal_mode": "wal", "_synchronous": "normal"},
			}}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: "active", CurrentClusterName: "active",
			ClusterInformation: map[string]cluster.ClusterInformation{
				"active": {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			"frontend": service(port, ports[0]),
			"history":  service(ports[1], ports[2]),
			"matching": service(ports[3], ports[4]),
			"worker":   service(ports[5], ports[6]),
		},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		PublicClient: config.PublicClient{HostPort: frontend},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
	}
	c.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: loopback}
	return c, nil
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
