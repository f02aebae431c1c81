package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var verifyChecks = []check[LifecycleHarness]{
	{"a repetition that is verified is found, with its sequence number", verifyFound},
	{"another report under a used ordinal is told from a repetition, and nothing from there on is recorded", verifyReused},
	{"verification looks behind Since alone, and further than a page", verifySince},
	{"a source that lost its epoch goes on under a higher one, and finds what it had reported", verifyAlways},
	{"only reports of the attempt itself are repetitions", verifyAttempt},
	{"a stream that was restored takes the reports it has lost, whatever Since says", verifyRestored},
}

// verified returns the reports with a verification.
func verified(how taskbridge.Verification, since int64, reports ...taskbridge.Report) []taskbridge.Report {
	for i := range reports {
		reports[i].Verify, reports[i].Since = how, since
	}
	return reports
}

func verifyFound(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	other := s.start(id, taskbridge.Claim{ID: "claim", Producer: "other"})
	progress := taskbridge.Report{Ordinal: 3, Progress: &taskbridge.Progress{Percent: 50, Stage: "stage"}}
	s.recorded(run, said(1, "one"), said(2, "again"), progress)
	s.must("Message", other.Message(s.ctx, taskbridge.Message{Text: "between"}))
	s.recorded(run, said(4, "again"), said(5, "five"))
	for _, how := range []taskbridge.Verification{taskbridge.VerifyDuplicate, taskbridge.VerifyAlways} {
		since := int64(0)
		for i, report := range []taskbridge.Report{said(1, "one"), said(2, "again"), progress, said(4, "again"), said(5, "five")} {
			at := s.recorded(run, verified(how, since, report)...)
			if want := []int64{2, 3, 4, 6, 7}[i]; at != want {
				t.Errorf("report %d is event %d, want %d", i+1, at, want)
			}
			since = at
		}
		if at := s.recorded(run, verified(how, 0, said(1, "one"), said(2, "again"), progress, said(4, "again"), said(5, "five"))...); at != 7 {
			t.Errorf("the last one is event %d, want 7", at)
		}
	}
	s.expect(id, "TASK_STARTED", saying("one"), saying("again"), "TASK_PROGRESS", saying("between"), saying("again"), saying("five"))
}

// reused fails unless the call was refused for the report of that index.
func (s *scene) reused(run taskbridge.NumberedRun, index int, sequence int64, reports ...taskbridge.Report) {
	s.t.Helper()
	reported, err := run.Report(s.ctx, reports)
	s.refused("a report that is no repetition", err, taskbridge.ErrOrdinalReused)
	var of *taskbridge.ReportError
	if !errors.As(err, &of) || of.Index != index || reported.Sequence != sequence {
		s.t.Errorf("%v with %+v, want report %d and event %d", err, reported, index, sequence)
	}
}

func verifyReused(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	s.recorded(run, said(1, "one"), said(2, "two"), said(3, "three"))
	s.untouched("the refused calls", id, func() {
		s.reused(run, 0, 0, verified(taskbridge.VerifyDuplicate, 4, said(3, "another"))...) // the producer's last
		s.reused(run, 1, 2, verified(taskbridge.VerifyDuplicate, 0, said(1, "one"), said(2, "another"), said(3, "three"), said(4, "four"))...)
		s.reused(run, 0, 0, verified(taskbridge.VerifyAlways, 0, said(2, "another"))...)
		s.reused(run, 1, 4, verified(taskbridge.VerifyDuplicate, 0, said(1, "three"), said(2, "two"))...) // not in that order
		s.reused(run, 0, 0, verified(taskbridge.VerifyDuplicate, 0, taskbridge.Report{Ordinal: 1, Progress: &taskbridge.Progress{Message: "one"}})...)
	})
	s.live(run)
	s.recorded(run, said(4, "four"))
	higher := s.numbered(id, source("claim", epoch+1))
	s.recorded(higher, verified(taskbridge.VerifyDuplicate, 2, said(2, "another"))...)
	s.expect(id, "TASK_STARTED", saying("one"), saying("two"), saying("three"), saying("four"), saying("another"))
}

func verifySince(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	other := s.numbered(id, taskbridge.Claim{ID: "claim", Producer: "other", Epoch: 1})
	s.recorded(run, said(1, "one"))
	var noise []taskbridge.Report
	want := []string{"TASK_STARTED", saying("one")}
	for n := range 250 {
		text := fmt.Sprint("noise ", n)
		noise, want = append(noise, said(int64(n+1), text)), append(want, saying(text))
	}
	s.recorded(other, noise...)
	s.recorded(run, said(2, "two"), said(3, "three"))
	want = append(want, saying("two"), saying("three"))
	for _, how := range []taskbridge.Verification{taskbridge.VerifyDuplicate, taskbridge.VerifyAlways} {
		if at := s.recorded(run, verified(how, 2, said(2, "two"))...); at != 253 {
			t.Errorf("the report is event %d, want 253", at)
		}
		s.reused(run, 0, 0, verified(how, 2, said(1, "one"))...)
		s.reused(run, 0, 0, verified(how, 253, said(2, "two"))...)
	}
	s.expect(id, want...)
}

func verifyAlways(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	one := s.recorded(run, said(1, "one"))
	s.recorded(run, said(2, "two")) // and the answer is lost
	s.recorded(s.numbered(id, source("claim", epoch+5)), said(1, "somebody"))
	again := verified(taskbridge.VerifyAlways, one, said(2, "two"), said(3, "three"))
	s.refused("the lower epoch", s.tried(run, again...), taskbridge.ErrStaleProducer)
	for n := range int64(2) { // the second time its own answer was lost, too
		higher := s.numbered(id, source("claim", epoch+6+n))
		if at := s.recorded(higher, again...); at != 5 {
			t.Errorf("the last report is event %d, want 5", at)
		}
	}
	s.expect(id, "TASK_STARTED", saying("one"), saying("two"), saying("somebody"), saying("three"))
}

func verifyAttempt(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.numberedTask()
	s.recorded(first, said(1, "one"))
	second := s.numbered(id, source("second", epoch+1))
	if at := s.recorded(second, verified(taskbridge.VerifyAlways, 0, said(1, "one"))...); at != 4 {
		t.Errorf("the report of the second attempt is event %d, want 4", at)
	}
	s.expect(id, "TASK_STARTED", saying("one"), "TASK_MESSAGE", saying("one"))
	if attempts := []int64{s.events(id)[1].Attempt, s.events(id)[3].Attempt}; !slices.Equal(attempts, []int64{1, 2}) {
		t.Errorf("the reports are of attempts %d", attempts)
	}
}

func verifyRestored(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	s.recorded(run, said(1, "one")) // the backup ends here; the source had event 40 for its answer
	two := verified(taskbridge.VerifyDuplicate, 40, said(2, "two"))
	at := s.recorded(run, two...)
	if at != 3 {
		t.Errorf("the report is event %d, want 3", at)
	}
	s.recorded(run, verified(taskbridge.VerifyAlways, at, said(3, "three"))...)
	s.recorded(run, verified(taskbridge.VerifyDuplicate, at, said(3, "three"))...)
	s.expect(id, "TASK_STARTED", saying("one"), saying("two"), saying("three"))
}
