//go:build linux

package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// startTemporal starts the Temporal server of the tests and returns a client of it.
func startTemporal(t *testing.T) (c client.Client, address string) {
	t.Helper()
	path := os.Getenv("TASKBRIDGE_TEMPORAL_DEVSERVER")
	if path == "" {
		t.Fatal(`this test needs the Temporal server that "make temporal-devserver" builds, by its path in TASKBRIDGE_TEMPORAL_DEVSERVER`)
	}
	command := exec.Command(path, "-port", "0", "-db", filepath.Join(t.TempDir(), "temporal.db"))
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it says how it was killed
	})
	address, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		c, err := client.DialContext(ctx, client.Options{HostPort: address, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
		if err == nil {
			if _, err = c.DescribeTaskQueue(ctx, "none", 1); err == nil {
				t.Cleanup(c.Close)
				return c, address
			}
			c.Close()
		}
		if ctx.Err() != nil {
			t.Fatalf("the Temporal server does not answer: %v", err)
		}
	}
}

// gateway is in front of a Temporal as a cloud's is: it takes connections over TLS,
// from whoever has a certificate that it trusts, and requests with the key.
type gateway struct {
	address         string
	key             atomic.Pointer[string]
	passed, refused atomic.Int64
}

func newGateway(t *testing.T, backend, key string, certFile, keyFile string, trusted *x509.Certificate) *gateway {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(trusted)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{address: listener.Addr().String()}
	g.key.Store(&key)
	plain := &http.Transport{Protocols: new(http.Protocols)}
	plain.Protocols.SetUnencryptedHTTP2(true)
	proxy := &httputil.ReverseProxy{
		Transport: plain, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: backend}) },
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+*g.key.Load() || len(r.TLS.PeerCertificates) != 1 {
				g.refused.Add(1)
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Grpc-Status", "16") // unauthenticated
				return
			}
			g.passed.Add(1)
			proxy.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(listener, "", "") }) // it says that it was closed
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
		plain.CloseIdleConnections()
	})
	return g
}

