package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var numberedChecks = []check[LifecycleHarness]{
	{"runs of one claim, producer and epoch repeat each other's reports, each of which is there once", numberedRepeat},
	{"many runs of one epoch at once make one stream", numberedTogether},
	{"ordinals may leave gaps, and a call may have any number of reports", numberedMany},
	{"text of a call is one message, and recognised", numberedText},
	{"joining an attempt under an epoch writes nothing", numberedJoins},
	{"a higher epoch fences the lower ones of its producer alone", numberedFences},
	{"a new claim fences every epoch", numberedOtherClaim},
	{"a run with an epoch takes no report without an ordinal", numberedUnnumbered},
	{"suspensions and ends are recognised by themselves", numberedSuspendEnd},
	{"after its end a task takes no new report", numberedEnded},
	{"a closed run with an epoch takes no report", numberedClosed},
	{"what may not be recorded is refused by name, and nothing of its call is recorded", numberedRefusals},
	{"a full stream refuses new reports and recognises old ones", numberedFull},
	{"a call with reports can be repeated after a fault at any step", numberedFaults},
}

// epoch is one that no count of starts reaches.
const epoch = int64(1_900_000_000_000_000)

// source is a claim of the producer "source".
func source(claim string, epoch int64) taskbridge.Claim {
	return taskbridge.Claim{ID: claim, Producer: "source", Epoch: epoch}
}

// numbered starts a run under an epoch.
func (s *scene) numbered(taskID string, claim taskbridge.Claim) taskbridge.NumberedRun {
	s.t.Helper()
	run, ok := s.start(taskID, claim).(taskbridge.NumberedRun)
	if !ok {
		s.t.Fatalf("the run of %+v is no NumberedRun", claim)
	}
	return run
}

// numberedTask makes a row and starts a run of the claim "claim" under the epoch.
func (s *scene) numberedTask() (id string, run taskbridge.NumberedRun) {
	s.t.Helper()
	id = s.accepted().ID
	return id, s.numbered(id, source("claim", epoch))
}

// said is a message under an ordinal.
func said(ordinal int64, text string) taskbridge.Report {
	return taskbridge.Report{Ordinal: ordinal, Message: &taskbridge.Message{Text: text}}
}

func saying(text string) string { return fmt.Sprintf(`TASK_MESSAGE {"message":%q}`, text) }

// recorded makes a call that must succeed whole, and returns its sequence number.
func (s *scene) recorded(run taskbridge.NumberedRun, reports ...taskbridge.Report) int64 {
	s.t.Helper()
	reported, err := run.Report(s.ctx, reports)
	s.must("Report", err)
	if len(reported.Refused) > 0 {
		s.t.Fatalf("refused: %v", reported.Refused)
	}
	return reported.Sequence
}

// tried is the error of a call with reports.
func (s *scene) tried(run taskbridge.NumberedRun, reports ...taskbridge.Report) error {
	_, err := run.Report(s.ctx, reports)
	return err
}

func numberedRepeat(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.numberedTask()
	second := s.numbered(id, source("claim", epoch))
	if first.Attempt() != 1 || second.Attempt() != 1 {
		t.Fatalf("attempts %d and %d, want 1", first.Attempt(), second.Attempt())
	}
	if at := s.recorded(first, said(1, "one")); at != 2 {
		t.Errorf("the first report is event %d, want 2", at)
	}
	if at := s.recorded(second, said(1, "one")); at != 2 {
		t.Errorf("repeated it is event %d, want 2", at)
	}
	if at := s.recorded(second, said(2, "two"), said(3, "three")); at != 4 {
		t.Errorf("the third report is event %d, want 4", at)
	}
	s.recorded(first, said(2, "two"))
	if at := s.recorded(first, said(3, "three"), said(4, "four")); at != 5 {
		t.Errorf("the fourth report is event %d, want 5", at)
	}
	third := s.numbered(id, source("claim", epoch))
	for i, text := range []string{"one", "two", "three", "four", "five"} {
		s.recorded(third, said(int64(i+1), text))
	}
	s.must("Close", third.Close())
	s.live(first)
	s.expect(id, "TASK_STARTED", saying("one"), saying("two"), saying("three"), saying("four"), saying("five"))
}

