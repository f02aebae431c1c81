//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// outage is a lifecycle that is away at times.
type outage struct {
	taskbridge.TaskLifecycle
	away atomic.Bool
}

func (o *outage) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if o.away.Load() {
		return nil, errors.New("away")
	}
	return o.TaskLifecycle.Start(ctx, taskID, claim)
}

// recordingActivities counts the activities in the history that record what a local
// one could not.
func (f *fixture) recordingActivities(task taskbridge.Task) (n int) {
	events := f.client.GetWorkflowHistory(f.ctx, f.prefix+task.ID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		must(f.t, err)
		if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == recordActivity {
			n++
		}
	}
	return n
}

func TestAnOutageThatIsLongerThanALocalActivityLosesNeitherStartNorEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlySilence, submission: &unwatched})
	lifecycle := &outage{TaskLifecycle: f.lifecycle}
	plugin, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	f.serve(worker.Options{Plugins: []worker.Plugin{plugin}})

	lifecycle.away.Store(true)
	task := f.create("gates", `{}`)
	f.until("the start has become an activity", func() bool { return f.recordingActivities(task) == 1 })
	f.wantStream(task, "")
	lifecycle.away.Store(false)
	f.awaitStream(task, "STARTED PROGRESS")
	f.signal(task, "gate", nil)
	f.awaitStream(task, "STARTED PROGRESS PROGRESS")

	lifecycle.away.Store(true)
	f.signal(task, "gate", nil)
	f.until("the end has become an activity", func() bool { return f.recordingActivities(task) == 2 })
	f.wantStream(task, "STARTED PROGRESS PROGRESS")
	lifecycle.away.Store(false)
	f.wantResult(task, `"through"`)
	must(t, f.client.GetWorkflow(f.ctx, f.prefix+task.ID, "").Get(f.ctx, nil))
	f.wantStream(task, "STARTED PROGRESS PROGRESS COMPLETED")
	if row := f.row(task); row.Attempt != 1 {
		t.Errorf("it has %d attempts", row.Attempt)
	}
	must(t, newReplayer(t, false).ReplayWorkflowHistory(quiet(), f.history(task, "outage")))
}
