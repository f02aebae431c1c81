//go:build linux

package asynqadapter

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// hourly has asynq try again in an hour.
func hourly(config *asynq.Config) {
	config.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return time.Hour }
}

func done(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return nil, nil }

func TestAWaitingTaskThatIsCancelledLeavesItsQueueAndNeverRuns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := f.create("work", `{}`)
	behind := f.create("work", `{}`)
	f.cancel(task, "changed my mind")
	row := f.row(task) // in the call already
	if row.Status != taskbridge.StatusCancelled {
		t.Fatalf("the task is %s", row.Status)
	}
	if state := f.state(task); state != "" {
		t.Errorf("asynq has it %s still", state)
	}
	f.serve(f.worker(done))
	f.wantEnd(behind, "", false)
	f.wantCancelled(task, "changed my mind")
	f.wantStream(task, "CANCELLED")
}

func TestRunningWorkLearnsOfItsCancellationByItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	begun, cause := make(chan bool, 1), make(chan error, 1)
	f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, _ taskbridge.Run) (any, error) {
		begun <- true
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil, errors.New("stopped half-way")
	}))
	task := f.create("work", `{}`)
	receive(t, "the work begins", begun)
	f.cancel(task, "enough")
	var cancelled *taskbridge.CancelledError
	if err := receive(t, "the context ends", cause); !errors.As(err, &cancelled) || cancelled.Reason != "enough" {
		t.Errorf("the context ended for %v", err)
	}
	f.wantCancelled(task, "enough")
	f.wantStream(task, "STARTED CANCELLED")
	f.awaitState(task, "completed") // asynq does not try again
}

func TestWorkThatIsDoneAllTheSameIsCompleted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	begun := make(chan bool, 1)
	f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, _ taskbridge.Run) (any, error) {
		begun <- true
		<-ctx.Done()
		return "done", nil
	}))
	task := f.create("work", `{}`)
	receive(t, "the work begins", begun)
	f.cancel(task, "too late")
	f.wantEnd(task, "", false)
}

func TestATaskCancelledBetweenTwoAttemptsHasNoFurtherOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	var attempts atomic.Int64
	f.serve(f.worker(func(_ context.Context, task taskbridge.Task, _ taskbridge.Run) (any, error) {
		if string(task.Input) == `{"fails":true}` {
			attempts.Add(1)
			return nil, errors.New("not yet")
		}
		return nil, nil
	}), hourly)
	task := f.create("work", `{"fails":true}`)
	f.awaitState(task, "retry")
	f.cancel(task, "enough")
	f.wantCancelled(task, "enough")
	f.wantStream(task, "STARTED MESSAGE CANCELLED")
	if state := f.state(task); state != "" {
		t.Errorf("asynq has it %s still", state)
	}
	if n := attempts.Load(); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
}

func TestATaskCancelledWhileItIsSubmittedNeverRuns(t *testing.T) {
	t.Parallel()
	between := newProxy(t)
	f := newFixture(t, fixtureOptions{connection: between.option()})
	f.reconcile()
	var ran atomic.Int64
	serve(t, testRedis, f.queue, f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		ran.Add(1)
		return nil, nil
	}))
	between.hold()
	created := make(chan taskbridge.Task, 1)
	go func() { created <- f.create("work", `{}`) }()
	var task taskbridge.Task
	f.until("the row is there", func() bool {
		rows, err := f.store.ListTasks(f.ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 1})
		must(t, err)
		if len(rows) == 1 {
			task = rows[0]
		}
		return len(rows) == 1
	})
	f.cancel(task, "at once")
	between.release()
	receive(t, "the task is created", created)
	f.wantCancelled(task, "at once")
	f.wantStream(task, "CANCELLED")
	if n := ran.Load(); n != 0 {
		t.Errorf("the work ran %d times", n)
	}
}

func TestACancellationIsRepeatedUntilRedisIsBack(t *testing.T) {
	t.Parallel()
	between := newProxy(t)
	f := newFixture(t, fixtureOptions{connection: between.option()})
	task := f.create("work", `{}`)
	f.reconcile()
	between.vanish()
	f.cancel(task, "while Redis is away")
	between.comeBack()
	f.wantCancelled(task, "while Redis is away")
	f.until("the task has left its queue", func() bool {
		info, err := f.executor.find(f.ctx, task)
		return err == nil && info == nil
	})
}

// unsettled is a lifecycle that cannot record an end from outside.
type unsettled struct{ taskbridge.TaskLifecycle }

func (unsettled) Settle(context.Context, string, taskbridge.Outcome) error {
	return errors.New("the store is away")
}

func TestATaskTakenOutWithoutARecordEndsCancelledAllTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: func(o *Options) { o.Lifecycle = unsettled{o.Lifecycle} }})
	task := f.create("work", `{}`)
	f.cancel(task, "changed my mind")
	if row := f.row(task); row.Status.Terminal() || f.state(task) != "" {
		t.Fatalf("the task is %s, and %q in asynq", row.Status, f.state(task))
	}
	f.reconcile()
	f.wantCancelled(task, "changed my mind")
}
