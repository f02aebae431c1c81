package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var startChecks = []check[LifecycleHarness]{
	{"the first start makes the row RUNNING in attempt 1 and appends TASK_STARTED", startFirst},
	{"the same claim joins its attempt, without an event", startJoins},
	{"a later start of the same claim and producer fences the earlier one's reports", startFencesEpoch},
	{"producers of different names share a claim", startSharesClaim},
	{"a new claim is the next attempt, fences all before it and says so once", startNextAttempt},
	{"of many starts of one claim at once all join one attempt", startConcurrentlyOneClaim},
	{"of many claims at once each is an attempt and the last one reports", startConcurrentlyManyClaims},
	{"what a claim replaces does not start behind it, seen before or not", startReplaces},
	{"claims are opaque: 1 to 255 bytes, kept apart byte for byte", startOddClaims},
	{"a start whose context has ended has no effect", startCancelledContext},
}

func startFirst(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	before := s.accepted()
	run := s.start(before.ID, taskbridge.Claim{ID: "claim"})
	row := s.row(before.ID)
	if row.Status != taskbridge.StatusRunning || row.Attempt != 1 || row.Claim != "claim" || !h.counted(row, 1) {
		t.Errorf("the row is %s, attempt %d, claim %q, %d starts", row.Status, row.Attempt, row.Claim, row.Starts)
	}
	if row.StartedAt.Before(before.CreatedAt) || !row.AttemptStartedAt.Equal(row.StartedAt) || row.UpdatedAt.Before(row.StartedAt) {
		t.Errorf("created at %v, started at %v, the attempt at %v, updated at %v", before.CreatedAt, row.StartedAt, row.AttemptStartedAt, row.UpdatedAt)
	}
	if run.Attempt() != 1 {
		t.Errorf("Run.Attempt is %d, want 1", run.Attempt())
	}
	got := run.Task()
	if got.ID != before.ID || got.Status != taskbridge.StatusRunning || got.Attempt != 1 || got.Type != before.Type ||
		string(got.Input) != string(before.Input) || string(got.Metadata) != string(before.Metadata) {
		t.Errorf("Run.Task is %+v", got)
	}
	s.live(run)
	s.expect(before.ID, "TASK_STARTED {}")
	if e := s.events(before.ID)[0]; e.Attempt != 1 || !e.CreatedAt.Equal(row.StartedAt) {
		t.Errorf("TASK_STARTED is of attempt %d at %v, want 1 at %v", e.Attempt, e.CreatedAt, row.StartedAt)
	}
}

func startJoins(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.running()
	s.must("Progress", first.Progress(s.ctx, taskbridge.Progress{Percent: 10}))
	for n := range 3 {
		run := s.start(id, taskbridge.Claim{ID: "claim"})
		if run.Attempt() != 1 {
			t.Fatalf("the attempt of start %d is %d, want 1", n+2, run.Attempt())
		}
		s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: 20 + float64(n)}))
	}
	s.expect(id, "TASK_STARTED", `TASK_PROGRESS {"progress":10}`, `TASK_PROGRESS {"progress":20}`,
		`TASK_PROGRESS {"progress":21}`, `TASK_PROGRESS {"progress":22}`)
	if row := s.row(id); row.Attempt != 1 || !h.counted(row, 4) {
		t.Errorf("the row has %d attempts and %d starts, want 1 and 4", row.Attempt, row.Starts)
	}
}