func numberedTogether(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id := s.accepted().ID
	const runs, reports = 6, 15
	want := []string{"TASK_STARTED"}
	for n := range reports {
		want = append(want, saying(fmt.Sprint("report ", n+1)))
	}
	var errs [runs]error
	together(runs, func(i int) {
		run, err := s.lifecycle.Start(s.ctx, id, source("claim", epoch))
		if err != nil {
			errs[i] = err
			return
		}
		for n := range reports {
			_, err := run.(taskbridge.NumberedRun).Report(s.ctx, []taskbridge.Report{said(int64(n+1), fmt.Sprint("report ", n+1))})
			errs[i] = errors.Join(errs[i], err)
		}
		errs[i] = errors.Join(errs[i], run.Close())
	})
	s.must("the reports", errors.Join(errs[:]...))
	s.expect(id, want...)
}

func numberedMany(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	if at := s.recorded(run); at != 0 {
		t.Errorf("a call of none is event %d", at)
	}
	const most = 1<<53 - 2000
	s.recorded(run, said(7, "seven"), said(1000, "thousand"), said(most, "most"))
	other := s.numbered(id, source("claim", epoch))
	s.recorded(other, said(7, "seven"))
	s.recorded(other, said(1000, "thousand"), said(most, "most"))
	s.expect(id, "TASK_STARTED", saying("seven"), saying("thousand"), saying("most"))

	id, run = s.numberedTask()
	want := []string{"TASK_STARTED"}
	var reports []taskbridge.Report
	for n := range 2100 {
		reports = append(reports, said(int64(2*n+1), fmt.Sprint(n)))
		want = append(want, saying(fmt.Sprint(n)))
	}
	for range 2 {
		if at := s.recorded(run, reports...); at != int64(len(want)) {
			t.Errorf("the last report is event %d, want %d", at, len(want))
		}
	}
	s.expect(id, want...)
}

func numberedText(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	token := func(ordinal int64, text string) taskbridge.Report {
		return taskbridge.Report{Ordinal: ordinal, Token: &text, Verify: taskbridge.VerifyDuplicate}
	}
	reports := []taskbridge.Report{token(1, "so"), token(2, "me "), said(3, "and"), token(4, "\xe9\x9b"), token(5, "\xaa")}
	for range 2 {
		s.recorded(run, reports...)
	}
	s.expect(id, "TASK_STARTED", saying("some "), saying("and"), saying("雪"))
}

func numberedJoins(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	s.must("Close", run.Close())
	before := s.row(id)
	written := errors.New("the row is written")
	f.arm(faultStep{"row", false}, 0, 1<<30, written)
	s.untouched("starts that join", id, func() {
		for n := range int64(3) {
			run := s.numbered(id, source("claim", epoch+n))
			if run.Task().Revision != before.Revision && !h.Remote {
				t.Errorf("the row is at revision %d, want %d", run.Task().Revision, before.Revision)
			}
			s.must("Close", run.Close())
		}
	})
	select {
	case <-f.fired:
		t.Error("a start that joins has written the row")
	default:
	}
}

func numberedFences(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, low := s.numberedTask()
	other := s.numbered(id, taskbridge.Claim{ID: "claim", Producer: "other", Epoch: 1})
	plain := s.start(id, taskbridge.Claim{ID: "claim", Producer: "plain"})
	s.recorded(low, said(1, "low"))
	high := s.numbered(id, source("claim", epoch+1))
	s.recorded(low, said(2, "not fenced yet"))
	s.recorded(high, said(1, "high"))
	s.refused("a report of the lower epoch", s.tried(low, said(3, "fenced")), taskbridge.ErrStaleProducer)
	s.over(low, taskbridge.ErrStaleProducer)
	s.refused("a report of a start of the lower epoch", s.tried(s.numbered(id, source("claim", epoch)), said(1, "low")), taskbridge.ErrStaleProducer)
	s.recorded(other, said(1, "other"))
	s.must("Message", plain.Message(s.ctx, taskbridge.Message{Text: "plain"}))
	s.recorded(high, said(2, "higher"))
	s.expect(id, "TASK_STARTED", saying("low"), saying("not fenced yet"), saying("high"), saying("other"), saying("plain"), saying("higher"))
}

