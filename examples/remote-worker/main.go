// Command remote-worker does the work of tasks for a TaskBridge server that is
// elsewhere: the server posts each task to it, and it reports over the worker
// API. Killed and started again, it goes on with whatever it had accepted.
//
// In this folder:
//
//	openssl rand -base64 48 > secret
//	go run ../../server/cmd/taskbridge serve --config taskbridge.yaml
//	go run . -server http://127.0.0.1:8080 -secret-file secret
//
//	api=http://127.0.0.1:8080/api/v1/tasks
//	curl -s $api -H 'Content-Type: application/json' \
//	  -d '{"clientRequestId":"one","taskType":"words","input":{"text":"to be or not to be","pauseMillis":1000}}'
//	curl -N $api/ID/events/stream
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/taskbridge/taskbridge/core/remote"
)

// settings are the command's flags.
type settings struct {
	listen, server, secretFile, state string
	atOnce                            int
}

func main() {
	var s settings
	flag.StringVar(&s.listen, "listen", "127.0.0.1:9001", "address that tasks are posted to")
	flag.StringVar(&s.server, "server", "http://127.0.0.1:8080", "the TaskBridge server")
	flag.StringVar(&s.secretFile, "secret-file", "", "what the server signs its messages with")
	flag.StringVar(&s.state, "state", "worker-state", "folder in which accepted tasks are written down")
	flag.IntVar(&s.atOnce, "at-once", 4, "tasks that are worked on at the same time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		slog.Error("the worker cannot go on", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and returns once nothing of it is left.
func run(ctx context.Context, s settings) error {
	secret, err := os.ReadFile(s.secretFile)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	secret = bytes.TrimSpace(secret)
	if len(secret) < 32 {
		return fmt.Errorf("%s must have a secret of 32 bytes or more", s.secretFile)
	}
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: s.server, Logger: slog.Default()})
	if err != nil {
		return err
	}
	defer lifecycle.CloseIdleConnections()
	journal, err := openJournal(s.state)
	if err != nil {
		return err
	}
	// Bound before the journal is gone on with: of two workers one stays out.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return err
	}
	w := newWorker(lifecycle, journal, secret, s.atOnce)
	mux := http.NewServeMux()
	mux.Handle("POST /tasks", w)
	server := &http.Server{Handler: mux, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	//nolint:sloglint // people and scripts look for this line
	slog.Info(fmt.Sprintf("listening on http://%s/tasks", listener.Addr()))
	failed := w.resume()

	if failed == nil {
		select {
		case <-ctx.Done():
		case failed = <-served:
		}
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	failed = errors.Join(failed, server.Shutdown(ending))
	w.close() // what is under way stays in the journal
	return failed
}
