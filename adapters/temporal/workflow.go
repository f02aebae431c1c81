package temporaladapter

import (
	"cmp"
	"encoding/json"
	"errors"
	"hash/fnv"
	"strconv"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// changeID is the version marker of a workflow that reports. A history that was
// written before the plugin was there has none, and goes on without.
const changeID = "taskbridge"

const changeVersion = 1

// Names of producers. Children and activities have a few, in turn: a stream takes
// taskbridge.MaxProducers, with two of core's. Those that share one, and report at
// once, take it from each other.
const (
	workflowReports   = "reports"
	childReports      = "reports-child"
	childReporters    = 10
	activityProducers = 10
	stepProducer      = "steps"
	stepReporters     = 8
	// Of what a version has called that gave no turns, and of children in streams that
	// may have names of such a version: there is no room for more.
	formerChildReporters    = 4
	formerActivityProducers = 16
	// Of runs that do not number their reports.
	workflowProducer = "workflow"
	childProducers   = 8
)

// sharedProducer is a name for what is called so; two may have the same one.
func sharedProducer(kind, id string, of uint32) string { return producerOf(kind, hashOf(id), of) }

// producerOf is the name of the n-th, which has it to itself as long as no more than
// so many are there at once.
func producerOf(kind string, n, of uint32) string {
	return kind + "-" + strconv.FormatUint(uint64(n%of), 10)
}

func hashOf(id string) uint32 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id)) // never fails
	return hash.Sum32()
}

// workflowInbound is around one run of a workflow.
type workflowInbound struct {
	interceptor.WorkflowInboundInterceptorBase
	plugin *plugin
}

func (w *workflowInbound) Init(outbound interceptor.WorkflowOutboundInterceptor) error {
	return w.Next.Init(&workflowOutbound{WorkflowOutboundInterceptorBase: interceptor.WorkflowOutboundInterceptorBase{Next: outbound}, plugin: w.plugin})
}

// taskWorkflow is what the context of a workflow holds that reports for a task.
type taskWorkflow struct {
	plugin   *plugin
	tag      tag // with its claim
	producer string
	child    bool
	turn     uint32 // of a child
	actions  *actions
	reports  *numbering // nil: they have no ordinals
}

type taskWorkflowKey struct{}

func taskOf(ctx workflow.Context) *taskWorkflow {
	task, _ := ctx.Value(taskWorkflowKey{}).(*taskWorkflow)
	return task
}

// ExecuteWorkflow runs the workflow between its start and its end. Everything that
// it decides by is in the history: the memo, the header, the run's attributes.
func (w *workflowInbound) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	info := workflow.GetInfo(ctx)
	if t, ok := readTag(interceptor.WorkflowHeader(ctx), w.plugin.DataConverter); ok && t.Claim != "" {
		task := &taskWorkflow{plugin: w.plugin, tag: t, child: true, producer: sharedProducer("child", info.WorkflowExecution.ID, childProducers)}
		if before, ok := w.handed(ctx); ok {
			task.numberChild(info, before)
		}
		return w.Next.ExecuteWorkflow(workflow.WithValue(ctx, taskWorkflowKey{}, task), in)
	}
	t, ok := readTag(info.Memo.GetFields(), w.plugin.DataConverter)
	if !ok { // not the id decides: a replayer does not know it
		return w.Next.ExecuteWorkflow(ctx, in)
	}
	if workflow.GetVersion(ctx, changeID, workflow.DefaultVersion, changeVersion) == workflow.DefaultVersion {
		return w.Next.ExecuteWorkflow(ctx, in)
	}
	// The first run's id lasts through continue-as-new, retry and reset. Only the
	// SDK's test environment has none.
	t.Claim = cmp.Or(info.FirstRunID, info.WorkflowExecution.RunID)
	// Of a run before that was retried by Temporal nothing is handed on.
	before, continued := w.handed(ctx)
	if info.Attempt > 1 { // the one before has the same header, and has reported behind that
		before.Since, continued = 0, false
	}
	task := &taskWorkflow{plugin: w.plugin, tag: t, producer: workflowReports, actions: &actions{}}
	task.reports = newNumbering(info.WorkflowStartTime, before, continued || info.ContinuedExecutionRunID == "")
	formerly := task.reports.epoch
	task.reports.retried(info.Attempt)
	started, err := task.record(ctx, taskEvent{}, 0)
	if err != nil {
		return nil, err
	}
	switch {
	case started.Epoch == 0:
		task.reports.epoch = formerly
	case info.ContinuedExecutionRunID == "":
		task.reports.names = childReporters
	default:
		task.reports.names = max(task.reports.names, before.Names)
	}
	if !started.Numbered {
		task.producer, task.reports = workflowProducer, nil
	}
	if started.Refused != "" {
		workflow.GetLogger(ctx).Info("workflow not run", "taskId", t.TaskID, "reason", started.Refused)
		return nil, temporal.NewCanceledError("TaskBridge: " + started.Refused)
	}
	result, err := w.Next.ExecuteWorkflow(workflow.WithValue(ctx, taskWorkflowKey{}, task), in)
	if outcome, over := outcomeOf(info, result, err); over {
		recorded, failure := task.record(ctx, taskEvent{Outcome: &outcome}, w.plugin.Patience)
		if failure != nil || recorded.Refused != "" {
			workflow.GetLogger(ctx).Warn("end of task not recorded by its workflow", "taskId", t.TaskID, "refused", recorded.Refused, "error", failure)
		}
	}
	return result, err
}

