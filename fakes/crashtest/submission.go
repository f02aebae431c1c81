package crashtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

var errAway = errors.New("the runtime does not answer")

// noInspector leaves of an executor what every executor has.
type noInspector struct{ taskbridge.TaskExecutor }

// submissionCase is one way in which a runtime fails to do what it should.
type submissionCase struct {
	name string
	run  func(s *submissionStory)
}

// submissionStory is one process over a scripted runtime, and one task.
type submissionStory struct {
	*world
	p       *process
	runtime *fakes.ScriptedExecutor
	id      string
}

// create makes the task; whatever the runtime does, the client is told that it
// is accepted.
func (s *submissionStory) create() {
	s.t.Helper()
	result, err := s.p.create()
	mustNotBe(s.t, err, "create")
	if result.Deduplicated || result.Task.Status != taskbridge.StatusAccepted {
		s.t.Errorf("created %s, deduplicated %v", result.Task.Status, result.Deduplicated)
	}
	s.id = result.Task.ID
}

// pass lets time pass with the reconciler at work.
func (s *submissionStory) pass(d time.Duration) {
	s.t.Helper()
	const step = 10 * time.Second
	for ; d > 0; d -= step {
		s.clock.Advance(step)
		s.p.reconcile()
	}
}

func (s *submissionStory) wantStatus(want taskbridge.TaskStatus) {
	s.t.Helper()
	if row := s.row(s.id); row.Status != want {
		s.t.Errorf("after %s the task is %s %s, want %s", s.clock.Now().Sub(start), row.Status, row.Terminal, want)
	}
}

func (s *submissionStory) wantFailure(code string, retryable bool) {
	s.t.Helper()
	row, _ := s.p.checkEnd(s.id)
	failure, ok := row.Failure()
	if !ok || failure.Code != code || failure.Retryable != retryable {
		s.t.Errorf("the task ended %s %s, want FAILED %s, retryable %v", row.Status, row.Terminal, code, retryable)
	}
	s.p.checkRefused(s.id)
	s.p.checkStaysEnded(s.id)
}

// wantWork starts the work and brings it to its end.
func (s *submissionStory) wantWork(claim string) {
	s.t.Helper()
	run, err := s.p.begin(s.id, claim)
	mustNotBe(s.t, err, "start")
	mustNotBe(s.t, run.Complete(s.p.ctx, taskbridge.Completion{}), "complete")
	row, events := s.p.checkEnd(s.id)
	if row.Status != taskbridge.StatusCompleted || len(events) != 2 {
		s.t.Errorf("the task ended %s: %s", row.Status, ids(events))
	}
	s.p.checkStaysEnded(s.id)
}

func (s *submissionStory) wantSubmits(least, most int) {
	s.t.Helper()
	if n := s.runtime.Submits(s.id); n < least || n > most {
		s.t.Errorf("SubmitTask was called %d times, want %d to %d", n, least, most)
	}
}

