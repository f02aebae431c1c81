package taskbridge

import (
	"errors"
	"fmt"
)

// Errors of the contracts and services, to be matched with [errors.Is]. An
// implementation may wrap them with what it was doing. An error that matches
// none of them means "the outcome is unknown": the operation may or may not
// have taken effect, and every operation of this package is safe to repeat.
var (
	// ErrTaskNotFound: there is no such task, or the caller may not see it.
	ErrTaskNotFound = errors.New("task not found")
	// ErrRevisionConflict: the row has changed since it was read.
	ErrRevisionConflict = errors.New("task row has changed since it was read")
	// ErrIllegalTransition: the status may not change that way.
	ErrIllegalTransition = errors.New("illegal task status transition")
	// ErrTaskFinished: the task has ended, or its stream holds its terminal event.
	ErrTaskFinished = errors.New("task has finished")
	// ErrNotRunnable: the work must not run (the task has ended, is cancelled,
	// is barred, or belongs to another instance). A worker drops the task.
	ErrNotRunnable = errors.New("task is not runnable")
	// ErrStaleAttempt: a newer attempt has been started; this one is fenced.
	ErrStaleAttempt = errors.New("a newer attempt of the task has started")
	// ErrStaleProducer: the same producer has been opened again since, with a
	// higher epoch; this one is fenced.
	ErrStaleProducer = errors.New("a newer epoch of the producer is writing")
	// ErrOrdinalReused: the stream has the report's ordinal, and not with this
	// report. Its source has not repeated itself, and takes a higher epoch.
	ErrOrdinalReused = errors.New("the ordinal was used for another report")
	// ErrStreamFull: the stream has reached its limit of events. The task goes
	// on and its end is still recorded.
	ErrStreamFull = errors.New("event stream is full")
	// ErrPayloadTooLarge: a payload is over its limit.
	ErrPayloadTooLarge = errors.New("payload is over its limit")
	// ErrInvalidArgument: a value breaks the contract; [*ArgumentError] names it.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrInvalidCursor: the text is no event id in form.
	ErrInvalidCursor = errors.New("invalid cursor")
	// ErrEventGap: the cursor names an event that the stream does not have;
	// [*GapError] says what there is.
	ErrEventGap = errors.New("cursor names an event that the stream does not have")
	// ErrIdempotencyConflict: the client request id was used with another payload.
	ErrIdempotencyConflict = errors.New("client request id was used with another payload")
	// ErrUnknownTaskType: no executor is configured for the task type.
	ErrUnknownTaskType = errors.New("unknown task type")
	// ErrForbidden: the principal may not do this at all (create tasks, say).
	ErrForbidden = errors.New("forbidden")
	// ErrSubmissionRejected: the executor turned the task down for good;
	// [*RejectionError] says why.
	ErrSubmissionRejected = errors.New("task was rejected by its executor")
	// ErrClosed: the store, service or run has been closed.
	ErrClosed = errors.New("closed")
	// ErrSlowConsumer: a subscriber has been cut because it did not keep up.
	ErrSlowConsumer = errors.New("subscriber is too slow")
)

// ArgumentError says which value of a call breaks the contract. It matches
// [ErrInvalidArgument].
type ArgumentError struct {
	Field  string // the field's wire name, "clientRequestId" for instance
	Reason string // a clause that continues the field's name: "must not be empty"
}

func (e *ArgumentError) Error() string { return e.Field + " " + e.Reason }

// Is reports whether target is [ErrInvalidArgument].
func (e *ArgumentError) Is(target error) bool { return target == ErrInvalidArgument }

func argumentErrorf(field, format string, args ...any) error {
	return &ArgumentError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// SizeError says which value is over its limit. It matches [ErrPayloadTooLarge].
type SizeError struct {
	Field string // the wire name of the value
	Bytes int    // its size
	Limit int    // the most that is allowed
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, at most %d are allowed", e.Field, e.Bytes, e.Limit)
}

// Is reports whether target is [ErrPayloadTooLarge].
func (e *SizeError) Is(target error) bool { return target == ErrPayloadTooLarge }

// GapError says what a stream holds when a cursor names an event that it does
// not hold. It matches [ErrEventGap].
type GapError struct {
	TaskID string
	// FirstEventID and LastEventID are the ids of the first and the last event
	// that are there; both are empty where the stream is empty.
	FirstEventID, LastEventID string
}

func (e *GapError) Error() string {
	if e.FirstEventID == "" {
		return "the stream does not have the event that the cursor names: it is empty"
	}
	return fmt.Sprintf("the stream does not have the event that the cursor names: it holds %s to %s", e.FirstEventID, e.LastEventID)
}

// Is reports whether target is [ErrEventGap].
func (e *GapError) Is(target error) bool { return target == ErrEventGap }

// RejectionError is returned by [TaskExecutor.SubmitTask] to turn a task down
// for good: nothing was started and repeating the call would not help. It
// matches [ErrSubmissionRejected].
type RejectionError struct {
	// TaskID is filled in by the service that returns the error.
	TaskID string
	// Failure becomes the task's failure.
	Failure Failure
}

func (e *RejectionError) Error() string {
	return fmt.Sprintf("rejected by the executor: %s: %s", e.Failure.Code, e.Failure.Message)
}

// Is reports whether target is [ErrSubmissionRejected].
func (e *RejectionError) Is(target error) bool { return target == ErrSubmissionRejected }

// Reject makes a [*RejectionError] with the given failure code and message.
func Reject(code, message string, retryable bool) error {
	return &RejectionError{Failure: Failure{Code: code, Message: message, Retryable: retryable}}
}
