// Command temporal-worker is a worker of its own: a workflow that computes the
// SHA-256 of every file of a folder in several activities, with progress, for tasks
// that come through TaskBridge. It knows Temporal and the server's address; what
// lets it report on a task comes with the task.
//
//	make dev-temporal
//
// starts a Temporal server, a TaskBridge server and this worker, and says what to
// type then. The task type is "checksums", its input {"dir": "doc"}: a folder below
// -root. Its result is {"files", "bytes", "sha256"}, the last being the SHA-256 of
// the checksums of its parts.
//
// Kill the worker in the middle and start it again: the workflow goes on with the
// part that it was at, and its stream with it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/taskbridge/taskbridge/core/remote"

	temporaladapter "github.com/taskbridge/taskbridge/adapters/temporal"
)

// settings are the command's flags.
type settings struct {
	temporal, namespace, server, queue, root string
}

func main() {
	var s settings
	flag.StringVar(&s.temporal, "temporal", "127.0.0.1:7233", "Temporal's address")
	flag.StringVar(&s.namespace, "namespace", "default", "Temporal's namespace")
	flag.StringVar(&s.server, "server", "http://127.0.0.1:8080", "the TaskBridge server, without a path")
	flag.StringVar(&s.queue, "queue", "checksums", "the task queue")
	flag.StringVar(&s.root, "root", ".", "the folder below which tasks may read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

// run works until ctx ends.
func run(ctx context.Context, s settings) error {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: s.server})
	if err != nil {
		return err
	}
	plugin, err := temporaladapter.NewPlugin(temporaladapter.PluginOptions{Lifecycle: lifecycle, Logger: slog.Default()})
	if err != nil {
		return err
	}
	c, err := client.DialContext(ctx, client.Options{
		HostPort: s.temporal, Namespace: s.namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return fmt.Errorf("connect to Temporal at %s: %w", s.temporal, err)
	}
	defer c.Close()
	w := worker.New(c, s.queue, worker.Options{Plugins: []worker.Plugin{plugin}})
	w.RegisterWorkflowWithOptions(Checksums, workflow.RegisterOptions{Name: "checksums"})
	w.RegisterActivity(&Files{root.FS()})
	if err := w.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	w.Stop()
	return nil
}
