package temporaladapter

import (
	"context"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Work whose worker has no plugin cannot ask whether it may run, and tells nobody
// that it does. Whoever of the executor sees that it has begun (the look at what was
// just submitted, the inspection of a silent task, the sweep) starts its task on its
// behalf, with the claim that the plugin would have used, and stops it where the
// answer is that it must not run.

// outsideProducer is the producer of starts on behalf of the work. It reports
// nothing, so no stream has it.
const outsideProducer = "executor"

// startFor starts the task on behalf of its work, which has begun, unless somebody
// has. Repeating it changes nothing. A task with a cancellation intent is left to the
// cancellation: a start would end it while its work goes on.
func (e *Executor) startFor(ctx context.Context, task taskbridge.Task, claim taskbridge.Claim) error {
	if task.Attempt > 0 || task.Status.Terminal() || !task.Cancellation.RequestedAt.IsZero() || claim.ID == "" {
		return nil
	}
	claim.Producer, claim.Epoch = outsideProducer, 1
	run, err := e.Lifecycle.Start(ctx, task.ID, claim)
	switch {
	case err == nil:
		return run.Close()
	case errors.Is(err, taskbridge.ErrNotRunnable):
		_, err := e.stopStray(ctx, task.ID)
		return err
	case errors.Is(err, taskbridge.ErrStaleAttempt), errors.Is(err, taskbridge.ErrTaskNotFound):
		return nil // a later attempt runs, or the task is no longer kept
	}
	return fmt.Errorf("start on behalf of the work: %w", err)
}

// tryStartFor is startFor where what is asked is something else. The next look tries
// again.
func (e *Executor) tryStartFor(ctx context.Context, task taskbridge.Task, claim taskbridge.Claim) {
	if err := e.startFor(ctx, task, claim); err != nil {
		e.Logger.Warn("task not started for its work yet", "taskId", task.ID, "error", err)
	}
}

// stray reports whether work of the task must not run: it has ended without ever
// having been started. What was started, if it goes on behind its task's end, was
// reset by somebody who has his reasons. A submission that is merely barred may still
// be found to be known.
func stray(task taskbridge.Task) bool { return task.Status.Terminal() && task.Attempt == 0 }

// stopStray stops the work of a task that has ended without it, and reports whether
// there is nothing more to be done about it.
func (e *Executor) stopStray(ctx context.Context, taskID string) (done bool, err error) {
	if e.Rows == nil {
		return true, nil
	}
	task, err := e.Rows.GetTask(ctx, taskID)
	if errors.Is(err, taskbridge.ErrTaskNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !stray(task) {
		return true, nil
	}
	stop := e.stopWorkflow
	if e.standsAlone(task.Type) {
		stop = e.stopActivity
	}
	done, err = stop(ctx, task, fmt.Sprintf("the task of TaskBridge has ended %s and is not to be run", task.Status))
	var (
		missing *serviceerror.NotFound
		over    *serviceerror.FailedPrecondition
	)
	if errors.As(err, &missing) || errors.As(err, &over) {
		return done || errors.As(err, &missing), nil // over: it was asked before, or has just closed
	}
	if err != nil {
		return false, fmt.Errorf("stop work that is not to be run: %w", err)
	}
	return done, nil
}

// stopWorkflow asks a workflow that has begun to stop, as a cancellation does, and
// terminates what has not, or goes on after its type's grace.
func (e *Executor) stopWorkflow(ctx context.Context, task taskbridge.Task, reason string) (done bool, err error) {
	description, err := e.Client.DescribeWorkflowExecution(ctx, e.Prefix+task.ID, "")
	if err != nil {
		return false, err
	}
	if !open(description.GetWorkflowExecutionInfo().GetStatus()) {
		return true, nil
	}
	begun, err := e.hasBegun(ctx, description)
	if err != nil {
		return false, err
	}
	e.logStray(task)
	if !begun || e.graceSince(task, task.FinishedAt) {
		return true, e.Client.TerminateWorkflow(ctx, e.Prefix+task.ID, "", reason)
	}
	return e.Types[task.Type].Cancel.TerminateAfter == 0, e.askWorkflow(ctx, task, reason)
}

func (e *Executor) stopActivity(ctx context.Context, task taskbridge.Task, reason string) (done bool, err error) {
	handle := e.Client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: e.Prefix + task.ID})
	description, err := handle.Describe(ctx, client.DescribeActivityOptions{})
	if err != nil {
		return false, err
	}
	switch description.Status {
	case enumspb.ACTIVITY_EXECUTION_STATUS_RUNNING, enumspb.ACTIVITY_EXECUTION_STATUS_PAUSED:
	default:
		return true, nil
	}
	e.logStray(task)
	if activityClaim(description).ID == "" || e.graceSince(task, task.FinishedAt) {
		return true, handle.Terminate(ctx, client.TerminateActivityOptions{Reason: reason})
	}
	return e.Types[task.Type].Cancel.TerminateAfter == 0, handle.Cancel(ctx, client.CancelActivityOptions{Reason: reason})
}

func (e *Executor) logStray(task taskbridge.Task) {
	e.Logger.Warn("work goes on whose task has ended without it, stopping it", "taskId", task.ID, "status", task.Status)
}