func numberedOtherClaim(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, first := s.numberedTask()
	s.recorded(first, said(1, "first"))
	second := s.numbered(id, source("second", epoch+1))
	if second.Attempt() != 2 {
		t.Fatalf("the attempt is %d, want 2", second.Attempt())
	}
	s.over(first, taskbridge.ErrStaleAttempt)
	s.refused("a report of the fenced claim", s.tried(first, said(2, "late")), taskbridge.ErrStaleAttempt)
	_, err := s.lifecycle.Start(s.ctx, id, source("claim", epoch+2))
	s.refused("a start of the fenced claim", err, taskbridge.ErrStaleAttempt)
	s.recorded(second, said(1, "second"))
	s.expect(id, "TASK_STARTED", saying("first"), "TASK_MESSAGE", saying("second"))
}

func numberedUnnumbered(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	for _, c := range reports(run)[:3] {
		s.refused(c.name, c.do(s.ctx), taskbridge.ErrInvalidArgument)
	}
	s.live(run)
	s.expect(id, "TASK_STARTED")
}

func numberedSuspendEnd(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	other := s.numbered(id, source("claim", epoch))
	one, two := suspension("one"), suspension("two")
	s.must("Suspend", run.Suspend(s.ctx, one))
	s.must("Suspend", other.Suspend(s.ctx, one))
	for range 2 {
		s.recorded(run, said(1, "m"), taskbridge.Report{Ordinal: 2, Suspension: &two})
	}
	another := suspension("two")
	another.ReasonCode = "ANOTHER"
	s.refused("another suspension", s.tried(run, taskbridge.Report{Ordinal: 3, Suspension: &another}), taskbridge.ErrInvalidArgument)
	end := outcome(taskbridge.StatusFailed)
	s.recorded(run, said(3, "last"), taskbridge.Report{Ordinal: 4, Outcome: &end})
	s.over(run, taskbridge.ErrTaskFinished)
	s.recorded(run, said(3, "last"), taskbridge.Report{Ordinal: 4, Outcome: &end})
	s.recorded(other, taskbridge.Report{Ordinal: 1, Outcome: &end})
	s.must("Fail", run.Fail(s.ctx, end.Failure))
	completed := outcome(taskbridge.StatusCompleted)
	s.refused("another end", s.tried(run, taskbridge.Report{Ordinal: 5, Outcome: &completed}), taskbridge.ErrTaskFinished)
	s.expect(id, "TASK_STARTED", "TASK_SUSPENDED", saying("m"), "TASK_SUSPENDED", saying("last"), "TASK_FAILED")

	id, run = s.numberedTask()
	s.recorded(run, said(1, "m"))
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.over(run, taskbridge.ErrTaskFinished)
	s.expect(id, "TASK_STARTED", saying("m"), "TASK_COMPLETED")
}

func numberedEnded(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	s.recorded(run, said(1, "one"))
	s.must("Settle", s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed)))
	s.refused("a report", s.tried(run, said(2, "two")), taskbridge.ErrTaskFinished)
	_, err := s.lifecycle.Start(s.ctx, id, source("claim", epoch))
	s.refused("Start", err, taskbridge.ErrNotRunnable)
	s.expect(id, "TASK_STARTED", saying("one"), "TASK_FAILED")
}

func numberedClosed(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.numberedTask()
	_, err := run.Report(cancelled(), []taskbridge.Report{said(1, "m")})
	s.refused("a report whose context has ended", err, context.Canceled)
	s.must("Close", run.Close())
	s.must("Close", run.Close())
	s.refused("a report", s.tried(run, said(1, "m")), taskbridge.ErrClosed)
	s.over(run, taskbridge.ErrClosed)
	s.expect(id, "TASK_STARTED")
}

