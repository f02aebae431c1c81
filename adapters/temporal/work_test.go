//go:build linux

package temporaladapter

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// works are the workflows of the tests, by the types of their tasks.
var works = map[string]func(workflow.Context, Input) (any, error){
	"echo":     echo,
	"fail":     fail,
	"wait":     wait,
	"ignore":   ignore,
	"chain":    chain,
	"panic":    panics,
	"gates":    gates,
	"suspend":  suspends,
	"family":   family,
	"report":   reports,
	"flaky":    flaky,
	"slow":     slow,
	"mixed":    mixed,
	"parallel": parallel,
	"counts":   counts,
}

// worked counts how often the work of a task was begun in this process.
var worked struct {
	sync.Mutex
	begun map[string]int
}

func begunHere(taskID string) int {
	worked.Lock()
	defer worked.Unlock()
	return worked.begun[taskID]
}

// begin counts the beginning of a workflow's work, once under replay.
func begin(ctx workflow.Context, in Input) {
	workflow.SideEffect(ctx, func(workflow.Context) any {
		worked.Lock()
		defer worked.Unlock()
		if worked.begun == nil {
			worked.begun = map[string]int{}
		}
		worked.begun[in.TaskID]++
		return nil
	})
}

func registerWorkflows(w worker.WorkflowRegistry) {
	for name, work := range works {
		w.RegisterWorkflowWithOptions(work, workflow.RegisterOptions{Name: name})
	}
	w.RegisterWorkflowWithOptions(child, workflow.RegisterOptions{Name: "child"})
}

func register(w worker.Registry) {
	registerWorkflows(w)
	w.RegisterActivityWithOptions(panicking, activity.RegisterOptions{Name: "panicking"})
	w.RegisterActivityWithOptions(stepping, activity.RegisterOptions{Name: "stepping"})
	w.RegisterActivityWithOptions(walking, activity.RegisterOptions{Name: "walking"})
	w.RegisterActivityWithOptions(talking, activity.RegisterOptions{Name: "talking"})
	w.RegisterActivityWithOptions(alone, activity.RegisterOptions{Name: "alone"})
}

func echo(ctx workflow.Context, in Input) (any, error) {
	begin(ctx, in)
	return in.Input, nil
}

// fail fails as its input says.
func fail(ctx workflow.Context, in Input) (any, error) {
	begin(ctx, in)
	var how struct {
		Type  string `json:"type"`
		Final bool   `json:"final"`
	}
	if err := json.Unmarshal(in.Input, &how); err != nil {
		return nil, err
	}
	switch {
	case how.Type == "":
		return nil, errors.New("as asked for")
	case how.Final:
		return nil, temporal.NewNonRetryableApplicationError("as asked for", how.Type, nil)
	}
	return nil, temporal.NewApplicationError("as asked for", how.Type)
}

func wait(ctx workflow.Context, in Input) (any, error) {
	begin(ctx, in)
	ctx.Done().Receive(ctx, nil)
	return nil, ctx.Err()
}

// ignore does not hear of cancellations.
func ignore(ctx workflow.Context, _ Input) (any, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	return nil, workflow.Sleep(ctx, time.Hour)
}

// chain continues as new twice.
func chain(ctx workflow.Context, in Input) (any, error) {
	var left struct{ Left int }
	if err := json.Unmarshal(in.Input, &left); err != nil {
		return nil, err
	}
	if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(100 - 10*left.Left)}); err != nil {
		return nil, err
	}
	if left.Left == 0 {
		return "done", nil
	}
	left.Left--
	next, err := json.Marshal(left)
	if err != nil {
		return nil, err
	}
	in.Input = next
	return nil, workflow.NewContinueAsNewError(ctx, "chain", in)
}

func panics(ctx workflow.Context, _ Input) (any, error) {
	return nil, workflow.ExecuteActivity(once(ctx), "panicking").Get(ctx, nil)
}

func once(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}

func panicking(context.Context) error { panic("secret of the house") }

// gates waits at gates that signals open, and reports between them.
func gates(ctx workflow.Context, _ Input) (any, error) {
	signals := workflow.GetSignalChannel(ctx, "gate")
	for i := range 2 {
		if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(10 + 40*i)}); err != nil {
			return nil, err
		}
		signals.Receive(ctx, nil)
	}
	return "through", nil
}

// slow reports, and sleeps between.
func slow(ctx workflow.Context, in Input) (any, error) {
	var how struct{ Steps, Millis int }
	if err := json.Unmarshal(in.Input, &how); err != nil {
		return nil, err
	}
	for i := range how.Steps {
		if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(100*(i+1)) / float64(how.Steps)}); err != nil {
			return nil, err
		}
		if err := workflow.Sleep(ctx, time.Duration(how.Millis)*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return how.Steps, nil
}

func suspends(ctx workflow.Context, _ Input) (any, error) {
	action, err := Suspend(ctx, taskbridge.Suspension{
		SuspendID: "approve", Kind: taskbridge.SuspendUserAction, ReasonCode: "APPROVAL", AllowedActions: []string{"approve"}, SchemaVersion: 1,
	})
	if err != nil {
		return nil, err
	}
	return action.ActionType, nil
}

