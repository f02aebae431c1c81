package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var closeChecks = []check[LifecycleHarness]{
	{"a closed run reports nothing more and leaves the task as it is", closeReleases},
	{"a run may be closed again, after its end and when it is fenced", closeAnytime},
	{"closing in the midst of reports leaves those that returned nil", closeInTheMidst},
}

func closeReleases(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "before"}))
	s.untouched("the close", id, func() {
		s.must("Close", run.Close())
		s.over(run, taskbridge.ErrClosed)
		s.allRefused(run, taskbridge.ErrClosed)
	})
	again := s.start(id, taskbridge.Claim{ID: "claim"})
	s.must("Message", again.Message(s.ctx, taskbridge.Message{Text: "after"}))
	s.must("Complete", again.Complete(s.ctx, taskbridge.Completion{}))
	s.over(run, taskbridge.ErrClosed) // the first reason stays
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"before"}`, `TASK_MESSAGE {"message":"after"}`, "TASK_COMPLETED")
}

func closeAnytime(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	_, run := s.running()
	for range 3 {
		s.must("Close", run.Close())
	}
	var errs [8]error
	_, run = s.running()
	together(len(errs), func(i int) { errs[i] = run.Close() })
	s.must("Close at once", errors.Join(errs[:]...))

	_, run = s.running()
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.must("Close after the end", run.Close())

	id, run := s.running()
	s.start(id, taskbridge.Claim{ID: "second"})
	s.over(run, taskbridge.ErrStaleAttempt)
	s.must("Close of a fenced run", run.Close())
	s.over(run, taskbridge.ErrStaleAttempt)
}

func closeInTheMidst(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	const callers = 8
	var recorded [callers]int
	var errs [callers]error
	enough := make(chan struct{}, callers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		together(callers, func(i int) {
			for errs[i] == nil {
				if errs[i] = run.Message(s.ctx, taskbridge.Message{Text: "m"}); errs[i] == nil {
					if recorded[i]++; recorded[i] == 3 {
						enough <- struct{}{}
					}
				}
			}
		})
	}()
	for range callers {
		await(s.ctx, t, "three messages of each", enough)
	}
	s.must("Close", run.Close())
	await(s.ctx, t, "the end of the reports", ended)
	want := []string{"TASK_STARTED"}
	for i, err := range errs {
		if !errors.Is(err, taskbridge.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the last report of goroutine %d: %v, want ErrClosed", i, err)
		}
		want = append(want, slices.Repeat([]string{"TASK_MESSAGE"}, recorded[i])...)
	}
	s.expect(id, want...)
}
