package fakes

import (
	"context"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// The wrappers keep what the wrapped value can do and claim no more: each
// optional interface is there if and only if the inner value has it.

// WrapStores wraps both stores of a pair. One value that is both stays one, and
// atomic if it was.
func WrapStores(stores taskbridge.Stores, faults *Faults) taskbridge.Stores {
	if both, ok := stores.Tasks.(taskbridge.AtomicStore); ok && any(stores.Tasks) == any(stores.Events) {
		wrapped := WrapStore(both, faults)
		return taskbridge.Stores{Tasks: wrapped, Events: wrapped}
	}
	return taskbridge.Stores{
		Tasks:  WrapTasks(stores.Tasks, faults),
		Events: WrapEvents(stores.Events, faults),
	}
}

// WrapTasks puts a registry under the plan. Of a store that holds events too
// only the registry is left, which makes a pair of separate stores out of it.
func WrapTasks(inner taskbridge.TaskRegistry, faults *Faults) taskbridge.TaskRegistry {
	w := wrappedTasks{inner, faults}
	if checker, ok := inner.(taskbridge.HealthChecker); ok {
		return &struct {
			wrappedTasks
			wrappedHealth
		}{w, wrappedHealth{checker, faults}}
	}
	return &w
}

// WrapEvents puts an event store under the plan. Of a store that holds rows too
// only the event store is left.
func WrapEvents(inner taskbridge.EventStore, faults *Faults) taskbridge.EventStore {
	w := wrappedEvents{inner, faults}
	if checker, ok := inner.(taskbridge.HealthChecker); ok {
		return &struct {
			wrappedEvents
			wrappedHealth
		}{w, wrappedHealth{checker, faults}}
	}
	return &w
}

// WrapStore puts a store of rows and events under the plan and keeps it one.
func WrapStore(inner taskbridge.AtomicStore, faults *Faults) taskbridge.AtomicStore {
	w := wrappedStore{wrappedTasks{inner, faults}, wrappedEvents{inner, faults}, inner}
	if checker, ok := inner.(taskbridge.HealthChecker); ok {
		return &struct {
			wrappedStore
			wrappedHealth
		}{w, wrappedHealth{checker, faults}}
	}
	return &w
}

// WrapLeaser puts a leaser under the plan.
func WrapLeaser(inner taskbridge.Leaser, faults *Faults) taskbridge.Leaser {
	return &wrappedLeaser{inner, faults}
}

type wrappedTasks struct {
	tasks  taskbridge.TaskRegistry
	faults *Faults
}

func (w wrappedTasks) CreateTask(ctx context.Context, task taskbridge.Task) (taskbridge.Task, bool, error) {
	type answer struct {
		row     taskbridge.Task
		created bool
	}
	a, err := through(ctx, w.faults, OpCreateTask, task.ID, func() (answer, error) {
		row, created, err := w.tasks.CreateTask(ctx, task)
		return answer{row, created}, err
	})
	return a.row, a.created, err
}

func (w wrappedTasks) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	return through(ctx, w.faults, OpGetTask, taskID, func() (taskbridge.Task, error) {
		return w.tasks.GetTask(ctx, taskID)
	})
}

func (w wrappedTasks) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	return through(ctx, w.faults, OpUpdateTask, next.ID, func() (taskbridge.Task, error) {
		return w.tasks.UpdateTask(ctx, next)
	})
}

func (w wrappedTasks) ListTasks(ctx context.Context, query taskbridge.TaskQuery) ([]taskbridge.Task, error) {
	return through(ctx, w.faults, OpListTasks, "", func() ([]taskbridge.Task, error) {
		return w.tasks.ListTasks(ctx, query)
	})
}

func (w wrappedTasks) DueTasks(ctx context.Context, kind taskbridge.DueKind, before time.Time, limit int) ([]string, error) {
	return through(ctx, w.faults, OpDueTasks, "", func() ([]string, error) {
		return w.tasks.DueTasks(ctx, kind, before, limit)
	})
}

func (w wrappedTasks) RetireTask(ctx context.Context, task taskbridge.Task, at time.Time) error {
	return throughDo(ctx, w.faults, OpRetireTask, task.ID, func() error {
		return w.tasks.RetireTask(ctx, task, at)
	})
}

