package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// ExecutorHarness makes executors for [RunExecutor] and names work for them. New,
// Completes, Fails and RunsOn are required.
type ExecutorHarness struct {
	// New makes an executor over its real runtime. What the runtime runs reports
	// to the lifecycle, which records in the stores; where it cannot use the two
	// directly, the harness puts a server over the stores. Retries of the
	// runtime's own are off. All of it ends with the test t.
	New func(t *testing.T, stores taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) Runtime
	// NewStores opens empty stores; nil: those of package memory.
	NewStores func(t *testing.T) taskbridge.Stores

	// Completes is work that soon ends COMPLETED, with Result.
	Completes Work
	// Fails is work that soon ends FAILED, with Code.
	Fails Work
	// RunsOn is work that runs until it is cancelled, and stops then.
	RunsOn Work
	// Rejected is a task that SubmitTask turns down for good; its Type is "" for
	// an executor that takes everything.
	Rejected Work
}

// Work is a task for an executor.
type Work struct {
	Type string
	// Input is a JSON object; nil means {}.
	Input json.RawMessage
	// Result is what the task completes with, compared as JSON.
	Result json.RawMessage
	// Code is what the task fails with.
	Code string
}

// Runtime is one executor and what the harness can do with its runtime.
type Runtime struct {
	Executor taskbridge.TaskExecutor
	// Hold keeps the runtime from starting anything that is submitted from now
	// on, until release is called.
	Hold func() (release func())
	// Places is the number of tasks that run at once, for a runtime that is held
	// by filling it; it stands in for Hold.
	Places int
	// Begun returns how often the work of a task has been begun, counted where
	// it is done. nil: only what is recorded is looked at.
	Begun func(taskID string) int
}

// RunExecutor checks every obligation of [taskbridge.TaskExecutor], and those of
// [taskbridge.TaskInspector] and [taskbridge.HealthChecker] for an executor that
// is one.
func RunExecutor(t *testing.T, h ExecutorHarness) {
	if h.New == nil || h.Completes.Type == "" || h.Fails.Type == "" || h.RunsOn.Type == "" {
		t.Fatal("ExecutorHarness.New, Completes, Fails and RunsOn must be set")
	}
	if h.NewStores == nil {
		h.NewStores = func(*testing.T) taskbridge.Stores {
			store := memory.NewStore(memory.Options{})
			return taskbridge.Stores{Tasks: store, Events: store}
		}
	}
	runChecks(t, h, executorRunChecks, executorCancelChecks, executorInspectChecks)
}

// theatre is an executor with its stores, for one check.
type theatre struct {
	*scene
	Runtime
	// known are the tasks made so far, which are cancelled in the end: what runs
	// on must not outlive its check.
	known []taskbridge.Task
}

func stage(t *testing.T, h ExecutorHarness) *theatre {
	t.Helper()
	var runtime Runtime
	s := set(t, LifecycleHarness{
		NewStores: h.NewStores,
		New: func(t *testing.T, opts taskbridge.LifecycleOptions) taskbridge.TaskLifecycle {
			t.Helper()
			lifecycle, err := taskbridge.NewLocalLifecycle(opts)
			if err != nil {
				t.Fatalf("NewLocalLifecycle: %v", err)
			}
			runtime = h.New(t, opts.Stores, lifecycle)
			return lifecycle
		},
	}, taskbridge.LifecycleOptions{})
	if runtime.Executor == nil {
		t.Fatal("Runtime.Executor must not be nil")
	}
	th := &theatre{scene: s, Runtime: runtime}
	// Registered last, so that it comes before the harness takes all away.
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, task := range th.known {
			if row, err := th.stores.Tasks.GetTask(ctx, task.ID); err == nil && !row.Status.Terminal() {
				if err := th.Executor.RequestCancellation(ctx, row, "the check is over"); err != nil {
					t.Logf("RequestCancellation in the end: %v", err)
				}
			}
		}
	})
	return th
}

// task makes the row of a task, as the creation service does.
func (th *theatre) task(work Work) taskbridge.Task {
	th.t.Helper()
	row := th.accepted(func(row *taskbridge.Task) {
		row.Type = work.Type
		if row.Input = work.Input; work.Input == nil {
			row.Input = json.RawMessage("{}")
		}
		if bound, ok := th.Executor.(taskbridge.InstanceBound); ok {
			row.Instance = bound.InstanceID()
		}
	})
	th.known = append(th.known, row)
	return row
}

// submit makes a task and hands it over.
func (th *theatre) submit(work Work) taskbridge.Task {
	th.t.Helper()
	task := th.task(work)
	th.must("SubmitTask", th.Executor.SubmitTask(th.ctx, task))
	return task
}

// cancel stores the intent and asks the executor, as the cancellation service
// does.
func (th *theatre) cancel(taskID, reason string) {
	th.t.Helper()
	th.requestCancel(taskID, reason)
	th.must("RequestCancellation", th.Executor.RequestCancellation(th.ctx, th.row(taskID), reason))
}

