package memory

import (
	"context"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var (
	_ taskbridge.AtomicStore = (*Store)(nil)
	_ taskbridge.Leaser      = (*Store)(nil)
)

// Store holds rows, events and leases together: a [taskbridge.AtomicStore] and a
// [taskbridge.Leaser]. Its parts may be used by themselves too; over the same
// data they are a pair of separate stores.
type Store struct {
	*Tasks
	*Events
	*Leaser
}

// Options configures a [Store]. The zero value will do.
type Options struct {
	// Clock tells the time of leases; nil means [taskbridge.SystemClock].
	Clock taskbridge.Clock
}

// NewStore makes an empty store.
func NewStore(opts Options) *Store {
	return &Store{Tasks: NewTasks(), Events: NewEvents(), Leaser: NewLeaser(opts.Clock)}
}

// Close makes every later call return [taskbridge.ErrClosed]. It may be called
// more than once. A step that writes a row and its events comes before it or
// after it as a whole.
func (s *Store) Close() error {
	s.Tasks.mu.Lock()
	defer s.Tasks.mu.Unlock()
	s.Events.mu.Lock()
	defer s.Events.mu.Unlock()
	s.Tasks.closed, s.Events.closed = true, true
	return s.Leaser.Close()
}

// UpdateTaskAndAppend implements [taskbridge.AtomicStore]. An event of another
// task than next.ID is refused with [taskbridge.ErrInvalidArgument].
func (s *Store) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	updated, appended, err := s.updateAndAppend(ctx, next, events)
	if err == nil {
		s.Tasks.watchers.notify(next.ID)
	}
	if appended {
		s.Events.watchers.notify(next.ID)
	}
	return updated, err
}

// updateAndAppend holds both locks for the whole step. Rows are locked before
// events, here and in Close; nothing else takes both.
func (s *Store) updateAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (updated taskbridge.Task, appended bool, err error) {
	for _, e := range events {
		if e.TaskID != next.ID {
			return taskbridge.Task{}, false, argumentError("taskId", "of an event is not that of the row")
		}
	}
	s.Tasks.mu.Lock()
	defer s.Tasks.mu.Unlock()
	s.Events.mu.Lock()
	defer s.Events.mu.Unlock()

	if err := s.Events.ready(ctx); err != nil {
		return taskbridge.Task{}, false, err
	}
	r, err := s.updatable(ctx, next)
	if err != nil {
		return taskbridge.Task{}, false, err
	}
	target := s.stream(next.ID)
	if appended, err = target.appendAll(events); err != nil {
		return taskbridge.Task{}, false, err
	}
	if appended {
		s.streams[next.ID] = target
	}
	return s.replace(r, next), appended, nil
}