// family has a silent child and one that reports.
func family(ctx workflow.Context, in Input) (any, error) {
	for i, ctx := range []workflow.Context{ctx, ReportingChildren(ctx)} {
		ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: in.TaskID + "-child-" + number(int64(i))})
		if err := workflow.ExecuteChildWorkflow(ctx, "child", i).Get(ctx, nil); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func child(ctx workflow.Context, i int) error {
	if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(10 * (i + 1))}); err != nil {
		return err
	}
	return workflow.ExecuteActivity(once(ctx), "stepping", 1).Get(ctx, nil)
}

// reports has activities that report and are retried.
func reports(ctx workflow.Context, _ Input) (any, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 3},
	})
	if err := workflow.ExecuteActivity(ctx, "stepping", 2).Get(ctx, nil); err != nil {
		return nil, err
	}
	return nil, workflow.ExecuteActivity(ctx, "talking").Get(ctx, nil)
}

// stepping makes one more step with each attempt, and needs so many.
func stepping(ctx context.Context, attempts int32) error {
	reporter, attempt := ReporterFromContext(ctx), activity.GetInfo(ctx).Attempt
	for i := range attempt {
		if err := reporter.Step(ctx, number(int64(i)), taskbridge.Progress{Percent: float64(20 * (i + 1))}); err != nil {
			return err
		}
	}
	if attempt < attempts {
		return errors.New("not yet")
	}
	return nil
}

// talking breaks off its first text.
func talking(ctx context.Context) error {
	reporter := ReporterFromContext(ctx)
	for _, word := range []string{"once ", "upon ", "a time"} {
		if err := reporter.Token(ctx, word); err != nil {
			return err
		}
		if word == "upon " && activity.GetInfo(ctx).Attempt == 1 {
			return errors.New("lost the thread")
		}
	}
	return nil
}

// mixed reports from its code and by the steps of activities, which are tried again
// when their worker is gone.
func mixed(ctx workflow.Context, in Input) (any, error) {
	how := struct{ Rounds, Millis, Heartbeat int }{Heartbeat: 5}
	if err := json.Unmarshal(in.Input, &how); err != nil {
		return nil, err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: time.Duration(how.Heartbeat) * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	})
	for round := range how.Rounds {
		if err := ReportMessage(ctx, taskbridge.Message{Text: "round"}); err != nil {
			return nil, err
		}
		if err := workflow.ExecuteActivity(ctx, "walking", round, how.Millis).Get(ctx, nil); err != nil {
			return nil, err
		}
	}
	return how.Rounds, nil
}

// walking makes two steps, some time apart.
func walking(ctx context.Context, round, millis int) error {
	for i := range 2 {
		if err := ReporterFromContext(ctx).Step(ctx, number(int64(i)), taskbridge.Progress{Percent: float64(10*round + i)}); err != nil {
			return err
		}
		timer := time.NewTimer(time.Duration(millis) * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return nil
}

// counts reports the gates that are open, twice: a workflow task that is tried
// again may see another number.
func counts(ctx workflow.Context, _ Input) (any, error) {
	signals := workflow.GetSignalChannel(ctx, "gate")
	for range 2 {
		if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(10 * signals.Len())}); err != nil {
			return nil, err
		}
	}
	signals.Receive(ctx, nil)
	return nil, ReportMessage(ctx, taskbridge.Message{Text: "through"})
}

// parallel reports from several coroutines at once.
func parallel(ctx workflow.Context, _ Input) (any, error) {
	over := workflow.NewWaitGroup(ctx)
	var failure error
	for i := range 3 {
		over.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer over.Done()
			for n := range 2 {
				err := ReportMessage(ctx, taskbridge.Message{Text: number(int64(10*i + n))})
				failure = errors.Join(failure, err, workflow.Sleep(ctx, time.Millisecond))
			}
		})
	}
	over.Wait(ctx)
	return nil, failure
}

// flaky fails in its first run, where it is started with a retry policy.
func flaky(ctx workflow.Context, _ Input) (any, error) {
	if workflow.GetInfo(ctx).Attempt == 1 {
		return nil, errors.New("not this time")
	}
	return workflow.GetInfo(ctx).Attempt, nil
}

// alone is an activity that is a task.
func alone(ctx context.Context, in Input) (any, error) {
	var how struct {
		Fail  string
		Final bool
		Until int32
		Wait  bool
	}
	if err := json.Unmarshal(in.Input, &how); err != nil {
		return nil, err
	}
	attempt := activity.GetInfo(ctx).Attempt
	if err := ReporterFromContext(ctx).Progress(ctx, taskbridge.Progress{Percent: float64(10 * attempt)}); err != nil {
		return nil, err
	}
	switch {
	case how.Wait:
		<-ctx.Done()
		return nil, ctx.Err()
	case how.Fail != "" && how.Final:
		return nil, temporal.NewNonRetryableApplicationError("as asked for", how.Fail, nil)
	case how.Fail != "" && attempt < how.Until:
		return nil, temporal.NewApplicationError("as asked for", how.Fail)
	}
	return attempt, nil
}
