package conformance

import (
	"fmt"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var fullStreamChecks = []check[LifecycleHarness]{
	{"a full stream refuses progress, messages and notices, and the task goes on", fullRefuses},
	{"a full stream takes suspensions, attempts and the end", fullTakesControls},
	{"text that does not fit into a full stream is told of and keeps nothing else back", fullTokens},
}

const full = 5

// filled makes a running task whose stream has no place left for reports.
func filled(t *testing.T, h LifecycleHarness) (s *scene, id string, run taskbridge.Run) {
	t.Helper()
	s = set(t, h, taskbridge.LifecycleOptions{TokenDelay: never, Limits: taskbridge.Limits{StreamEvents: full}})
	id, run = s.running()
	for n := 1; n < full; n++ {
		s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: float64(n)}))
	}
	return s, id, run
}

// before is the stream that filled makes.
func before(then ...string) []string {
	return slices.Concat([]string{"TASK_STARTED"}, slices.Repeat([]string{"TASK_PROGRESS"}, full-1), then)
}

func fullRefuses(t *testing.T, h LifecycleHarness) {
	s, id, run := filled(t, h)
	s.untouched("the refused reports", id, func() {
		for range 3 {
			s.refused("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: 50}), taskbridge.ErrStreamFull)
			s.refused("Message", run.Message(s.ctx, taskbridge.Message{Text: "m"}), taskbridge.ErrStreamFull)
			s.refused("Notice", s.lifecycle.Notice(s.ctx, id, taskbridge.Message{Text: "m"}), taskbridge.ErrStreamFull)
		}
	})
	s.live(run)
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(id, before("TASK_COMPLETED")...)
}

func fullTakesControls(t *testing.T, h LifecycleHarness) {
	s, id, run := filled(t, h)
	s.must("Suspend", run.Suspend(s.ctx, suspension("one")))
	second := s.start(id, taskbridge.Claim{ID: "second"})
	s.must("Suspend", second.Suspend(s.ctx, suspension("two")))
	s.refused("Progress", second.Progress(s.ctx, taskbridge.Progress{}), taskbridge.ErrStreamFull)
	s.must("Settle", s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed)))
	s.expect(id, before("TASK_SUSPENDED", "TASK_MESSAGE", "TASK_SUSPENDED", "TASK_FAILED")...)

	for name, end := range map[string]func(run taskbridge.Run) error{
		"TASK_COMPLETED": func(run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) },
		"TASK_FAILED":    func(run taskbridge.Run) error { return run.Fail(s.ctx, taskbridge.Failure{Code: "CODE"}) },
		"TASK_CANCELLED": func(run taskbridge.Run) error { return run.Cancelled(s.ctx, "") },
	} {
		s, id, run := filled(t, h)
		s.must(name, end(run))
		s.expect(id, before(name)...)
	}
}

func fullTokens(t *testing.T, h LifecycleHarness) {
	for name, next := range map[string]struct {
		do   func(s *scene, run taskbridge.Run) error
		told bool // whether the report may tell of the text that was lost
		then []string
	}{
		"Progress": {func(s *scene, run taskbridge.Run) error { return run.Progress(s.ctx, taskbridge.Progress{}) }, true, nil},
		"Suspend":  {func(s *scene, run taskbridge.Run) error { return run.Suspend(s.ctx, suspension("one")) }, false, []string{"TASK_SUSPENDED"}},
		"Complete": {func(s *scene, run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) }, false, []string{"TASK_COMPLETED"}},
	} {
		s, id, run := filled(t, h)
		s.must("Token", run.Token(s.ctx, "lost")) // nothing is recorded yet
		if err := next.do(s, run); next.told {
			s.refused(name, err, taskbridge.ErrStreamFull)
		} else {
			s.must(fmt.Sprintf("%s behind text that is lost", name), err)
		}
		s.expect(id, before(next.then...)...)
	}
}
