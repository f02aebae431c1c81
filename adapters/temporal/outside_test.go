//go:build linux

package temporaladapter

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// onlyFirstLooks has nothing look at tasks but the follower.
func onlyFirstLooks(o *Options) {
	o.FirstLook, o.SweepInterval = 20*time.Millisecond, time.Hour
}

// onlySilence has nothing look at tasks but the inspection of silent ones, as after a
// crash of the server that submitted them.
func onlySilence(o *Options) {
	o.FirstLook, o.SweepInterval = time.Hour, time.Hour
}

// onlySweeps has nothing look at tasks but the sweep.
func onlySweeps(o *Options) { o.FirstLook = time.Hour }

func aloneType() map[string]TypeOptions {
	return map[string]TypeOptions{"alone": {Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 10 * time.Second}}
}

// firstRun is the claim of the task's workflow.
func (f *fixture) firstRun(task taskbridge.Task) string {
	f.t.Helper()
	description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
	must(f.t, err)
	return description.GetWorkflowExecutionInfo().GetFirstRunId()
}

func (f *fixture) status(task taskbridge.Task) enumspb.WorkflowExecutionStatus {
	f.t.Helper()
	description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
	must(f.t, err)
	return description.GetWorkflowExecutionInfo().GetStatus()
}

func TestWorkWithoutThePluginIsStartedOnItsBehalf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change     func(*Options)
		submission taskbridge.SubmissionOptions
	}{
		"by the first looks":           {onlyFirstLooks, unwatched},
		"by the look at a silent task": {onlySilence, quick},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: aloneType(), change: c.change, submission: &c.submission}).reconcile()
			f.serve(worker.Options{})
			workflow, activity := f.create("wait", `{}`), f.create("alone", `{"wait":true}`)
			f.awaitStream(workflow, "STARTED")
			f.awaitStream(activity, "STARTED")
			if row := f.row(workflow); row.Attempt != 1 || row.Claim != f.firstRun(workflow) {
				t.Errorf("the workflow's task has attempt %d of %s", row.Attempt, row.Claim)
			}
			description, err := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + activity.ID}).
				Describe(f.ctx, client.DescribeActivityOptions{})
			must(t, err)
			if row, want := f.row(activity), description.ActivityRunID+"/1"; row.Attempt != 1 || row.Claim != want {
				t.Errorf("the activity's task has attempt %d of %s, want %s", row.Attempt, row.Claim, want)
			}
		})
	}
}

func TestTheStartOnBehalfAndThePluginsAreOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlyFirstLooks, submission: &unwatched}).reconcile()
	f.work()
	tasks := []taskbridge.Task{}
	for range 20 {
		task := f.create("gates", `{}`)
		f.signal(task, "gate", nil)
		f.signal(task, "gate", nil)
		tasks = append(tasks, task)
	}
	for _, task := range tasks {
		f.wantResult(task, `"through"`)
		f.wantStream(task, "STARTED PROGRESS PROGRESS COMPLETED")
		if row := f.row(task); row.Attempt != 1 {
			t.Errorf("it has %d attempts", row.Attempt)
		}
	}
}

func TestWhatWaitsForAWorkerIsNotStarted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: aloneType(), change: onlySilence, submission: &unwatched})
	workflow, activity := f.create("gates", `{}`), f.create("alone", `{}`)
	for range 5 { // a longer history, and nobody has begun
		f.signal(workflow, "gate", nil)
	}
	for _, task := range []taskbridge.Task{workflow, activity} {
		inspection, err := f.executor.InspectTask(f.ctx, f.row(task))
		if must(t, err); inspection.Knowledge != taskbridge.InspectionWaiting {
			t.Errorf("of the %s is known %d", task.Type, inspection.Knowledge)
		}
		f.wantStream(task, "")
	}
	f.serve(worker.Options{})
	must(t, f.client.GetWorkflow(f.ctx, f.prefix+workflow.ID, "").Get(f.ctx, nil))
	must(t, f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + activity.ID}).Get(f.ctx, nil))
	for _, task := range []taskbridge.Task{workflow, activity} {
		must(t, f.executor.settleEnded(f.ctx, f.row(task)))
		f.wantStream(task, "STARTED COMPLETED")
	}
}

