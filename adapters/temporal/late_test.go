//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// holdingStarts is a lifecycle that is held up with the starts of an activity's first
// attempt until it is told to go on, whatever has become of who asked.
type holdingStarts struct {
	taskbridge.TaskLifecycle
	goOn     chan struct{}
	answered chan error // by a late start
	released sync.Once
}

func (h *holdingStarts) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if !strings.HasSuffix(claim.ID, "/1") {
		return h.TaskLifecycle.Start(ctx, taskID, claim)
	}
	<-h.goOn
	run, err := h.TaskLifecycle.Start(context.WithoutCancel(ctx), taskID, claim)
	h.answered <- err
	return run, err
}

func TestAnAttemptThatStartsLateDoesNotTakeTheTaskFromTheNextOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, change: onlySilence, types: map[string]TypeOptions{"alone": {
		Activity: "alone", StartToCloseTimeout: 2 * time.Second, RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	}}})
	lifecycle := &holdingStarts{TaskLifecycle: f.lifecycle, goOn: make(chan struct{}), answered: make(chan error, 1)}
	t.Cleanup(func() { lifecycle.released.Do(func() { close(lifecycle.goOn) }) })
	p, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
	w.RegisterActivityWithOptions(func(ctx context.Context, _ Input) error {
		lifecycle.released.Do(func() {
			close(lifecycle.goOn)
			if late := receive(t, "the first attempt's start", lifecycle.answered); !errors.Is(late, taskbridge.ErrStaleAttempt) {
				t.Errorf("the start of the first attempt, in the middle of a later one, is answered %v", late)
			}
		})
		return ReporterFromContext(ctx).Progress(ctx, progress(50))
	}, activity.RegisterOptions{Name: "alone"})
	must(t, w.Start())
	t.Cleanup(w.Stop)
	task := f.create("alone", `{}`)
	f.wantEnd(task, "", false)
	f.wantOneEnd(task)
	if got := f.stream(task); got[0] != "STARTED {}" || !slices.Contains(got, `PROGRESS {"progress":50}`) || f.row(task).Attempt == 0 {
		t.Errorf("the stream is %q", got)
	}
}

func TestAServerThatIsBehindDoesNotStartATaskForAnEarlierAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, change: onlySilence, types: aloneType()})
	task := f.create("alone", `{}`)
	behind := f.row(task)
	run, err := f.lifecycle.Start(f.ctx, task.ID, attemptClaim("run", 40))
	must(t, err)
	for _, attempt := range []int32{24, 39} {
		must(t, f.executor.startFor(f.ctx, behind, attemptClaim("run", attempt)))
	}
	must(t, run.Message(f.ctx, taskbridge.Message{Text: "still here"}))
	must(t, run.Complete(f.ctx, taskbridge.Completion{}))
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"still here"}`, `COMPLETED {"result":null}`)
}

// older is a server before some of what a claim may have.
type older struct {
	taskbridge.TaskLifecycle
	epochs bool // which it knows
	told   []taskbridge.Claim
}

func (o *older) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	o.told = append(o.told, claim)
	if len(claim.Replaces) > 0 || claim.Epoch > 0 && !o.epochs {
		return nil, &remote.Error{Status: 400}
	}
	return o.TaskLifecycle.Start(ctx, taskID, claim)
}

func TestAnOlderServerIsAskedWithoutWhatItDoesNotKnow(t *testing.T) {
	h := newRecording(t)
	for name, c := range map[string]struct {
		server older
		starts int
		epoch  int64
	}{
		"before claims that replace others": {older{epochs: true}, 2, 7},
		"before epochs":                     {older{}, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := &c.server
			server.TaskLifecycle = h.lifecycle
			r := &recorder{server, taskbridge.SystemClock{}}
			claim := attemptClaim("run", 3)
			claim.Producer, claim.Epoch = "source", 7
			run, err := r.start(t.Context(), h.task(), claim)
			must(t, err)
			must(t, run.Close())
			if last := server.told[len(server.told)-1]; len(server.told) != c.starts || last.ID != claim.ID || last.Epoch != c.epoch || last.Replaces != nil {
				t.Errorf("it was told %+v", server.told)
			}
		})
	}
}