// await waits until the row has the status, and the stream with it.
func (th *theatre) await(taskID string, status taskbridge.TaskStatus) taskbridge.Task {
	th.t.Helper()
	row := th.awaitRow(taskID, string(status), func(row taskbridge.Task) bool {
		return row.Status == status || row.Status.Terminal()
	})
	if row.Status != status {
		th.t.Fatalf("the task has ended %s %s, want %s", row.Status, row.Terminal, status)
	}
	return row
}

// awaitRow waits until the row is as it should be. Where it has ended then, it
// waits for the stream to end too: with separate stores that comes second.
func (th *theatre) awaitRow(taskID, what string, ok func(taskbridge.Task) bool) taskbridge.Task {
	th.t.Helper()
	wake, woken := signal()
	stop, err := th.stores.Tasks.WatchTask(th.ctx, taskID, wake)
	th.must("WatchTask", err)
	defer stop()
	row := th.row(taskID)
	for ; !ok(row); row = th.row(taskID) {
		select {
		case <-woken:
		case <-th.ctx.Done():
			th.t.Fatalf("waited in vain for the task to be %s: it is %s, its stream %q", what, row.Status, streamOf(th.stores, taskID))
		}
	}
	if row.Status.Terminal() {
		th.awaitStream("the end of the stream", taskID, func(events []taskbridge.Event) bool {
			return len(events) > 0 && events[len(events)-1].Type.Terminal()
		})
	}
	return row
}

// streamOf reads a stream for a failure's message.
func streamOf(stores taskbridge.Stores, taskID string) []string {
	events, err := stores.Events.ReadEvents(context.Background(), taskID, 0, 50)
	lines := []string{}
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s %s", e.Type, e.Payload))
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	return lines
}

// hold keeps what is submitted from now on from being started. ok is false,
// and the capability logged, where the harness cannot.
func (th *theatre) hold(h ExecutorHarness) (release func(), ok bool) {
	th.t.Helper()
	switch {
	case th.Hold != nil:
		return th.Hold(), true
	case th.Places > 0:
		var fillers []taskbridge.Task
		for range th.Places {
			fillers = append(fillers, th.submit(h.RunsOn))
		}
		for _, filler := range fillers {
			th.await(filler.ID, taskbridge.StatusRunning)
		}
		return func() {
			for _, filler := range fillers {
				th.cancel(filler.ID, "makes room")
				th.await(filler.ID, taskbridge.StatusCancelled)
			}
		}, true
	}
	missing(th.t, "Runtime.Hold or Places")
	return nil, false
}

// ranOnce fails unless the task was started exactly once.
func (th *theatre) ranOnce(taskID string) {
	th.t.Helper()
	if row := th.row(taskID); row.Attempt != 1 {
		th.t.Errorf("the task had %d attempts, want 1", row.Attempt)
	}
	th.begun(taskID, 1)
	th.agree(taskID)
}

func (th *theatre) begun(taskID string, want int) {
	th.t.Helper()
	if th.Begun == nil {
		return
	}
	if got := th.Begun(taskID); got != want {
		th.t.Errorf("the work was begun %d times, want %d", got, want)
	}
}

// stillEnded fails if an ended task has another end or attempt since.
func (th *theatre) stillEnded(before taskbridge.Task) {
	th.t.Helper()
	row := th.row(before.ID)
	if row.Status != before.Status || string(row.Terminal) != string(before.Terminal) || row.Attempt != before.Attempt {
		th.t.Errorf("the task is %s %s in attempt %d; it had ended %s %s in attempt %d",
			row.Status, row.Terminal, row.Attempt, before.Status, before.Terminal, before.Attempt)
	}
}

// neverRan fails if the task was started.
func (th *theatre) neverRan(taskID string) {
	th.t.Helper()
	if row := th.row(taskID); row.Attempt != 0 || !row.StartedAt.IsZero() {
		th.t.Errorf("the task had %d attempts, the first at %v; want none", row.Attempt, row.StartedAt)
	}
	th.begun(taskID, 0)
	th.agree(taskID)
}

// eventually asks until the answer is right: for what a runtime knows, of which
// nobody is told.
func eventually(ctx context.Context, t *testing.T, what string, ask func() (right bool, state any)) {
	t.Helper()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		right, state := ask()
		if right {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			t.Fatalf("waited in vain for %s: %v", what, state)
		}
	}
}

// equalJSON compares by value; nil is null.
func equalJSON(t *testing.T, a, b json.RawMessage) bool {
	t.Helper()
	var values [2]any
	for i, raw := range []json.RawMessage{a, b} {
		if raw == nil {
			continue
		}
		if err := json.Unmarshal(raw, &values[i]); err != nil {
			t.Fatalf("%s is no JSON: %v", raw, err)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}
