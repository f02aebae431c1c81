package memory

import (
	"context"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var _ taskbridge.EventStore = (*Events)(nil)

// Events is a [taskbridge.EventStore] in memory.
type Events struct {
	watchers hub

	mu      sync.RWMutex
	closed  bool
	streams map[string]*stream
}

// NewEvents makes a store without streams.
func NewEvents() *Events {
	return &Events{streams: make(map[string]*stream)}
}

// Close makes every later call return [taskbridge.ErrClosed]. It may be called
// more than once.
func (s *Events) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// ready reports why a call may not go on. The caller holds the lock.
func (s *Events) ready(ctx context.Context) error {
	if s.closed {
		return taskbridge.ErrClosed
	}
	return ctx.Err()
}

// stream returns the task's stream, for reading an empty one where there is
// none yet.
func (s *Events) stream(taskID string) *stream {
	if found, ok := s.streams[taskID]; ok {
		return found
	}
	return new(stream)
}

// AppendEvent implements [taskbridge.EventStore].
func (s *Events) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	result, err := s.append(ctx, event)
	if err == nil && !result.Duplicate {
		s.watchers.notify(event.TaskID)
	}
	return result, err
}

func (s *Events) append(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return taskbridge.AppendResult{}, err
	}
	target := s.stream(event.TaskID)
	result, err := target.append(event)
	if err != nil {
		return taskbridge.AppendResult{}, err
	}
	s.streams[event.TaskID] = target
	return result, nil
}

// ReadEvents implements [taskbridge.EventStore].
func (s *Events) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, argumentError("limit", "must be 1 or more")
	}
	return s.stream(taskID).read(after, limit), nil
}

// StreamState implements [taskbridge.EventStore].
func (s *Events) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.ready(ctx); err != nil {
		return taskbridge.StreamState{}, err
	}
	return s.stream(taskID).state(), nil
}

// WatchEvents implements [taskbridge.EventStore]. stop must not be called from
// within wake.
func (s *Events) WatchEvents(ctx context.Context, taskID string, wake func()) (stop func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return s.watchers.watch(taskID, wake), nil
}

// Truncate loses the events with a sequence number above last, and with them
// what the stream knew of their producers and attempts: the stream is then as
// an older backup would have it. No watcher is woken. For tests.
func (s *Events) Truncate(taskID string, last int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.stream(taskID)
	target.truncate(last)
	if len(target.records) == 0 {
		delete(s.streams, taskID)
	}
}

// Trim drops the events with a sequence number below first, except for the last
// event of the stream: what follows goes on as if they were there. No watcher is
// woken. For tests.
func (s *Events) Trim(taskID string, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream(taskID).trim(first)
}
