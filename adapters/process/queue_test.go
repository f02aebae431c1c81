//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestNoMoreThanMaxRunningRunAtOnce(t *testing.T) {
	const tasks, bound = 300, 5
	marks := filepath.Join(t.TempDir(), "marks")
	must(t, os.WriteFile(marks, nil, 0o600))
	f := newFixture(t, map[string]Command{"x": script("printf + >> " + marks + "; printf - >> " + marks)}, func(o *Options) { o.MaxRunning = bound })
	created := make([]taskbridge.Task, tasks)
	var creators sync.WaitGroup
	for i := range tasks {
		creators.Go(func() {
			result, err := f.bridge.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{
				ClientRequestID: fmt.Sprint("n", i), TaskType: "x",
			})
			if err != nil {
				t.Errorf("create: %v", err)
			}
			created[i] = result.Task
		})
	}
	creators.Wait()
	for _, task := range created {
		if row := f.end(task); row.Status != taskbridge.StatusCompleted || row.Attempt != 1 {
			t.Fatalf("%s %s, attempt %d", row.Status, row.Terminal, row.Attempt)
		}
	}
	if most := f.lifecycle.most.Load(); most != bound {
		t.Errorf("%d were running at once", most)
	}
	data, err := os.ReadFile(marks)
	must(t, err)
	running := 0
	for _, mark := range data {
		if mark == '+' {
			running++
		} else {
			running--
		}
		if running > bound {
			t.Fatalf("%d processes at once", running)
		}
	}
	if len(data) != 2*tasks {
		t.Fatalf("%d marks", len(data))
	}
}

func TestTasksStartInTheOrderOfTheirSubmission(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{
		"gate": script("read -r line < " + gate.path),
		"x":    script(`exit 0`),
	}, func(o *Options) { o.MaxRunning = 1 })
	tasks := []taskbridge.Task{f.create("gate", `{}`)}
	for range 20 {
		tasks = append(tasks, f.create("x", `{}`))
	}
	gate.opens()
	var before taskbridge.Task
	for i, task := range tasks {
		row := f.end(task)
		if row.StartedAt.Before(before.FinishedAt) {
			t.Fatalf("task %d started before the one in front of it had ended", i)
		}
		before = row
	}
}

func TestSubmissionIsSafeToRepeat(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{
		"gate": script("read -r line < " + gate.path),
		"x":    script(`echo '::taskbridge {"message":"ran"}'`),
	}, func(o *Options) { o.MaxRunning = 1 })
	running, waiting := f.create("gate", `{}`), f.create("x", `{}`)
	for range 3 {
		must(t, f.executor.SubmitTask(f.ctx, running))
		must(t, f.executor.SubmitTask(f.ctx, waiting))
	}
	if f.executor.waiting.Len() != 1 {
		t.Fatalf("%d tasks wait", f.executor.waiting.Len())
	}
	gate.opens()
	f.end(running)
	f.end(waiting)
	must(t, f.executor.SubmitTask(f.ctx, running))
	must(t, f.executor.SubmitTask(f.ctx, waiting))
	f.end(running)
	row := f.end(waiting)
	if got := f.messages(waiting); len(got) != 1 || row.Attempt != 1 || f.row(running).Attempt != 1 {
		t.Fatalf("got %q, attempt %d", got, row.Attempt)
	}
}

