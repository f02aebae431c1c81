package temporaladapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// InspectTask asks Temporal what became of the task: one request, and one more for
// the result or failure of what has ended. It looks at the latest run alone: an
// earlier one that was retried, continued or reset says nothing about the end.
//
// Work that has begun, and whose task nobody has started, has it started on its
// behalf: see begun.go.
//
// What Temporal does not know was never there if its submission is not recorded,
// since the namespace remembers longer than a submission may be repeated; else it
// is "gone". A second request makes sure that it is not there as what the type was
// before its options changed.
func (e *Executor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return taskbridge.Inspection{}, err
	}
	inspect, otherwise := e.inspectWorkflow, e.inspectActivity
	if e.standsAlone(task.Type) {
		inspect, otherwise = otherwise, inspect
	}
	inspection, err := inspect(ctx, task)
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) { // before its type moved, perhaps
		inspection, err = otherwise(ctx, task)
	}
	switch {
	case errors.As(err, &missing) && task.Submission.State != taskbridge.SubmissionRecorded:
		return known(taskbridge.InspectionAbsent), nil
	case errors.As(err, &missing):
		return known(taskbridge.InspectionGone), nil
	case err != nil:
		return taskbridge.Inspection{}, fmt.Errorf("temporal: inspect: %w", err)
	}
	return inspection, nil
}

func known(knowledge taskbridge.Knowledge) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: knowledge}
}

func ended(outcome taskbridge.Outcome) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: outcome}
}

func failed(failure taskbridge.Failure) taskbridge.Inspection {
	return ended(taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: failure})
}

func cancelled(message string) taskbridge.Inspection {
	return ended(taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
}

// terminated is for what was stopped from outside: on behalf of a client that
// cancelled the task, or not.
func terminated(task taskbridge.Task) taskbridge.Inspection {
	if !task.Cancellation.RequestedAt.IsZero() {
		return cancelled("the work was terminated")
	}
	return failed(taskbridge.Failure{Code: CodeTerminated, Message: "the work was terminated in Temporal", Retryable: true})
}

var outOfTime = taskbridge.Failure{Code: CodeTimedOut, Message: "the work ran out of time", Retryable: true}

func (e *Executor) inspectWorkflow(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	description, err := e.Client.DescribeWorkflowExecution(ctx, e.Prefix+task.ID, "")
	if err != nil {
		return taskbridge.Inspection{}, err
	}
	info := description.GetWorkflowExecutionInfo()
	if foreign(description) && task.Submission.State != taskbridge.SubmissionRecorded {
		return known(taskbridge.InspectionAbsent), nil // and its submission is rejected
	}
	if task.Attempt == 0 {
		begun, err := e.hasBegun(ctx, description)
		if err != nil {
			return taskbridge.Inspection{}, err
		}
		if begun {
			e.tryStartFor(ctx, task, taskbridge.Claim{ID: info.GetFirstRunId()})
		} else if open(info.GetStatus()) {
			return known(taskbridge.InspectionWaiting), nil
		}
	}
	switch info.GetStatus() {
	case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED:
		return known(taskbridge.InspectionRunning), nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return terminated(task), nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return failed(outOfTime), nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		return cancelled(cancelMessage(task)), nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED:
		return e.closing(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
	}
	return known(taskbridge.InspectionUnknown), nil // continued: the next look finds the run that goes on
}

// cancelMessage says who cancelled, where no client did.
func cancelMessage(task taskbridge.Task) string {
	if task.Cancellation.RequestedAt.IsZero() {
		return "the workflow was cancelled in Temporal"
	}
	return ""
}

func open(status enumspb.WorkflowExecutionStatus) bool {
	return status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING || status == enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED
}

// hasBegun reports whether a worker has begun with the workflow. Mostly the
// description says so; else the history is read.
func (e *Executor) hasBegun(ctx context.Context, description *workflowservice.DescribeWorkflowExecutionResponse) (bool, error) {
	info, pending := description.GetWorkflowExecutionInfo(), description.GetPendingWorkflowTask()
	switch info.GetStatus() {
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED,
		enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
		return true, nil // a worker ended the run
	}
	switch {
	case info.GetFirstRunId() != "" && info.GetExecution().GetRunId() != info.GetFirstRunId():
		return true, nil // an earlier run has
	case pending != nil && (pending.GetState() != enumspb.PENDING_WORKFLOW_TASK_STATE_SCHEDULED || pending.GetAttempt() > 1):
		return true, nil
	case info.GetHistoryLength() <= beginning:
		return false, nil
	}
	return e.begun(ctx, info.GetExecution().GetWorkflowId())
}

// beginning is how long the history of a run is at most that no worker has begun,
// but for signals: its start, its first task, a request for cancellation.
const beginning = 3

// closing reads how a run has ended from its last event.
func (e *Executor) closing(ctx context.Context, workflowID, runID string) (taskbridge.Inspection, error) {
	events := e.Client.GetWorkflowHistory(ctx, workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	var last *historypb.HistoryEvent
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return taskbridge.Inspection{}, err
		}
		last = event
	}
	switch last.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
		result := last.GetWorkflowExecutionCompletedEventAttributes().GetResult()
		return ended(completed(func(valuePtr any) error {
			return e.DataConverter.FromPayloads(result, valuePtr)
		}, len(result.GetPayloads()) > 0)), nil
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
		err := e.Client.GetWorkflow(ctx, workflowID, runID).GetWithOptions(ctx, nil, client.WorkflowRunGetOptions{DisableFollowingRuns: true})
		var execution *temporal.WorkflowExecutionError
		if !errors.As(err, &execution) {
			return taskbridge.Inspection{}, fmt.Errorf("read the failure: %w", err)
		}
		return failed(failureOf(err)), nil
	}
	return known(taskbridge.InspectionUnknown), nil
}

