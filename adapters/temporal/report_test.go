//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestASuspendedWorkflowGoesOnWithTheActionMeantForIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.work()
	task := f.create("suspend", `{}`)
	f.awaitStream(task, "STARTED SUSPENDED")
	f.signal(task, ActionSignal, Action{SuspendID: "another", ActionID: "1", ActionType: "reject"})
	f.signal(task, ActionSignal, Action{SuspendID: "approve", ActionID: "2", ActionType: "approve", AcceptedAt: time.Now()})
	f.signal(task, ActionSignal, Action{SuspendID: "approve", ActionID: "3", ActionType: "reject"})
	f.wantResult(task, `"approve"`)
	f.wantStream(task, "STARTED SUSPENDED COMPLETED")
}

func TestASuspendedWorkflowCanBeCancelled(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.work()
	task := f.create("suspend", `{}`)
	f.awaitStream(task, "STARTED SUSPENDED")
	f.cancel(task, "never mind")
	f.wantCancelled(task, "never mind")
	f.wantStream(task, "STARTED SUSPENDED CANCELLED")
}

func TestOnlyTheChildThatIsAskedToReports(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.work()
	task := f.create("family", `{}`)
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED PROGRESS PROGRESS COMPLETED") // of the second child and its activity
	if line := f.stream(task)[1]; !strings.Contains(line, "20") {
		t.Errorf("the first progress is %s", line)
	}
}

func TestARetriedActivityRepeatsNoStepAndAnnouncesItsText(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.work()
	task := f.create("report", `{}`)
	f.wantEnd(task, "", false)
	got := f.stream(task)
	want := []string{
		"STARTED {}", `PROGRESS {"progress":20}`, `PROGRESS {"progress":40}`,
		`MESSAGE {"message":"once upon "}`, `MESSAGE {"message":"attempt 2 of talking begins its text again","level":"warning"}`,
		`MESSAGE {"message":"once upon a time"}`, `COMPLETED {"result":null}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the stream is %q, want %q", got, want)
	}
}

func TestACancellationMayBeASignal(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"gates": {Cancel: Cancel{Signal: "gate"}}}})
	f.work()
	task := f.create("gates", `{}`)
	f.awaitStream(task, "STARTED PROGRESS")
	f.cancel(task, "please") // opens the first gate
	f.awaitStream(task, "STARTED PROGRESS PROGRESS")
	f.signal(task, "gate", CancelSignal{})
	f.wantResult(task, `"through"`) // cooperative work may finish what it has begun
}

func TestATaskThatIsTooLargeIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: func(o *Options) { o.MaxPayload = 1000 }})
	task := taskbridge.Task{ID: taskbridge.NewTaskID("owner", "key"), Type: "echo", Input: []byte(`{"a":"` + strings.Repeat("x", 1000) + `"}`)}
	err := f.executor.SubmitTask(f.ctx, task)
	if err == nil || !strings.Contains(err.Error(), CodeTooLarge) || !strings.Contains(err.Error(), "at most 1000 are allowed") {
		t.Errorf("it is answered %v", err)
	}
}

func TestAnUnknownNamespaceIsNoReasonToGiveATaskUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: func(o *Options) { o.Namespace = "nowhere" }})
	if err := f.executor.CheckHealth(f.ctx); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("the health is %v", err)
	}
}

func TestANamespaceThatForgetsTooSoonIsUnhealthy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: func(o *Options) { o.Submission.Deadline = 10000 * time.Hour }})
	if err := f.executor.CheckHealth(f.ctx); err == nil || !strings.Contains(err.Error(), "keeps what has closed") {
		t.Errorf("the health is %v", err)
	}
}

// forgetful hands tasks over and loses the answer, as a server does that crashes
// between the two.
type forgetful struct{ *Executor }

func (e forgetful) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	return errors.Join(e.Executor.SubmitTask(ctx, task), errors.New("crashed"))
}

func TestAServerThatCrashesBetweenStartAndRecordStartsOneWorkflow(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"echo": forgetful{f.executor}})
	must(t, err)
	crashing, err := taskbridge.New(taskbridge.Options{Stores: f.stores, Executors: router, Submission: quick})
	must(t, err)
	defer crashing.Subscription.Close()
	created, err := crashing.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{ClientRequestID: "crash", TaskType: "echo"})
	must(t, err)
	if state := f.row(created.Task).Submission.State; state == taskbridge.SubmissionRecorded {
		t.Fatal("the submission is recorded, which this test is not about")
	}
	f.reconcile()
	f.until("the submission is recorded", func() bool { return f.row(created.Task).Submission.State == taskbridge.SubmissionRecorded })
	f.work()
	f.wantResult(created.Task, "{}")
	f.wantStream(created.Task, "STARTED COMPLETED")
	if n := begunHere(created.Task.ID); n != 1 {
		t.Errorf("the work was begun %d times", n)
	}
}
