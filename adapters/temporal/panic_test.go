//go:build linux

package temporaladapter

import (
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// registerFragile registers a workflow that waits, and then panics where the worker is
// broken.
func registerFragile(w worker.WorkflowRegistry, broken bool) {
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ Input) (string, error) {
		if err := ReportProgress(ctx, taskbridge.Progress{Percent: 10}); err != nil {
			return "", err
		}
		workflow.GetSignalChannel(ctx, "gate").Receive(ctx, nil)
		if broken {
			panic("secret of the house")
		}
		return "mended", nil
	}, workflow.RegisterOptions{Name: "fragile"})
}

var fragile = map[string]TypeOptions{"fragile": {TaskTimeout: 2 * time.Second}}

// panicked reports whether a workflow task of the task's workflow has failed of a panic.
func (f *fixture) panicked(task taskbridge.Task) bool {
	events := f.client.GetWorkflowHistory(f.ctx, f.prefix+task.ID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		must(f.t, err)
		failed := event.GetWorkflowTaskFailedEventAttributes()
		if strings.Contains(failed.GetFailure().GetMessage(), "secret") {
			return true
		}
	}
	return false
}

func TestAPanicOfAWorkflowHoldsItsTaskUpUntilAFixedWorkerComes(t *testing.T) {
	t.Parallel()
	f, setup := newProcessFixture(t, fixtureOptions{types: fragile})
	f.reconcile()
	setup.Broken = true
	broken := startWorker(t, setup)
	task := f.create("fragile", `{}`)
	f.awaitStream(task, "STARTED PROGRESS")
	f.signal(task, "gate", nil)
	f.until("the workflow has panicked", func() bool { return f.panicked(task) })
	if row := f.row(task); row.Status != taskbridge.StatusRunning {
		t.Errorf("the task is %s %s", row.Status, row.Terminal)
	}
	broken.kill()
	setup.Broken = false
	startWorker(t, setup)
	f.wantResult(task, `"mended"`)
	f.wantStream(task, "STARTED PROGRESS COMPLETED")
	if row := f.row(task); row.Attempt != 1 {
		t.Errorf("it has %d attempts", row.Attempt)
	}
}

func TestAPanicOfAWorkflowWhoseWorkerFailsOnPanicsFailsItsTask(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: fragile, submission: &unwatched})
			options := worker.Options{WorkflowPanicPolicy: worker.FailWorkflow}
			if !plain {
				plugin, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix})
				must(t, err)
				options.Plugins = []worker.Plugin{plugin}
			}
			w := worker.New(f.client, f.queue, options)
			registerFragile(w, true)
			must(t, w.Start())
			t.Cleanup(w.Stop)
			task := f.create("fragile", `{}`)
			f.signal(task, "gate", nil)
			if row := f.wantEnd(task, CodePanic, false); strings.Contains(string(row.Terminal), "secret") {
				t.Errorf("the client is told %s", row.Terminal)
			}
		})
	}
}
