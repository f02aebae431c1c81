package fakes_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

func row(id string) taskbridge.Task {
	return taskbridge.Task{
		ID: id, Owner: "alice", ClientRequestID: id, Type: "t", Status: taskbridge.StatusAccepted,
		Input: []byte(`{}`), Metadata: []byte(`{}`), CreatedAt: epoch, UpdatedAt: epoch,
	}
}

func TestTheNthCallOfAnOperationFailsBeforeItsEffect(t *testing.T) {
	faults := fakes.NewFaults()
	tasks := fakes.WrapTasks(memory.NewTasks(), faults)
	away := errors.New("store is away")
	faults.On(fakes.OpCreateTask, 2, fakes.FailBefore(away))
	for i, id := range []string{"a", "b", "c"} {
		_, created, err := tasks.CreateTask(t.Context(), row(id))
		_, getErr := tasks.GetTask(t.Context(), id)
		if i == 1 {
			if !errors.Is(err, away) || created || !errors.Is(getErr, taskbridge.ErrTaskNotFound) {
				t.Errorf("%s: created %v, error %v; then %v", id, created, err, getErr)
			}
		} else if err != nil || !created || getErr != nil {
			t.Errorf("%s: created %v, error %v; then %v", id, created, err, getErr)
		}
	}
	if got := faults.Calls(fakes.OpCreateTask); got != 3 {
		t.Errorf("%d calls counted, want 3", got)
	}
}

func TestACallThatFailsAfterItsEffectHasHappened(t *testing.T) {
	faults := fakes.NewFaults()
	tasks := fakes.WrapTasks(memory.NewTasks(), faults)
	faults.On(fakes.OpCreateTask, 1, fakes.FailAfter(nil))
	if _, created, err := tasks.CreateTask(t.Context(), row("a")); !errors.Is(err, fakes.ErrInjected) || created {
		t.Errorf("created %v, error %v", created, err)
	}
	if _, err := tasks.GetTask(t.Context(), "a"); err != nil {
		t.Errorf("the row is not there: %v", err)
	}
	if _, created, err := tasks.CreateTask(t.Context(), row("a")); err != nil || created {
		t.Errorf("repeated: created %v, error %v", created, err)
	}
}

func TestFaultsCountFromWhereTheyArePlanned(t *testing.T) {
	faults := fakes.NewFaults()
	tasks := fakes.WrapTasks(memory.NewTasks(), faults)
	get := func() error { _, err := tasks.GetTask(t.Context(), "x"); return err }
	_ = get()
	faults.On(fakes.OpGetTask, 2, fakes.FailBefore(nil))
	faults.OnStep(3, fakes.FailBefore(nil))
	var failed []bool
	for range 4 {
		failed = append(failed, errors.Is(get(), fakes.ErrInjected))
	}
	if want := []bool{false, true, true, false}; !slices.Equal(failed, want) {
		t.Errorf("calls after the planning failed: %v, want %v", failed, want)
	}
	faults.OnEvery(fakes.OpGetTask, fakes.FailBefore(nil))
	for range 2 {
		if err := get(); !errors.Is(err, fakes.ErrInjected) {
			t.Errorf("error %v", err)
		}
	}
	faults.Clear()
	if err := get(); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("after Clear: error %v", err)
	}
}

