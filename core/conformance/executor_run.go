package conformance

import (
	"context"
	"errors"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var executorRunChecks = []check[ExecutorHarness]{
	{"a submitted task starts and completes with its result", executorCompletes},
	{"a submitted task that fails ends FAILED with its code", executorFails},
	{"SubmitTask returns while the work runs", executorDoesNotWait},
	{"a task that is submitted again and again runs once", executorSubmitsOnce},
	{"a task that has ended is not run again", executorSubmitsEnded},
	{"many tasks at once all run, each once", executorManyTasks},
	{"a task that is turned down for good is told with a failure and leaves nothing", executorRejects},
	{"a submission whose context has ended has no effect", executorCancelledContext},
	{"a healthy executor says so", executorHealth},
}

func executorCompletes(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.Completes)
	row := th.await(task.ID, taskbridge.StatusCompleted)
	result, ok := row.Result()
	if !ok || !equalJSON(t, result, h.Completes.Result) {
		t.Errorf("the result is %s, want %s", result, h.Completes.Result)
	}
	th.ranOnce(task.ID)
	events := th.events(task.ID)
	if first := firstButNotices(events); first.Type != taskbridge.EventStarted {
		t.Errorf("the first event of an attempt is %s, want TASK_STARTED", first.Type)
	}
}

// firstButNotices returns the first event that an attempt or the row made: what
// an adapter notices beforehand has neither.
func firstButNotices(events []taskbridge.Event) taskbridge.Event {
	for _, e := range events {
		if e.Type != taskbridge.EventMessage || e.Attempt > 0 {
			return e
		}
	}
	return taskbridge.Event{}
}

func executorFails(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.Fails)
	row := th.await(task.ID, taskbridge.StatusFailed)
	if failure, ok := row.Failure(); !ok || failure.Code != h.Fails.Code {
		t.Errorf("the failure is %+v, want the code %s", failure, h.Fails.Code)
	}
	th.ranOnce(task.ID)
}

func executorDoesNotWait(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.RunsOn) // which would not come back
	th.await(task.ID, taskbridge.StatusRunning)
	th.cancel(task.ID, "enough")
	th.await(task.ID, taskbridge.StatusCancelled)
	th.ranOnce(task.ID)
}

func executorSubmitsOnce(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	// Before anything can have ended, from many at once.
	task := th.task(h.RunsOn)
	var errs [16]error
	together(len(errs), func(i int) { errs[i] = th.Executor.SubmitTask(th.ctx, task) })
	th.must("SubmitTask from many at once", errors.Join(errs[:]...))
	th.await(task.ID, taskbridge.StatusRunning)
	for range 3 {
		th.must("SubmitTask of a running task", th.Executor.SubmitTask(th.ctx, th.row(task.ID)))
	}
	th.cancel(task.ID, "enough")
	th.await(task.ID, taskbridge.StatusCancelled)
	th.ranOnce(task.ID)

	release, ok := th.hold(h)
	if !ok {
		return
	}
	waiting := th.submit(h.Completes)
	for range 3 {
		th.must("SubmitTask of a waiting task", th.Executor.SubmitTask(th.ctx, waiting))
	}
	release()
	th.await(waiting.ID, taskbridge.StatusCompleted)
	th.ranOnce(waiting.ID)
}

func executorSubmitsEnded(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.Completes)
	before := th.await(task.ID, taskbridge.StatusCompleted)
	for _, row := range []taskbridge.Task{task, before} { // as it was, and as it is
		for range 3 {
			th.must("SubmitTask of an ended task", th.Executor.SubmitTask(th.ctx, row))
		}
	}
	// What comes later has had its turn: the ended one would have had it before.
	for range 3 {
		th.await(th.submit(h.Completes).ID, taskbridge.StatusCompleted)
	}
	th.stillEnded(before)
	th.ranOnce(task.ID)
}

func executorManyTasks(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	const n = 20
	var tasks [n]taskbridge.Task
	var errs [n]error
	for i := range tasks {
		tasks[i] = th.task([]Work{h.Completes, h.Completes, h.Fails}[i%3])
	}
	together(n, func(i int) { errs[i] = th.Executor.SubmitTask(th.ctx, tasks[i]) })
	th.must("SubmitTask", errors.Join(errs[:]...))
	for i, task := range tasks {
		status := []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusCompleted, taskbridge.StatusFailed}[i%3]
		th.await(task.ID, status)
		th.ranOnce(task.ID)
	}
}

func executorRejects(t *testing.T, h ExecutorHarness) {
	if h.Rejected.Type == "" {
		missing(t, "Rejected")
		return
	}
	th := stage(t, h)
	task := th.task(h.Rejected)
	th.untouched("the refused submission", task.ID, func() {
		for range 2 {
			err := th.Executor.SubmitTask(th.ctx, task)
			th.refused("SubmitTask", err, taskbridge.ErrSubmissionRejected)
			if rejection := new(taskbridge.RejectionError); !errors.As(err, &rejection) || rejection.Failure.Code == "" {
				t.Errorf("SubmitTask: %v is no *RejectionError with a code", err)
			}
		}
		th.must("RequestCancellation", th.Executor.RequestCancellation(th.ctx, task, "reason"))
	})
	th.begun(task.ID, 0)
	// Nor does it keep others back.
	th.await(th.submit(h.Completes).ID, taskbridge.StatusCompleted)
}

func executorCancelledContext(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.task(h.Completes)
	if err := th.Executor.SubmitTask(cancelled(), task); !errors.Is(err, context.Canceled) {
		t.Errorf("SubmitTask: %v, want context.Canceled", err)
	}
	if inspector, ok := th.Executor.(taskbridge.TaskInspector); ok {
		th.inspect(inspector, task.ID, taskbridge.InspectionAbsent)
	}
	th.await(th.submit(h.Completes).ID, taskbridge.StatusCompleted)
	same(t, "the row after the refused submission", task, th.row(task.ID))
	th.begun(task.ID, 0)
	// It is still to be had.
	th.must("SubmitTask", th.Executor.SubmitTask(th.ctx, task))
	th.await(task.ID, taskbridge.StatusCompleted)
	th.ranOnce(task.ID)

	running := th.submit(h.RunsOn)
	before := th.await(running.ID, taskbridge.StatusRunning)
	if err := th.Executor.RequestCancellation(cancelled(), before, "reason"); !errors.Is(err, context.Canceled) {
		t.Errorf("RequestCancellation: %v, want context.Canceled", err)
	}
}

func executorHealth(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	checker, ok := th.Executor.(taskbridge.HealthChecker)
	if !ok {
		missing(t, "taskbridge.HealthChecker")
		return
	}
	th.must("CheckHealth", checker.CheckHealth(th.ctx))
}