func TestTheEndOfAWorkflowWithoutThePluginIsSeenWithinTwoSweepIntervals(t *testing.T) {
	t.Parallel()
	clock := newSweepClock(17 * time.Minute)
	f := newFixture(t, fixtureOptions{types: aloneType(), submission: &unwatched, change: func(o *Options) {
		onlySweeps(o)
		o.Clock, o.SweepInterval = clock, clock.interval
	}})
	f.serve(worker.Options{})
	clock.sweeps(t, 1)
	tasks := map[string]taskbridge.Task{}
	for taskType, input := range map[string]string{"echo": `{}`, "fail": `{}`, "wait": `{}`, "ignore": `{}`, "alone": `{}`} {
		tasks[taskType] = f.create(taskType, input)
	}
	f.until("the workflow has begun", func() bool {
		begun, err := f.executor.begun(f.ctx, f.prefix+tasks["wait"].ID)
		return err == nil && begun
	})
	must(t, f.client.CancelWorkflow(f.ctx, f.prefix+tasks["wait"].ID, ""))
	must(t, f.client.TerminateWorkflow(f.ctx, f.prefix+tasks["ignore"].ID, "", "for a test"))
	// A list that is behind by less than an interval is as good.
	f.until("Temporal lists what has closed", func() bool { return f.closed() == len(tasks) })
	clock.sweeps(t, 2)
	for taskType, want := range map[string]taskbridge.TaskStatus{
		"echo": taskbridge.StatusCompleted, "fail": taskbridge.StatusFailed, "wait": taskbridge.StatusCancelled,
		"ignore": taskbridge.StatusFailed, "alone": taskbridge.StatusCompleted,
	} {
		if row := f.row(tasks[taskType]); row.Status != want {
			t.Errorf("the task of %s is %s after two sweep intervals, want %s", taskType, row.Status, want)
		}
	}
}

// closed is how much has closed, as Temporal's lists have it.
func (f *fixture) closed() (n int) {
	f.t.Helper()
	must(f.t, f.executor.listClosed(f.ctx, time.Time{}, func(page []execution) { n += len(page) }))
	return n
}

func TestASweepTakesAllPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: aloneType(), change: onlySilence, submission: &unwatched})
	f.executor.pageSize = 2
	var tasks []taskbridge.Task
	for i := range 13 {
		if i%3 == 0 {
			tasks = append(tasks, f.create("alone", `{}`))
			continue
		}
		tasks = append(tasks, f.create("echo", `{}`))
	}
	f.serve(worker.Options{})
	f.until("Temporal lists what has closed", func() bool { return f.closed() == len(tasks) })
	state := newSweepState()
	must(t, f.executor.sweepOnce(f.ctx, state))
	for _, task := range tasks {
		f.wantStream(task, "STARTED COMPLETED")
	}
	if len(state.done) != len(tasks) {
		t.Errorf("the sweep keeps %d runs, want %d", len(state.done), len(tasks))
	}
}

func TestASweepGoesByTemporalsClock(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{submission: &unwatched, change: func(o *Options) {
				onlySweeps(o)
				o.Clock = aside{by: by}
			}})
			f.serve(worker.Options{})
			f.wantEnd(f.create("echo", `{}`), "", false)
			f.wantEnd(f.create("echo", `{}`), "", false)
		})
	}
}

func TestASweepThatTemporalTurnsAwayMissesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlySilence, submission: &unwatched})
	state := newSweepState()
	must(t, f.executor.sweepOnce(f.ctx, state))
	f.serve(worker.Options{})
	task := f.create("echo", `{}`)
	f.until("Temporal lists what has closed", func() bool { return f.closed() == 1 })
	namespace := f.executor.Namespace
	f.executor.Namespace = "vanished"
	if err := f.executor.sweepOnce(f.ctx, state); err == nil || !strings.Contains(err.Error(), "vanished") {
		t.Errorf("a sweep of a namespace that is not there says %v", err)
	}
	if row := f.row(task); row.Status.Terminal() {
		t.Errorf("the task is %s", row.Status)
	}
	f.executor.Namespace = namespace
	must(t, f.executor.sweepOnce(f.ctx, state))
	f.wantResult(task, `{}`)
}