// numberChild begins the numbering of a child's reports.
func (t *taskWorkflow) numberChild(info *workflow.Info, before handedOn) {
	id := info.WorkflowExecution.ID
	t.reports = newNumbering(info.WorkflowStartTime, before, false)
	if before.Turn == 0 {
		t.producer = sharedProducer(childReports, id, formerChildReporters)
	} else {
		t.reports.names = max(t.reports.names, before.Names)
		t.producer = producerOf(childReports, before.Turn-1, t.reports.names)
		t.turn = before.Turn
		t.reports.retried(info.Attempt)
	}
	if before.Children == 0 && before.Activities == 0 {
		// What it calls itself has names beside those of what its parent calls, which it
		// does not know.
		apart := hashOf(id) % (childReporters * activityProducers * stepReporters)
		t.reports.children, t.reports.activities = apart, apart
	}
}

// outcomeOf is the end of a task that a run has, if it has one: not if the workflow
// goes on in another run, nor if Temporal decides whether it does.
func outcomeOf(info *workflow.Info, result any, err error) (outcome taskbridge.Outcome, over bool) {
	var cancelled *temporal.CanceledError
	switch {
	case workflow.IsContinueAsNewError(err), info.CronSchedule != "":
		return outcome, false
	case err == nil:
		outcome.Status = taskbridge.StatusCompleted
		outcome.Completion.Result, err = encodeResult(result)
		if err != nil {
			outcome.Completion.Message = "the result is no JSON"
		}
		return outcome, true
	case errors.As(err, &cancelled): // as which Temporal closes it
		outcome.Status = taskbridge.StatusCancelled
		return outcome, true
	case info.RetryPolicy != nil:
		return outcome, false
	}
	outcome.Status = taskbridge.StatusFailed
	outcome.Failure = failureOf(err)
	return outcome, true
}

// encodeResult makes JSON of what a workflow or an activity returned.
func encodeResult(result any) (json.RawMessage, error) {
	if result == nil {
		return nil, nil
	}
	payload, err := converter.GetDefaultDataConverter().ToPayload(result)
	if err != nil {
		return nil, err
	}
	if payload == nil || payload.GetData() == nil {
		return nil, nil
	}
	if !json.Valid(payload.GetData()) {
		return nil, errors.New("not JSON")
	}
	return payload.GetData(), nil
}

