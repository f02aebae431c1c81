package taskbridge

import (
	"context"
	"errors"
	"time"
)

// WorkerService is the server's side of a lifecycle whose work is elsewhere: it
// records what comes in with requests, and keeps nothing between them. Any
// server over the same stores, with the same limits, may answer any request.
// Safe for concurrent use.
type WorkerService struct {
	lifecycle *LocalLifecycle
}

// NewWorkerService makes the service over a lifecycle's stores and limits.
func NewWorkerService(lifecycle *LocalLifecycle) (*WorkerService, error) {
	if lifecycle == nil {
		return nil, errors.New("taskbridge: NewWorkerService needs a lifecycle")
	}
	return &WorkerService{lifecycle}, nil
}

// AttemptRef names one start of one attempt: what a worker holds between its
// requests, in a token that it cannot change.
type AttemptRef struct {
	TaskID   string
	Attempt  int64
	Producer Producer
	// Numbered: the epoch is the claim's own, and not the start's number.
	Numbered bool
}

func (r AttemptRef) check() error {
	if r.Attempt < 1 {
		return argumentErrorf("attempt", "must be 1 or more")
	}
	if r.Producer.Epoch < 1 {
		return argumentErrorf("epoch", "must be 1 or more")
	}
	return validateProducer(r.Producer.Name)
}

// over says why nothing more can be reported under the reference, nil if it can.
func (r AttemptRef) over(row Task) error {
	if !r.Numbered && r.Producer.Epoch > row.Starts {
		// Of a history that the row no longer has: it was restored from a backup.
		// Were it let in, it would fence the starts to come.
		return ErrStaleProducer
	}
	return attemptOver(row, r.Attempt)
}

// Begin is [TaskLifecycle.Start] without a run: it begins or joins the attempt
// that the claim stands for. The row has its input.
func (s *WorkerService) Begin(ctx context.Context, taskID string, claim Claim) (Task, AttemptRef, error) {
	claim, err := claim.checked()
	if err != nil {
		return Task{}, AttemptRef{}, err
	}
	row, err := s.lifecycle.claim(ctx, taskID, claim)
	if err != nil {
		return Task{}, AttemptRef{}, err
	}
	return row, AttemptRef{
		TaskID: taskID, Attempt: row.Attempt,
		Producer: claim.openedBy(row), Numbered: claim.Epoch > 0,
	}, nil
}

// Resume goes on under an earlier start of the claim's attempt, as if there had
// been no break: ordinals go on, and what was sent without an answer can be sent
// again. It changes nothing. [ErrStaleAttempt]: the claim's attempt is not the
// task's any more, or was another one. A task that has ended meanwhile is no
// error: its row is returned, so that the worker can repeat its end.
func (s *WorkerService) Resume(ctx context.Context, ref AttemptRef, claimID string) (Task, error) {
	if err := ref.check(); err != nil {
		return Task{}, err
	}
	row, err := s.lifecycle.journal.load(ctx, ref.TaskID)
	if err != nil {
		return Task{}, err
	}
	if row.Claim != claimID {
		return Task{}, ErrStaleAttempt
	}
	if err := ref.over(row); err != nil && !errors.Is(err, ErrTaskFinished) {
		return Task{}, err
	}
	return row, nil
}

// Report records the reports in their order and returns the row, which tells of
// a cancellation: as it was when the call began or later. A call whose outcome
// is unknown is repeated as it was: what has been recorded is recognised by its
// ordinal. The reports are checked first; if one may not be recorded, nothing
// is: [*ReportError]. [ErrOrdinalReused] in one: see [Verification].
//
// [ErrStaleAttempt], [ErrStaleProducer]: fenced. [ErrTaskFinished]: it has ended,
// and not with the outcome in this call. Progress and messages that a full
// stream refuses are returned as refused; the rest is recorded all the same.
func (s *WorkerService) Report(ctx context.Context, ref AttemptRef, reports []Report) (row Task, reported Reported, err error) {
	if err := ref.check(); err != nil {
		return Task{}, Reported{}, err
	}
	l := s.lifecycle
	plan, err := l.plan(reports)
	if err != nil {
		return Task{}, Reported{}, err
	}
	// One read a call, before the reports: it completes a stream that is behind
	// its row, and nothing is appended to a task that is gone. What changes from
	// here on is told by the next call, or by Await.
	row, err = l.journal.load(ctx, ref.TaskID)
	if err != nil {
		return Task{}, Reported{}, err
	}
	if err := ref.over(row); err != nil && (plan.outcome == nil || !errors.Is(err, ErrTaskFinished)) {
		return row, Reported{}, err
	}
	return l.record(ctx, row, ref, reports, plan)
}

// AwaitRequest says what [WorkerService.Await] waits for.
type AwaitRequest struct {
	// Wait is the longest that the call may take; 0: it answers at once.
	Wait time.Duration
	// CancellationKnown: the worker knows of the cancellation already, and waits
	// for the end of its attempt alone.
	CancellationKnown bool
}

// Await returns the row as soon as a cancellation is requested, and at the
// latest after the wait or when ctx ends; at once with a wait of 0.
// [ErrStaleAttempt] or [ErrTaskFinished] as soon as the attempt can report
// nothing more.
func (s *WorkerService) Await(ctx context.Context, ref AttemptRef, request AwaitRequest) (Task, error) {
	if err := ref.check(); err != nil {
		return Task{}, err
	}
	if request.Wait < 0 {
		return Task{}, argumentErrorf("wait", "must not be negative")
	}
	l := s.lifecycle
	// A wait that is cut short ends with the row as it is, not with an error.
	asking := context.WithoutCancel(ctx)
	look := func() (row Task, news bool, err error) {
		if row, err = l.journal.tasks.GetTask(asking, ref.TaskID); err != nil {
			return Task{}, false, err
		}
		return row, !request.CancellationKnown && !row.Cancellation.RequestedAt.IsZero(), ref.over(row)
	}
	if request.Wait == 0 {
		row, _, err := look()
		return row, err
	}
	wakes := make(chan struct{}, 1)
	// The watch comes before the row is read: no change of it is missed.
	stop, err := l.journal.tasks.WatchTask(asking, ref.TaskID, func() {
		select {
		case wakes <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return Task{}, err
	}
	defer stop()
	limit := l.clock.NewTimer(request.Wait)
	defer limit.Stop()
	for {
		row, news, err := look()
		if err != nil || news {
			return row, err
		}
		again := l.clock.NewTimer(l.backstop)
		select {
		case <-wakes:
			again.Stop()
		case <-again.C():
		case <-limit.C():
			again.Stop()
			return row, nil
		case <-ctx.Done():
			again.Stop()
			return row, nil
		}
	}
}
