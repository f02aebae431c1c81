//go:build linux

package temporaladapter

import (
	"context"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	commonpb "go.temporal.io/api/common/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// bothWays runs a test with workers that have the plugin and with ones that have
// not; nobody looks at what was just submitted or is silent, so that the sweep finds
// what the workers don't tell.
func bothWays(t *testing.T, opts fixtureOptions, test func(t *testing.T, f *fixture, plain bool)) {
	t.Parallel()
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := opts
			opts.submission = &unwatched
			opts.change = func(o *Options) { o.FirstLook = time.Hour }
			f := newFixture(t, opts).reconcile()
			if plain {
				f.serve(worker.Options{})
			} else {
				f.work()
			}
			test(t, f, plain)
		})
	}
}

func TestAWorkflowThatCompletesCompletesItsTask(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("echo", `{"a":[1,"雪"]}`)
		f.wantResult(task, `{"a":[1,"雪"]}`)
		f.wantStream(task, "STARTED COMPLETED")
	})
}

func TestAWorkflowThatFailsFailsItsTaskWithItsOwnCode(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		for input, want := range map[string]taskbridge.Failure{
			`{}`:                               {Code: CodeFailed, Message: "as asked for", Retryable: true},
			`{"type":"NO_STOCK"}`:              {Code: "NO_STOCK", Message: "as asked for", Retryable: true},
			`{"type":"BAD_CARD","final":true}`: {Code: "BAD_CARD", Message: "as asked for"},
		} {
			task := f.create("fail", input)
			row := f.wantEnd(task, want.Code, want.Retryable)
			if got, _ := row.Failure(); got != want {
				t.Errorf("%s: the failure is %+v, want %+v", input, got, want)
			}
		}
	})
}

func TestAPanicInAnActivityFailsTheTaskAndTellsNothingOfItself(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		row := f.wantEnd(f.create("panic", `{}`), CodePanic, false)
		if strings.Contains(string(row.Terminal), "secret") {
			t.Errorf("the client is told %s", row.Terminal)
		}
	})
}

func TestACancelledWorkflowEndsWithTheClientsReason(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, plain bool) {
		task := f.create("wait", `{}`)
		if !plain {
			f.awaitStream(task, "STARTED")
		}
		f.until("the workflow has begun", func() bool {
			begun, err := f.executor.begun(f.ctx, f.prefix+task.ID)
			return err == nil && begun
		})
		f.cancel(task, "changed my mind")
		f.wantCancelled(task, "changed my mind")
	})
}

func TestAWorkflowThatIgnoresItsCancellationIsTerminatedAfterTheGrace(t *testing.T) {
	bothWays(t, fixtureOptions{
		types: map[string]TypeOptions{"ignore": {Cancel: Cancel{TerminateAfter: 100 * time.Millisecond}}},
	}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("ignore", `{}`)
		f.until("the workflow has begun", func() bool {
			begun, err := f.executor.begun(f.ctx, f.prefix+task.ID)
			return err == nil && begun
		})
		f.cancel(task, "enough")
		f.wantCancelled(task, "enough")
	})
}

func TestATimeOutOfTheWorkflowFailsItsTask(t *testing.T) {
	bothWays(t, fixtureOptions{
		types: map[string]TypeOptions{"wait": {ExecutionTimeout: time.Second}},
	}, func(t *testing.T, f *fixture, _ bool) {
		f.wantEnd(f.create("wait", `{}`), CodeTimedOut, true)
	})
}

func TestATerminationFromOutsideFailsTheTask(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("wait", `{}`)
		must(t, f.client.TerminateWorkflow(f.ctx, f.prefix+task.ID, "", "for a test"))
		f.wantEnd(task, CodeTerminated, true)
	})
}

func TestACancellationInTemporalCancelsTheTask(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("wait", `{}`)
		must(t, f.client.CancelWorkflow(f.ctx, f.prefix+task.ID, ""))
		if row := f.end(task); row.Status != taskbridge.StatusCancelled {
			t.Errorf("the task is %s %s", row.Status, row.Terminal)
		}
	})
}

func TestAWorkflowThatContinuesAsNewIsOneTask(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, plain bool) {
		task := f.create("chain", `{"left":2}`)
		f.wantResult(task, `"done"`)
		want := "STARTED PROGRESS PROGRESS PROGRESS COMPLETED"
		if plain {
			want = "STARTED COMPLETED"
		}
		f.wantStream(task, want)
		if row := f.row(task); !plain && row.Attempt != 1 {
			t.Errorf("it has %d attempts", row.Attempt)
		}
	})
}