// record records an event: by a local activity, and if that is held up by one of
// its own. It goes on when the workflow is cancelled. patience 0 has no end.
func (t *taskWorkflow) record(ctx workflow.Context, event taskEvent, patience time.Duration) (verdict, error) {
	event.TaskID, event.Claim, event.Token, event.Producer = t.tag.TaskID, t.tag.Claim, t.tag.Token, t.producer
	if t.reports != nil {
		event.Epoch = t.reports.epoch
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	ctx = workflow.WithValue(ctx, taskWorkflowKey{}, nil) // a recording does not report
	most := localMost
	if timeout := workflow.GetInfo(ctx).WorkflowTaskTimeout; timeout > 0 {
		most = min(most, timeout/2)
	}
	var answer verdict
	local := workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout:    min(localTry, most),
		ScheduleToCloseTimeout: most,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 50 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: time.Second},
	})
	err := workflow.ExecuteLocalActivity(local, t.plugin.recorder.RecordTaskEvent, event).Get(local, &answer)
	if err == nil {
		return answer, nil
	}
	answer = verdict{}
	own := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    activityTry,
		ScheduleToCloseTimeout: patience,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second},
	})
	err = workflow.ExecuteActivity(own, recordActivity, event).Get(own, &answer)
	return answer, err
}

// workflowOutbound marks what a reporting workflow calls.
type workflowOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	plugin *plugin
}

// mark writes the tag into the header of the next call.
func (w *workflowOutbound) mark(ctx workflow.Context, t tag) { w.write(ctx, tagKey, t) }

// handOn writes what the run hands on into the header of the next call.
func (w *workflowOutbound) handOn(ctx workflow.Context, h handedOn) { w.write(ctx, numberingKey, h) }

func (w *workflowOutbound) write(ctx workflow.Context, key string, value any) {
	header := interceptor.WorkflowHeader(ctx)
	if header == nil {
		return
	}
	payload, err := w.plugin.DataConverter.ToPayload(value)
	if err != nil {
		workflow.GetLogger(ctx).Warn("what is called cannot report for the task", "header", key, "error", err)
		return
	}
	header[key] = payload
}

// handed is what was handed on to the run; ok is false where nothing was.
func (w *workflowInbound) handed(ctx workflow.Context) (h handedOn, ok bool) {
	payload := interceptor.WorkflowHeader(ctx)[numberingKey]
	if payload == nil || w.plugin.DataConverter.FromPayload(payload, &h) != nil {
		return handedOn{}, false
	}
	return h, true
}

// markActivity lets an activity report.
func (w *workflowOutbound) markActivity(ctx workflow.Context) {
	task := taskOf(ctx)
	if task == nil {
		return
	}
	w.mark(ctx, task.tag)
	if task.reports != nil {
		task.reports.activities++
		w.handOn(ctx, handedOn{Since: task.reports.since, Turn: task.reports.activities})
	}
}

func (w *workflowOutbound) ExecuteActivity(ctx workflow.Context, activityType string, args ...any) workflow.Future {
	w.markActivity(ctx)
	return w.Next.ExecuteActivity(ctx, activityType, args...)
}

func (w *workflowOutbound) ExecuteLocalActivity(ctx workflow.Context, activityType string, args ...any) workflow.Future {
	w.markActivity(ctx)
	return w.Next.ExecuteLocalActivity(ctx, activityType, args...)
}

func (w *workflowOutbound) ExecuteChildWorkflow(ctx workflow.Context, childWorkflowType string, args ...any) workflow.ChildWorkflowFuture {
	if task := taskOf(ctx); task != nil && ctx.Value(reportingChildrenKey{}) != nil {
		w.mark(ctx, task.tag)
		if task.reports != nil {
			task.reports.children++
			w.handOn(ctx, handedOn{Since: task.reports.since, Turn: task.reports.children, Names: task.reports.names})
		}
	}
	return w.Next.ExecuteChildWorkflow(ctx, childWorkflowType, args...)
}

func (w *workflowOutbound) NewContinueAsNewError(ctx workflow.Context, wfn any, args ...any) error {
	if task := taskOf(ctx); task != nil {
		if task.child {
			w.mark(ctx, task.tag)
		}
		if task.reports != nil {
			w.handOn(ctx, handedOn{
				Epoch: task.reports.epoch, Since: task.reports.since, Turn: task.turn,
				Children: task.reports.children, Activities: task.reports.activities, Names: task.reports.names,
			})
		}
	}
	return w.Next.NewContinueAsNewError(ctx, wfn, args...)
}
