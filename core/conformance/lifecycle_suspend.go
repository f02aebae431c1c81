package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var suspendChecks = []check[LifecycleHarness]{
	{"a suspension is an event and shows on the row, with all it says", suspendShows},
	{"repeating a suspension is safe, another content under its id is refused", suspendRepeated},
	{"a suspension that breaks the protocol is refused and leaves nothing behind", suspendRefused},
	{"a task may suspend as often as the limit says", suspendLimit},
	{"the end of a task takes its suspension off the row", suspendEnds},
	{"a new attempt does not suspend under an old attempt's id", suspendNextAttempt},
}

func suspendShows(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	expires := at(1_234_567)
	full := suspension("full")
	full.Kind = taskbridge.SuspendExternalConfirmation
	full.SchemaVersion, full.ExpiresAt = 3, &expires
	full.UIHints = json.RawMessage(`{"title":"<Really?> 雪"}`)
	full.Interaction = json.RawMessage(`{"form":{"b":1,"a":[1.50,null]}}`)
	var used []string
	for _, want := range []taskbridge.Suspension{suspension("plain"), full} {
		s.must("Suspend", run.Suspend(s.ctx, want))
		used = append(used, want.SuspendID)
		row := s.row(id)
		if row.Status != taskbridge.StatusRunning || row.Suspension == nil || !slices.Equal(row.SuspendIDs, used) {
			t.Fatalf("the row is %s, with the suspension %+v and the ids %q", row.Status, row.Suspension, row.SuspendIDs)
		}
		same(t, "the suspension on the row", want, *row.Suspension)
		events := s.events(id)
		last := events[len(events)-1]
		var got taskbridge.Suspension
		if err := json.Unmarshal(last.Payload, &got); err != nil {
			t.Fatalf("the payload is %s: %v", last.Payload, err)
		}
		same(t, "the suspension in the stream", want, got)
		if last.Attempt != 1 {
			t.Errorf("the event is of attempt %d, want 1", last.Attempt)
		}
	}
	s.live(run)
	s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: 50})) // the work goes on
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED", "TASK_SUSPENDED", "TASK_PROGRESS")
}

func suspendRepeated(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.must("Suspend", run.Suspend(s.ctx, suspension("one")))
	joined := s.start(id, taskbridge.Claim{ID: "claim", Producer: "other"})
	s.untouched("the repeated suspension", id, func() {
		s.must("Suspend again", run.Suspend(s.ctx, suspension("one")))
		s.must("Suspend by another run of the claim", joined.Suspend(s.ctx, suspension("one")))
		for name, edit := range map[string]func(*taskbridge.Suspension){
			"kind":        func(s *taskbridge.Suspension) { s.Kind = taskbridge.SuspendSystemPaused },
			"reason":      func(s *taskbridge.Suspension) { s.ReasonCode = "OTHER" },
			"actions":     func(s *taskbridge.Suspension) { s.AllowedActions = []string{"APPROVE"} },
			"version":     func(s *taskbridge.Suspension) { s.SchemaVersion = 2 },
			"expiry":      func(s *taskbridge.Suspension) { expires := at(1); s.ExpiresAt = &expires },
			"hints":       func(s *taskbridge.Suspension) { s.UIHints = json.RawMessage(`{}`) },
			"interaction": func(s *taskbridge.Suspension) { s.Interaction = json.RawMessage(`{"a":1}`) },
		} {
			other := suspension("one")
			edit(&other)
			s.refused("Suspend with another "+name, run.Suspend(s.ctx, other), taskbridge.ErrInvalidArgument)
		}
	})

	var errs [16]error
	together(len(errs), func(i int) { errs[i] = run.Suspend(s.ctx, suspension("two")) })
	s.must("Suspend", errors.Join(errs[:]...))
	// An id of before does not come back.
	s.refused("Suspend with another content under the first id", run.Suspend(s.ctx, func() taskbridge.Suspension {
		other := suspension("one")
		other.SchemaVersion = 9
		return other
	}()), taskbridge.ErrInvalidArgument)
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED", "TASK_SUSPENDED")
}

