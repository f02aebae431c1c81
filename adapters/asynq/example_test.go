//go:build linux

package asynqadapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
)

// connection is where asynq keeps its queues; "redis://127.0.0.1:6379/0", say.
func connection() asynq.RedisConnOpt {
	option, err := asynq.ParseRedisURI(os.Getenv("TASKBRIDGE_TEST_REDIS"))
	check(err)
	return option
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A server and its worker in one program: the executor enqueues, the handler
// reports to the same lifecycle. Where the worker is a program of its own, as in
// examples/asynq-worker, its lifecycle is one of package core/remote, and nothing
// else differs.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)

	// The server's side.
	executor, err := asynqadapter.New(asynqadapter.Options{
		Redis:     connection(),
		Lifecycle: lifecycle,
		Types:     map[string]asynqadapter.TypeOptions{"sum": {Queue: "example", Timeout: time.Minute, MaxRetry: 5}},
	})
	check(err)
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"sum": executor})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	check(err)

	// The worker's side.
	mux := asynq.NewServeMux()
	mux.Handle("sum", asynqadapter.Handle(lifecycle, func(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (any, error) {
		var numbers struct{ A, B int }
		if err := json.Unmarshal(task.Input, &numbers); err != nil {
			return nil, asynqadapter.Fail("INVALID_INPUT", "a and b must be numbers", false)
		}
		if err := run.Progress(ctx, taskbridge.Progress{Percent: 50, Stage: "adding"}); err != nil {
			return nil, err
		}
		return map[string]int{"sum": numbers.A + numbers.B}, nil
	}))
	server := asynq.NewServer(connection(), asynq.Config{Queues: map[string]int{"example": 1}, LogLevel: asynq.ErrorLevel})
	check(server.Start(mux))

	reconciling, stop := context.WithCancel(ctx)
	var reconciler sync.WaitGroup
	reconciler.Go(func() { bridge.Reconciler.Run(reconciling) })

	alice := taskbridge.Principal{Subject: "alice"}
	created, err := bridge.Creation.CreateTask(ctx, alice, taskbridge.CreateTaskRequest{
		ClientRequestID: "request-1", TaskType: "sum", Input: json.RawMessage(`{"a": 2, "b": 3}`),
	})
	check(err)
	var cursor taskbridge.Cursor
	for ended := false; !ended; {
		page, err := bridge.Polling.PollEvents(ctx, alice, taskbridge.PollRequest{TaskID: created.Task.ID, After: cursor, Wait: 30 * time.Second})
		check(err)
		for _, event := range page.Events {
			fmt.Println(event.Type, string(event.Payload))
			ended = event.Type.Terminal()
		}
		cursor = page.Next
	}
	server.Shutdown()
	stop()
	reconciler.Wait()
	bridge.Subscription.Close()
	check(executor.Close())

	// Output:
	// TASK_STARTED {}
	// TASK_PROGRESS {"progress":50,"stage":"adding"}
	// TASK_COMPLETED {"result":{"sum":5}}
}

// A handler that exists already stays as it is: behind the middleware its payload
// is the task's input, and its context ends when a client cancels.
func ExampleWorker_Middleware() {
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: someStores()})
	check(err)
	worker, err := asynqadapter.NewWorker(asynqadapter.WorkerOptions{Lifecycle: lifecycle})
	check(err)
	mux := asynq.NewServeMux()
	mux.Use(worker.Middleware)
	mux.HandleFunc("email:welcome", func(ctx context.Context, task *asynq.Task) error {
		if run, ok := asynqadapter.RunFromContext(ctx); ok { // a task of TaskBridge, and not of asynq alone
			return run.Progress(ctx, taskbridge.Progress{Percent: 50, Message: "written"})
		}
		return nil
	})

	// What was enqueued without TaskBridge goes through untouched.
	fmt.Println(mux.ProcessTask(context.Background(), asynq.NewTask("email:welcome", []byte(`{"to":"ann"}`))))
	// Output: <nil>
}

// An error with a code of its own fails the task with that code, should it be the
// last attempt.
func ExampleFailure() {
	var err error = quotaError{"disk"}
	var failure asynqadapter.Failure
	fmt.Println(errors.As(err, &failure), failure.TaskFailure())
	// Output: true {QUOTA_EXCEEDED the quota of disk is used up true}
}

type quotaError struct{ what string }

func (e quotaError) Error() string { return "the quota of " + e.what + " is used up" }

func (e quotaError) TaskFailure() taskbridge.Failure {
	return taskbridge.Failure{Code: "QUOTA_EXCEEDED", Message: e.Error(), Retryable: true}
}

func someStores() taskbridge.Stores {
	store := memory.NewStore(memory.Options{})
	return taskbridge.Stores{Tasks: store, Events: store}
}
