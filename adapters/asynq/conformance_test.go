//go:build linux

package asynqadapter

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
)

func TestTheExecutorConforms(t *testing.T) {
	separate := func(*testing.T) taskbridge.Stores {
		return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
	}
	for name, c := range map[string]struct {
		stores func(*testing.T) taskbridge.Stores
		remote bool // the handlers report over HTTP
	}{
		"atomic stores": {}, "separate stores": {stores: separate}, "remote workers": {remote: true},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.RunExecutor(t, conformance.ExecutorHarness{
				NewStores: c.stores,
				New: func(t *testing.T, _ taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
					return newRuntime(t, lifecycle, c.remote)
				},
				Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":[1,"$x <雪>"]}`), Result: json.RawMessage(`{"a":[1,"$x <雪>"]}`)},
				Fails:     conformance.Work{Type: "fail", Code: CodeHandlerError},
				RunsOn:    conformance.Work{Type: "wait"},
				Rejected:  conformance.Work{Type: "nonsense"},
			})
		})
	}
}

func newRuntime(t *testing.T, lifecycle taskbridge.TaskLifecycle, elsewhere bool) conformance.Runtime {
	t.Helper()
	signer, reports := newSigner(t), lifecycle
	if elsewhere {
		var err error
		reports, err = remote.NewLifecycle(remote.Options{URL: serveWorkers(t, lifecycle.(*taskbridge.LocalLifecycle), signer, nil)})
		must(t, err)
	}
	queue := newQueue(t, testRedis)
	once := TypeOptions{Queue: queue, MaxRetry: NoRetry}
	executor, err := New(Options{
		Redis: testRedis, Lifecycle: lifecycle, Tokens: signer,
		Types: map[string]TypeOptions{"echo": once, "fail": once, "wait": once},
	})
	must(t, err)
	t.Cleanup(func() { must(t, executor.Close()) })

	var mu sync.Mutex
	begun := map[string]int{}
	counted := func(work HandlerFunc) asynq.Handler {
		return Handle(reports, func(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (any, error) {
			mu.Lock()
			begun[task.ID]++
			mu.Unlock()
			return work(ctx, task, run)
		})
	}
	mux := asynq.NewServeMux()
	mux.Handle("echo", counted(func(_ context.Context, task taskbridge.Task, _ taskbridge.Run) (any, error) {
		return task.Input, nil
	}))
	mux.Handle("fail", counted(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		return nil, errors.New("as asked for")
	}))
	mux.Handle("wait", counted(func(ctx context.Context, _ taskbridge.Task, _ taskbridge.Run) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	serve(t, testRedis, queue, mux)

	inspector := asynq.NewInspector(testRedis)
	t.Cleanup(func() { must(t, inspector.Close()) })
	return conformance.Runtime{
		Executor: executor,
		Hold: func() (release func()) {
			must(t, inspector.PauseQueue(queue))
			return func() { must(t, inspector.UnpauseQueue(queue)) }
		},
		Begun: func(taskID string) int {
			mu.Lock()
			defer mu.Unlock()
			return begun[taskID]
		},
	}
}