func startFencesEpoch(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, earlier := s.running()
	s.must("Message", earlier.Message(s.ctx, taskbridge.Message{Text: "earlier"}))
	later := s.start(id, taskbridge.Claim{ID: "claim"})
	s.must("Message", later.Message(s.ctx, taskbridge.Message{Text: "later"}))
	s.refused("Message of the fenced run", earlier.Message(s.ctx, taskbridge.Message{Text: "fenced"}), taskbridge.ErrStaleProducer)
	s.over(earlier, taskbridge.ErrStaleProducer)
	s.allRefused(earlier, taskbridge.ErrStaleProducer)
	s.must("Message", later.Message(s.ctx, taskbridge.Message{Text: "last"}))
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"earlier"}`, `TASK_MESSAGE {"message":"later"}`, `TASK_MESSAGE {"message":"last"}`)
}

func startSharesClaim(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	watcher := s.start(id, taskbridge.Claim{ID: "claim", Producer: "watcher"})
	pod := s.start(id, taskbridge.Claim{ID: "claim", Producer: "pod"})
	var want []string
	for n := range 3 {
		for name, run := range map[string]taskbridge.Run{"watcher": watcher, "pod": pod} {
			text := fmt.Sprintf("%s %d", name, n)
			s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: text}))
			want = append(want, fmt.Sprintf(`TASK_MESSAGE {"message":%q}`, text))
		}
	}
	s.expect(id, append([]string{"TASK_STARTED"}, want...)...)
	s.must("Complete", pod.Complete(s.ctx, taskbridge.Completion{}))
	s.over(watcher, taskbridge.ErrTaskFinished)
}

func startNextAttempt(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.running()
	s.must("Progress", first.Progress(s.ctx, taskbridge.Progress{Percent: 90}))
	startedAt := s.row(id).StartedAt

	second := s.start(id, taskbridge.Claim{ID: "second"})
	if second.Attempt() != 2 {
		t.Fatalf("the attempt is %d, want 2", second.Attempt())
	}
	s.over(first, taskbridge.ErrStaleAttempt) // without having reported anything
	s.untouched("the reports of a fenced run", id, func() {
		s.allRefused(first, taskbridge.ErrStaleAttempt)
	})
	row := s.row(id)
	if row.Attempt != 2 || row.Claim != "second" || !row.StartedAt.Equal(startedAt) || row.AttemptStartedAt.Before(startedAt) {
		t.Errorf("the row is in attempt %d of claim %q, started at %v (before %v), the attempt at %v",
			row.Attempt, row.Claim, row.StartedAt, startedAt, row.AttemptStartedAt)
	}
	events := s.events(id)
	if len(events) != 3 {
		t.Fatalf("the stream has %d events, want 3", len(events))
	}
	warning := events[2]
	if warning.Type != taskbridge.EventMessage || warning.Attempt != 2 || !strings.Contains(string(warning.Payload), `"level":"warning"`) {
		t.Errorf("the event of the second attempt is %s %s of attempt %d, want a warning of attempt 2", warning.Type, warning.Payload, warning.Attempt)
	}
	s.start(id, taskbridge.Claim{ID: "second"}) // joins: no second warning
	s.must("Complete", second.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(id, "TASK_STARTED", "TASK_PROGRESS", "TASK_MESSAGE", "TASK_COMPLETED")
}

func startConcurrentlyOneClaim(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	const callers = 32
	var runs [callers]taskbridge.Run
	var errs [callers]error
	together(callers, func(i int) {
		runs[i], errs[i] = s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: "claim"})
	})
	s.must("Start", errors.Join(errs[:]...))
	for _, run := range runs {
		if run.Attempt() != 1 {
			t.Errorf("a run is of attempt %d, want 1", run.Attempt())
		}
		s.must("Close", run.Close())
	}
	s.expect(id, "TASK_STARTED")
	if row := s.row(id); row.Attempt != 1 || !h.counted(row, callers) {
		t.Errorf("the row has %d attempts and %d starts, want 1 and %d", row.Attempt, row.Starts, callers)
	}
}

func startConcurrentlyManyClaims(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	const callers = 16
	var mu sync.Mutex
	runs := make(map[int64]taskbridge.Run)
	var errs [callers]error
	together(callers, func(i int) {
		run, err := s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: fmt.Sprintf("claim-%d", i)})
		if errs[i] = err; err == nil {
			mu.Lock()
			defer mu.Unlock()
			runs[run.Attempt()] = run
		} else if h.Remote && errors.Is(err, taskbridge.ErrStaleAttempt) {
			errs[i] = nil // begun, and fenced before its answer came through
		}
	})
	s.must("Start", errors.Join(errs[:]...))
	for attempt := int64(1); attempt <= callers; attempt++ {
		run := runs[attempt]
		if run == nil && h.Remote && attempt < callers {
			continue
		}
		if run == nil {
			t.Fatalf("no run is of attempt %d of %d", attempt, callers)
		}
		err := run.Message(s.ctx, taskbridge.Message{Text: "here"})
		if attempt < callers {
			s.refused("Message of a fenced attempt", err, taskbridge.ErrStaleAttempt)
		} else {
			s.must("Message of the last attempt", err)
		}
		s.must("Close", run.Close())
	}
	want := slices.Repeat([]string{"TASK_MESSAGE"}, callers) // a warning each but the first, and the message
	s.expect(id, append([]string{"TASK_STARTED"}, want...)...)
}

func startReplaces(t *testing.T, h LifecycleHarness) {
	for name, c := range map[string]struct {
		claim func(n int64, replaces ...string) taskbridge.Claim
		say   func(s *scene, run taskbridge.Run, text string) error
	}{
		"plain": {
			func(n int64, replaces ...string) taskbridge.Claim {
				return taskbridge.Claim{ID: fmt.Sprintf("run/%d", n), Replaces: replaces}
			},
			func(s *scene, run taskbridge.Run, text string) error {
				return run.Message(s.ctx, taskbridge.Message{Text: text})
			},
		},
		"under epochs": {
			func(n int64, replaces ...string) taskbridge.Claim {
				claim := source(fmt.Sprintf("run/%d", n), epoch+n)
				claim.Replaces = replaces
				return claim
			},
			func(s *scene, run taskbridge.Run, text string) error {
				return s.tried(run.(taskbridge.NumberedRun), said(1, text))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := set(t, h, taskbridge.LifecycleOptions{})
			id := s.accepted().ID
			third := s.start(id, c.claim(3, "run/1", "run/2"))
			late := func(what string) {
				s.untouched(what, id, func() {
					for n := range int64(2) {
						_, err := s.lifecycle.Start(s.ctx, id, c.claim(n+1))
						s.refused(what, err, taskbridge.ErrStaleAttempt)
					}
				})
			}
			late("a late start of what the first claim replaces")
			s.must("a report of the first claim", c.say(s, third, "third"))
			// One that is named only when the claim is joined.
			again := c.claim(3, "run/1", "run/2", "run/0")
			s.must("Close", s.start(id, again).Close())
			_, err := s.lifecycle.Start(s.ctx, id, c.claim(0))
			s.refused("a late start of what a claim that joins replaces", err, taskbridge.ErrStaleAttempt)
			fourth := s.start(id, c.claim(4, "run/2", "run/3"))
			s.over(third, taskbridge.ErrStaleAttempt)
			late("a late start of what is replaced twice")
			s.must("a report of the next claim", c.say(s, fourth, "fourth"))
			s.must("Complete", fourth.Complete(s.ctx, taskbridge.Completion{}))
			s.expect(id, "TASK_STARTED", saying("third"), "TASK_MESSAGE", saying("fourth"), "TASK_COMPLETED")
			if row := s.row(id); row.Attempt != 2 || !slices.Equal(slices.Sorted(slices.Values(row.PastClaims)), []string{"run/0", "run/1", "run/2", "run/3"}) {
				t.Errorf("attempt %d, past claims %q", row.Attempt, row.PastClaims)
			}
		})
	}
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	for name, replaces := range map[string][]string{
		"itself": {"claim"}, "nothing": {""}, "a long name": {strings.Repeat("x", 256)}, "too many": slices.Repeat([]string{"x"}, taskbridge.MaxPastClaims+1),
	} {
		s.untouched("the refused start", id, func() {
			_, err := s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: "claim", Replaces: replaces})
			s.refused("Start that replaces "+name, err, taskbridge.ErrInvalidArgument)
		})
	}
}

func startOddClaims(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	for i, claim := range oddNames() {
		for range 2 {
			run := s.start(id, taskbridge.Claim{ID: claim})
			if run.Attempt() != int64(i+1) {
				t.Fatalf("claim %q is attempt %d, want %d", claim, run.Attempt(), i+1)
			}
			s.must("Close", run.Close())
		}
	}
	other := s.accepted().ID
	for _, claim := range []string{"", strings.Repeat("x", 256)} {
		s.untouched("the refused start", other, func() {
			_, err := s.lifecycle.Start(s.ctx, other, taskbridge.Claim{ID: claim})
			s.refused(fmt.Sprintf("Start of a claim of %d bytes", len(claim)), err, taskbridge.ErrInvalidArgument)
		})
	}
}

func startCancelledContext(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	s.untouched("the start without a context", id, func() {
		_, err := s.lifecycle.Start(cancelled(), id, taskbridge.Claim{ID: "claim"})
		s.refused("Start", err, context.Canceled)
	})
}
