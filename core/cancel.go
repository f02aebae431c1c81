package taskbridge

import (
	"context"
	"errors"
	"time"
)

// TaskCancellationService records that a client wants a task to stop. Safe for
// concurrent use.
type TaskCancellationService struct{ *base }

// CancelTask records the intent and asks the executor; it does not wait for
// the work. A task that nobody has begun to submit ends CANCELLED at once. The
// first reason counts; an empty one means "cancelled by client". The row as it
// is after the call is returned; alreadyTerminal says that the task had ended
// before it.
//
// Errors: [ErrForbidden], [ErrTaskNotFound], [*SizeError] (a reason over the
// limit of an event). That the executor cannot be reached is no error: the
// [Reconciler] asks again.
func (s *TaskCancellationService) CancelTask(ctx context.Context, principal Principal, taskID, reason string) (task Task, alreadyTerminal bool, err error) {
	row, err := s.visible(ctx, principal, taskID, PermissionCancel)
	if err != nil {
		return Task{}, false, err
	}
	if reason == "" {
		reason = defaultCancelReason
	}
	reason = text(reason)
	if err := checkSize("reason", cancelled(reason, "", s.limits.EventPayload), s.limits.EventPayload); err != nil {
		return Task{}, false, err
	}
	ended := false
	row, err = s.journal.change(ctx, row, func(row Task) (Task, bool) {
		ended = false
		if alreadyTerminal = row.Status.Terminal(); alreadyTerminal {
			return row, false
		}
		if !row.Cancellation.RequestedAt.IsZero() {
			return row, false
		}
		now := s.journal.now()
		row.Cancellation = Cancellation{RequestedAt: now, Reason: reason}
		if row.Submission.State == SubmissionNone {
			ended = true
			return finished(row, StatusCancelled, cancelled(reason, "", s.limits.TerminalPayload), now), true
		}
		row.Due.Cancellation = now.Add(s.submission.RetryMin)
		return row, true
	})
	if err != nil || alreadyTerminal || ended {
		return row, alreadyTerminal, err
	}
	// While a submission is under way its end asks; before, "not found" would
	// prove nothing.
	if row.Submission.State == SubmissionRecorded {
		s.askToCancel(context.WithoutCancel(ctx), row, s.submission.CancelTimeout)
	}
	return row, false, nil
}

// askToCancel passes a recorded intent on. A failure is logged only: the
// reconciler asks again until the task has ended.
func (b *base) askToCancel(ctx context.Context, row Task, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	executor, err := b.executors.Executor(row.Type)
	if err == nil {
		var done func(error)
		ctx, done = begin(ctx, b.observer, row.operation(OperationCancel))
		err = executor.RequestCancellation(ctx, row, row.Cancellation.Reason)
		done(err)
	}
	if err != nil {
		b.logger.Warn("cancellation not passed on yet", "taskId", row.ID, "error", err)
	}
}

// visible reads a task for a principal: one that it may not see is not there.
func (b *base) visible(ctx context.Context, principal Principal, taskID string, permission Permission) (Task, error) {
	if !b.ownership.Allows(principal, permission) {
		return Task{}, ErrForbidden
	}
	if !ValidTaskID(taskID) {
		return Task{}, ErrTaskNotFound
	}
	row, err := b.journal.load(ctx, taskID)
	switch {
	case errors.Is(err, ErrTaskNotFound):
		return Task{}, ErrTaskNotFound // without what a store may have wrapped round it
	case err != nil:
		return Task{}, err
	case !b.ownership.MayAccess(principal, row.Owner, permission):
		return Task{}, ErrTaskNotFound
	}
	return row, nil
}