func TestACallIsDelayedUntilItIsReleased(t *testing.T) {
	faults := fakes.NewFaults()
	store := memory.NewTasks()
	tasks := fakes.WrapTasks(store, faults)
	release, arrived := make(chan struct{}), make(chan struct{})
	faults.On(fakes.OpCreateTask, 1, fakes.Hook(func(fakes.Call) { close(arrived) }))
	faults.On(fakes.OpCreateTask, 1, fakes.Delay(release))
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, created, err := tasks.CreateTask(t.Context(), row("a")); err != nil || !created {
			t.Errorf("created %v, error %v", created, err)
		}
	})
	<-arrived
	if _, err := store.GetTask(t.Context(), "a"); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("the row is there before the release: %v", err)
	}
	close(release)
	wg.Wait()
	if _, err := store.GetTask(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func TestACallThatHangsReturnsWithItsContextOrTheProcess(t *testing.T) {
	for name, end := range map[string]struct {
		how  func(cancel context.CancelFunc, faults *fakes.Faults)
		want error
	}{
		"context": {func(cancel context.CancelFunc, _ *fakes.Faults) { cancel() }, context.Canceled},
		"process": {func(_ context.CancelFunc, faults *fakes.Faults) { faults.Kill() }, fakes.ErrCrashed},
	} {
		t.Run(name, func(t *testing.T) {
			faults := fakes.NewFaults()
			store := memory.NewTasks()
			tasks := fakes.WrapTasks(store, faults)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			faults.On(fakes.OpCreateTask, 1, fakes.Hook(func(fakes.Call) { end.how(cancel, faults) }))
			faults.On(fakes.OpCreateTask, 1, fakes.Hang())
			if _, _, err := tasks.CreateTask(ctx, row("a")); !errors.Is(err, end.want) {
				t.Errorf("error %v, want %v", err, end.want)
			}
			if _, err := store.GetTask(t.Context(), "a"); !errors.Is(err, taskbridge.ErrTaskNotFound) {
				t.Errorf("the call had an effect: %v", err)
			}
		})
	}
}

func TestAfterACrashNothingHappensThroughAnyWrapper(t *testing.T) {
	for name, c := range map[string]struct {
		crash     fakes.Fault
		effective bool
	}{
		"before the effect": {fakes.CrashBefore(), false},
		"after the effect":  {fakes.CrashAfter(), true},
	} {
		t.Run(name, func(t *testing.T) {
			faults := fakes.NewFaults()
			store := memory.NewStore(memory.Options{})
			executor := fakes.NewScriptedExecutor()
			stores := fakes.WrapStores(taskbridge.Stores{Tasks: store, Events: store}, faults)
			wrapped := fakes.WrapExecutor(executor, faults)
			leaser := fakes.WrapLeaser(store, faults)
			woken := 0
			stop, err := stores.Tasks.WatchTask(t.Context(), "a", func() { woken++ })
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			ctx, cancel := faults.Context(t.Context())
			defer cancel()

			faults.OnStep(1, c.crash)
			if _, _, err := stores.Tasks.CreateTask(ctx, row("a")); !errors.Is(err, fakes.ErrCrashed) {
				t.Errorf("the call at which the process dies: %v", err)
			}
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), fakes.ErrCrashed) {
				t.Errorf("the context's cause is %v", context.Cause(ctx))
			}
			if err := faults.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			wokenAtDeath := woken
			_, err = store.GetTask(t.Context(), "a")
			if effective := err == nil; effective != c.effective {
				t.Errorf("the row is there: %v (%v)", effective, err)
			}

			for op, call := range map[fakes.Op]func() error{
				fakes.OpCreateTask: func() error { _, _, err := stores.Tasks.CreateTask(t.Context(), row("b")); return err },
				fakes.OpGetTask:    func() error { _, err := stores.Tasks.GetTask(t.Context(), "a"); return err },
				fakes.OpAppendEvent: func() error {
					_, err := stores.Events.AppendEvent(t.Context(), taskbridge.EventAppend{TaskID: "a"})
					return err
				},
				fakes.OpUpdateTaskAndAppend: func() error {
					_, err := stores.Tasks.(taskbridge.AtomicStore).UpdateTaskAndAppend(t.Context(), row("a"), nil)
					return err
				},
				fakes.OpSubmitTask: func() error { return wrapped.SubmitTask(t.Context(), row("a")) },
				fakes.OpRequestCancellation: func() error {
					return wrapped.RequestCancellation(t.Context(), row("a"), "")
				},
				fakes.OpAcquireLease: func() error { _, err := leaser.AcquireLease(t.Context(), "l", "h", 1); return err },
			} {
				if err := call(); !errors.Is(err, fakes.ErrCrashed) {
					t.Errorf("%s of a dead process: %v", op, err)
				}
			}
			if _, err := store.GetTask(t.Context(), "b"); !errors.Is(err, taskbridge.ErrTaskNotFound) {
				t.Errorf("a dead process made a row: %v", err)
			}
			if executor.Submits("a") != 0 || len(executor.Cancellations("a")) != 0 {
				t.Error("a dead process called the executor")
			}
			if holder, err := store.LeaseHolder(t.Context(), "l"); err != nil || holder != "" {
				t.Errorf("a dead process has a lease: %q, %v", holder, err)
			}
			if row, created, err := store.CreateTask(t.Context(), row("a")); err != nil || created == c.effective || row.ID != "a" {
				t.Errorf("created %v, error %v", created, err)
			}
			if woken != wokenAtDeath {
				t.Error("a dead process was woken")
			}
		})
	}
}

func TestDrainWaitsForTheCallsThatAreInsideTheirEffect(t *testing.T) {
	faults := fakes.NewFaults()
	executor := fakes.NewScriptedExecutor()
	inside, release := make(chan struct{}), make(chan struct{})
	executor.OnSubmit(func(context.Context, taskbridge.Task) error {
		close(inside)
		<-release
		return nil
	})
	wrapped := fakes.WrapExecutor(executor, faults)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := wrapped.SubmitTask(t.Context(), row("a")); !errors.Is(err, fakes.ErrCrashed) {
			t.Errorf("a call that the process did not survive: %v", err)
		}
	})
	<-inside
	faults.Kill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := faults.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain returned %v while a call was inside its effect", err)
	}
	close(release)
	if err := faults.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestAWatchWhoseAnswerIsLostIsStopped(t *testing.T) {
	faults := fakes.NewFaults()
	store := memory.NewStore(memory.Options{})
	wrapped := fakes.WrapStore(store, faults)
	faults.On(fakes.OpWatchTask, 1, fakes.FailAfter(nil))
	woken := false
	if _, err := wrapped.WatchTask(t.Context(), "a", func() { woken = true }); !errors.Is(err, fakes.ErrInjected) {
		t.Errorf("error %v", err)
	}
	if _, _, err := store.CreateTask(t.Context(), row("a")); err != nil {
		t.Fatal(err)
	}
	if woken {
		t.Error("somebody is woken who was told that the watch had failed")
	}
}