func numberedRefusals(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{EventPayload: 500}})
	id := s.accepted().ID
	for _, claim := range []taskbridge.Claim{source("claim", -1), source("claim", 1<<53), {ID: "claim", Epoch: 1}} {
		s.untouched("the refused start", id, func() {
			_, err := s.lifecycle.Start(s.ctx, id, claim)
			s.refused(fmt.Sprintf("Start of %+v", claim), err, taskbridge.ErrInvalidArgument)
		})
	}
	run := s.numbered(id, source("claim", 1<<53-1))
	long := make([]byte, 500)
	for i := range long {
		long[i] = 'x'
	}
	end := outcome(taskbridge.StatusCompleted)
	checked := said(2, "m")
	checked.Verify, checked.Since = "perhaps", 0
	negative := said(2, "m")
	negative.Verify, negative.Since = taskbridge.VerifyAlways, -1
	alone := said(2, "m")
	alone.Since = 1
	for name, bad := range map[string]taskbridge.Report{
		"nothing":                    {Ordinal: 2},
		"no ordinal":                 said(0, "m"),
		"the ordinal before":         said(1, "m"),
		"an ordinal over the limit":  said(1<<53, "m"),
		"text over the limit":        said(2, string(long)),
		"progress over 100":          {Ordinal: 2, Progress: &taskbridge.Progress{Percent: 101}},
		"an end that is not last":    {Ordinal: 2, Outcome: &end},
		"an end that is verified":    {Ordinal: 2, Outcome: &end, Verify: taskbridge.VerifyDuplicate},
		"an unknown verification":    checked,
		"a negative sequence number": negative,
		"since without verification": alone,
	} {
		s.untouched(name, id, func() {
			err := s.tried(run, said(1, "first"), bad, said(3, "third"))
			var refused *taskbridge.ReportError
			if !errors.As(err, &refused) || refused.Index != 1 {
				t.Errorf("%s: %v", name, err)
			}
			s.refused(name, err, taskbridge.ErrInvalidArgument, taskbridge.ErrPayloadTooLarge)
		})
	}
	s.live(run)
	s.recorded(run, said(1, "first"))
	s.expect(id, "TASK_STARTED", saying("first"))
}

func numberedFull(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{StreamEvents: 3}})
	id, run := s.numberedTask()
	for range 2 {
		reported, err := run.Report(s.ctx, []taskbridge.Report{said(1, "one"), said(2, "two"), said(3, "three"), said(4, "four")})
		s.must("Report", err)
		var refused []int64
		for _, r := range reported.Refused {
			refused = append(refused, r.Ordinal)
			s.refused("the report", r.Err, taskbridge.ErrStreamFull)
		}
		if !slices.Equal(refused, []int64{3, 4}) || reported.Sequence != 3 {
			t.Errorf("refused %v, event %d; want 3 and 4, event 3", refused, reported.Sequence)
		}
	}
	end := outcome(taskbridge.StatusCompleted)
	if reported, err := run.Report(s.ctx, []taskbridge.Report{said(5, "five"), {Ordinal: 6, Outcome: &end}}); err != nil || len(reported.Refused) != 1 {
		t.Errorf("an end behind a refused report: %+v, %v", reported, err)
	}
	s.expect(id, "TASK_STARTED", saying("one"), saying("two"), "TASK_COMPLETED")
}

func numberedFaults(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{})
	for _, verify := range []taskbridge.Verification{"", taskbridge.VerifyDuplicate, taskbridge.VerifyAlways} {
		for _, step := range faultSteps {
			for skip := range 3 {
				id, run := s.numberedTask()
				reports := []taskbridge.Report{said(1, "same"), said(2, "same"), said(3, "other")}
				for i := range reports {
					reports[i].Verify = verify
				}
				f.arm(step, skip, 1, errPassing)
				var err error
				for range 3 {
					if err = s.tried(run, reports...); !errors.Is(err, errPassing) {
						break
					}
					// Somebody else does, who knows nothing of the first.
					run = s.numbered(id, source("claim", epoch))
				}
				f.disarm()
				s.must(fmt.Sprintf("Report with verification %q, fault %v, after %d calls", verify, step, skip), err)
				s.expect(id, "TASK_STARTED", saying("same"), saying("same"), saying("other"))
			}
		}
	}
}