// completed makes the outcome of work whose result can be decoded by get. What is
// encoded as JSON in any way is shown as such, as the plugin does.
func completed(get func(valuePtr any) error, hasResult bool) taskbridge.Outcome {
	outcome := taskbridge.Outcome{Status: taskbridge.StatusCompleted}
	if !hasResult {
		return outcome
	}
	var raw converter.RawValue
	err := get(&raw)
	result := raw.Payload().GetData()
	switch {
	case err == nil && string(raw.Payload().GetMetadata()[converter.MetadataEncoding]) == converter.MetadataEncodingNil:
	case err == nil && json.Valid(result):
		outcome.Completion.Result = result
	default:
		outcome.Completion.Message = "the result is no JSON"
	}
	return outcome
}

func (e *Executor) inspectActivity(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	handle := e.Client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: e.Prefix + task.ID})
	description, err := handle.Describe(ctx, client.DescribeActivityOptions{IncludeOutcome: true})
	if err != nil {
		return taskbridge.Inspection{}, err
	}
	if task.Attempt == 0 {
		e.tryStartFor(ctx, task, activityClaim(description))
	}
	switch description.Status {
	case enumspb.ACTIVITY_EXECUTION_STATUS_RUNNING, enumspb.ACTIVITY_EXECUTION_STATUS_PAUSED:
		if task.Attempt == 0 && !activityBegun(description) {
			return known(taskbridge.InspectionWaiting), nil
		}
		return known(taskbridge.InspectionRunning), nil
	case enumspb.ACTIVITY_EXECUTION_STATUS_TERMINATED:
		return terminated(task), nil
	case enumspb.ACTIVITY_EXECUTION_STATUS_TIMED_OUT:
		return failed(outOfTime), nil
	case enumspb.ACTIVITY_EXECUTION_STATUS_CANCELED:
		return cancelled(cancelMessage(task)), nil
	case enumspb.ACTIVITY_EXECUTION_STATUS_COMPLETED:
		return ended(completed(description.GetResult, description.HasResult())), nil
	case enumspb.ACTIVITY_EXECUTION_STATUS_FAILED:
		err := description.GetOutcomeFailure()
		if err == nil {
			return taskbridge.Inspection{}, errors.New("the activity failed, and Temporal does not say how")
		}
		return activityEnd(err), nil
	}
	return known(taskbridge.InspectionUnknown), nil
}

// activityBegun reports whether any attempt has begun. The SDK's LastStartedTime is
// 1970 where Temporal says none.
func activityBegun(description *client.ActivityExecutionDescription) bool {
	return description.RawResponse.GetInfo().GetLastStartedTime() != nil
}

// activityClaim is the claim of the latest attempt that has begun, the zero value if
// none has.
func activityClaim(description *client.ActivityExecutionDescription) taskbridge.Claim {
	if !activityBegun(description) {
		return taskbridge.Claim{}
	}
	attempt := description.Attempt
	switch description.RunState {
	case enumspb.PENDING_ACTIVITY_STATE_SCHEDULED, enumspb.PENDING_ACTIVITY_STATE_PAUSED:
		attempt = max(1, attempt-1) // the next one, which is still to begin
	}
	return attemptClaim(description.ActivityRunID, attempt)
}

// activityEnd is the end of an activity that stands alone and failed. One that the
// plugin stopped for a client says so by its type.
func activityEnd(err error) taskbridge.Inspection {
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() == typeStopped {
		return cancelled("")
	}
	return failed(failureOf(err))
}
