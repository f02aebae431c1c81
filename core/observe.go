package taskbridge

import (
	"context"
	"regexp"
)

// Observer is told what the services do, for metrics and traces. Implementations
// are safe for concurrent use and quick; they decide nothing.
type Observer interface {
	// Begin is called when an operation begins. It returns the context for what
	// the operation calls, and a function that is called once when it has ended,
	// with its error.
	Begin(ctx context.Context, operation Operation) (context.Context, func(error))
}

// Operation is what an [Observer] is told of.
type Operation struct {
	Kind OperationKind
	// TaskID is empty for a task that is being created.
	TaskID, TaskType string
	// Traceparent is the W3C trace context that the task was created under.
	Traceparent string
	// Event is the type of event that is appended, or of the end that is
	// recorded; empty for other kinds.
	Event EventType
}

// OperationKind says what is done.
type OperationKind string

// The kinds of operation.
const (
	OperationCreate  OperationKind = "create"  // CreateTask
	OperationSubmit  OperationKind = "submit"  // a call of SubmitTask
	OperationCancel  OperationKind = "cancel"  // a call of RequestCancellation
	OperationStart   OperationKind = "start"   // the start of an attempt
	OperationAppend  OperationKind = "append"  // the append of a report
	OperationEnd     OperationKind = "end"     // the end of a task, whoever records it
	OperationDeliver OperationKind = "deliver" // a read for all live subscribers of a task
	OperationInspect OperationKind = "inspect" // a question to an executor
)

// begin tells an observer, which may be nil.
func begin(ctx context.Context, observer Observer, operation Operation) (context.Context, func(error)) {
	if observer == nil {
		return ctx, func(error) {}
	}
	return observer.Begin(ctx, operation)
}

// operation describes something that is done to a task.
func (t Task) operation(kind OperationKind) Operation {
	return Operation{Kind: kind, TaskID: t.ID, TaskType: t.Type, Traceparent: t.Traceparent}
}

// traceparentPattern is the form that version 00 of W3C Trace Context gives; a
// later version begins the same.
var traceparentPattern = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// validTraceparent returns s if it is a traceparent, else nothing: tracing is
// never a reason to refuse a task.
func validTraceparent(s string) string {
	if !traceparentPattern.MatchString(s) {
		return ""
	}
	return s
}
