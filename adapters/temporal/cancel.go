package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// RequestCancellation asks the work to stop: by Temporal's cancellation or the
// type's signal, and after the type's grace by terminating it. What no worker has
// begun is terminated and settled as cancelled.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, reason string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cancel, otherwise := e.cancelWorkflow, e.cancelActivity
	if e.standsAlone(task.Type) {
		cancel, otherwise = otherwise, cancel
	}
	err := cancel(ctx, task, reason)
	var (
		missing *serviceerror.NotFound
		over    *serviceerror.FailedPrecondition
	)
	if errors.As(err, &missing) { // before its type moved, perhaps
		err = otherwise(ctx, task, reason)
	}
	if err == nil || errors.As(err, &missing) || errors.As(err, &over) {
		return nil // it does not know the task, has ended it, or was asked before
	}
	return fmt.Errorf("temporal: cancel: %w", errors.Join(err, ctx.Err()))
}

func (e *Executor) cancelWorkflow(ctx context.Context, task taskbridge.Task, reason string) error {
	id := e.Prefix + task.ID
	if task.Attempt == 0 && !task.Cancellation.RequestedAt.IsZero() {
		// From the intent on nothing starts that asks first, so what waits now can
		// only be begun by a worker without the plugin.
		begun, err := e.begun(ctx, id)
		if err != nil {
			return err
		}
		if !begun {
			if err := e.Client.TerminateWorkflow(ctx, id, "", terminateReason(reason)); err != nil {
				return err
			}
			return e.settleCancelled(ctx, task, "it was taken back before it ran")
		}
	}
	if e.graceIsOver(task) {
		// The end is seen like any other; the row's intent makes it a cancellation.
		return e.Client.TerminateWorkflow(ctx, id, "", terminateReason(reason))
	}
	return e.askWorkflow(ctx, task, reason)
}

// askWorkflow asks a workflow to stop in the way of its type.
func (e *Executor) askWorkflow(ctx context.Context, task taskbridge.Task, reason string) error {
	id, signal := e.Prefix+task.ID, e.Types[task.Type].Cancel.Signal
	if signal == "" {
		return e.Client.CancelWorkflowWithOptions(ctx, client.CancelWorkflowOptions{WorkflowID: id, Reason: reason})
	}
	input, err := e.DataConverter.ToPayloads(CancelSignal{TaskID: task.ID, Reason: reason})
	if err != nil {
		return fmt.Errorf("encode the signal: %w", err)
	}
	// Under an id of its own a run gets it once, however often it is repeated.
	_, err = e.Client.WorkflowService().SignalWorkflowExecution(ctx, &workflowservice.SignalWorkflowExecutionRequest{
		Namespace: e.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: id},
		SignalName: signal, Input: input, RequestId: "taskbridge-cancel-" + task.ID,
	})
	return err
}

func terminateReason(reason string) string { return "cancelled by a client of TaskBridge: " + reason }

func (e *Executor) graceIsOver(task taskbridge.Task) bool {
	return e.graceSince(task, task.Cancellation.RequestedAt)
}

func (e *Executor) graceSince(task taskbridge.Task, asked time.Time) bool {
	grace := e.Types[task.Type].Cancel.TerminateAfter
	return grace > 0 && !asked.IsZero() && !e.Clock.Now().Before(asked.Add(grace))
}

// begun reports whether any worker has begun with the workflow: its history, a
// page of which is read, says so for certain.
func (e *Executor) begun(ctx context.Context, workflowID string) (bool, error) {
	events := e.Client.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return false, err
		}
		switch event.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			started := event.GetWorkflowExecutionStartedEventAttributes()
			if started.GetAttempt() > 1 || started.GetContinuedExecutionRunId() != "" {
				return true, nil // an earlier run has
			}
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED:
			return true, nil
		}
	}
	return false, nil
}

func (e *Executor) cancelActivity(ctx context.Context, task taskbridge.Task, reason string) error {
	handle := e.Client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: e.Prefix + task.ID})
	if task.Attempt == 0 && !task.Cancellation.RequestedAt.IsZero() {
		description, err := handle.Describe(ctx, client.DescribeActivityOptions{})
		if err != nil {
			return err
		}
		if description.Status == enumspb.ACTIVITY_EXECUTION_STATUS_RUNNING && !activityBegun(description) {
			if err := handle.Terminate(ctx, client.TerminateActivityOptions{Reason: terminateReason(reason)}); err != nil {
				return err
			}
			return e.settleCancelled(ctx, task, "it was taken back before it ran")
		}
	}
	if e.graceIsOver(task) {
		return handle.Terminate(ctx, client.TerminateActivityOptions{Reason: terminateReason(reason)})
	}
	return handle.Cancel(ctx, client.CancelActivityOptions{Reason: reason})
}

func (e *Executor) settleCancelled(ctx context.Context, task taskbridge.Task, message string) error {
	err := e.Lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
	if err == nil || errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	// It is terminated: the next inspection ends the task CANCELLED.
	return fmt.Errorf("record the end: %w", err)
}