func (w wrappedTasks) DeleteTask(ctx context.Context, taskID string) error {
	return throughDo(ctx, w.faults, OpDeleteTask, taskID, func() error {
		return w.tasks.DeleteTask(ctx, taskID)
	})
}

func (w wrappedTasks) WatchTask(ctx context.Context, taskID string, wake func()) (func(), error) {
	return watchThrough(ctx, w.faults, OpWatchTask, taskID, func() (func(), error) {
		return w.tasks.WatchTask(ctx, taskID, w.faults.whileAlive(wake))
	})
}

type wrappedEvents struct {
	events taskbridge.EventStore
	faults *Faults
}

func (w wrappedEvents) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	return through(ctx, w.faults, OpAppendEvent, event.TaskID, func() (taskbridge.AppendResult, error) {
		return w.events.AppendEvent(ctx, event)
	})
}

func (w wrappedEvents) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	return through(ctx, w.faults, OpReadEvents, taskID, func() ([]taskbridge.Event, error) {
		return w.events.ReadEvents(ctx, taskID, after, limit)
	})
}

func (w wrappedEvents) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	return through(ctx, w.faults, OpStreamState, taskID, func() (taskbridge.StreamState, error) {
		return w.events.StreamState(ctx, taskID)
	})
}

func (w wrappedEvents) DeleteEvents(ctx context.Context, taskID string, limit int) (bool, error) {
	return through(ctx, w.faults, OpDeleteEvents, taskID, func() (bool, error) {
		return w.events.DeleteEvents(ctx, taskID, limit)
	})
}

func (w wrappedEvents) WatchEvents(ctx context.Context, taskID string, wake func()) (func(), error) {
	return watchThrough(ctx, w.faults, OpWatchEvents, taskID, func() (func(), error) {
		return w.events.WatchEvents(ctx, taskID, w.faults.whileAlive(wake))
	})
}

// wrappedStore has no faults field of its own: the two halves have one each.
type wrappedStore struct {
	wrappedTasks
	wrappedEvents
	atomic taskbridge.AtomicStore
}

func (w wrappedStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	return through(ctx, w.wrappedTasks.faults, OpUpdateTaskAndAppend, next.ID, func() (taskbridge.Task, error) {
		return w.atomic.UpdateTaskAndAppend(ctx, next, events)
	})
}

type wrappedLeaser struct {
	leaser taskbridge.Leaser
	faults *Faults
}

func (w *wrappedLeaser) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	return through(ctx, w.faults, OpAcquireLease, "", func() (bool, error) {
		return w.leaser.AcquireLease(ctx, name, holder, ttl)
	})
}

func (w *wrappedLeaser) ReleaseLease(ctx context.Context, name, holder string) error {
	return throughDo(ctx, w.faults, OpReleaseLease, "", func() error {
		return w.leaser.ReleaseLease(ctx, name, holder)
	})
}

func (w *wrappedLeaser) LeaseHolder(ctx context.Context, name string) (string, error) {
	return through(ctx, w.faults, OpLeaseHolder, "", func() (string, error) {
		return w.leaser.LeaseHolder(ctx, name)
	})
}

type wrappedHealth struct {
	checker taskbridge.HealthChecker
	faults  *Faults
}

func (w wrappedHealth) CheckHealth(ctx context.Context) error {
	return throughDo(ctx, w.faults, OpCheckHealth, "", func() error { return w.checker.CheckHealth(ctx) })
}

// watchThrough is [through] for a watch: where the caller is told of a failure
// that came after the effect, nobody is left who could stop it.
func watchThrough(ctx context.Context, f *Faults, op Op, taskID string, effect func() (func(), error)) (func(), error) {
	var began func()
	stop, err := through(ctx, f, op, taskID, func() (func(), error) {
		stop, err := effect()
		began = stop
		return stop, err
	})
	if err != nil && began != nil {
		began()
	}
	return stop, err
}

// whileAlive keeps wake-ups from a dead process.
func (f *Faults) whileAlive(wake func()) func() {
	return func() {
		if !f.isDead() {
			wake()
		}
	}
}
