//go:build linux

package asynqadapter

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// expireLease makes it that long ago that the task's lease ended: asynq waits for
// 30 s of lease and 30 s more, and looks once a minute and when a server starts.
// The lease is a time in a sorted set, so moving it is what waiting would do.
func (f *fixture) expireLease(task taskbridge.Task) {
	f.t.Helper()
	ago := redis.Z{Score: float64(time.Now().Add(-2 * time.Minute).Unix()), Member: task.ID}
	changed, err := f.redis.ZAddArgs(f.ctx, "asynq:{"+f.queue+"}:lease", redis.ZAddArgs{XX: true, Ch: true, Members: []redis.Z{ago}}).Result()
	must(f.t, err)
	if changed != 1 {
		f.t.Fatalf("the task has no lease")
	}
}

func TestRedisFailingAtTheCompletionDoesNotRunTheWorkAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	between := newProxy(t)
	var ran atomic.Int64
	handler := f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		ran.Add(1)
		between.vanish() // just when the work is done
		return "done", nil
	})
	stop := serve(t, *between.option(), f.queue, handler)
	task := f.create("work", `{}`)
	f.wantEnd(task, "", false)
	if state := f.state(task); state != "active" {
		t.Fatalf("asynq has the task %s, which this test is not about", state)
	}
	between.comeBack()
	// asynq's own repetition of the completion comes after five seconds; it dies first.
	between.vanish()
	stop()
	f.expireLease(task)
	skipped := make(chan bool, 1)
	f.serve(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		err := handler.ProcessTask(ctx, task)
		skipped <- err == nil
		return err
	}))
	if !receive(t, "asynq delivers it again", skipped) {
		t.Error("asynq is told of an error")
	}
	f.awaitState(task, "completed")
	if n := ran.Load(); n != 1 {
		t.Errorf("the work ran %d times", n)
	}
	f.wantStream(task, "STARTED COMPLETED")
}

func TestAWorkerThatShutsDownHandsItsTaskOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"once": {MaxRetry: NoRetry}}})
	begun, interrupted := make(chan bool, 1), make(chan error, 1)
	stop := f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
		if err := run.Progress(ctx, taskbridge.Progress{Percent: 10}); err != nil {
			return nil, err
		}
		begun <- true
		<-ctx.Done()
		interrupted <- context.Cause(ctx)
		return nil, ctx.Err()
	}))
	task := f.create("once", `{}`)
	receive(t, "the work begins", begun)
	stop()
	if cause := receive(t, "the work is interrupted", interrupted); !errors.Is(cause, context.Canceled) {
		t.Errorf("it is interrupted for %v", cause)
	}
	if row := f.row(task); row.Status != taskbridge.StatusRunning {
		t.Fatalf("the task is %s %s", row.Status, row.Terminal)
	}
	f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
		return run.Attempt(), run.Progress(ctx, taskbridge.Progress{Percent: 90})
	}))
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != "2" {
		t.Errorf("the result is %s, want that of attempt 2", result)
	}
	f.wantStream(task, "STARTED PROGRESS MESSAGE PROGRESS COMPLETED")
}

// deliverAgain puts a task that is at work back into its queue, as a Redis does
// that has lost its last moments: the worker does not know.
func (f *fixture) deliverAgain(task taskbridge.Task) {
	f.t.Helper()
	key := "asynq:{" + f.queue + "}:"
	_, err := f.redis.TxPipelined(f.ctx, func(tx redis.Pipeliner) error {
		tx.LRem(f.ctx, key+"active", 0, task.ID)
		tx.ZRem(f.ctx, key+"lease", task.ID)
		tx.RPush(f.ctx, key+"pending", task.ID)
		tx.HSet(f.ctx, key+"t:"+task.ID, "state", "pending")
		return nil
	})
	must(f.t, err)
}

func TestAnAttemptThatWasReplacedIsRefusedAndStops(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	begun, replaced := make(chan taskbridge.Run, 1), make(chan error, 1)
	finish := make(chan bool)
	handler := f.worker(func(ctx context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
		if run.Attempt() == 1 {
			begun <- run
			<-ctx.Done()
			replaced <- context.Cause(ctx)
			return "late", nil
		}
		<-finish
		return "right", nil
	})
	f.serve(handler)
	task := f.create("work", `{}`)
	first := receive(t, "the work begins", begun)
	f.deliverAgain(task)
	if cause := receive(t, "the first attempt stops", replaced); !fenced(cause) {
		t.Errorf("it stopped for %v", cause)
	}
	if err := first.Message(f.ctx, taskbridge.Message{Text: "late"}); !fenced(err) {
		t.Errorf("its late report is answered %v", err)
	}
	close(finish)
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != `"right"` {
		t.Errorf("the result is %s", result)
	}
	f.wantStream(task, "STARTED MESSAGE COMPLETED")
}
