package taskbridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// greeter is an executor for a runtime of its own: a goroutine a task.
type greeter struct{ lifecycle taskbridge.TaskLifecycle }

func (g greeter) SubmitTask(_ context.Context, task taskbridge.Task) error {
	go func() {
		ctx := context.Background()
		run, err := g.lifecycle.Start(ctx, task.ID, taskbridge.Claim{ID: "greeting of " + task.ID})
		if err != nil {
			return // ended or cancelled before it began: nothing to do
		}
		_ = run.Progress(ctx, taskbridge.Progress{Percent: 50, Message: "thinking of a greeting"})
		_ = run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`"hello"`)})
	}()
	return nil
}

func (greeter) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

// Embedding takes a store, a lifecycle, an executor for each task type, and a
// bridge over them.
func Example() {
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"greet": greeter{lifecycle}})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors})
	check(err)
	defer bridge.Subscription.Close()

	ctx, alice := context.Background(), taskbridge.Principal{Subject: "alice"}
	created, err := bridge.Creation.CreateTask(ctx, alice, taskbridge.CreateTaskRequest{ClientRequestID: "1", TaskType: "greet"})
	check(err)
	task, err := bridge.Query.GetTask(ctx, alice, created.Task.ID, taskbridge.MaxPollWait)
	check(err)
	page, err := bridge.Polling.PollEvents(ctx, alice, taskbridge.PollRequest{TaskID: task.ID})
	check(err)
	for _, event := range page.Events {
		fmt.Println(event.Type, string(event.Payload))
	}
	// Output:
	// TASK_STARTED {}
	// TASK_PROGRESS {"progress":50,"message":"thinking of a greeting"}
	// TASK_COMPLETED {"result":"hello"}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
