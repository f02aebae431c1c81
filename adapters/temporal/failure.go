package temporaladapter

import (
	"errors"
	"reflect"

	"go.temporal.io/sdk/temporal"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Codes of failures, stable. An application error brings its own: its type.
const (
	// CodeFailed: the work failed with an error that has no type of its own.
	CodeFailed = "TEMPORAL_FAILED"
	// CodePanic: an activity panicked, or a workflow whose worker fails on panics.
	CodePanic = "TEMPORAL_PANIC"
	// CodeTimedOut: the workflow, or an activity or child that it did not get
	// over, ran out of time.
	CodeTimedOut = "TEMPORAL_TIMED_OUT"
	// CodeTerminated: somebody terminated it with Temporal's tools.
	CodeTerminated = "TEMPORAL_TERMINATED"
	// CodeCancelled: an activity or child was cancelled, and not by a client.
	CodeCancelled = "TEMPORAL_CANCELLED"
	// CodeUnknownTaskType: a task was rejected since its type is not configured.
	CodeUnknownTaskType = "UNKNOWN_TASK_TYPE"
	// CodeInvalid: a task was rejected since Temporal calls it invalid, or since
	// its arguments cannot be made.
	CodeInvalid = "TEMPORAL_INVALID"
	// CodeTooLarge: a task was rejected since its arguments are too large.
	CodeTooLarge = "TEMPORAL_PAYLOAD_TOO_LARGE"
)

// failureOf makes the task's failure of a workflow's error. It gives the same for
// the error as the worker has it and for what Temporal keeps of it. What wraps
// an activity's or a child's error says where, which is no business of clients.
func failureOf(err error) taskbridge.Failure {
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch typed := e.(type) { //nolint:errorlint // the loop unwraps
		case *temporal.ActivityError, *temporal.ChildWorkflowExecutionError, *temporal.WorkflowExecutionError:
		case *temporal.ApplicationError:
			if !generic(typed.Type()) {
				return taskbridge.Failure{Code: typed.Type(), Message: typed.Message(), Retryable: !typed.NonRetryable()}
			}
		case *temporal.TimeoutError:
			return taskbridge.Failure{Code: CodeTimedOut, Message: "an activity or child workflow ran out of time", Retryable: true}
		case *temporal.PanicError:
			// Neither its value nor the stack: they are for the logs.
			return taskbridge.Failure{Code: CodePanic, Message: "the work panicked"}
		case *temporal.CanceledError:
			return taskbridge.Failure{Code: CodeCancelled, Message: "an activity or child workflow was cancelled", Retryable: true}
		case *temporal.TerminatedError:
			return taskbridge.Failure{Code: CodeTerminated, Message: "a child workflow was terminated", Retryable: true}
		default:
			if name := typeName(e); !generic(name) {
				return taskbridge.Failure{Code: name, Message: e.Error(), Retryable: true}
			}
		}
	}
	return unnamed(err)
}

// unnamed is for an error without any type that says something: the outermost that
// is not only about where it happened.
func unnamed(err error) taskbridge.Failure {
	failure := taskbridge.Failure{Code: CodeFailed, Message: err.Error(), Retryable: true}
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch typed := e.(type) { //nolint:errorlint // the loop unwraps
		case *temporal.ActivityError, *temporal.ChildWorkflowExecutionError, *temporal.WorkflowExecutionError:
			continue
		case *temporal.ApplicationError:
			failure.Message, failure.Retryable = typed.Message(), !typed.NonRetryable()
		default:
			failure.Message = e.Error()
		}
		return failure
	}
	return failure
}

// generic reports whether a type's name says nothing: that of the standard
// library's errors, or none.
func generic(name string) bool {
	switch name {
	case "", "errorString", "wrapError", "wrapErrors", "joinError", "fundamental", "withStack", "withMessage":
		return true
	}
	return false
}

// typeName is the name that Temporal gives to an error of a Go type.
func typeName(err error) string {
	t := reflect.TypeOf(err)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}
