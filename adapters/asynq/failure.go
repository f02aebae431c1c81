package asynqadapter

import (
	"errors"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Codes of failures, stable. The first five are recorded by the worker, the
// others by the server, which finds them by inspection.
const (
	// CodeHandlerError: the handler returned an error that wraps asynq.SkipRetry,
	// or its task has no retries at all.
	CodeHandlerError = "ASYNQ_HANDLER_ERROR"
	// CodeHandlerPanic: the handler panicked in the last attempt.
	CodeHandlerPanic = "ASYNQ_HANDLER_PANIC"
	// CodeTimedOut: the last attempt ran longer than its time-out.
	CodeTimedOut = "ASYNQ_TIMED_OUT"
	// CodeDeadlineExceeded: the task was not done by its deadline.
	CodeDeadlineExceeded = "ASYNQ_DEADLINE_EXCEEDED"
	// CodeInvalidResult: what the handler returned cannot be a result.
	CodeInvalidResult = "ASYNQ_INVALID_RESULT"
	// CodeRetriesExhausted: the last of several attempts failed.
	CodeRetriesExhausted = "ASYNQ_RETRIES_EXHAUSTED"
	// CodeLeaseExpired: the worker died and asynq does not run the task again.
	CodeLeaseExpired = "ASYNQ_LEASE_EXPIRED"
	// CodeArchived: the task was archived before its retries were used up.
	CodeArchived = "ASYNQ_ARCHIVED"
	// CodeDeleted: the task was deleted from its queue, or Redis has lost it.
	CodeDeleted = "ASYNQ_DELETED"
	// CodeSkipped: a worker took the task off its queue without running it.
	CodeSkipped = "ASYNQ_SKIPPED"
)

// Failure is an error that says how its task fails, should it be the last
// attempt. Whether asynq tries again is decided as ever: it does, while retries
// are left, unless the error wraps asynq.SkipRetry.
type Failure interface {
	error
	// TaskFailure returns the failure. An empty code means the default; an empty
	// message the text of the whole error.
	TaskFailure() taskbridge.Failure
}

// Fail makes a [Failure] that is not tried again: it wraps asynq.SkipRetry.
func Fail(code, message string, retryable bool) error {
	return &failed{taskbridge.Failure{Code: code, Message: message, Retryable: retryable}}
}

type failed struct{ failure taskbridge.Failure }

func (f *failed) Error() string                   { return f.failure.Code + ": " + f.failure.Message }
func (f *failed) TaskFailure() taskbridge.Failure { return f.failure }
func (f *failed) Unwrap() error                   { return asynq.SkipRetry }

// mostCode is how many bytes of a code are recorded: one beyond the limit of an
// event would keep the task from ending.
const mostCode = 255

// failureOf makes the task's failure of a handler's error.
func failureOf(err error, retries bool) taskbridge.Failure {
	skipped := !mayRetry(err)
	// What asynq would have tried again may go well in a new task.
	failure := taskbridge.Failure{Code: CodeHandlerError, Message: err.Error(), Retryable: !skipped}
	if retries && !skipped {
		failure.Code = CodeRetriesExhausted
	}
	var own Failure
	if errors.As(err, &own) {
		f := own.TaskFailure()
		failure.Retryable = f.Retryable
		if f.Code != "" {
			failure.Code = cutTo(f.Code, mostCode)
		}
		if f.Message != "" {
			failure.Message = f.Message
		}
	}
	return failure
}

// mayRetry reports whether asynq tries again after the error, if retries are left.
func mayRetry(err error) bool {
	return !errors.Is(err, asynq.SkipRetry) && !errors.Is(err, asynq.RevokeTask)
}
