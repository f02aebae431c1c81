//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestTwoServersThatWatchAtOnceEndEachTaskOnce(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: aloneType(), change: func(o *Options) {
				o.FirstLook, o.SweepInterval = 10*time.Millisecond, 20*time.Millisecond
			}}).reconcile()
			another, err := New(f.executor.Options)
			must(t, err)
			t.Cleanup(func() { must(t, another.Close()) })
			if plain {
				f.serve(worker.Options{})
			} else {
				f.work()
			}
			var tasks []taskbridge.Task
			for i := range 24 {
				taskType, input := []string{"echo", "fail", "alone", "chain"}[i%4], `{}`
				if taskType == "chain" {
					input = `{"left":2}`
				}
				task := f.create(taskType, input)
				another.follow.add(task.ID)
				tasks = append(tasks, task)
			}
			for _, task := range tasks {
				if row := f.end(task); (row.Status == taskbridge.StatusFailed) != (task.Type == "fail") {
					t.Errorf("the task of %s is %s %s", task.Type, row.Status, row.Terminal)
				}
				f.wantOneEnd(task)
			}
		})
	}
}

// wantOneEnd checks that the stream has one start at most, and one end, which is the
// row's.
func (f *fixture) wantOneEnd(task taskbridge.Task) {
	f.t.Helper()
	row, types := f.row(task), f.types(task)
	ends := 0
	for _, end := range []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled} {
		ends += strings.Count(types, string(end))
	}
	if strings.Count(types, "STARTED") > 1 || ends != 1 || !strings.HasSuffix(types, string(row.Status)) {
		f.t.Errorf("the task is %s, and its stream %q", row.Status, f.stream(task))
	}
}

func TestWorkThatIsCancelledWhileItCompletesHasOneEnd(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: aloneType(), change: func(o *Options) { o.FirstLook = 10 * time.Millisecond }}).reconcile()
			if plain {
				f.serve(worker.Options{})
			} else {
				f.work()
			}
			var (
				mu    sync.Mutex
				tasks []taskbridge.Task
			)
			inSlots(4, []string{"echo", "wait", "alone", "gates", "echo", "alone", "gates", "wait", "echo", "gates", "alone", "wait"}, func(taskType string) {
				task := f.create(taskType, `{}`)
				if taskType == "gates" {
					_ = f.client.SignalWorkflow(f.ctx, f.prefix+task.ID, "", "gate", nil) // it may have ended
					_ = f.client.SignalWorkflow(f.ctx, f.prefix+task.ID, "", "gate", nil)
				}
				f.cancel(task, "at once")
				mu.Lock()
				defer mu.Unlock()
				tasks = append(tasks, task)
			})
			for _, task := range tasks {
				if row := f.end(task); row.Status == taskbridge.StatusFailed || row.Status == taskbridge.StatusCompleted && task.Type == "wait" {
					t.Errorf("the task of %s is %s %s", task.Type, row.Status, row.Terminal)
				}
				f.wantOneEnd(task)
			}
		})
	}
}

func TestAnEndThatTheStoreDoesNotTakeIsFoundAgain(t *testing.T) {
	t.Parallel()
	broken := &brokenSettle{}
	f := newFixture(t, fixtureOptions{submission: &unwatched, change: func(o *Options) {
		onlySweeps(o)
		broken.TaskLifecycle, o.Lifecycle = o.Lifecycle, broken
	}})
	broken.left.Store(3)
	f.serve(worker.Options{})
	task := f.create("fail", `{"type":"NO_STOCK"}`)
	f.wantEnd(task, "NO_STOCK", true)
	f.wantStream(task, "STARTED FAILED")
	if left := broken.left.Load(); left > 0 {
		t.Errorf("the store was asked %d times too few", left)
	}
}

// brokenSettle is a lifecycle that fails to settle a few times.
type brokenSettle struct {
	taskbridge.TaskLifecycle
	left atomic.Int64
}

func (b *brokenSettle) Settle(ctx context.Context, taskID string, outcome taskbridge.Outcome) error {
	if b.left.Add(-1) >= 0 {
		return errors.New("the store is away")
	}
	return b.TaskLifecycle.Settle(ctx, taskID, outcome)
}

