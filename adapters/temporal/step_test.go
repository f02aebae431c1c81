//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// walk runs a worker whose activity "walking", which the workflow "mixed" calls, is
// the given one.
func (f *fixture) walk(walking func(ctx context.Context, reporter *Reporter, attempt int32) error) {
	f.t.Helper()
	p, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(f.t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
	registerWorkflows(w)
	w.RegisterActivityWithOptions(func(ctx context.Context, _, _ int) error {
		return walking(ctx, ReporterFromContext(ctx), activity.GetInfo(ctx).Attempt)
	}, activity.RegisterOptions{Name: "walking"})
	must(f.t, w.Start())
	f.t.Cleanup(w.Stop)
}

// steal reports as the producer of the activity's steps, by a clock that is so far
// ahead.
func (f *fixture) steal(ctx context.Context, reporter *Reporter, ahead time.Duration, text string) error {
	row, err := f.store.GetTask(ctx, reporter.taskID)
	if err != nil {
		return err
	}
	run, err := f.lifecycle.Start(ctx, row.ID, taskbridge.Claim{
		ID: row.Claim, Producer: reporter.steps.claim.Producer, Epoch: time.Now().Add(ahead).UnixMicro(),
	})
	if err != nil {
		return err
	}
	_, err = run.(taskbridge.NumberedRun).Report(ctx, []taskbridge.Report{{Ordinal: 1, Message: &taskbridge.Message{Text: text}}})
	return errors.Join(err, run.Close())
}

func progress(percent float64) taskbridge.Progress { return taskbridge.Progress{Percent: percent} }

// oneRound has no attempt replaced that is merely slow.
const oneRound = `{"rounds":1,"heartbeat":60}`

func TestAStepIsTakenByItsNameWhateverTheNextAttemptSays(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.walk(func(ctx context.Context, reporter *Reporter, attempt int32) error {
		for _, err := range []error{
			reporter.Step(ctx, "a", progress(float64(10*attempt))),
			reporter.Progress(ctx, progress(float64(90+attempt))),
			reporter.Step(ctx, "b", progress(float64(10*attempt+1))),
		} {
			if err != nil {
				return err
			}
		}
		if attempt < 3 {
			return errors.New("not yet")
		}
		return reporter.Step(ctx, "c", progress(100))
	})
	task := f.create("mixed", oneRound)
	f.wantResult(task, "1")
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":10}`, `PROGRESS {"progress":91}`,
		`PROGRESS {"progress":11}`, `PROGRESS {"progress":92}`, `PROGRESS {"progress":93}`, `PROGRESS {"progress":100}`, `COMPLETED {"result":1}`)
}

func TestAStepThatIsLeftToTheNextAttemptComesBeforeItsOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.walk(func(ctx context.Context, reporter *Reporter, attempt int32) error {
		if attempt > 1 {
			return reporter.Step(ctx, "other", progress(2))
		}
		// As if the worker were killed between the two.
		return errors.Join(reporter.intend(ctx, reporter.steps.next("left", progress(1), time.Now())), errors.New("killed"))
	})
	task := f.create("mixed", oneRound)
	f.wantResult(task, "1")
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":1}`, `PROGRESS {"progress":2}`, `COMPLETED {"result":1}`)
}

func TestAStepWhoseProducerWasTakenGoesOnUnderAHigherEpoch(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.walk(func(ctx context.Context, reporter *Reporter, attempt int32) error {
		if err := reporter.Step(ctx, "a", progress(1)); err != nil {
			return err
		}
		if attempt == 1 {
			if err := f.steal(ctx, reporter, 2*time.Minute, "stolen before b"); err != nil {
				return err
			}
		}
		if err := reporter.Step(ctx, "b", progress(2)); err != nil {
			return err
		}
		if attempt == 1 { // whether b was recorded is for the next attempt to find out
			return errors.Join(f.steal(ctx, reporter, 2*time.Hour, "stolen after b"), errors.New("killed"))
		}
		return reporter.Step(ctx, "c", progress(3))
	})
	task := f.create("mixed", oneRound)
	f.wantResult(task, "1")
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":1}`, `MESSAGE {"message":"stolen before b"}`,
		`PROGRESS {"progress":2}`, `MESSAGE {"message":"stolen after b"}`, `PROGRESS {"progress":3}`, `COMPLETED {"result":1}`)
}

