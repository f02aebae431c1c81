package temporaladapter

import (
	"context"
	"fmt"
	"strings"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// defaultPageSize is that of lists, half of what Temporal gives at most.
const defaultPageSize = 500

// execution is what a list says of a run.
type execution struct {
	listed
	started, closed time.Time // closed is zero for what is open
}

// kinds says which of Temporal's things the types are.
func (e *Executor) kinds() (workflows, activities bool) {
	for _, options := range e.Types {
		workflows = workflows || options.Activity == ""
		activities = activities || options.Activity != ""
	}
	return workflows, activities
}

// listClosed calls take for each page of runs that have closed after a time, of
// workflows and of activities that stand alone, if there are such types.
func (e *Executor) listClosed(ctx context.Context, after time.Time, take func([]execution)) error {
	if after.IsZero() {
		after = time.Unix(0, 0)
	}
	since := "CloseTime > " + quoted(after)
	return e.list(ctx, since+" AND ExecutionStatus != 'ContinuedAsNew'", since, take)
}

// listOpen calls take for each page of runs that have begun after a time, if it is not
// zero, and are open.
func (e *Executor) listOpen(ctx context.Context, after time.Time, take func([]execution)) error {
	condition := "ExecutionStatus = 'Running'"
	if !after.IsZero() {
		condition += " AND StartTime > " + quoted(after)
	}
	return e.list(ctx, condition, condition, take)
}

func quoted(t time.Time) string { return "'" + t.UTC().Format(time.RFC3339Nano) + "'" }

func (e *Executor) list(ctx context.Context, ofWorkflows, ofActivities string, take func([]execution)) error {
	workflows, activities := e.kinds()
	if workflows {
		if err := e.listWorkflows(ctx, ofWorkflows, take); err != nil {
			return fmt.Errorf("list workflows: %w", err)
		}
	}
	if activities {
		if err := e.listActivities(ctx, ofActivities, take); err != nil {
			return fmt.Errorf("list activities: %w", err)
		}
	}
	return nil
}

func (e *Executor) listWorkflows(ctx context.Context, condition string, take func([]execution)) error {
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Namespace: e.Namespace, PageSize: e.pageSize, Query: fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND %s", e.Prefix, condition),
	}
	for {
		page, err := e.Client.ListWorkflow(ctx, request)
		if err != nil {
			return err
		}
		var found []execution
		for _, info := range page.GetExecutions() {
			if taskID, ours := e.taskOf(info.GetExecution().GetWorkflowId()); ours {
				found = append(found, execution{listed{taskID, info.GetExecution().GetRunId()}, started(info), closed(info)})
			}
		}
		take(found)
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return nil
		}
	}
}

func started(info *workflowpb.WorkflowExecutionInfo) time.Time {
	if info.GetStartTime() == nil {
		return time.Time{}
	}
	return info.GetStartTime().AsTime()
}

func closed(info *workflowpb.WorkflowExecutionInfo) time.Time {
	if info.GetCloseTime() == nil {
		return time.Time{}
	}
	return info.GetCloseTime().AsTime()
}

func (e *Executor) listActivities(ctx context.Context, condition string, take func([]execution)) error {
	list, err := e.Client.ListActivities(ctx, client.ListActivitiesOptions{
		Query: fmt.Sprintf("ActivityId STARTS_WITH '%s' AND %s", e.Prefix, condition),
	})
	if err != nil {
		return err
	}
	var found []execution
	for info, err := range list.Results {
		if err != nil {
			return err
		}
		if taskID, ours := e.taskOf(info.ActivityID); ours {
			found = append(found, execution{listed{taskID, info.ActivityRunID}, info.ScheduleTime, info.CloseTime})
		}
		if len(found) == int(e.pageSize) {
			take(found)
			found = nil
		}
	}
	take(found)
	return nil
}

// newestClose is when the newest of all that has closed did, zero if nothing has. A
// Temporal whose lists are in another order gives an earlier time, which is as good.
func (e *Executor) newestClose(ctx context.Context) (newest time.Time, err error) {
	workflows, activities := e.kinds()
	const ended = "ExecutionStatus != 'Running'"
	if workflows {
		page, err := e.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: e.Namespace, PageSize: 1, Query: fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND %s", e.Prefix, ended),
		})
		if err != nil {
			return newest, fmt.Errorf("find the newest closed workflow: %w", err)
		}
		for _, info := range page.GetExecutions() {
			newest = closed(info)
		}
	}
	if !activities {
		return newest, nil
	}
	list, err := e.Client.ListActivities(ctx, client.ListActivitiesOptions{
		Query: fmt.Sprintf("ActivityId STARTS_WITH '%s' AND %s", e.Prefix, ended),
	})
	if err != nil {
		return newest, fmt.Errorf("find the newest closed activity: %w", err)
	}
	for info, err := range list.Results {
		if err != nil {
			return newest, fmt.Errorf("find the newest closed activity: %w", err)
		}
		if info.CloseTime.After(newest) {
			newest = info.CloseTime
		}
		break
	}
	return newest, nil
}

// taskOf is the task of a workflow's or an activity's id.
func (e *Executor) taskOf(id string) (taskID string, ours bool) {
	taskID, ours = strings.CutPrefix(id, e.Prefix)
	return taskID, ours && taskbridge.ValidTaskID(taskID)
}