func TestTemporalIsReachedOverMutualTLSWithAKey(t *testing.T) {
	direct, backend := startTemporal(t)
	w := worker.New(direct, "queue", worker.Options{})
	w.RegisterWorkflowWithOptions(func(_ workflow.Context, in struct{ Input map[string]any }) (map[string]any, error) {
		return in.Input, nil
	}, workflow.RegisterOptions{Name: "echo"})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()

	folder := func() string {
		dir := filepath.Join(t.TempDir(), "tls")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	certFile, keyFile, _ := writeCertificate(t, folder(), 1)
	ownFile, ownKeyFile, own := writeCertificate(t, folder(), 2)
	strangeFile, strangeKeyFile, _ := writeCertificate(t, folder(), 3)
	g := newGateway(t, backend, "the-key", certFile, keyFile, own)
	keys := map[string]string{}
	for name, content := range map[string]string{"right": "the-key\n", "wrong": "another\n"} {
		keys[name] = filepath.Join(folder(), "key")
		if err := os.WriteFile(keys[name], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		settings string
		good     bool
	}{
		"with all that is asked for":          {fmt.Sprintf("caFile: %s, certFile: %s, keyFile: %s, apiKeyFile: %s", certFile, ownFile, ownKeyFile, keys["right"]), true},
		"with another key":                    {fmt.Sprintf("caFile: %s, certFile: %s, keyFile: %s, apiKeyFile: %s", certFile, ownFile, ownKeyFile, keys["wrong"]), false},
		"with a certificate of somebody else": {fmt.Sprintf("caFile: %s, certFile: %s, keyFile: %s, apiKeyFile: %s", certFile, strangeFile, strangeKeyFile, keys["right"]), false},
		"without a certificate":               {fmt.Sprintf("caFile: %s, apiKeyFile: %s", certFile, keys["right"]), false},
		"trusting somebody else":              {fmt.Sprintf("caFile: %s, certFile: %s, keyFile: %s, apiKeyFile: %s", strangeFile, ownFile, ownKeyFile, keys["right"]), false},
		"under another name":                  {fmt.Sprintf("caFile: %s, serverName: elsewhere, certFile: %s, keyFile: %s, apiKeyFile: %s", certFile, ownFile, ownKeyFile, keys["right"]), false},
		"without TLS":                         {"prefix: plain-", false},
	} {
		t.Run(name, func(t *testing.T) {
			passed, refused := g.passed.Load(), g.refused.Load()
			file := filepath.Join(t.TempDir(), "taskbridge.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil,
				"executors: {cloud: {kind: temporal, address: %q, %s}}\ntasks: {echo: {executor: cloud, taskQueue: queue}}\n", g.address, test.settings), 0o600); err != nil {
				t.Fatal(err)
			}
			s := startServer(t, load(t, "--store", "memory", "--demo=false", "--config", file), openStore)
			ready := s.request("GET", "/ready", "", http.StatusOK) // whatever a runtime is like
			if test.good {
				if !strings.Contains(ready, `"cloud":"ok"`) {
					t.Errorf("it says of itself %s", ready)
				}
				task := s.create("k", "echo", `{"n":1}`, http.StatusCreated)
				if row := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK); !strings.Contains(row, `"status":"COMPLETED"`) || !strings.Contains(row, `"result":{"n":1}`) {
					t.Errorf("the task is %s", row)
				}
				if g.passed.Load() == passed || g.refused.Load() > refused {
					t.Errorf("the gateway has passed %d requests and refused %d", g.passed.Load()-passed, g.refused.Load()-refused)
				}
			} else {
				if !strings.Contains(ready, `"cloud":"unavailable"`) {
					t.Errorf("it says of itself %s", ready)
				}
				task := s.create("k", "echo", `{"n":1}`, http.StatusCreated)
				if _, row := s.exchange("GET", "/api/v1/tasks/"+task, nil, ""); row["status"] != "ACCEPTED" {
					t.Errorf("the task is %v", row)
				}
				if g.passed.Load() > passed {
					t.Errorf("the gateway has passed %d requests", g.passed.Load()-passed)
				}
			}
			if err := s.end(); err != nil {
				t.Error(err)
			}
			if log := s.log.String(); strings.Contains(log, "the-key") || strings.Contains(log, "another\n") {
				t.Errorf("the log has the key:\n%s", log)
			}
		})
	}

	t.Run("with a key that is replaced", func(t *testing.T) {
		rotated := filepath.Join(folder(), "key")
		write := func(content string) {
			if err := os.WriteFile(rotated, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("the-key")
		file := filepath.Join(t.TempDir(), "taskbridge.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, "executors: {cloud: {kind: temporal, address: %q, caFile: %s, certFile: %s, keyFile: %s, apiKeyFile: %s}}\n"+
			"tasks: {echo: {executor: cloud, taskQueue: queue}}\n", g.address, certFile, ownFile, ownKeyFile, rotated), 0o600); err != nil {
			t.Fatal(err)
		}
		s := startServer(t, load(t, "--store", "memory", "--demo=false", "--config", file), openStore)
		key, log := "the-next-key", s.log
		for i, content := range []string{"the-key", key + "\n", "", "a broken key\n"} { // the last two are none, and the one before goes on
			if i == 1 {
				g.key.Store(&key)
			}
			write(content)
			task := s.create(fmt.Sprint("key", i), "echo", `{"n":1}`, http.StatusCreated)
			if row := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK); !strings.Contains(row, `"status":"COMPLETED"`) {
				t.Errorf("with the content %q the task is %s", content, row)
			}
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if text := log.String(); strings.Contains(text, key) || strings.Contains(text, "broken key") || !strings.Contains(text, "its last key goes on") {
			t.Errorf("the log is\n%s", text)
		}
	})
}
