package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Executor starts tasks as workflows or standalone activities. It is safe for
// concurrent use, and several servers may use the same namespace and prefix. The
// host closes it.
type Executor struct {
	Options

	stop    context.CancelFunc
	workers sync.WaitGroup
	follow  *follower // nil without Rows

	pageSize int32
}

var (
	_ taskbridge.TaskExecutor  = (*Executor)(nil)
	_ taskbridge.TaskInspector = (*Executor)(nil)
	_ taskbridge.HealthChecker = (*Executor)(nil)
)

// New makes an executor and begins to sweep, if there are Options.Rows. It does
// not wait for Temporal: see [Executor.CheckHealth].
func New(opts Options) (*Executor, error) {
	opts, err := opts.checked()
	if err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Executor{Options: opts, stop: stop, pageSize: defaultPageSize}
	if opts.Rows != nil {
		e.follow = newFollower(e)
		e.workers.Go(func() { e.follow.run(ctx) })
		e.workers.Go(func() { e.sweep(ctx) })
	}
	return e, nil
}

// Close ends the looks and the sweep. Tasks go on where they are.
func (e *Executor) Close() error {
	e.stop()
	e.workers.Wait()
	return nil
}

// CheckHealth asks Temporal for the namespace, and whether it remembers what has
// closed for as long as a submission may be repeated. That workers poll it does
// not say.
func (e *Executor) CheckHealth(ctx context.Context) error {
	answer, err := e.Client.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: e.Namespace})
	if err != nil {
		return fmt.Errorf("temporal: describe namespace %q: %w", e.Namespace, err)
	}
	kept, least := answer.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(), e.remember()
	if kept < least {
		return fmt.Errorf("temporal: namespace %q keeps what has closed for %s, but must for %s: "+
			"for so long a submission may be repeated, and is recognised by the id", e.Namespace, kept, least)
	}
	return nil
}

// SubmitTask starts the task's workflow or activity under the task's own id. One
// that is there already, running or closed, is left as it is. Rejected are a type
// without options, arguments and a memo over Options.MaxPayload, what Temporal calls
// invalid, and a task whose id somebody else's workflow has.
func (e *Executor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	options, ok := e.Types[task.Type]
	if !ok {
		return taskbridge.Reject(CodeUnknownTaskType, fmt.Sprintf("nothing in Temporal is configured for the task type %q", task.Type), false)
	}
	args, input, err := e.arguments(task, options)
	if err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, e.StartTimeout)
	defer cancel()
	if options.Activity != "" {
		err = e.startActivity(starting, task, options, args)
	} else {
		err = e.startWorkflow(starting, task, options, input, args)
	}
	var (
		running  *serviceerror.WorkflowExecutionAlreadyStarted
		there    *serviceerror.ActivityExecutionAlreadyStarted
		invalid  *serviceerror.InvalidArgument
		rejected *taskbridge.RejectionError
	)
	switch {
	case err == nil, errors.As(err, &running), errors.As(err, &there):
		if e.follow != nil {
			e.follow.add(task.ID)
		}
		return nil
	case errors.As(err, &rejected):
		return err
	case errors.As(err, &invalid):
		return taskbridge.Reject(CodeInvalid, "Temporal does not take the task: "+invalid.Message, false)
	}
	return fmt.Errorf("temporal: submit: %w", errors.Join(err, ctx.Err()))
}

// arguments makes what the work is called with.
func (e *Executor) arguments(task taskbridge.Task, options TypeOptions) (args []any, input Input, err error) {
	input = Input{
		TaskID: task.ID, TaskType: task.Type, Input: task.Input, Metadata: task.Metadata, Owner: task.Owner,
		URL: e.WorkerURL, Traceparent: task.Traceparent,
	}
	if options.Activity != "" && options.RetryPolicy != nil {
		input.MaxAttempts = options.RetryPolicy.MaximumAttempts
	}
	if e.Tokens != nil {
		if input.Token, err = e.Tokens.SubmissionToken(task.ID); err != nil {
			return nil, input, fmt.Errorf("temporal: submit: make the submission token: %w", err)
		}
	}
	args = []any{input}
	if options.Input != nil {
		if args, err = options.Input(task, input); err != nil {
			return nil, input, taskbridge.Reject(CodeInvalid, "the task's input cannot be mapped: "+err.Error(), false)
		}
	}
	payloads, err := e.DataConverter.ToPayloads(args...)
	if err != nil {
		return nil, input, taskbridge.Reject(CodeInvalid, "the task's input cannot be encoded: "+err.Error(), false)
	}
	return args, input, e.checkSize("the arguments of the work", payloads.Size())
}

