// Command embedding is a net/http program of its own with TaskBridge inside:
// reports that take a while are created once, however often the client asks,
// and watched live. The fake executor does the work; a real program puts its
// own TaskExecutor in its place, and a durable store in that of the memory.
//
//	go run ./examples/embedding
//	curl -u alice: -d '{"name":"march"}' http://127.0.0.1:8081/reports
//	curl -u alice: http://127.0.0.1:8081/reports/ID/events
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:8081")
	if err == nil {
		log.Println("listening on", listener.Addr())
		err = run(ctx, listener)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and returns once nothing of it is left.
func run(ctx context.Context, listener net.Listener) error {
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return err
	}
	executor, err := fakes.NewDeterministicFakeExecutor(fakes.Options{Lifecycle: lifecycle, Script: script})
	if err != nil {
		return err
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"report": executor})
	if err != nil {
		return err
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	if err != nil {
		return err
	}
	return serve(ctx, listener, bridge, executor)
}

// serve runs the transport and the reconciler side by side, and ends them in
// order: streams, requests, work, reconciler.
func serve(ctx context.Context, listener net.Listener, bridge *taskbridge.Bridge, executor *fakes.DeterministicFakeExecutor) error {
	reconciling, stopReconciling := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	parts.Go(func() { bridge.Reconciler.Run(reconciling) })

	server := &http.Server{Handler: routes(bridge), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	parts.Go(func() { served <- server.Serve(listener) })

	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	bridge.Subscription.Close()
	failed = errors.Join(failed, server.Shutdown(ending), executor.Close(ending))
	stopReconciling()
	parts.Wait()
	return failed
}
