//go:build linux

package temporaladapter

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Benchmarks that belong together: from the creation of a task to its TASK_STARTED
// in the stream, and from a bare ExecuteWorkflow to the beginning of its first
// activity, each one at a time.
//
//	go test -run '^$' -bench ToStart -benchtime 500x

// quantiles reports them in milliseconds.
func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 {
		return took[min(len(took)-1, int(q*float64(len(took))))].Seconds() * 1000
	}
	b.ReportMetric(at(0.5), "ms-p50")
	b.ReportMetric(at(0.99), "ms-p99")
}

func BenchmarkCreateToStarted(b *testing.B) {
	f := newFixture(b, fixtureOptions{submission: &unwatched})
	f.work()
	var took []time.Duration
	for b.Loop() {
		begun := time.Now()
		task := f.create("echo", `{}`)
		page, err := f.bridge.Polling.PollEvents(f.ctx, owner, taskbridge.PollRequest{TaskID: task.ID, Wait: 30 * time.Second})
		must(b, err)
		if len(page.Events) == 0 || page.Events[0].Type != taskbridge.EventStarted {
			b.Fatalf("the stream begins with %v", page.Events)
		}
		took = append(took, time.Since(begun))
	}
	quantiles(b, took)
}

func BenchmarkBareWorkflowToStart(b *testing.B) {
	f := newFixture(b, fixtureOptions{})
	begun := make(chan time.Time, 1)
	w := worker.New(f.client, f.queue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		return workflow.ExecuteActivity(once(ctx), "first").Get(ctx, nil)
	}, workflow.RegisterOptions{Name: "bare"})
	w.RegisterActivityWithOptions(func(context.Context) error { begun <- time.Now(); return nil }, activity.RegisterOptions{Name: "first"})
	must(b, w.Start())
	defer w.Stop()
	var took []time.Duration
	for b.Loop() {
		at := time.Now()
		run, err := f.client.ExecuteWorkflow(f.ctx, client.StartWorkflowOptions{ID: newName(), TaskQueue: f.queue}, "bare")
		must(b, err)
		took = append(took, (<-begun).Sub(at))
		must(b, run.Get(f.ctx, nil))
	}
	quantiles(b, took)
}