// checkSize turns down what is too large for Temporal, of which it would only say that
// it is busy.
func (e *Executor) checkSize(what string, size int) error {
	if size <= e.MaxPayload {
		return nil
	}
	return taskbridge.Reject(CodeTooLarge, fmt.Sprintf(
		"%s have %d bytes, at most %d are allowed: hand over a reference to what is large", what, size, e.MaxPayload), false)
}

// memo makes the memo of a workflow: the host's and the adapter's tag.
func (e *Executor) memo(task taskbridge.Task, options TypeOptions, input Input, args []any) (map[string]any, error) {
	memo := map[string]any{}
	if options.Memo != nil {
		own, err := options.Memo(task)
		if err != nil {
			return nil, taskbridge.Reject(CodeInvalid, "the workflow's memo cannot be made: "+err.Error(), false)
		}
		maps.Copy(memo, own)
	}
	memo[tagKey] = tag{Version: tagVersion, TaskID: task.ID, Token: input.Token}
	fields := make([]any, 0, len(memo)+len(args))
	for _, field := range memo {
		fields = append(fields, field)
	}
	payloads, err := e.DataConverter.ToPayloads(append(fields, args...)...)
	if err != nil {
		return nil, taskbridge.Reject(CodeInvalid, "the workflow's memo cannot be encoded: "+err.Error(), false)
	}
	return memo, e.checkSize("the arguments and the memo of the work", payloads.Size())
}

func (e *Executor) startWorkflow(ctx context.Context, task taskbridge.Task, options TypeOptions, input Input, args []any) error {
	start := client.StartWorkflowOptions{
		ID:                                       e.Prefix + task.ID,
		TaskQueue:                                options.TaskQueue,
		WorkflowExecutionTimeout:                 options.ExecutionTimeout,
		WorkflowRunTimeout:                       options.RunTimeout,
		WorkflowTaskTimeout:                      options.TaskTimeout,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		RetryPolicy:                              options.RetryPolicy,
	}
	memo, err := e.memo(task, options, input, args)
	if err != nil {
		return err
	}
	start.Memo = memo
	if options.SearchAttributes != nil {
		if start.TypedSearchAttributes, err = options.SearchAttributes(task); err != nil {
			return taskbridge.Reject(CodeInvalid, "the workflow's search attributes cannot be made: "+err.Error(), false)
		}
	}
	_, err = e.Client.ExecuteWorkflow(ctx, start, options.Workflow, args...)
	var there *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &there) {
		return err
	}
	description, failure := e.Client.DescribeWorkflowExecution(ctx, start.ID, "")
	if failure != nil {
		return failure
	}
	if foreign(description) {
		return taskbridge.Reject(CodeInvalid, "the id of the task's workflow is that of a workflow of somebody else", false)
	}
	return err
}

// foreign reports whether somebody else has started a workflow under a task's id: each
// of ours has a tag in its memo, if only in the cipher of a client that encrypts.
func foreign(description *workflowservice.DescribeWorkflowExecutionResponse) bool {
	return description.GetWorkflowExecutionInfo().GetMemo().GetFields()[tagKey] == nil
}

func (e *Executor) startActivity(ctx context.Context, task taskbridge.Task, options TypeOptions, args []any) error {
	start := client.StartActivityOptions{
		ID:                       e.Prefix + task.ID,
		TaskQueue:                options.TaskQueue,
		StartToCloseTimeout:      options.StartToCloseTimeout,
		ScheduleToCloseTimeout:   options.ScheduleToCloseTimeout,
		HeartbeatTimeout:         options.HeartbeatTimeout,
		RetryPolicy:              options.RetryPolicy,
		ActivityIDReusePolicy:    enumspb.ACTIVITY_ID_REUSE_POLICY_REJECT_DUPLICATE,
		ActivityIDConflictPolicy: enumspb.ACTIVITY_ID_CONFLICT_POLICY_FAIL,
	}
	if options.SearchAttributes != nil {
		var err error
		if start.TypedSearchAttributes, err = options.SearchAttributes(task); err != nil {
			return taskbridge.Reject(CodeInvalid, "the activity's search attributes cannot be made: "+err.Error(), false)
		}
	}
	_, err := e.Client.ExecuteActivity(ctx, start, options.Activity, args...)
	return err
}

// standsAlone reports whether tasks of the type are activities.
func (e *Executor) standsAlone(taskType string) bool { return e.Types[taskType].Activity != "" }
