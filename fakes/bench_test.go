package fakes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

// bench is an executor over stores in memory whose time is moved by hand.
type bench struct {
	t         *testing.T
	clock     *fakes.ManualClock
	store     *memory.Store
	faults    *fakes.Faults // of what the executor's lifecycle does to the store
	lifecycle *taskbridge.LocalLifecycle
	executor  *fakes.DeterministicFakeExecutor
	made      int
}

func newBench(t *testing.T, opts fakes.Options) *bench {
	t.Helper()
	b := &bench{
		t: t, clock: fakes.NewManualClock(epoch),
		store: memory.NewStore(memory.Options{}), faults: fakes.NewFaults(),
	}
	var err error
	b.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: fakes.WrapStores(taskbridge.Stores{Tasks: b.store, Events: b.store}, b.faults),
		Clock:  b.clock,
		// Longer than any test, so that a script's wait can be told from them: a
		// run that has just ended may not have stopped its timers yet.
		TokenDelay: time.Hour, Backstop: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	opts.Lifecycle, opts.Clock = b.lifecycle, b.clock
	if b.executor, err = fakes.NewDeterministicFakeExecutor(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.faults.Clear()
		if err := b.executor.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// create makes the row of a task that is about to be submitted.
func (b *bench) create() taskbridge.Task {
	b.t.Helper()
	b.made++
	task := row(fmt.Sprintf("task-%d", b.made))
	task.Instance = b.executor.InstanceID()
	task.Submission.State = taskbridge.SubmissionClaimed
	task, _, err := b.store.CreateTask(b.t.Context(), task)
	if err != nil {
		b.t.Fatal(err)
	}
	return task
}

func (b *bench) submit() taskbridge.Task {
	b.t.Helper()
	task := b.create()
	if err := b.executor.SubmitTask(b.t.Context(), task); err != nil {
		b.t.Fatal(err)
	}
	return task
}

// requestCancel stores a client's intent.
func (b *bench) requestCancel(id, reason string) taskbridge.Task {
	b.t.Helper()
	for {
		task, err := b.store.GetTask(b.t.Context(), id)
		if err != nil {
			b.t.Fatal(err)
		}
		task.Cancellation = taskbridge.Cancellation{RequestedAt: b.clock.Now(), Reason: reason}
		if task, err = b.store.UpdateTask(b.t.Context(), task); err == nil {
			return task
		}
		if !errors.Is(err, taskbridge.ErrRevisionConflict) {
			b.t.Fatal(err)
		}
	}
}

// waitFor waits until so many scripts are in their waits of a second.
func (b *bench) waitFor(scripts int) {
	b.t.Helper()
	if err := b.clock.BlockUntilDue(b.t.Context(), scripts, time.Second); err != nil {
		b.t.Fatal(err)
	}
}

// tick lets one wait of so many scripts pass.
func (b *bench) tick(scripts int) {
	b.t.Helper()
	b.waitFor(scripts)
	b.clock.Advance(time.Second)
}

// await waits for the row to be as is says.
func (b *bench) await(id string, is func(taskbridge.Task) bool) taskbridge.Task {
	b.t.Helper()
	woken := make(chan struct{}, 1)
	stop, err := b.store.WatchTask(b.t.Context(), id, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer stop()
	for {
		task, err := b.store.GetTask(b.t.Context(), id)
		if err != nil {
			b.t.Fatal(err)
		}
		if is(task) {
			return task
		}
		<-woken
	}
}

func (b *bench) awaitEnd(id string) taskbridge.Task {
	b.t.Helper()
	return b.await(id, func(task taskbridge.Task) bool { return task.Status.Terminal() })
}

func (b *bench) awaitRunning(id string) {
	b.t.Helper()
	b.await(id, func(task taskbridge.Task) bool { return task.Status == taskbridge.StatusRunning })
}

// stream returns the events as lines "<seconds since the epoch> <type> <payload>".
func (b *bench) stream(id string) []string {
	b.t.Helper()
	events, err := b.store.ReadEvents(b.t.Context(), id, 0, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%g %s %s", e.CreatedAt.Sub(epoch).Seconds(), e.Type, e.Payload))
	}
	return lines
}

func (b *bench) wantStream(id string, want ...string) {
	b.t.Helper()
	if got := b.stream(id); !slices.Equal(got, want) {
		b.t.Errorf("the stream is\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (b *bench) inspect(task taskbridge.Task) taskbridge.Knowledge {
	b.t.Helper()
	inspection, err := b.executor.InspectTask(b.t.Context(), task)
	if err != nil {
		b.t.Fatal(err)
	}
	return inspection.Knowledge
}
