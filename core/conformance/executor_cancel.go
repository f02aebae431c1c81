package conformance

import (
	"errors"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var executorCancelChecks = []check[ExecutorHarness]{
	{"a running task that is cancelled ends CANCELLED with the reason", executorCancelsRunning},
	{"a task that waits is taken out and ends CANCELLED, and never runs", executorCancelsWaiting},
	{"a waiting task with an intent does not run although the runtime was not asked", executorIntentAlone},
	{"cancellation may be asked for again and again, and after the end", executorCancelsAgain},
	{"the cancellation of a task that the runtime does not know is no error and has no effect", executorCancelsUnknown},
	{"cancellation and completion race for one end", executorCancelRace},
}

func executorCancelsRunning(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.RunsOn)
	th.await(task.ID, taskbridge.StatusRunning)
	th.cancel(task.ID, "no longer needed <雪>")
	th.await(task.ID, taskbridge.StatusCancelled)
	th.endsCancelled(task.ID, "no longer needed <雪>")
	th.ranOnce(task.ID)
}

// endsCancelled fails unless the stream ends CANCELLED with the reason.
func (th *theatre) endsCancelled(taskID, reason string) {
	th.t.Helper()
	events := th.events(taskID)
	if len(events) == 0 || events[len(events)-1].Type != taskbridge.EventCancelled {
		th.t.Fatalf("the stream is %q, want it to end CANCELLED", streamOf(th.stores, taskID))
	}
	last := events[len(events)-1]
	var payload struct{ Reason string }
	unmarshal(th.t, last.Payload, &payload)
	if payload.Reason != reason {
		th.t.Errorf("the reason is %q, want %q", payload.Reason, reason)
	}
}

func executorCancelsWaiting(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	release, ok := th.hold(h)
	if !ok {
		return
	}
	task := th.submit(h.Completes)
	behind := th.submit(h.Completes)
	th.cancel(task.ID, "changed my mind")
	th.await(task.ID, taskbridge.StatusCancelled) // while the runtime is held
	th.endsCancelled(task.ID, "changed my mind")
	th.cancel(task.ID, "changed my mind") // again
	release()
	th.await(behind.ID, taskbridge.StatusCompleted)
	th.neverRan(task.ID)
}

func executorIntentAlone(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	release, ok := th.hold(h)
	if !ok {
		return
	}
	task := th.submit(h.Completes)
	th.requestCancel(task.ID, "changed my mind")
	release()
	th.await(task.ID, taskbridge.StatusCancelled)
	th.endsCancelled(task.ID, "changed my mind")
	th.neverRan(task.ID)
}

func executorCancelsAgain(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.submit(h.RunsOn)
	th.await(task.ID, taskbridge.StatusRunning)
	th.requestCancel(task.ID, "enough")
	row := th.row(task.ID)
	var errs [8]error
	together(len(errs), func(i int) { errs[i] = th.Executor.RequestCancellation(th.ctx, row, "enough") })
	th.must("RequestCancellation from many at once", errors.Join(errs[:]...))
	before := th.await(task.ID, taskbridge.StatusCancelled)
	for _, row := range []taskbridge.Task{row, before} {
		th.must("RequestCancellation after the end", th.Executor.RequestCancellation(th.ctx, row, "enough"))
	}
	completed := th.submit(h.Completes)
	end := th.await(completed.ID, taskbridge.StatusCompleted)
	th.must("RequestCancellation after completion", th.Executor.RequestCancellation(th.ctx, end, "too late"))
	// Whatever that began has had its time.
	th.await(th.submit(h.Completes).ID, taskbridge.StatusCompleted)
	th.stillEnded(before)
	th.stillEnded(end)
	th.ranOnce(task.ID)
	th.ranOnce(completed.ID)
}

func executorCancelsUnknown(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	task := th.task(h.Completes) // never submitted
	th.requestCancel(task.ID, "enough")
	before := th.row(task.ID)
	th.must("RequestCancellation", th.Executor.RequestCancellation(th.ctx, before, "enough"))
	th.await(th.submit(h.Completes).ID, taskbridge.StatusCompleted)
	// The runtime may settle what it certainly does not have, and nothing else.
	if row := th.row(task.ID); row.Status != taskbridge.StatusCancelled {
		same(t, "the row", before, row)
	}
	th.neverRan(task.ID)
}

func executorCancelRace(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	for range 10 {
		task := th.submit(h.Completes)
		th.cancel(task.ID, "race")
		row := th.awaitRow(task.ID, "at its end", func(row taskbridge.Task) bool { return row.Status.Terminal() })
		if row.Status == taskbridge.StatusFailed {
			t.Errorf("the task has ended %s: %q", row.Status, streamOf(th.stores, task.ID))
		}
		th.agree(task.ID)
	}
}