func TestWorkWhoseTaskEndedWithoutItIsStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{
		types: map[string]TypeOptions{
			"ignore": {Cancel: Cancel{TerminateAfter: time.Millisecond}},
			"alone":  {Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 10 * time.Second, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1}},
		},
		change: onlySilence, submission: &unwatched,
	})
	unknown := taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: taskbridge.CodeSubmissionOutcomeUnknown, Message: "-"}}
	stop := f.serve(worker.Options{})
	cooperative, ignoring, alone := f.create("wait", `{}`), f.create("ignore", `{}`), f.create("alone", `{"wait":true}`)
	f.until("the workflows have begun", func() bool {
		one, err := f.executor.begun(f.ctx, f.prefix+cooperative.ID)
		other, failure := f.executor.begun(f.ctx, f.prefix+ignoring.ID)
		return err == nil && failure == nil && one && other
	})
	handle := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + alone.ID})
	f.until("the activity has begun", func() bool {
		description, err := handle.Describe(f.ctx, client.DescribeActivityOptions{})
		return err == nil && activityBegun(description)
	})
	for _, task := range []taskbridge.Task{cooperative, ignoring, alone} {
		must(t, f.lifecycle.Settle(f.ctx, task.ID, unknown))
	}
	f.until("Temporal lists what is open", func() bool { return f.open() == 3 })
	state := newSweepState()
	f.until("the first look has stopped them", func() bool {
		must(t, f.executor.sweepOnce(f.ctx, state))
		return f.status(cooperative) == enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED && f.status(ignoring) == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
	})
	f.until("the activity has stopped", func() bool {
		description, err := handle.Describe(f.ctx, client.DescribeActivityOptions{})
		return err == nil && description.Status != enumspb.ACTIVITY_EXECUTION_STATUS_RUNNING
	})
	stop()

	waiting := f.create("wait", `{}`)
	must(t, f.lifecycle.Settle(f.ctx, waiting.ID, unknown))
	f.until("a later look has stopped what no worker had begun", func() bool {
		must(t, f.executor.sweepOnce(f.ctx, state))
		return f.status(waiting) == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
	})
	for _, task := range []taskbridge.Task{cooperative, ignoring, alone, waiting} {
		f.wantStream(task, "FAILED")
	}
}

// open is how much is open, as Temporal's lists have it.
func (f *fixture) open() (n int) {
	f.t.Helper()
	must(f.t, f.executor.listOpen(f.ctx, time.Time{}, func(page []execution) { n += len(page) }))
	return n
}

// endingRows ends a task when somebody has read its row: between a look and the start
// that follows from it.
type endingRows struct {
	Rows
	end func(taskID string)
}

func (r endingRows) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	row, err := r.Rows.GetTask(ctx, taskID)
	if err == nil && !row.Status.Terminal() {
		r.end(taskID)
	}
	return row, err
}

func TestAWorkflowThatIsToldItMustNotRunIsStopped(t *testing.T) {
	t.Parallel()
	var f *fixture
	f = newFixture(t, fixtureOptions{submission: &unwatched, change: func(o *Options) {
		onlySilence(o)
		o.Rows = endingRows{o.Rows, func(taskID string) {
			must(t, f.lifecycle.Settle(f.ctx, taskID, taskbridge.Outcome{Status: taskbridge.StatusCancelled}))
		}}
	}})
	f.serve(worker.Options{})
	task := f.create("wait", `{}`)
	f.until("the workflow has begun", func() bool {
		begun, err := f.executor.begun(f.ctx, f.prefix+task.ID)
		return err == nil && begun
	})
	row, err := f.executor.Rows.GetTask(f.ctx, task.ID) // and it ends
	must(t, err)
	must(t, f.executor.settleEnded(f.ctx, row))
	f.until("the workflow is cancelled", func() bool { return f.status(task) == enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED })
	f.wantStream(task, "CANCELLED")
}

func TestAResetAfterTheEndIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlySilence, submission: &unwatched})
	f.serve(worker.Options{})
	task := f.create("gates", `{}`)
	f.signal(task, "gate", nil)
	f.until("the workflow waits at its second gate", func() bool {
		description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
		must(t, err)
		return description.GetPendingWorkflowTask() == nil && description.GetWorkflowExecutionInfo().GetHistoryLength() > 4
	})
	must(t, f.client.TerminateWorkflow(f.ctx, f.prefix+task.ID, "", "for a test"))
	must(t, f.executor.settleEnded(f.ctx, f.row(task)))
	f.wantStream(task, "STARTED FAILED")
	f.reset(task)
	f.until("Temporal lists the new run", func() bool { return f.open() == 1 })
	must(t, f.executor.sweepOnce(f.ctx, newSweepState()))
	if status := f.status(task); status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("the run that somebody made by a reset is %s", status)
	}
	description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
	must(t, err)
	if description.GetWorkflowExtendedInfo().GetCancelRequested() {
		t.Error("it was asked to stop")
	}
	must(t, f.client.TerminateWorkflow(f.ctx, f.prefix+task.ID, "", "the test is over"))
}

func TestTheFirstLooksEndByThemselves(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, change: func(o *Options) {
		onlyFirstLooks(o)
		o.FirstLook = time.Millisecond
	}})
	f.create("wait", `{}`) // and no worker comes
	f.until("nothing is followed", func() bool {
		f.executor.follow.mu.Lock()
		defer f.executor.follow.mu.Unlock()
		return len(f.executor.follow.tasks) == 0
	})
	for i := range mostFollowed + 1 {
		f.executor.follow.add(fmt.Sprintf("unknown-%d", i))
	}
	f.until("nothing is followed", func() bool {
		f.executor.follow.mu.Lock()
		defer f.executor.follow.mu.Unlock()
		return len(f.executor.follow.tasks) == 0
	})
}
