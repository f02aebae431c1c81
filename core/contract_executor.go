package taskbridge

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// TaskExecutor hands tasks over to a runtime. The runtime's side reports
// through a [TaskLifecycle].
//
// Methods are safe for concurrent use, return within their context (one that has
// ended already has no effect) and do not wait for the work. Both are safe to repeat for the same task id, from several
// servers too: the runtime recognises the id. Conformance suite:
// conformance.RunExecutor.
type TaskExecutor interface {
	// SubmitTask hands the task over. nil: the runtime has it (already had it).
	// [*RejectionError] (see [Reject]): it will never take it and nothing was
	// started. Any other error: the outcome is unknown, the work may start; the
	// [Reconciler] asks again.
	SubmitTask(ctx context.Context, task Task) error

	// RequestCancellation asks the runtime to stop the work and returns without
	// waiting. nil does not mean that it has stopped: the task's end is what
	// confirms it. A task that the runtime does not know is nil too. What waits
	// in the runtime and never started is taken out and settled as cancelled.
	RequestCancellation(ctx context.Context, task Task, reason string) error
}

// TaskInspector is implemented by executors that can say what became of a task.
type TaskInspector interface {
	// InspectTask returns what the runtime knows. An error is the same as
	// [InspectionUnknown].
	InspectTask(ctx context.Context, task Task) (Inspection, error)
}

// Inspection is what a runtime knows of a task.
type Inspection struct {
	Knowledge Knowledge
	// Outcome is set for [InspectionFinished].
	Outcome Outcome
}

// Knowledge is the kind of an [Inspection].
type Knowledge int

// The kinds of knowledge.
const (
	// InspectionUnknown: the runtime cannot say now.
	InspectionUnknown Knowledge = iota
	// InspectionAbsent: the runtime certainly does not have the task and no
	// submission that has returned can still make it appear.
	InspectionAbsent
	// InspectionWaiting: the runtime has it and has not begun.
	InspectionWaiting
	// InspectionRunning: the runtime has it at work.
	InspectionRunning
	// InspectionFinished: the work has ended, with Outcome.
	InspectionFinished
	// InspectionGone: the runtime had it and forgot how it ended.
	InspectionGone
)

// HealthChecker is implemented by executors and stores that can say whether
// they can be used now; nil means yes. It returns within its context.
type HealthChecker interface {
	CheckHealth(ctx context.Context) error
}

// TaskResumer is implemented by executors to which an accepted action can be
// handed: it goes back to the suspended work. Safe to repeat for the same
// ActionID.
type TaskResumer interface {
	ResumeTask(ctx context.Context, task Task, action TaskAction) error
}

// TaskAction is a client's accepted answer to a suspension.
type TaskAction struct {
	SuspendID, ActionID, ActionType string
	Payload                         json.RawMessage
	AcceptedAt                      time.Time
}

// InstanceBound is implemented by executors whose tasks run in this process and
// die with it. Their rows carry the instance's id, and while that instance's
// lease is held nobody else touches them.
type InstanceBound interface {
	// InstanceID returns the id of the [Instance] that the executor belongs to.
	InstanceID() string
}

// ExecutorRouter selects the executor of a task by its type. It does not change
// once made.
type ExecutorRouter struct {
	byType map[string]TaskExecutor
}

// NewExecutorRouter makes a router from task types to their executors. A type
// is 1 to 255 bytes of UTF-8.
func NewExecutorRouter(byType map[string]TaskExecutor) (*ExecutorRouter, error) {
	for taskType, executor := range byType {
		if err := validateName("taskType", taskType, maxNameBytes); err != nil {
			return nil, err
		}
		if executor == nil {
			return nil, fmt.Errorf("task type %q: %w", taskType, argumentErrorf("executor", "must not be nil"))
		}
	}
	return &ExecutorRouter{maps.Clone(byType)}, nil
}

// Executor returns the executor of the type, or [ErrUnknownTaskType].
func (r *ExecutorRouter) Executor(taskType string) (TaskExecutor, error) {
	if executor, ok := r.byType[taskType]; ok {
		return executor, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownTaskType, taskType)
}

// Types returns the task types, sorted.
func (r *ExecutorRouter) Types() []string {
	return slices.Sorted(maps.Keys(r.byType))
}

// SubmissionTokens makes submission tokens: what an executor hands to the
// runtime with a task, so that a worker elsewhere may start it over the worker
// API and do nothing else. Safe for concurrent use, and quick.
type SubmissionTokens interface {
	SubmissionToken(taskID string) (string, error)
}