// underWay creates the task and does something while SubmitTask is under way.
func (s *submissionStory) underWay(meanwhile func()) {
	s.t.Helper()
	arrived, release := make(chan string, 1), make(chan struct{})
	s.runtime.OnSubmit(func(ctx context.Context, task taskbridge.Task) error {
		select {
		case arrived <- task.ID:
		default: // nobody should call a second time; it is counted
			return nil
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var creation sync.WaitGroup
	creation.Go(func() {
		if _, err := s.p.create(); err != nil {
			s.t.Errorf("create: %v", err)
		}
	})
	s.id = <-arrived
	arrived <- "" // full again
	meanwhile()
	close(release)
	creation.Wait()
}

// answerLost makes the runtime take tasks without saying so.
func (s *submissionStory) answerLost() {
	s.runtime.OnSubmit(func(_ context.Context, task taskbridge.Task) error {
		s.runtime.Take(task.ID)
		return errAway
	})
}

func (s *submissionStory) away() {
	s.runtime.OnSubmit(func(context.Context, taskbridge.Task) error { return errAway })
}

func runSubmissions(t *testing.T, h Harness) {
	deadline, unknownLimit, silence := submission.Deadline, submission.UnknownLimit, submission.Silence
	cases := []submissionCase{
		{"a runtime that is away gets the task when it is back", func(s *submissionStory) {
			s.away()
			s.create()
			s.pass(5 * time.Minute)
			s.wantStatus(taskbridge.StatusAccepted)
			s.runtime.OnSubmit(nil)
			s.pass(2 * time.Minute)
			if state := s.row(s.id).Submission.State; state != taskbridge.SubmissionRecorded {
				s.t.Errorf("the submission is %q", state)
			}
			before := s.runtime.Submits(s.id)
			s.pass(time.Minute)
			s.wantSubmits(before, before)
			s.wantWork("first")
		}},
		{"a runtime that never takes the task: SUBMISSION_FAILED at the deadline", func(s *submissionStory) {
			s.away()
			s.create()
			s.pass(deadline - time.Minute)
			s.wantStatus(taskbridge.StatusAccepted)
			s.pass(3 * time.Minute)
			s.wantFailure(taskbridge.CodeSubmissionFailed, true)
			s.wantSubmits(2, 40) // with back-off: a minute at most between two
		}},
		{"a runtime that took the task and could not say so is not given it twice", func(s *submissionStory) {
			s.answerLost()
			s.create()
			s.pass(2 * time.Minute)
			if state := s.row(s.id).Submission.State; state != taskbridge.SubmissionRecorded {
				s.t.Errorf("the submission is %q", state)
			}
			s.wantSubmits(1, 1)
			s.wantWork("first")
		}},
		{"nobody else submits while a submission is under way", func(s *submissionStory) {
			s.underWay(func() {
				other := s.start(outside(s.runtime))
				s.clock.Advance(20 * time.Second) // less than the lease
				other.reconcile()
				s.p.reconcile()
			})
			s.wantSubmits(1, 1)
			if n := s.runtime.Inspections(s.id); n != 0 {
				s.t.Errorf("the runtime was asked %d times about a submission under way", n)
			}
			s.wantWork("first")
		}},
		{"a cancellation while a submission is under way is passed on at its end", func(s *submissionStory) {
			s.underWay(func() {
				row, already, err := s.p.bridge.Cancellation.CancelTask(s.p.ctx, client, s.id, cancelReason)
				if err != nil || already || row.Status != taskbridge.StatusAccepted {
					s.t.Errorf("cancel: %s, already terminal %v, error %v", row.Status, already, err)
				}
				other := s.start(outside(s.runtime))
				s.clock.Advance(20 * time.Second) // less than the lease
				other.reconcile()                 // "absent" would prove nothing now
				s.wantStatus(taskbridge.StatusAccepted)
				if asked := s.runtime.Cancellations(s.id); len(asked) != 0 {
					s.t.Errorf("the runtime was asked to cancel what it may not have yet: %q", asked)
				}
			})
			if asked := s.runtime.Cancellations(s.id); len(asked) != 1 || asked[0] != cancelReason {
				s.t.Errorf("the runtime was asked to cancel: %q", asked)
			}
			if _, err := s.p.begin(s.id, "first"); !refusedToRun(err) {
				s.t.Errorf("the start of a cancelled task: %v, want ErrNotRunnable", err)
			}
			s.wantCancelled()
		}},
		{"work that starts before its submission is recorded records it", func(s *submissionStory) {
			s.answerLost()
			s.create()
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			run, err := s.p.begin(s.id, "first")
			mustNotBe(s.t, err, "start")
			s.pass(deadline + unknownLimit + 5*time.Minute)
			s.wantStatus(taskbridge.StatusRunning)
			mustNotBe(s.t, run.Complete(s.p.ctx, taskbridge.Completion{}), "complete")
			s.p.checkEnd(s.id)
			s.wantSubmits(1, 1)
		}},
		{"a runtime that stays silent until both limits: SUBMISSION_OUTCOME_UNKNOWN", func(s *submissionStory) {
			s.answerLost()
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			s.create()
			s.pass(deadline + 2*time.Minute)
			s.wantStatus(taskbridge.StatusAccepted)
			if _, err := s.p.begin(s.id, "first"); !refusedToRun(err) {
				s.t.Errorf("the start behind the deadline: %v, want ErrNotRunnable", err)
			}
			s.pass(unknownLimit - 3*time.Minute)
			s.wantStatus(taskbridge.StatusAccepted)
			s.pass(3 * time.Minute)
			s.wantFailure(taskbridge.CodeSubmissionOutcomeUnknown, false)
			s.wantSubmits(1, 1)
		}},
		{"an inspection that fails is a silent runtime", func(s *submissionStory) {
			s.answerLost()
			s.runtime.OnInspect(func(context.Context, taskbridge.Task) (taskbridge.Inspection, error) {
				return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, errAway
			})
			s.create()
			s.pass(deadline + unknownLimit + 2*time.Minute)
			s.wantFailure(taskbridge.CodeSubmissionOutcomeUnknown, false)
			s.wantSubmits(1, 1)
		}},
		{"a late success is recorded and the bar lifted", func(s *submissionStory) {
			s.answerLost()
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			s.create()
			s.pass(deadline + 2*time.Minute)
			if !s.row(s.id).Submission.Barred {
				s.t.Error("the submission is not barred behind its deadline")
			}
			s.runtime.AnswerInspections(taskbridge.InspectionWaiting)
			s.pass(2 * time.Minute)
			if submission := s.row(s.id).Submission; submission.Barred || submission.State != taskbridge.SubmissionRecorded {
				s.t.Errorf("the submission is %+v", submission)
			}
			s.wantSubmits(1, 1)
			s.wantWork("first")
		}},
		{"a runtime that proves late that it never had the task: SUBMISSION_FAILED", func(s *submissionStory) {
			s.away()
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			s.create()
			s.pass(deadline + 2*time.Minute)
			s.wantStatus(taskbridge.StatusAccepted)
			s.runtime.AnswerInspections(taskbridge.InspectionAbsent)
			s.pass(2 * time.Minute)
			s.wantFailure(taskbridge.CodeSubmissionFailed, true)
			s.wantSubmits(1, 1)
		}},
		{"a runtime that rejects the task when it is back", func(s *submissionStory) {
			s.away()
			s.create()
			s.runtime.OnSubmit(func(context.Context, taskbridge.Task) error {
				return taskbridge.Reject("UNSUITABLE", "not here", false)
			})
			s.pass(2 * time.Minute)
			s.wantFailure("UNSUITABLE", false)
		}},
		{"a runtime that forgets a task which waited: EXECUTOR_LOST", func(s *submissionStory) {
			s.create()
			s.pass(2 * silence)
			s.wantStatus(taskbridge.StatusAccepted)
			s.runtime.AnswerInspections(taskbridge.InspectionGone)
			s.pass(3 * silence)
			s.wantFailure(taskbridge.CodeExecutorLost, true)
			s.wantSubmits(1, 1)
		}},
		{"a runtime that forgets a task which ran: EXECUTOR_LOST", func(s *submissionStory) {
			s.create()
			run, err := s.p.begin(s.id, "first")
			mustNotBe(s.t, err, "start")
			s.runtime.AnswerInspections(taskbridge.InspectionRunning)
			s.pass(3 * silence)
			s.wantStatus(taskbridge.StatusRunning)
			s.runtime.AnswerInspections(taskbridge.InspectionGone)
			s.pass(3 * silence)
			if err := run.Progress(s.p.ctx, taskbridge.Progress{Percent: 1}); !errors.Is(err, taskbridge.ErrTaskFinished) {
				s.t.Errorf("a report behind the end: %v, want ErrTaskFinished", err)
			}
			s.wantFailure(taskbridge.CodeExecutorLost, true)
			s.wantSubmits(1, 1)
		}},
		{"a runtime that is silent about running work does not end it", func(s *submissionStory) {
			s.create()
			run, err := s.p.begin(s.id, "first")
			mustNotBe(s.t, err, "start")
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			s.pass(time.Hour)
			s.wantStatus(taskbridge.StatusRunning)
			mustNotBe(s.t, run.Complete(s.p.ctx, taskbridge.Completion{}), "complete")
			s.p.checkEnd(s.id)
		}},
		{"work that reports is not asked about", func(s *submissionStory) {
			s.create()
			run, err := s.p.begin(s.id, "first")
			mustNotBe(s.t, err, "start")
			before := s.runtime.Inspections(s.id)
			for i := range 20 {
				mustNotBe(s.t, run.Progress(s.p.ctx, taskbridge.Progress{Percent: float64(i)}), "report")
				s.pass(silence / 2)
			}
			if n := s.runtime.Inspections(s.id); n != before {
				s.t.Errorf("InspectTask was called %d times", n-before)
			}
		}},
		{"work that finished unseen is settled as the runtime says", func(s *submissionStory) {
			s.create()
			s.runtime.OnInspect(func(context.Context, taskbridge.Task) (taskbridge.Inspection, error) {
				return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: taskbridge.Outcome{
					Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: []byte(`"seen by nobody"`)},
				}}, nil
			})
			s.pass(3 * silence)
			row, events := s.p.checkEnd(s.id)
			if result, ok := row.Result(); !ok || string(result) != `"seen by nobody"` {
				s.t.Errorf("the task ended %s %s", row.Status, row.Terminal)
			}
			if len(events) != 2 || events[0].Type != taskbridge.EventStarted {
				s.t.Errorf("the stream is %s", ids(events))
			}
			s.p.checkRefused(s.id)
		}},
		{"a cancellation that is not confirmed is asked for again", func(s *submissionStory) {
			s.create()
			run, err := s.p.begin(s.id, "first")
			mustNotBe(s.t, err, "start")
			s.runtime.AnswerInspections(taskbridge.InspectionRunning)
			s.runtime.OnCancel(func(context.Context, taskbridge.Task, string) error { return errAway })
			row, already, err := s.p.bridge.Cancellation.CancelTask(s.p.ctx, client, s.id, cancelReason)
			if err != nil || already || row.Status != taskbridge.StatusRunning {
				s.t.Errorf("cancel: %s, already terminal %v, error %v", row.Status, already, err)
			}
			s.pass(5 * time.Minute)
			asked := s.runtime.Cancellations(s.id)
			if len(asked) < 3 || len(asked) > 30 || slices.ContainsFunc(asked, func(reason string) bool { return reason != cancelReason }) {
				s.t.Errorf("the runtime was asked %d times: %q", len(asked), asked)
			}
			mustNotBe(s.t, run.Cancelled(s.p.ctx, ""), "end as cancelled")
			s.wantCancelled()
		}},
		{"a cancelled task that the runtime never had ends CANCELLED", func(s *submissionStory) {
			s.away()
			s.create()
			_, _, err := s.p.bridge.Cancellation.CancelTask(s.p.ctx, client, s.id, cancelReason)
			mustNotBe(s.t, err, "cancel")
			s.pass(2 * time.Minute)
			s.wantCancelled()
			s.wantSubmits(1, 1)
			s.p.checkRefused(s.id)
		}},
		{"a cancelled task of a runtime that stays silent ends CANCELLED behind both limits", func(s *submissionStory) {
			s.answerLost()
			s.runtime.AnswerInspections(taskbridge.InspectionUnknown)
			s.create()
			_, _, err := s.p.bridge.Cancellation.CancelTask(s.p.ctx, client, s.id, cancelReason)
			mustNotBe(s.t, err, "cancel")
			s.pass(deadline + unknownLimit + 2*time.Minute)
			row, _ := s.p.checkEnd(s.id)
			if row.Status != taskbridge.StatusCancelled {
				s.t.Errorf("the task ended %s %s", row.Status, row.Terminal)
			}
			s.p.checkRefused(s.id)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			runtime := fakes.NewScriptedExecutor()
			w := newWorld(t, h)
			c.run(&submissionStory{world: w, p: w.start(outside(runtime)), runtime: runtime})
		})
	}
	t.Run("a runtime that cannot be asked and stays silent: SUBMISSION_OUTCOME_UNKNOWN", func(t *testing.T) {
		runtime := fakes.NewScriptedExecutor()
		w := newWorld(t, h)
		s := &submissionStory{world: w, p: w.start(outside(noInspector{runtime})), runtime: runtime}
		s.away()
		s.create()
		s.pass(deadline + unknownLimit - time.Minute)
		s.wantStatus(taskbridge.StatusAccepted)
		s.pass(3 * time.Minute)
		s.wantFailure(taskbridge.CodeSubmissionOutcomeUnknown, false)
	})
}

func (s *submissionStory) wantCancelled() {
	s.t.Helper()
	row, _ := s.p.checkEnd(s.id)
	if row.Status != taskbridge.StatusCancelled || !sameJSON(row.Terminal, []byte(`{"reason":"`+cancelReason+`"}`)) {
		s.t.Errorf("the task ended %s %s", row.Status, row.Terminal)
	}
	s.p.checkStaysEnded(s.id)
}
