//go:build linux

package asynqadapter

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

func TestWhatAHandlerSaysAtAnyLengthEndsTheTaskAsAShortWordWould(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{
		"error": {MaxRetry: 1}, "panic": {MaxRetry: NoRetry}, "result": {}, "failure": {}, "flood": {},
	}})
	elsewhere, err := remote.NewLifecycle(remote.Options{URL: f.url})
	must(t, err)
	worker, err := NewWorker(WorkerOptions{Lifecycle: elsewhere, Logger: f.logger()})
	must(t, err)
	huge := strings.Repeat("ab\xff\"<", 1<<20)
	mux := asynq.NewServeMux()
	for name, work := range map[string]HandlerFunc{
		"error":  func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return nil, errors.New(huge) },
		"panic":  func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { panic(huge) },
		"result": func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return huge, nil },
		"failure": func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
			return nil, Fail(huge, huge, true)
		},
		"flood": func(ctx context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
			for i := range 20_000 {
				if err := run.Progress(ctx, taskbridge.Progress{Percent: float64(i) / 200}); err != nil && !errors.Is(err, taskbridge.ErrStreamFull) {
					return nil, err
				}
			}
			return "done", nil
		},
	} {
		mux.Handle(name, worker.Handle(work))
	}
	f.serve(mux)
	tasks := map[string]taskbridge.Task{}
	for _, name := range []string{"error", "panic", "result", "failure", "flood"} {
		tasks[name] = f.create(name, `{}`)
	}
	for name, want := range map[string]string{
		"error": `{"code":"ASYNQ_RETRIES_EXHAUSTED","message":"ab`, "panic": `{"code":"ASYNQ_HANDLER_PANIC","message":"the handler panicked"`,
		"result": `{"result":null,"message":"the result of 16777218 bytes is left out`, "failure": `{"code":"ab`, "flood": `{"result":"done"`,
	} {
		if row := f.end(tasks[name]); !strings.HasPrefix(string(row.Terminal), want) {
			t.Errorf("%s ends %s %.300s", name, row.Status, row.Terminal)
		}
	}
	// asynq knows of the ends too, and has not waited for a lease to find out.
	for _, name := range []string{"error", "failure"} {
		f.awaitState(tasks[name], "archived")
		info, err := f.inspector.GetTaskInfo(f.queue, tasks[name].ID)
		must(t, err)
		if !strings.HasPrefix(info.LastErr, "ab") || len(info.LastErr) > 3*mostText {
			t.Errorf("%s: asynq knows %d bytes: %.100q", name, len(info.LastErr), info.LastErr)
		}
		if row := f.row(tasks[name]); row.Attempt != int64(1+info.Retried) {
			t.Errorf("%s: attempt %d after %d retries", name, row.Attempt, info.Retried)
		}
	}
}
