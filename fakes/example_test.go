package fakes_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

// A task runs on the deterministic executor by a clock that the test moves.
func Example() {
	ctx := context.Background()
	clock := fakes.NewManualClock(time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC))
	store := memory.NewStore(memory.Options{Clock: clock})
	stores := taskbridge.Stores{Tasks: store, Events: store}

	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Clock: clock})
	if err != nil {
		panic(err)
	}
	executor, err := fakes.NewDeterministicFakeExecutor(fakes.Options{
		Lifecycle: lifecycle,
		Clock:     clock,
		Script:    fakes.Always(fakes.Script{Ticks: 2, TickInterval: time.Second, Result: []byte(`"baked"`)}),
	})
	if err != nil {
		panic(err)
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"bake": executor})
	if err != nil {
		panic(err)
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router, Clock: clock})
	if err != nil {
		panic(err)
	}

	alice := taskbridge.Principal{Subject: "alice"}
	created, err := bridge.Creation.CreateTask(ctx, alice, taskbridge.CreateTaskRequest{ClientRequestID: "1", TaskType: "bake"})
	if err != nil {
		panic(err)
	}
	for range 2 {
		if err := clock.BlockUntilDue(ctx, 1, time.Second); err != nil {
			panic(err)
		}
		clock.Advance(time.Second)
	}
	if _, err := bridge.Query.GetTask(ctx, alice, created.Task.ID, time.Hour); err != nil { // waits for the end
		panic(err)
	}
	if err := executor.Close(ctx); err != nil {
		panic(err)
	}

	page, err := bridge.Polling.PollEvents(ctx, alice, taskbridge.PollRequest{TaskID: created.Task.ID})
	if err != nil {
		panic(err)
	}
	for _, event := range page.Events {
		fmt.Println(event.CreatedAt.Format("15:04:05"), event.Type, string(event.Payload))
	}
	// Output:
	// 12:00:00 TASK_STARTED {}
	// 12:00:01 TASK_PROGRESS {"progress":50}
	// 12:00:02 TASK_PROGRESS {"progress":100}
	// 12:00:02 TASK_COMPLETED {"result":"baked"}
}

// The process dies between two writes; what it had done is there, nothing else
// gets through.
func ExampleFaults() {
	ctx := context.Background()
	store := memory.NewStore(memory.Options{})
	faults := fakes.NewFaults()
	tasks := fakes.WrapTasks(store, faults)

	faults.On(fakes.OpCreateTask, 2, fakes.CrashBefore())
	for _, id := range []string{"task-1", "task-2", "task-3"} {
		_, created, err := tasks.CreateTask(ctx, taskbridge.Task{
			ID: id, Owner: "alice", ClientRequestID: id, Status: taskbridge.StatusAccepted,
			Input: []byte("{}"), Metadata: []byte("{}"),
		})
		fmt.Println(id, created, errors.Is(err, fakes.ErrCrashed))
	}
	rows, err := store.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 10})
	fmt.Println(len(rows), err)
	// Output:
	// task-1 true false
	// task-2 false true
	// task-3 false true
	// 1 <nil>
}

// A runtime that takes a task and cannot say so.
func ExampleScriptedExecutor() {
	ctx := context.Background()
	runtime := fakes.NewScriptedExecutor()
	runtime.OnSubmit(func(_ context.Context, task taskbridge.Task) error {
		runtime.Take(task.ID)
		return errors.New("connection reset")
	})
	task := taskbridge.Task{ID: "task-1"}
	fmt.Println(runtime.SubmitTask(ctx, task))
	inspection, err := runtime.InspectTask(ctx, task)
	fmt.Println(inspection.Knowledge == taskbridge.InspectionWaiting, err)
	// Output:
	// connection reset
	// true <nil>
}
