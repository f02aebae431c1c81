// Command host is a program with TaskBridge and the asynq adapter inside: it makes
// one task for the worker of examples/asynq-worker, shows its events as they come,
// and ends with it. Ctrl-C cancels the task.
//
//	go run ./examples/asynq-worker/host doc
//
// It keeps its tasks in memory, and workers report to it on -listen. A server for
// many clients is "taskbridge serve"; what is here is what it takes to have one's
// own.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
)

func main() {
	redis := flag.String("redis", "redis://127.0.0.1:6379/0", "where asynq keeps its queues")
	listen := flag.String("listen", "127.0.0.1:8082", "where workers report")
	queue := flag.String("queue", "default", "asynq's queue")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: host [flags] FOLDER, one below the worker's root")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", *listen)
	if err == nil {
		err = run(ctx, os.Stdout, listener, *redis, *queue, flag.Arg(0))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run makes the task and prints its events until it has ended. When ctx ends, the
// task is cancelled.
func run(ctx context.Context, out io.Writer, listener net.Listener, redisURI, queue, dir string) (err error) {
	connection, err := asynq.ParseRedisURI(redisURI)
	if err != nil {
		return errors.New("-redis must be like redis://127.0.0.1:6379/0") // err may quote a password
	}
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return err
	}
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(rand.Text() + rand.Text())}})
	if err != nil {
		return err
	}
	// The server's side of the adapter.
	executor, err := asynqadapter.New(asynqadapter.Options{
		Redis:     connection,
		Lifecycle: lifecycle,
		Types:     map[string]asynqadapter.TypeOptions{"checksums": {Queue: queue, Timeout: 10 * time.Minute, MaxRetry: 5}},
		WorkerURL: "http://" + listener.Addr().String(),
		Tokens:    signer,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, executor.Close()) }()
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"checksums": executor})
	if err != nil {
		return err
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	if err != nil {
		return err
	}
	defer bridge.Subscription.Close()
	workers, err := workerHandler(lifecycle, signer)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: workers, ReadHeaderTimeout: 10 * time.Second}
	reconciling, stopReconciling := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	parts.Go(func() { bridge.Reconciler.Run(reconciling) })
	parts.Go(func() { _ = server.Serve(listener) }) // until it is closed
	defer func() {
		stopReconciling()
		err = errors.Join(err, server.Close())
		parts.Wait()
	}()
	return watch(ctx, out, bridge, dir)
}

// workerHandler serves the worker API.
func workerHandler(lifecycle *taskbridge.LocalLifecycle, signer *workerapi.Signer) (http.Handler, error) {
	service, err := taskbridge.NewWorkerService(lifecycle)
	if err != nil {
		return nil, err
	}
	return workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
}

// watch makes the task and prints its events.
func watch(ctx context.Context, out io.Writer, bridge *taskbridge.Bridge, dir string) error {
	me := taskbridge.Principal{Subject: "me"}
	input, err := json.Marshal(map[string]string{"dir": dir})
	if err != nil {
		return err
	}
	created, err := bridge.Creation.CreateTask(ctx, me, taskbridge.CreateTaskRequest{
		ClientRequestID: rand.Text(), TaskType: "checksums", Input: input,
	})
	if err != nil {
		return err
	}
	id := created.Task.ID
	asking := context.WithoutCancel(ctx)
	cancelled := context.AfterFunc(ctx, func() {
		if _, _, err := bridge.Cancellation.CancelTask(asking, me, id, "interrupted"); err != nil {
			log.Println("cancel:", err)
		}
	})
	defer cancelled()
	var cursor taskbridge.Cursor
	for {
		page, err := bridge.Polling.PollEvents(asking, me, taskbridge.PollRequest{TaskID: id, After: cursor, Wait: 30 * time.Second})
		if err != nil {
			return err
		}
		for _, event := range page.Events {
			if _, err := fmt.Fprintln(out, event.Type, string(event.Payload)); err != nil {
				return err
			}
			if event.Type.Terminal() {
				return nil
			}
		}
		cursor = page.Next
	}
}