// lagging is a Temporal whose lists don't have some workflows yet.
type lagging struct {
	client.Client
	hidden sync.Map // workflow ids
}

func (l *lagging) ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	page, err := l.Client.ListWorkflow(ctx, request)
	if err != nil {
		return nil, err
	}
	shown := page.GetExecutions()[:0]
	for _, info := range page.GetExecutions() {
		if _, hidden := l.hidden.Load(info.GetExecution().GetWorkflowId()); !hidden {
			shown = append(shown, info)
		}
	}
	page.Executions = shown
	return page, nil
}

func TestAnEndThatTemporalListsLateIsFoundStill(t *testing.T) {
	t.Parallel()
	late := &lagging{}
	f := newFixture(t, fixtureOptions{submission: &unwatched, change: func(o *Options) {
		onlySweeps(o)
		late.Client, o.Client = o.Client, late
		o.SweepInterval = time.Hour
	}})
	state := newSweepState()
	must(t, f.executor.sweepOnce(f.ctx, state))
	behind := f.create("echo", `{}`)
	late.hidden.Store(f.prefix+behind.ID, true)
	f.serve(worker.Options{})
	must(t, f.client.GetWorkflow(f.ctx, f.prefix+behind.ID, "").Get(f.ctx, nil))
	for range 3 { // others close, and are listed at once
		task := f.create("echo", `{}`)
		f.until("the sweep ends it", func() bool {
			must(t, f.executor.sweepOnce(f.ctx, state))
			return f.row(task).Status.Terminal()
		})
	}
	if row := f.row(behind); row.Status.Terminal() {
		t.Fatalf("the task is %s, though nothing lists it", row.Status)
	}
	late.hidden.Delete(f.prefix + behind.ID)
	must(t, f.executor.sweepOnce(f.ctx, state))
	f.wantResult(behind, `{}`)
}

func TestAnActivityThatStopsHeartbeatingIsTriedAgainAndTimesOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, types: map[string]TypeOptions{"alone": {
		Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 5 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 2},
	}}})
	f.work()
	task := f.create("alone", `{"wait":true}`)
	f.wantEnd(task, CodeTimedOut, true)
	f.wantStream(task, "STARTED PROGRESS MESSAGE PROGRESS FAILED")
}

func TestAnActivityThatDoesNotHearOfItsCancellationIsTerminatedAfterTheGrace(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"alone": {
		Activity: "alone", StartToCloseTimeout: time.Minute, Cancel: Cancel{TerminateAfter: 50 * time.Millisecond},
	}}, change: func(o *Options) { o.FirstLook = 10 * time.Millisecond }}).reconcile()
	stop := f.serve(worker.Options{WorkerStopTimeout: 0})
	task := f.create("alone", `{"wait":true}`)
	f.awaitStream(task, "STARTED")
	f.cancel(task, "enough")
	f.wantCancelled(task, "enough")
	stop()
}

func TestAnActivityThatNoWorkerHasBegunIsTakenBackAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: aloneType(), change: onlySilence, submission: &unwatched})
	task := f.create("alone", `{}`)
	f.cancel(task, "not any more")
	row := f.wantCancelled(task, "not any more")
	if !strings.Contains(string(row.Terminal), "before it ran") {
		t.Errorf("the end is %s", row.Terminal)
	}
	f.wantStream(task, "CANCELLED")
}

func TestAWorkflowTerminatedBeforeItsSubmissionIsRecordedEndsItsTask(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlySilence})
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"wait": forgetful{f.executor}})
	must(t, err)
	crashing, err := taskbridge.New(taskbridge.Options{Stores: f.stores, Executors: router, Submission: quick})
	must(t, err)
	defer crashing.Subscription.Close()
	created, err := crashing.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{ClientRequestID: "crash", TaskType: "wait"})
	must(t, err)
	must(t, f.client.TerminateWorkflow(f.ctx, f.prefix+created.Task.ID, "", "for a test"))
	f.reconcile()
	f.wantEnd(created.Task, CodeTerminated, true)
}
