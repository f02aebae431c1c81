package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var _ taskbridge.TaskRegistry = (*Tasks)(nil)

// Tasks is a [taskbridge.TaskRegistry] in memory.
type Tasks struct {
	watchers hub

	mu     sync.RWMutex
	closed bool
	byID   map[string]*row
	byKey  map[taskKey]*row
	byAge  ageIndex
	owners map[string]*ageIndex
	due    map[taskbridge.DueKind]*dueIndex
	// tombstones holds the retired tasks, by when their remains may be deleted.
	tombstones map[string]time.Time
}

type taskKey struct{ owner, clientRequestID string }

// NewTasks makes an empty registry.
func NewTasks() *Tasks {
	t := &Tasks{
		byID:   make(map[string]*row),
		byKey:  make(map[taskKey]*row),
		owners: make(map[string]*ageIndex),
		due:    make(map[taskbridge.DueKind]*dueIndex),

		tombstones: make(map[string]time.Time),
	}
	for slot, kind := range taskbridge.DueKinds() {
		t.due[kind] = &dueIndex{kind: kind, slot: slot}
	}
	return t
}

// Close makes every later call return [taskbridge.ErrClosed]. It may be called
// more than once.
func (t *Tasks) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}

// ready reports why a call may not go on. The caller holds the lock.
func (t *Tasks) ready(ctx context.Context) error {
	if t.closed {
		return taskbridge.ErrClosed
	}
	return ctx.Err()
}

// CreateTask implements [taskbridge.TaskRegistry]. The id of a row with another
// key, or of a retired one, is refused with [taskbridge.ErrInvalidArgument].
func (t *Tasks) CreateTask(ctx context.Context, task taskbridge.Task) (taskbridge.Task, bool, error) {
	created, isNew, err := t.create(ctx, task)
	if isNew {
		t.watchers.notify(task.ID)
	}
	return created, isNew, err
}

func (t *Tasks) create(ctx context.Context, task taskbridge.Task) (taskbridge.Task, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ready(ctx); err != nil {
		return taskbridge.Task{}, false, err
	}
	key := taskKey{task.Owner, task.ClientRequestID}
	if r, ok := t.byKey[key]; ok {
		return r.task.Clone(), false, nil
	}
	if !taskbridge.ValidTaskID(task.ID) {
		return taskbridge.Task{}, false, argumentError("taskId", "is no valid task id")
	}
	if _, ok := t.byID[task.ID]; ok {
		return taskbridge.Task{}, false, argumentError("taskId", "belongs to a task with another key")
	}
	if _, ok := t.tombstones[task.ID]; ok {
		return taskbridge.Task{}, false, argumentError("taskId", "belongs to a retired task")
	}
	task.Revision = 1
	r := &row{task: task.Clone(), duePlace: slices.Repeat([]int{-1}, len(t.due))}
	t.byID[task.ID] = r
	t.byKey[key] = r
	t.byAge.insert(r)
	if t.owners[task.Owner] == nil {
		t.owners[task.Owner] = new(ageIndex)
	}
	t.owners[task.Owner].insert(r)
	t.updateDue(r)
	return task.Clone(), true, nil
}

func (t *Tasks) updateDue(r *row) {
	for _, index := range t.due {
		index.update(r)
	}
}

// GetTask implements [taskbridge.TaskRegistry].
func (t *Tasks) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.ready(ctx); err != nil {
		return taskbridge.Task{}, err
	}
	r, err := t.row(taskID)
	if err != nil {
		return taskbridge.Task{}, err
	}
	return r.task.Clone(), nil
}

func (t *Tasks) row(taskID string) (*row, error) {
	if r, ok := t.byID[taskID]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("%w: %q", taskbridge.ErrTaskNotFound, taskID)
}

// UpdateTask implements [taskbridge.TaskRegistry].
func (t *Tasks) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	updated, err := t.update(ctx, next)
	if err == nil {
		t.watchers.notify(next.ID)
	}
	return updated, err
}

func (t *Tasks) update(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, err := t.updatable(ctx, next)
	if err != nil {
		return taskbridge.Task{}, err
	}
	return t.replace(r, next), nil
}

// updatable returns the row that next may replace. The caller holds the lock.
func (t *Tasks) updatable(ctx context.Context, next taskbridge.Task) (*row, error) {
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	r, err := t.row(next.ID)
	if err != nil {
		return nil, err
	}
	return r, r.task.CheckUpdate(next)
}

// replace gives the row the changeable fields of next. The caller holds the
// lock and has asked updatable.
func (t *Tasks) replace(r *row, next taskbridge.Task) taskbridge.Task {
	next.Revision++
	// What CreateTask wrote stays, and is not copied: an input may be large.
	stored := next
	stored.Input, stored.Metadata = nil, nil
	stored = stored.Clone()
	old := r.task
	stored.Owner, stored.ClientRequestID = old.Owner, old.ClientRequestID
	stored.Fingerprint, stored.Type = old.Fingerprint, old.Type
	stored.Input, stored.Metadata = old.Input, old.Metadata
	stored.Traceparent, stored.CreatedAt = old.Traceparent, old.CreatedAt
	r.task = stored
	t.updateDue(r)

	// The answer is the caller's own value, in memory that is only his.
	return next.Clone()
}

// ListTasks implements [taskbridge.TaskRegistry].
func (t *Tasks) ListTasks(ctx context.Context, query taskbridge.TaskQuery) ([]taskbridge.Task, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	if query.Limit < 1 {
		return nil, argumentError("limit", "must be 1 or more")
	}
	index := &t.byAge
	if !query.AnyOwner {
		if index = t.owners[query.Owner]; index == nil {
			return nil, nil
		}
	}
	var found []taskbridge.Task
	for _, r := range slices.Backward(index.before(query.After)) {
		if !matches(r.task, query) {
			continue
		}
		task := r.task
		task.Input = nil
		if task.Status == taskbridge.StatusCompleted {
			task.Terminal = nil
		}
		if found = append(found, task.Clone()); len(found) == query.Limit {
			break
		}
	}
	return found, nil
}

func matches(task taskbridge.Task, query taskbridge.TaskQuery) bool {
	return (len(query.Statuses) == 0 || slices.Contains(query.Statuses, task.Status)) &&
		(len(query.Types) == 0 || slices.Contains(query.Types, task.Type)) &&
		(query.CreatedBefore.IsZero() || task.CreatedAt.Before(query.CreatedBefore))
}

// DueTasks implements [taskbridge.TaskRegistry]. An unknown kind is refused with
// [taskbridge.ErrInvalidArgument].
func (t *Tasks) DueTasks(ctx context.Context, kind taskbridge.DueKind, before time.Time, limit int) ([]string, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, argumentError("limit", "must be 1 or more")
	}
	if kind == taskbridge.DueDeletion {
		return t.deletable(before, limit), nil
	}
	index, ok := t.due[kind]
	if !ok {
		return nil, argumentError("kind", fmt.Sprintf("%q is none of the kinds of owed work", kind))
	}
	return index.first(before, limit), nil
}

// WatchTask implements [taskbridge.TaskRegistry]. stop must not be called from
// within wake.
func (t *Tasks) WatchTask(ctx context.Context, taskID string, wake func()) (stop func(), err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	return t.watchers.watch(taskID, wake), nil
}

func argumentError(field, reason string) error {
	return &taskbridge.ArgumentError{Field: field, Reason: reason}
}
