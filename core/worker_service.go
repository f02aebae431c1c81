package taskbridge

import (
	"context"
	"errors"
	"time"
)

// WorkerService is the server's side of a lifecycle whose work is elsewhere: it
// records what comes in with requests, and keeps nothing between them. Any
// server over the same stores may answer any request. Safe for concurrent use.
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
	Producer Producer // its epoch is the start's number
}

// Report is one report of a worker. Exactly one field besides Ordinal is set.
type Report struct {
	// Ordinal rises from 1 within the start, gaps allowed.
	Ordinal int64

	Progress *Progress
	Message  *Message
	// Token is a piece of text; consecutive ones of a call become one message.
	Token *string
	// Suspension and Outcome are the last report of a call.
	Suspension *Suspension
	Outcome    *Outcome
}

// RefusedReport is a report that was not recorded and never will be, because
// the stream is full.
type RefusedReport struct {
	Ordinal int64
	Err     error
}

// Begin is [TaskLifecycle.Start] without a run: it begins or joins the attempt
// that the claim stands for. The row has its input.
func (s *WorkerService) Begin(ctx context.Context, taskID string, claim Claim) (Task, AttemptRef, error) {
	return Task{}, AttemptRef{}, errors.ErrUnsupported
}

// Report records the reports in their order and returns the row afterwards,
// which tells of a cancellation. A call whose outcome is unknown is repeated as
// it was: what has been recorded is recognised by its ordinal. The reports are
// checked first; if one may not be recorded, nothing is: [*ReportError].
//
// [ErrStaleAttempt], [ErrStaleProducer]: fenced. [ErrTaskFinished]: it has ended,
// and not with the outcome in this call. Progress and messages that a full
// stream refuses are returned as refused; the rest is recorded all the same.
func (s *WorkerService) Report(ctx context.Context, ref AttemptRef, reports []Report) (row Task, refused []RefusedReport, err error) {
	return Task{}, nil, errors.ErrUnsupported
}

// Await returns the row as soon as a cancellation is requested, and at the
// latest after the wait; at once with a wait of 0. [ErrStaleAttempt] or
// [ErrTaskFinished] as soon as the attempt can report nothing more.
func (s *WorkerService) Await(ctx context.Context, ref AttemptRef, wait time.Duration) (Task, error) {
	return Task{}, errors.ErrUnsupported
}

// ReportError says which report of a call may not be recorded. It wraps an
// [*ArgumentError] or a [*SizeError].
type ReportError struct {
	Index int // in the call's reports, from 0
	Err   error
}

func (e *ReportError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with the report.
func (e *ReportError) Unwrap() error { return e.Err }