func TestAFullQueueLeavesTheTaskAccepted(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{"gate": script("read -r line < " + gate.path)}, func(o *Options) {
		o.MaxRunning = 1
		o.MaxWaiting = 1
	})
	first, second, third := f.create("gate", `{}`), f.create("gate", `{}`), f.create("gate", `{}`)
	err := f.executor.SubmitTask(f.ctx, third)
	if err == nil || errors.Is(err, taskbridge.ErrSubmissionRejected) || !strings.Contains(err.Error(), "1 tasks are waiting") {
		t.Fatalf("got %v", err)
	}
	if row := f.row(third); row.Status != taskbridge.StatusAccepted || row.Submission.State == taskbridge.SubmissionRecorded {
		t.Fatalf("%s, submission %q", row.Status, row.Submission.State)
	}
	for task, want := range map[string]taskbridge.Knowledge{
		first.ID: taskbridge.InspectionRunning, second.ID: taskbridge.InspectionWaiting, third.ID: taskbridge.InspectionAbsent,
	} {
		f.until(deadline(), "the inspection is as it should be", func() bool {
			got, err := f.executor.InspectTask(f.ctx, taskbridge.Task{ID: task})
			must(t, err)
			return got.Knowledge == want
		})
	}
	gate.opens()
	f.end(first)
	must(t, f.executor.SubmitTask(f.ctx, third)) // as the reconciler does
	gate.opens()
	f.end(second)
	gate.opens()
	if row := f.end(third); row.Status != taskbridge.StatusCompleted {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
}

func TestATypeWithoutACommandIsRejected(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	err := f.executor.SubmitTask(f.ctx, taskbridge.Task{ID: "000-a", Type: "y"})
	var rejection *taskbridge.RejectionError
	if !errors.As(err, &rejection) || rejection.Failure.Code != "UNKNOWN_TASK_TYPE" {
		t.Fatalf("got %v", err)
	}
}

func TestATaskThatMayNotRunIsDropped(t *testing.T) {
	for _, refusal := range []error{taskbridge.ErrNotRunnable, taskbridge.ErrTaskNotFound, taskbridge.ErrTaskFinished, taskbridge.ErrInvalidArgument} {
		f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
		f.lifecycle.start = func(context.Context, string) error { return fmt.Errorf("start: %w", refusal) }
		task := f.create("x", `{}`)
		f.until(deadline(), "the task is dropped", func() bool {
			got, err := f.executor.InspectTask(f.ctx, task)
			must(t, err)
			return got.Knowledge == taskbridge.InspectionAbsent
		})
		if starts := f.lifecycle.starts.Load(); starts != 1 {
			t.Errorf("%v: %d starts", refusal, starts)
		}
	}
}

func TestAStartOfUnknownOutcomeIsMadeAgainWithTheSameClaim(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	calls := 0
	f.lifecycle.start = func(ctx context.Context, taskID string) error {
		if calls++; calls < 3 {
			return errors.New("the store is away")
		}
		return nil
	}
	row := f.end(f.create("x", `{}`))
	if row.Status != taskbridge.StatusCompleted || row.Attempt != 1 || calls != 3 {
		t.Fatalf("%s %s, attempt %d, %d calls", row.Status, row.Terminal, row.Attempt, calls)
	}
}

func TestATaskOfAnotherInstanceIsNotRun(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	must(t, f.executor.Close(f.ctx)) // so that it is not submitted yet
	task := f.create("x", `{}`)
	other := newFixture(t, map[string]Command{"x": script(`exit 0`)}, func(o *Options) {
		o.Lifecycle = f.lifecycle
		o.InstanceID = "instance-2"
	})
	must(t, other.executor.SubmitTask(f.ctx, task))
	other.until(deadline(), "the task is dropped", func() bool {
		got, err := other.executor.InspectTask(f.ctx, task)
		must(t, err)
		return got.Knowledge == taskbridge.InspectionAbsent
	})
	if row := f.row(task); row.Status != taskbridge.StatusAccepted || row.Attempt != 0 {
		t.Fatalf("%s, attempt %d", row.Status, row.Attempt)
	}
}

func TestMethodsHonourAContextThatHasEnded(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if err := f.executor.SubmitTask(ctx, taskbridge.Task{ID: "000-a", Type: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("submit: %v", err)
	}
	if err := f.executor.RequestCancellation(ctx, taskbridge.Task{ID: "000-a", Type: "x"}, "r"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}
	if _, err := f.executor.InspectTask(ctx, taskbridge.Task{ID: "000-a", Type: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("inspect: %v", err)
	}
	if err := f.executor.CheckHealth(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("health: %v", err)
	}
	if err := f.executor.KillSurvivors(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("kill survivors: %v", err)
	}
}
