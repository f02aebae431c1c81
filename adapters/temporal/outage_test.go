//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// outage is a lifecycle that is away at times.
type outage struct {
	taskbridge.TaskLifecycle
	away  atomic.Bool
	asked atomic.Int64 // while it was away
}

func (o *outage) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if o.away.Load() {
		o.asked.Add(1)
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

func TestAnOutageThatIsLongerThanTheHeartbeatTimeoutUsesUpNoAttemptOfAnActivity(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, types: map[string]TypeOptions{"alone": {
		Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 5 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 3},
	}}, change: func(o *Options) { o.FirstLook = time.Hour }})
	lifecycle := &outage{TaskLifecycle: f.lifecycle}
	plugin, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	f.serve(worker.Options{Plugins: []worker.Plugin{plugin}})
	lifecycle.away.Store(true)
	task := f.create("alone", `{}`)
	f.until("the attempt has waited for seconds", func() bool { return lifecycle.asked.Load() >= 9 })
	description, err := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + task.ID}).Describe(f.ctx, client.DescribeActivityOptions{})
	if must(t, err); description.Attempt != 1 {
		t.Errorf("Temporal is at attempt %d", description.Attempt)
	}
	lifecycle.away.Store(false)
	f.wantResult(task, `1`)
	f.wantStream(task, "STARTED PROGRESS COMPLETED")
}

func TestAnOutageLeavesTheDetailsOfAnEarlierHeartbeatAsTheyAre(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, types: map[string]TypeOptions{"careful": {
		Activity: "careful", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 5 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 3},
	}}, change: func(o *Options) { o.FirstLook = time.Hour }})
	lifecycle := &outage{TaskLifecycle: f.lifecycle}
	plugin, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{plugin}})
	w.RegisterActivityWithOptions(func(ctx context.Context, _ Input) (string, error) {
		if activity.GetInfo(ctx).Attempt == 1 {
			activity.RecordHeartbeat(ctx, "so far", 2)
			lifecycle.away.Store(true)
			return "", errors.New("again")
		}
		return "done", nil
	}, activity.RegisterOptions{Name: "careful"})
	must(t, w.Start())
	t.Cleanup(w.Stop)
	task := f.create("careful", `{}`)
	handle := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + task.ID})
	f.until("the second attempt has heartbeat, waiting", func() bool {
		description, err := handle.Describe(f.ctx, client.DescribeActivityOptions{IncludeHeartbeatDetails: true})
		must(t, err)
		if description.TotalHeartbeatCount < 3 {
			return false
		}
		var text string
		var n int
		if must(t, description.GetHeartbeatDetails(&text, &n)); description.Attempt != 2 || text != "so far" || n != 2 {
			t.Fatalf("attempt %d has left %q, %d", description.Attempt, text, n)
		}
		return true
	})
	lifecycle.away.Store(false)
	f.wantResult(task, `"done"`)
	f.wantStream(task, "STARTED MESSAGE COMPLETED")
}

// held is a lifecycle whose runs complete when they are let.
type held struct {
	taskbridge.TaskLifecycle
	let chan struct{}
}

type heldRun struct {
	taskbridge.Run
	let chan struct{}
}

func (h held) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	run, err := h.TaskLifecycle.Start(ctx, taskID, claim)
	return heldRun{run, h.let}, err
}

func (h heldRun) Complete(ctx context.Context, completion taskbridge.Completion) error {
	select {
	case <-h.let:
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.Run.Complete(ctx, completion)
}

func TestAnOutageAtItsEndDoesNotStartAnActivityAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, types: map[string]TypeOptions{"alone": {
		Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: 5 * time.Second,
	}}, change: func(o *Options) { o.FirstLook = time.Hour }})
	lifecycle := held{f.lifecycle, make(chan struct{})}
	plugin, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	f.serve(worker.Options{Plugins: []worker.Plugin{plugin}})
	task := f.create("alone", `{}`)
	handle := f.client.GetActivityHandle(client.GetActivityHandleOptions{ActivityID: f.prefix + task.ID})
	f.until("the attempt has heartbeat for longer than its time-out", func() bool {
		description, err := handle.Describe(f.ctx, client.DescribeActivityOptions{})
		must(t, err)
		if description.Attempt > 1 {
			t.Fatalf("Temporal is at attempt %d", description.Attempt)
		}
		return activityBegun(description) && description.LastHeartbeatTime.Sub(description.LastStartedTime) > 6*time.Second
	})
	close(lifecycle.let)
	f.wantResult(task, `1`)
	f.wantStream(task, "STARTED PROGRESS COMPLETED")
}
