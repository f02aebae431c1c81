package conformance

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var runnableChecks = []check[LifecycleHarness]{
	{"a task that has ended is not runnable, by no claim", runnableEnded},
	{"a new claim on a task with a cancellation intent ends it CANCELLED with the reason", runnableCancelled},
	{"the same claim joins in spite of an intent, and is told of it", runnableCancelledJoins},
	{"a barred task is not runnable until the bar is lifted", runnableBarred},
	{"a task runs in its own instance only", runnableInstance},
	{"a task that is not there is ErrTaskNotFound", runnableMissing},
}

func (s *scene) notRunnable(taskID string, claim taskbridge.Claim) {
	s.t.Helper()
	run, err := s.lifecycle.Start(s.ctx, taskID, claim)
	if err == nil {
		s.must("Close", run.Close())
	}
	s.refused("Start of claim "+claim.ID, err, taskbridge.ErrNotRunnable)
}

func runnableEnded(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for _, status := range []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled} {
		id, _ := s.running()
		s.must("Settle", s.lifecycle.Settle(s.ctx, id, outcome(status)))
		s.untouched("the refused starts", id, func() {
			s.notRunnable(id, taskbridge.Claim{ID: "claim"})
			s.notRunnable(id, taskbridge.Claim{ID: "another"})
		})
	}
	never := s.accepted().ID
	s.must("Settle", s.lifecycle.Settle(s.ctx, never, outcome(taskbridge.StatusFailed)))
	s.notRunnable(never, taskbridge.Claim{ID: "claim"})
	s.expect(never, "TASK_FAILED")
}

func runnableCancelled(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	waiting := s.accepted().ID
	s.requestCancel(waiting, "no longer needed")
	s.notRunnable(waiting, taskbridge.Claim{ID: "claim"})
	s.expect(waiting, `TASK_CANCELLED {"reason":"no longer needed"}`)
	if row := s.row(waiting); row.Attempt != 0 || !row.StartedAt.IsZero() {
		t.Errorf("the row is in attempt %d, started at %v; want neither", row.Attempt, row.StartedAt)
	}
	s.notRunnable(waiting, taskbridge.Claim{ID: "claim"}) // and again

	running, run := s.running()
	s.requestCancel(running, "too slow")
	s.notRunnable(running, taskbridge.Claim{ID: "second"})
	s.over(run, taskbridge.ErrTaskFinished)
	s.expect(running, "TASK_STARTED", `TASK_CANCELLED {"reason":"too slow"}`)
}

func runnableCancelledJoins(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, _ := s.running()
	s.requestCancel(id, "too slow")
	run := s.start(id, taskbridge.Claim{ID: "claim"})
	await(s.ctx, t, "CancelRequested", run.CancelRequested())
	if got := run.CancelReason(); got != "too slow" {
		t.Errorf("CancelReason is %q", got)
	}
	s.must("Cancelled", run.Cancelled(s.ctx, ""))
	s.expect(id, "TASK_STARTED", `TASK_CANCELLED {"reason":"too slow"}`)
}

func runnableBarred(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted(func(row *taskbridge.Task) { row.Submission.Barred = true }).ID
	s.untouched("the refused start", id, func() { s.notRunnable(id, taskbridge.Claim{ID: "claim"}) })
	s.edit(id, func(row *taskbridge.Task) { row.Submission.Barred = false })
	s.start(id, taskbridge.Claim{ID: "claim"})
	s.expect(id, "TASK_STARTED")
}

func runnableInstance(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	bound := s.accepted(func(row *taskbridge.Task) { row.Instance = "instance-1" }).ID
	free := s.accepted().ID
	for _, c := range []struct{ id, instance string }{{bound, ""}, {bound, "instance-2"}, {free, "instance-1"}} {
		s.untouched("the refused start", c.id, func() {
			s.notRunnable(c.id, taskbridge.Claim{ID: "claim", Instance: c.instance})
		})
	}
	if h.Remote {
		s.untouched("the start from afar", bound, func() {
			s.notRunnable(bound, taskbridge.Claim{ID: "claim", Instance: "instance-1"})
		})
		return
	}
	s.start(bound, taskbridge.Claim{ID: "claim", Instance: "instance-1"})
	s.untouched("the refused joining", bound, func() {
		s.notRunnable(bound, taskbridge.Claim{ID: "claim", Instance: "instance-2"})
	})
	s.expect(bound, "TASK_STARTED")
}

func runnableMissing(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	_, err := s.lifecycle.Start(s.ctx, newID(), taskbridge.Claim{ID: "claim"})
	s.refused("Start", err, taskbridge.ErrTaskNotFound)
	s.refused("Notice", s.lifecycle.Notice(s.ctx, newID(), taskbridge.Message{Text: "m"}), taskbridge.ErrTaskNotFound)
	s.refused("Settle", s.lifecycle.Settle(s.ctx, newID(), outcome(taskbridge.StatusFailed)), taskbridge.ErrTaskNotFound)
}
