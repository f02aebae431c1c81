package conformance

import (
	"context"
	"errors"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// errPassing is a fault of a store that says nothing about the outcome.
var errPassing = errors.New("passing fault of the store")

// faultStep is a place at which a store fails.
type faultStep struct {
	kind  string // of the call: "read", "row" (written) or "event" (appended)
	after bool   // the call takes effect first
}

func (s faultStep) String() string {
	if s.after {
		return "after a " + s.kind
	}
	return "before a " + s.kind
}

var faultSteps = []faultStep{{"read", false}, {"row", false}, {"row", true}, {"event", false}, {"event", true}}

// faults makes stores fail on demand.
type faults struct {
	fired chan struct{} // one for each fault, as long as there is room
	deaf  bool          // row watchers are never woken

	mu         sync.Mutex
	step       faultStep
	skip, left int
	err        error
}

// arm makes the next calls of the kind fail, after some that do not.
func (f *faults) arm(step faultStep, skip, count int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step, f.skip, f.left, f.err = step, skip, count, err
}

func (f *faults) disarm() { f.arm(faultStep{}, 0, 0, nil) }

// hit returns the error that the call is to fail with at this step, if any.
func (f *faults) hit(step faultStep) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if step != f.step || f.left == 0 {
		return nil
	}
	if f.skip > 0 {
		f.skip--
		return nil
	}
	f.left--
	select {
	case f.fired <- struct{}{}:
	default:
	}
	return f.err
}

// faulted makes one call.
func faulted[T any](f *faults, kind string, call func() (T, error)) (T, error) {
	var none T
	if err := f.hit(faultStep{kind, false}); err != nil {
		return none, err
	}
	result, err := call()
	if err != nil {
		return result, err
	}
	if err := f.hit(faultStep{kind, true}); err != nil {
		return none, err
	}
	return result, nil
}

// over returns the stores with the faults before them, together where they were.
func (f *faults) over(stores taskbridge.Stores) taskbridge.Stores {
	tasks, events := &faultyTasks{stores.Tasks, f}, &faultyEvents{stores.Events, f}
	if atomic, ok := stores.Tasks.(taskbridge.AtomicStore); ok && any(stores.Tasks) == any(stores.Events) {
		store := &faultyStore{tasks, events, atomic}
		return taskbridge.Stores{Tasks: store, Events: store}
	}
	return taskbridge.Stores{Tasks: tasks, Events: events}
}

type faultyTasks struct {
	taskbridge.TaskRegistry
	faults *faults
}

func (s *faultyTasks) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	return faulted(s.faults, "read", func() (taskbridge.Task, error) { return s.TaskRegistry.GetTask(ctx, taskID) })
}

func (s *faultyTasks) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	return faulted(s.faults, "row", func() (taskbridge.Task, error) { return s.TaskRegistry.UpdateTask(ctx, next) })
}

func (s *faultyTasks) WatchTask(ctx context.Context, taskID string, wake func()) (func(), error) {
	if s.faults.deaf {
		wake = func() {}
	}
	return s.TaskRegistry.WatchTask(ctx, taskID, wake)
}

type faultyEvents struct {
	taskbridge.EventStore
	faults *faults
}

func (s *faultyEvents) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	return faulted(s.faults, "event", func() (taskbridge.AppendResult, error) { return s.EventStore.AppendEvent(ctx, event) })
}

func (s *faultyEvents) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	return faulted(s.faults, "read", func() (taskbridge.StreamState, error) { return s.EventStore.StreamState(ctx, taskID) })
}

type faultyStore struct {
	*faultyTasks
	*faultyEvents
	atomic taskbridge.AtomicStore
}

func (s *faultyStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	return faulted(s.faultyTasks.faults, "row", func() (taskbridge.Task, error) { return s.atomic.UpdateTaskAndAppend(ctx, next, events) })
}