func TestAStepInDoubtWhoseProducerWasTakenIsSearchedForBehindWhatWasReportedBefore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before bool // something was reported before the step
		want   []string
	}{
		"behind a report":  {true, []string{`PROGRESS {"progress":0}`, `PROGRESS {"progress":1}`, `MESSAGE {"message":"stolen"}`, `PROGRESS {"progress":2}`}},
		"the first of all": {false, []string{`PROGRESS {"progress":1}`, `MESSAGE {"message":"stolen"}`, `PROGRESS {"progress":1}`, `PROGRESS {"progress":2}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"bare": {}}})
			p, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, Logger: f.logger()})
			must(t, err)
			w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
			w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ Input) error {
				ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
				return workflow.ExecuteActivity(ctx, "walking").Get(ctx, nil)
			}, workflow.RegisterOptions{Name: "bare"})
			w.RegisterActivityWithOptions(func(ctx context.Context) error {
				reporter := ReporterFromContext(ctx)
				if c.before {
					if err := reporter.Step(ctx, "before", progress(0)); err != nil {
						return err
					}
				}
				if err := reporter.Step(ctx, "a", progress(1)); err != nil {
					return err
				}
				if activity.GetInfo(ctx).Attempt == 1 { // whether a was recorded is for the next attempt to find out
					return errors.Join(f.steal(ctx, reporter, 2*time.Minute, "stolen"), errors.New("killed"))
				}
				return reporter.Step(ctx, "b", progress(2))
			}, activity.RegisterOptions{Name: "walking"})
			must(t, w.Start())
			t.Cleanup(w.Stop)
			task := f.create("bare", `{}`)
			f.wantEnd(task, "", false)
			want(t, f.stream(task), append(append([]string{"STARTED {}"}, c.want...), `COMPLETED {"result":null}`)...)
		})
	}
}

func TestAStepThatAVersionBeforeLeftIsRepeatedUnderItsName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.walk(func(ctx context.Context, reporter *Reporter, attempt int32) error {
		if attempt > 1 {
			return errors.Join(reporter.Step(ctx, "left", progress(1)), reporter.Step(ctx, "other", progress(2)))
		}
		s := &reporter.steps
		s.claim.Producer = s.formerly
		left := s.next("left", progress(1), time.Now())
		left.Producer = ""
		return errors.Join(reporter.intend(ctx, left), reporter.step(ctx), errors.New("killed"))
	})
	task := f.create("mixed", oneRound)
	f.wantResult(task, "1")
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":1}`, `PROGRESS {"progress":2}`, `COMPLETED {"result":1}`)
}

func TestAnAttemptThatTemporalHasReplacedMakesNoStep(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	var release sync.Once
	over, told := make(chan struct{}), make(chan error, 1)
	f.walk(func(ctx context.Context, reporter *Reporter, attempt int32) error {
		if err := reporter.Step(ctx, "a", progress(1)); err != nil {
			return err
		}
		if attempt == 1 { // it does not say that it lives
			<-over
			told <- reporter.Step(ctx, "b", progress(99))
			return nil
		}
		if err := reporter.Step(ctx, "b", progress(2)); err != nil {
			return err
		}
		release.Do(func() {
			close(over)
			if err := receive(t, "the first attempt's step", told); !errors.Is(err, taskbridge.ErrStaleAttempt) {
				t.Errorf("the attempt that was replaced is told %v", err)
			}
		})
		return reporter.Step(ctx, "c", progress(3))
	})
	task := f.create("mixed", `{"rounds":1}`)
	f.wantResult(task, "1")
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":1}`, `PROGRESS {"progress":2}`,
		`PROGRESS {"progress":3}`, `COMPLETED {"result":1}`)
}

func TestAnActivityThatIsATaskRepeatsNoStepInItsNextAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"walking": {Activity: "walking", StartToCloseTimeout: time.Minute}}})
	p, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
	w.RegisterActivityWithOptions(func(ctx context.Context, _ Input) error {
		reporter, attempt := ReporterFromContext(ctx), activity.GetInfo(ctx).Attempt
		for i := range attempt {
			if err := reporter.Step(ctx, number(int64(i)), progress(float64(10*attempt+i))); err != nil {
				return err
			}
		}
		if attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	}, activity.RegisterOptions{Name: "walking"})
	must(t, w.Start())
	t.Cleanup(w.Stop)
	f.reconcile()
	task := f.create("walking", `{}`)
	f.wantEnd(task, "", false)
	want(t, f.stream(task), "STARTED {}", `PROGRESS {"progress":10}`, `MESSAGE {"message":"attempt 2 has started, the one before it did not finish","level":"warning"}`,
		`PROGRESS {"progress":21}`, `MESSAGE {"message":"attempt 3 has started, the one before it did not finish","level":"warning"}`,
		`PROGRESS {"progress":32}`, `COMPLETED {"result":null}`)
}