func suspendRefused(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{EventPayload: 1000}})
	id, run := s.running()
	s.untouched("the refused suspensions", id, func() {
		for name, edit := range map[string]func(*taskbridge.Suspension){
			"no id":              func(s *taskbridge.Suspension) { s.SuspendID = "" },
			"no kind":            func(s *taskbridge.Suspension) { s.Kind = "" },
			"an unknown kind":    func(s *taskbridge.Suspension) { s.Kind = "NAP" },
			"no reason":          func(s *taskbridge.Suspension) { s.ReasonCode = "" },
			"no actions":         func(s *taskbridge.Suspension) { s.AllowedActions = nil },
			"an empty action":    func(s *taskbridge.Suspension) { s.AllowedActions = []string{"APPROVE", ""} },
			"no version":         func(s *taskbridge.Suspension) { s.SchemaVersion = 0 },
			"a negative version": func(s *taskbridge.Suspension) { s.SchemaVersion = -1 },
			"broken hints":       func(s *taskbridge.Suspension) { s.UIHints = json.RawMessage(`{"a":`) },
			"empty hints":        func(s *taskbridge.Suspension) { s.UIHints = json.RawMessage{} },
			"broken interaction": func(s *taskbridge.Suspension) { s.Interaction = json.RawMessage(`{} {}`) },
		} {
			bad := suspension("bad")
			edit(&bad)
			err := run.Suspend(s.ctx, bad)
			s.refused("Suspend with "+name, err, taskbridge.ErrInvalidArgument)
			if argument := new(taskbridge.ArgumentError); !errors.As(err, &argument) {
				t.Errorf("Suspend with %s: %v does not name the argument", name, err)
			}
		}
		large := suspension("large")
		large.Interaction = json.RawMessage(fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", 1000)))
		s.refused("Suspend over the limit", run.Suspend(s.ctx, large), taskbridge.ErrPayloadTooLarge)
	})
	s.live(run)
	s.must("Suspend", run.Suspend(s.ctx, suspension("bad"))) // the id is still free
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED")
}

func suspendLimit(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{Suspensions: 3}})
	id, run := s.running()
	for n := range 3 {
		s.must("Suspend", run.Suspend(s.ctx, suspension(fmt.Sprint(n))))
	}
	s.untouched("the suspension beyond the limit", id, func() {
		if err := run.Suspend(s.ctx, suspension("more")); err == nil {
			t.Error("Suspend beyond the limit: nil, want an error")
		}
	})
	s.must("Suspend again", run.Suspend(s.ctx, suspension("2")))
	s.live(run)
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED", "TASK_SUSPENDED", "TASK_SUSPENDED")
}

func suspendEnds(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for name, end := range map[string]func(id string, run taskbridge.Run) error{
		"Complete": func(_ string, run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) },
		"Settle": func(id string, _ taskbridge.Run) error {
			return s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed))
		},
	} {
		id, run := s.running()
		s.must("Suspend", run.Suspend(s.ctx, suspension("one")))
		s.must(name, end(id, run))
		if row := s.row(id); row.Suspension != nil || !slices.Equal(row.SuspendIDs, []string{"one"}) {
			t.Errorf("after %s the row has the suspension %+v and the ids %q", name, row.Suspension, row.SuspendIDs)
		}
		s.agree(id)
	}
}

func suspendNextAttempt(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.must("Suspend", run.Suspend(s.ctx, suspension("one")))
	s.must("Suspend", run.Suspend(s.ctx, suspension("two")))
	second := s.start(id, taskbridge.Claim{ID: "second"})
	other := suspension("one")
	other.ReasonCode = "OTHER"
	s.refused("Suspend", second.Suspend(s.ctx, other), taskbridge.ErrInvalidArgument)
	s.must("Suspend", second.Suspend(s.ctx, suspension("three")))
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED", "TASK_SUSPENDED", "TASK_MESSAGE", "TASK_SUSPENDED")
}
