package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var cancelChecks = []check[LifecycleHarness]{
	{"a run is told of an intent, with the reason, and may go on to any end", cancelTold},
	{"every run of a task is told", cancelToldToAll},
	{"a run that starts after the intent is told at once", cancelToldLate},
	{"changes of the row that are no intent tell nothing", cancelNotTold},
	{"the context of the work ends with an intent, a fence, the end and the close", cancelWorkContext},
}

func cancelTold(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	select {
	case <-run.CancelRequested():
		t.Error("CancelRequested is closed before anybody asked")
	default:
	}
	if got := run.CancelReason(); got != "" {
		t.Errorf("CancelReason is %q before anybody asked", got)
	}
	s.requestCancel(id, "too slow <雪>")
	await(s.ctx, t, "CancelRequested", run.CancelRequested())
	if got := run.CancelReason(); got != "too slow <雪>" {
		t.Errorf("CancelReason is %q", got)
	}
	s.live(run)
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "cleaning up"}))
	s.must("Cancelled", run.Cancelled(s.ctx, "stopped at 40 %"))
	s.must("Cancelled again", run.Cancelled(s.ctx, "stopped at 40 %"))
	s.expect(id, "TASK_STARTED", "TASK_MESSAGE", `TASK_CANCELLED {"message":"stopped at 40 %","reason":"too slow <雪>"}`)

	late, run := s.running()
	s.requestCancel(late, "too late")
	await(s.ctx, t, "CancelRequested", run.CancelRequested())
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(late, "TASK_STARTED", `TASK_COMPLETED {"result":null}`)
}

func cancelToldToAll(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	var runs []taskbridge.Run
	for n := range 8 {
		runs = append(runs, s.start(id, taskbridge.Claim{ID: "claim", Producer: fmt.Sprint(n)}))
	}
	s.requestCancel(id, "too slow")
	for _, run := range runs {
		await(s.ctx, t, "CancelRequested of every run", run.CancelRequested())
	}
}

func cancelToldLate(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.running()
	s.must("Close", first.Close())
	s.requestCancel(id, "too slow")
	run := s.start(id, taskbridge.Claim{ID: "claim"})
	await(s.ctx, t, "CancelRequested", run.CancelRequested())
	if got := run.CancelReason(); got != "too slow" {
		t.Errorf("CancelReason is %q", got)
	}
}

func cancelNotTold(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	for n := range 5 {
		s.edit(id, func(row *taskbridge.Task) { row.Due.Inspection = at(int64(n)) })
		s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: float64(n)}))
		s.must("Suspend", run.Suspend(s.ctx, suspension(fmt.Sprint(n))))
	}
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.over(run, afterEnd...)
	select {
	case <-run.CancelRequested():
		t.Error("CancelRequested is closed and nobody asked")
	default:
	}
}

func cancelWorkContext(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for _, c := range []struct {
		name string
		do   func(id string, run taskbridge.Run) error
		want func(cause error) bool
	}{
		{"an intent", func(id string, _ taskbridge.Run) error { return s.tryEdit(id, intent("too slow")) }, func(cause error) bool {
			told := new(taskbridge.CancelledError)
			return errors.As(cause, &told) && told.Reason == "too slow"
		}},
		{"a new claim", func(id string, _ taskbridge.Run) error {
			s.start(id, taskbridge.Claim{ID: "second"})
			return nil
		}, func(cause error) bool { return errors.Is(cause, taskbridge.ErrStaleAttempt) }},
		{"a settling", func(id string, _ taskbridge.Run) error {
			return s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed))
		}, func(cause error) bool { return errors.Is(cause, taskbridge.ErrTaskFinished) }},
		{"the close", func(_ string, run taskbridge.Run) error { return run.Close() },
			func(cause error) bool { return errors.Is(cause, taskbridge.ErrClosed) }},
	} {
		id, run := s.running()
		work, stop := taskbridge.WorkContext(s.ctx, run)
		if err := work.Err(); err != nil {
			t.Fatalf("the context of the work has ended at once: %v", err)
		}
		s.must(c.name, c.do(id, run))
		await(s.ctx, t, "the end of the work's context after "+c.name, work.Done())
		if cause := context.Cause(work); !c.want(cause) {
			t.Errorf("after %s the cause is %v", c.name, cause)
		}
		stop()
	}
}
