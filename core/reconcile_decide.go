package taskbridge

import (
	"context"
	"errors"
	"fmt"
)

// resubmit goes on with a submission that is not recorded.
func (r *Reconciler) resubmit(ctx context.Context, row Task) error {
	now := r.journal.now()
	if row.Submission.State == SubmissionClaimed && now.Before(row.Submission.LeaseUntil) {
		return r.postpone(ctx, row, row.Submission.LeaseUntil.Sub(now)) // somebody is at it
	}
	inspection := r.inspect(ctx, row)
	late := !now.Before(row.Submission.Deadline)
	switch inspection.Knowledge {
	case InspectionWaiting, InspectionRunning:
		return r.recordSubmission(ctx, row)
	case InspectionFinished:
		return r.settle(ctx, row, inspection.Outcome)
	case InspectionGone:
		return r.giveUp(ctx, row, lost("the runtime has forgotten how the task ended"))
	case InspectionAbsent:
		if late {
			return r.giveUp(ctx, row, Outcome{Status: StatusFailed, Failure: Failure{
				Code: CodeSubmissionFailed, Message: "the task could not be handed to its executor in time", Retryable: true,
			}})
		}
		return r.submitAgain(ctx, row)
	case notInspected:
		// Submitting is safe to repeat for as long as the runtime remembers the
		// id, which the deadline is shorter than.
		if !late {
			return r.submitAgain(ctx, row)
		}
	}
	switch {
	case !late:
		return r.postponeSubmission(ctx, row, false)
	case now.Before(row.Submission.Deadline.Add(r.submission.UnknownLimit)):
		return r.postponeSubmission(ctx, row, true)
	}
	return r.giveUp(ctx, row, Outcome{Status: StatusFailed, Failure: Failure{
		Code:    CodeSubmissionOutcomeUnknown,
		Message: "the executor did not say whether it has the task; its work will not be started",
	}})
}

// submitAgain claims the submission and repeats it under the same task id.
func (r *Reconciler) submitAgain(ctx context.Context, row Task) error {
	executor, err := r.executors.Executor(row.Type)
	if err != nil {
		r.logger.Error("accepted task has no executor", "taskId", row.ID, "error", err)
		if !r.journal.now().Before(row.Submission.Deadline) {
			return r.giveUp(ctx, row, Outcome{Status: StatusFailed, Failure: Failure{
				Code: CodeSubmissionFailed, Message: "no executor is configured for the task's type", Retryable: true,
			}})
		}
		if row.Submission.State == SubmissionRecorded { // with an instance that is gone
			return r.postpone(ctx, row, r.submission.RetryMax)
		}
		return r.postponeSubmission(ctx, row, false)
	}
	revision, won := row.Revision, false
	row, err = r.journal.change(ctx, row, func(row Task) (Task, bool) {
		// Only the row that was looked at: any change of it may be somebody
		// else's submission, a start or a cancellation.
		won = row.Revision == revision
		now := r.journal.now()
		if row.Submission.State == SubmissionRecorded { // with an instance that is gone: a new hand-over
			row.Submission.Deadline = now.Add(r.submission.Deadline)
		}
		row.Submission.Barred = false
		return r.claimed(row, executor, now), won
	})
	if err != nil || !won {
		return err
	}
	_, err = r.submit(ctx, row, executor)
	if errors.Is(err, ErrSubmissionRejected) {
		return nil // it is in the row
	}
	return err
}

// recordSubmission records that the executor has the task, and lifts the bar.
func (r *Reconciler) recordSubmission(ctx context.Context, row Task) error {
	row, err := r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() || row.Submission.State == SubmissionRecorded {
			return row, false
		}
		return submitted(row, r.journal.now().Add(r.submission.Silence)), true
	})
	if err == nil && !row.Status.Terminal() && !row.Cancellation.RequestedAt.IsZero() {
		r.askToCancel(ctx, row, r.submission.Timeout)
	}
	return err
}

// postponeSubmission waits for the runtime, with back-off. With bar the work may
// no longer start.
func (r *Reconciler) postponeSubmission(ctx context.Context, row Task, bar bool) error {
	revision := row.Revision
	_, err := r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() || row.Submission.State == SubmissionRecorded || row.Revision != revision {
			return row, false // a change since may be somebody else's claim
		}
		row.Submission.Tries++
		row.Submission.Barred = row.Submission.Barred || bar
		row.Due.Submission = r.journal.now().Add(r.backOff(row.Submission.Tries))
		return row, true
	})
	return err
}

// cancel goes on with a cancellation that has not ended the task.
func (r *Reconciler) cancel(ctx context.Context, row Task) error {
	now := r.journal.now()
	underWay := row.Submission.State == SubmissionClaimed && now.Before(row.Submission.LeaseUntil)
	if underWay {
		// Until its end nothing that the runtime says is a proof.
		return r.postpone(ctx, row, row.Submission.LeaseUntil.Sub(now))
	}
	cancelled := Outcome{Status: StatusCancelled}
	if row.Submission.State == SubmissionNone {
		return r.giveUp(ctx, row, cancelled)
	}
	inspection := r.inspect(ctx, row)
	switch inspection.Knowledge {
	case InspectionFinished:
		return r.settle(ctx, row, inspection.Outcome)
	case InspectionAbsent, InspectionGone:
		return r.giveUp(ctx, row, cancelled)
	}
	if row.Submission.State != SubmissionRecorded && !now.Before(row.Submission.Deadline.Add(r.submission.UnknownLimit)) {
		cancelled.Message = "the executor did not say whether it has the task; its work will not be started"
		return r.giveUp(ctx, row, cancelled)
	}
	r.askToCancel(ctx, row, r.submission.Timeout)
	_, err := r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() {
			return row, false
		}
		row.Cancellation.Tries++
		row.Due.Cancellation = r.journal.now().Add(r.backOff(row.Cancellation.Tries))
		// The cancellation looks after all that the others would.
		row.Due.Submission, row.Due.Inspection = row.Due.Cancellation, row.Due.Cancellation
		return row, true
	})
	return err
}

// inspectSilent asks about a task of which nothing was heard for a while.
func (r *Reconciler) inspectSilent(ctx context.Context, row Task) error {
	now := r.journal.now()
	state, err := r.journal.events.StreamState(ctx, row.ID)
	if err != nil {
		return fmt.Errorf("read stream state: %w", err)
	}
	heard := row.CreatedAt
	if state.LastAt.After(heard) {
		heard = state.LastAt
	}
	if quietUntil := heard.Add(r.submission.Silence); now.Before(quietUntil) {
		return r.postpone(ctx, row, quietUntil.Sub(now))
	}
	inspection := r.inspect(ctx, row)
	switch inspection.Knowledge {
	case InspectionFinished:
		return r.settle(ctx, row, inspection.Outcome)
	case InspectionAbsent, InspectionGone:
		if row.Status == StatusAccepted && row.Instance != "" {
			return r.submitAgain(ctx, row) // it never started, and only could in this process
		}
		return r.giveUp(ctx, row, lost("the runtime has lost the task"))
	}
	return r.postpone(ctx, row, r.submission.Silence)
}
