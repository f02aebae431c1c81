package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Rows reads rows of tasks. A [taskbridge.TaskRegistry] is one.
type Rows interface {
	GetTask(ctx context.Context, taskID string) (taskbridge.Task, error)
}

// The sweep lists what has closed since it last looked and settles the tasks whose
// end nobody recorded. It costs one request for a page of what has closed, and for
// each task that has not ended one to describe its latest run and one for how
// that ended; what is open costs nothing. What was closed while no server ran is
// found by the inspection of silent tasks.

// closedRun is something that has closed.
type closedRun struct {
	taskID, runID string
}

// sweepState is what the sweep keeps between two looks.
type sweepState struct {
	from time.Time               // closed after this is not known yet
	done map[closedRun]time.Time // dealt with, and when seen first
}

// sweep looks again and again until ctx ends.
func (e *Executor) sweep(ctx context.Context) {
	state := &sweepState{from: e.Clock.Now().Add(-e.SweepOverlap), done: map[closedRun]time.Time{}}
	for {
		timer := e.Clock.NewTimer(e.SweepInterval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if err := e.sweepOnce(ctx, state); err != nil && ctx.Err() == nil {
			e.Logger.Warn("sweep of closed workflows failed, trying again", "error", err)
		}
	}
}

// sweepOnce looks once. The next look begins where this one did, less the overlap,
// unless something could not be listed; what could not be settled is looked at
// again while it is in the overlap, and then by the inspection of silent tasks.
func (e *Executor) sweepOnce(ctx context.Context, state *sweepState) error {
	ctx, cancel := context.WithTimeout(ctx, max(e.SweepInterval, time.Minute))
	defer cancel()
	begun := e.Clock.Now()
	since := state.from.UTC().Format(time.RFC3339Nano)
	var failures []error
	look := func(run closedRun) {
		if _, done := state.done[run]; done {
			return
		}
		if err := e.settleClosed(ctx, run.taskID); err != nil {
			failures = append(failures, fmt.Errorf("task %s: %w", run.taskID, err))
			return
		}
		state.done[run] = begun
	}
	err := e.listClosed(ctx, since, look)
	if err != nil {
		return errors.Join(append(failures, err)...)
	}
	state.from = begun.Add(-e.SweepOverlap)
	for run, seen := range state.done {
		if seen.Before(state.from.Add(-e.SweepOverlap)) {
			delete(state.done, run)
		}
	}
	return errors.Join(failures...)
}

// listClosed calls look for each run that has closed since, of workflows and of
// activities that stand alone if there are any.
func (e *Executor) listClosed(ctx context.Context, since string, look func(closedRun)) error {
	workflows, activities := false, false
	for _, options := range e.Types {
		workflows = workflows || options.Activity == ""
		activities = activities || options.Activity != ""
	}
	if workflows {
		request := &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: e.Namespace, PageSize: 500,
			Query: fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND CloseTime > '%s' AND ExecutionStatus != 'ContinuedAsNew'", e.Prefix, since),
		}
		for {
			page, err := e.Client.ListWorkflow(ctx, request)
			if err != nil {
				return fmt.Errorf("list closed workflows: %w", err)
			}
			for _, execution := range page.GetExecutions() {
				e.found(execution.GetExecution().GetWorkflowId(), execution.GetExecution().GetRunId(), look)
			}
			if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
				break
			}
		}
	}
	if activities {
		list, err := e.Client.ListActivities(ctx, client.ListActivitiesOptions{
			Query: fmt.Sprintf("ActivityId STARTS_WITH '%s' AND CloseTime > '%s'", e.Prefix, since),
		})
		if err != nil {
			return fmt.Errorf("list closed activities: %w", err)
		}
		for execution, err := range list.Results {
			if err != nil {
				return fmt.Errorf("list closed activities: %w", err)
			}
			if execution.Status != enumspb.ACTIVITY_EXECUTION_STATUS_RUNNING {
				e.found(execution.ActivityID, execution.ActivityRunID, look)
			}
		}
	}
	return nil
}

func (e *Executor) found(id, runID string, look func(closedRun)) {
	taskID, ours := strings.CutPrefix(id, e.Prefix)
	if ours && taskbridge.ValidTaskID(taskID) {
		look(closedRun{taskID, runID})
	}
}

// settleClosed ends a task of which some run has closed, if its latest run has and
// the task has not.
func (e *Executor) settleClosed(ctx context.Context, taskID string) error {
	row, err := e.Rows.GetTask(ctx, taskID)
	if errors.Is(err, taskbridge.ErrTaskNotFound) || err == nil && row.Status.Terminal() {
		return nil
	}
	if err != nil {
		return err
	}
	if _, ours := e.Types[row.Type]; !ours {
		return nil
	}
	inspection, err := e.InspectTask(ctx, row)
	if err != nil || inspection.Knowledge != taskbridge.InspectionFinished {
		return err // its latest run goes on
	}
	err = e.Lifecycle.Settle(ctx, taskID, inspection.Outcome)
	if errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	if err == nil {
		e.Logger.Info("task settled by the sweep", "taskId", taskID, "status", inspection.Outcome.Status, "code", inspection.Outcome.Failure.Code)
	}
	return err
}
