// Command embedding-process is a net/http program of its own with TaskBridge and
// an adapter inside: an audit lists the SHA-256 of every file of a folder, by a
// command that runs as a task. Audits are made once, however often they are asked
// for, watched live, and cancelled with all that the command has started.
//
//	go run ./examples/embedding-process -dir /usr/share/doc
//	curl -u alice: -X PUT http://127.0.0.1:8082/audits/monday
//	curl -u alice: -N http://127.0.0.1:8082/audits/ID/events
//	curl -u alice: -X DELETE http://127.0.0.1:8082/audits/ID
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/taskbridge/taskbridge/adapters/process"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

func main() {
	dir := flag.String("dir", ".", "folder to audit")
	state := flag.String("state", "audit-state", "folder in which running commands are recorded")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:8082")
	if err == nil {
		log.Println("listening on", listener.Addr())
		err = run(ctx, listener, *state, audit(*dir))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// audit is the command. What it prints becomes messages, its exit status the end.
func audit(dir string) process.Command {
	return process.Command{Path: "find", Args: []string{".", "-type", "f", "-exec", "sha256sum", "{}", "+"}, Dir: dir, PlainLines: true}
}

// run serves until ctx ends, and returns once nothing of it is left.
func run(ctx context.Context, listener net.Listener, state string, command process.Command) (err error) {
	defer func() { _ = listener.Close() }() // as the server does too, where it gets so far
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	// The commands are this process's, so their tasks carry the id of its instance.
	instance, err := taskbridge.StartInstance(ctx, store, taskbridge.InstanceOptions{})
	if err != nil {
		return err
	}
	ending := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	}
	defer func() {
		ctx, cancel := ending()
		defer cancel()
		err = errors.Join(err, instance.Close(ctx))
	}()
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return err
	}
	executor, err := process.New(process.Options{
		Lifecycle: lifecycle, InstanceID: instance.ID(), StateDir: state, Commands: map[string]process.Command{"audit": command},
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := ending()
		defer cancel()
		err = errors.Join(err, executor.Close(ctx)) // which stops what runs
	}()
	// What a killed process left running works for nobody any more.
	if err := executor.KillSurvivors(ctx); err != nil {
		return err
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"audit": executor})
	if err != nil {
		return err
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router, Leaser: store})
	if err != nil {
		return err
	}
	return serve(ctx, listener, bridge, instance)
}

// serve runs the transport and the reconciler side by side until ctx ends, or the
// instance's lease is lost: then others may take its tasks for dead.
func serve(ctx context.Context, listener net.Listener, bridge *taskbridge.Bridge, instance *taskbridge.Instance) error {
	reconciling, stopReconciling := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	parts.Go(func() { bridge.Reconciler.Run(reconciling) })
	server := &http.Server{Handler: routes(bridge), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	parts.Go(func() { served <- server.Serve(listener) })

	var failed error
	select {
	case <-ctx.Done():
	case <-instance.Lost():
		failed = errors.New("the instance's lease is lost")
	case failed = <-served:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	bridge.Subscription.Close()
	failed = errors.Join(failed, server.Shutdown(ending))
	stopReconciling()
	parts.Wait()
	return failed
}