func TestAWorkflowWithRetriesEndsAsItsLastRun(t *testing.T) {
	policy := &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, MaximumAttempts: 2}
	bothWays(t, fixtureOptions{
		types: map[string]TypeOptions{"flaky": {RetryPolicy: policy}, "fail": {RetryPolicy: policy}},
	}, func(t *testing.T, f *fixture, _ bool) {
		goesWell, fails := f.create("flaky", `{}`), f.create("fail", `{"type":"NO_STOCK"}`)
		f.wantResult(goesWell, `2`)
		f.wantStream(goesWell, "STARTED COMPLETED")
		f.wantEnd(fails, "NO_STOCK", true)
	})
}

// reset resets the task's workflow to its first workflow task.
func (f *fixture) reset(task taskbridge.Task) {
	f.t.Helper()
	events := f.client.GetWorkflowHistory(f.ctx, f.prefix+task.ID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		must(f.t, err)
		if event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			_, err := f.client.ResetWorkflowExecution(f.ctx, &workflowservice.ResetWorkflowExecutionRequest{
				Namespace: "default", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: f.prefix + task.ID},
				Reason: "for a test", RequestId: newName(), WorkflowTaskFinishEventId: event.GetEventId(),
			})
			must(f.t, err)
			return
		}
	}
	f.t.Fatal("the workflow has no task that is done")
}

func TestAResetBeforeTheEndLeavesOneTaskWithOneEnd(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, plain bool) {
		task := f.create("gates", `{}`)
		f.until("the workflow has done a task", func() bool {
			description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
			must(t, err)
			return description.GetPendingWorkflowTask() == nil && description.GetWorkflowExecutionInfo().GetHistoryLength() > 3
		})
		f.reset(task) // which terminates the run that there is
		f.signal(task, "gate", nil)
		f.signal(task, "gate", nil)
		f.wantResult(task, `"through"`)
		types := f.types(task)
		if strings.Count(types, "STARTED") != 1 || !strings.HasSuffix(types, " COMPLETED") {
			t.Errorf("the stream is %q", f.stream(task))
		}
		if row := f.row(task); !plain && row.Attempt != 1 {
			t.Errorf("it has %d attempts", row.Attempt)
		}
	})
}

func TestAResetAfterTheEndStartsNothingThatAClientCanSee(t *testing.T) {
	bothWays(t, fixtureOptions{}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("echo", `{"n":1}`)
		before := f.wantEnd(task, "", false)
		stream := f.types(task)
		must(t, f.client.GetWorkflow(f.ctx, f.prefix+task.ID, "").Get(f.ctx, nil)) // Temporal closes it later
		f.reset(task)
		run := f.client.GetWorkflow(f.ctx, f.prefix+task.ID, "")
		_ = run.Get(f.ctx, nil) // it may be refused, or run
		f.wantEnd(f.create("echo", `{}`), "", false)
		if row := f.row(task); row.Revision != before.Revision || f.types(task) != stream {
			t.Errorf("the task is %s %s in revision %d, was %d; its stream is %q", row.Status, row.Terminal, row.Revision, before.Revision, f.stream(task))
		}
	})
}

func TestAnActivityThatStandsAloneIsATask(t *testing.T) {
	few := TypeOptions{Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 10 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 3}}
	bothWays(t, fixtureOptions{
		types: map[string]TypeOptions{"alone": few},
	}, func(t *testing.T, f *fixture, plain bool) {
		done, again := f.create("alone", `{}`), f.create("alone", `{"fail":"NO_STOCK","until":2}`)
		lost, final := f.create("alone", `{"fail":"NO_STOCK","until":9}`), f.create("alone", `{"fail":"BAD_CARD","final":true}`)
		f.wantResult(done, `1`)
		f.wantResult(again, `2`)
		f.wantEnd(lost, "NO_STOCK", true)
		f.wantEnd(final, "BAD_CARD", false)
		if plain {
			return
		}
		f.wantStream(done, "STARTED PROGRESS COMPLETED")
		f.wantStream(again, "STARTED PROGRESS MESSAGE PROGRESS COMPLETED")
		waiting := f.create("alone", `{"wait":true}`)
		f.awaitStream(waiting, "STARTED PROGRESS")
		f.cancel(waiting, "enough")
		f.wantCancelled(waiting, "enough")
	})
}

func TestATerminatedActivityFailsItsTask(t *testing.T) {
	bothWays(t, fixtureOptions{
		types: map[string]TypeOptions{"alone": {Activity: "alone", StartToCloseTimeout: time.Minute}},
	}, func(t *testing.T, f *fixture, _ bool) {
		task := f.create("alone", `{"wait":true}`)
		handle := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + task.ID})
		must(t, handle.Terminate(context.WithoutCancel(f.ctx), client.TerminateActivityOptions{Reason: "for a test"}))
		f.wantEnd(task, CodeTerminated, true)
	})
}
