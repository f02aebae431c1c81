// Package bulk makes a store of very many finished tasks in little time: some go
// through the services as any task does ([Finish]), and SQLite copies their rows
// under new ids, keys and times until there are enough ([Multiply]). What is in
// the file in the end is what a server would have written, its indexes grown row
// by row.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Type is the type of the tasks, Owner the one they all belong to.
const (
	Type  = "bench"
	Owner = "bench"
)

// EventsPerTask is how many events each task has: its start, three reports of
// progress and its end.
const EventsPerTask = 5

// Finish makes n tasks and runs each to its end.
func Finish(ctx context.Context, stores taskbridge.Stores, n int) error {
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{Type: idle{}})
	if err != nil {
		return err
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors})
	if err != nil {
		return err
	}
	defer bridge.Subscription.Close()
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return err
	}
	const callers = 32
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wg.Go(func() {
			for no := i; no < n && errs[i] == nil; no += callers {
				errs[i] = finish(ctx, bridge, lifecycle, fmt.Sprintf("original-%d", no))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// finish takes one task from its creation to its end.
func finish(ctx context.Context, bridge *taskbridge.Bridge, lifecycle taskbridge.TaskLifecycle, key string) (err error) {
	created, err := bridge.Creation.CreateTask(ctx, taskbridge.Principal{Subject: Owner}, taskbridge.CreateTaskRequest{
		ClientRequestID: key, TaskType: Type,
		Input: []byte(`{"files":["a.txt","b.txt"],"depth":3}`), Metadata: []byte(`{"from":"bench"}`),
	})
	if err != nil {
		return err
	}
	run, err := lifecycle.Start(ctx, created.Task.ID, taskbridge.Claim{ID: key})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	for i := range EventsPerTask - 2 {
		report := taskbridge.Progress{Percent: float64(25 * (i + 1)), Stage: "hashing", Message: fmt.Sprintf("file %d of 3", i+1)}
		if err := run.Progress(ctx, report); err != nil {
			return err
		}
	}
	return run.Complete(ctx, taskbridge.Completion{Result: []byte(`{"sum":"9f86d081884c7d659a2feaa0c55ad015"}`)})
}

// idle takes every task and does nothing.
type idle struct{}

func (idle) SubmitTask(context.Context, taskbridge.Task) error                  { return nil }
func (idle) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }
