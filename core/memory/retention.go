package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// RetireTask implements [taskbridge.TaskRegistry].
func (t *Tasks) RetireTask(ctx context.Context, task taskbridge.Task, at time.Time) error {
	err := t.retire(ctx, task, at)
	if err == nil {
		t.watchers.notify(task.ID)
	}
	return err
}

func (t *Tasks) retire(ctx context.Context, task taskbridge.Task, at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ready(ctx); err != nil {
		return err
	}
	r, err := t.row(task.ID)
	if err != nil {
		return err
	}
	if r.task.Revision != task.Revision {
		return taskbridge.ErrRevisionConflict
	}
	if !r.task.Status.Terminal() {
		return taskbridge.ErrIllegalTransition
	}
	delete(t.byID, r.task.ID)
	delete(t.byKey, taskKey{r.task.Owner, r.task.ClientRequestID})
	t.byAge.remove(r)
	if owned := t.owners[r.task.Owner]; len(owned.rows) > 1 {
		owned.remove(r)
	} else {
		delete(t.owners, r.task.Owner)
	}
	for _, index := range t.due {
		index.remove(r)
	}
	t.tombstones[r.task.ID] = at
	return nil
}

// DeleteTask implements [taskbridge.TaskRegistry].
func (t *Tasks) DeleteTask(ctx context.Context, taskID string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ready(ctx); err != nil {
		return err
	}
	delete(t.tombstones, taskID)
	return nil
}

// deletable returns the tombstones of that time, the oldest first. There are few:
// each round of the reconciler takes them away.
func (t *Tasks) deletable(before time.Time, limit int) []string {
	ids := slices.SortedFunc(maps.Keys(t.tombstones), func(a, b string) int {
		return cmp.Or(t.tombstones[a].Compare(t.tombstones[b]), cmp.Compare(a, b))
	})
	if end := slices.IndexFunc(ids, func(id string) bool { return t.tombstones[id].After(before) }); end >= 0 {
		ids = ids[:end]
	}
	return ids[:min(limit, len(ids))]
}

// DeleteEvents implements [taskbridge.EventStore].
func (s *Events) DeleteEvents(ctx context.Context, taskID string, limit int) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	if limit < 1 {
		return false, argumentError("limit", "must be 1 or more")
	}
	target := s.stream(taskID)
	if len(target.records) > limit {
		target.drop(limit)
		return true, nil
	}
	delete(s.streams, taskID)
	return false, nil
}
