package sqlitestore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// CreateTask implements [taskbridge.TaskRegistry]. An id that is no task id, or
// belongs to a row with another key, and a status that is none are refused with
// [taskbridge.ErrInvalidArgument].
func (s *Store) CreateTask(ctx context.Context, task taskbridge.Task) (taskbridge.Task, bool, error) {
	r := &createTask{task: task.Clone()}
	if err := s.write(ctx, r); err != nil {
		return taskbridge.Task{}, false, fmt.Errorf("sqlitestore: create of task %s: %w", task.ID, err)
	}
	return r.row, r.created, nil
}

// createTask is the request of CreateTask.
type createTask struct {
	operation
	task    taskbridge.Task
	row     taskbridge.Task // the one that is there in the end
	created bool
}

func (r *createTask) apply(w *writer) error {
	r.created = false
	if !taskbridge.ValidTaskID(r.task.ID) || !r.task.Status.Valid() {
		return r.refuseInvalid(w)
	}
	r.row = r.task
	r.row.Revision = 1
	no := w.lastNo + 1
	inserted, err := w.insertTask(no, r.row)
	if err != nil {
		return err
	}
	if inserted {
		w.lastNo, r.created = no, true
		return nil
	}
	return r.find(w, argumentError("taskId", "belongs to a task with another key"))
}

// find takes the row that has the key; without one the request is refused.
func (r *createTask) find(w *writer, refusal error) error {
	row, found, err := selectTask(w.conn, sqlTaskByKey, r.task.Owner, r.task.ClientRequestID)
	if r.row = row; err == nil && !found {
		r.refusal = refusal
	}
	return err
}

// refuseInvalid refuses what may not become a row, unless the key has one.
func (r *createTask) refuseInvalid(w *writer) error {
	if r.task.Status.Valid() {
		return r.find(w, argumentError("taskId", "is no valid task id"))
	}
	return r.find(w, argumentError("status", fmt.Sprintf("%q is none", r.task.Status)))
}

func (r *createTask) committed(s *Store) {
	if r.created {
		s.taskWatchers.notify(r.task.ID)
	}
}

// GetTask implements [taskbridge.TaskRegistry].
func (s *Store) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	var row taskbridge.Task
	err := s.read(ctx, func(c *conn) (err error) {
		var found bool
		row, found, err = selectTask(c, sqlTaskByID, taskID)
		if err == nil && !found {
			err = taskbridge.ErrTaskNotFound
		}
		return err
	})
	if err != nil {
		return taskbridge.Task{}, fmt.Errorf("sqlitestore: get of task %q: %w", taskID, err)
	}
	return row, nil
}

// UpdateTask implements [taskbridge.TaskRegistry].
func (s *Store) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	return s.update(ctx, next, nil)
}

// UpdateTaskAndAppend implements [taskbridge.AtomicStore].
func (s *Store) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	for i := range events {
		if events[i].TaskID != next.ID {
			return taskbridge.Task{}, fmt.Errorf("sqlitestore: update of task %q: %w", next.ID,
				argumentError("events", fmt.Sprintf("has an event of the task %q", events[i].TaskID)))
		}
	}
	return s.update(ctx, next, events)
}

func (s *Store) update(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	// The writer gets values of its own: it may still be at it when a caller whose
	// context has ended goes on.
	r := &updateTask{next: next.Clone(), events: slices.Clone(events)}
	for i := range r.events {
		r.events[i].Payload = bytes.Clone(r.events[i].Payload)
	}
	if err := s.write(ctx, r); err != nil {
		return taskbridge.Task{}, fmt.Errorf("sqlitestore: update of task %q: %w", next.ID, err)
	}
	r.next.Revision++
	return r.next, nil
}

// updateTask is the request of UpdateTask and UpdateTaskAndAppend.
type updateTask struct {
	operation
	next     taskbridge.Task
	events   []taskbridge.EventAppend
	appended bool
}

func (r *updateTask) apply(w *writer) error {
	r.appended = false
	before, err := w.taskState(r.next.ID)
	if err != nil {
		return err
	}
	if before.no == 0 {
		r.refusal = taskbridge.ErrTaskNotFound
		return nil
	}
	current, err := before.task()
	if err != nil {
		return fmt.Errorf("task %s: %w", r.next.ID, err)
	}
	if r.refusal = current.CheckUpdate(r.next); r.refusal != nil {
		return nil
	}
	// All is checked before anything is written.
	var head *streamHead
	if len(r.events) > 0 {
		if head, err = w.head(r.next.ID); err != nil {
			return err
		}
		if r.refusal = checkAll(head, r.events); r.refusal != nil {
			return nil
		}
	}
	if err := w.writeTask(before, r.next); err != nil {
		return err
	}
	for i := range r.events {
		result, err := w.append(head, &r.events[i])
		if err != nil {
			return err
		}
		r.appended = r.appended || !result.Duplicate
	}
	return nil
}

// checkAll applies the rules to each event as if those before it were there.
func checkAll(head *streamHead, events []taskbridge.EventAppend) error {
	if len(events) > 1 {
		head = head.clone()
	}
	for i := range events {
		result, err := head.check(&events[i])
		if err != nil {
			return err
		}
		if !result.Duplicate && len(events) > 1 {
			head.apply(&events[i])
		}
	}
	return nil
}

func (r *updateTask) committed(s *Store) {
	s.taskWatchers.notify(r.next.ID)
	if r.appended {
		s.eventWatchers.notify(r.next.ID)
	}
}

// WatchTask implements [taskbridge.TaskRegistry]. stop waits for a call of wake
// that is under way, so it must not be called from within wake, nor while
// holding a lock that wake takes.
func (s *Store) WatchTask(ctx context.Context, taskID string, wake func()) (stop func(), err error) {
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("sqlitestore: watch of task %q: %w", taskID, err)
	}
	return s.taskWatchers.watch(taskID, wake), nil
}

// DueTasks implements [taskbridge.TaskRegistry]. An unknown kind and a limit
// below 1 are refused with [taskbridge.ErrInvalidArgument].
func (s *Store) DueTasks(ctx context.Context, kind taskbridge.DueKind, before time.Time, limit int) ([]string, error) {
	ids, err := s.dueTasks(ctx, kind, before, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: tasks due for %s: %w", kind, err)
	}
	return ids, nil
}

func (s *Store) dueTasks(ctx context.Context, kind taskbridge.DueKind, before time.Time, limit int) (ids []string, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	sql, ok := sqlDueTasks[kind]
	switch {
	case !ok:
		return nil, argumentError("kind", fmt.Sprintf("%q is none of the kinds of owed work", kind))
	case limit < 1:
		return nil, argumentError("limit", "must be 1 or more")
	}
	err = s.read(ctx, func(c *conn) error {
		return c.query(background, sql, func(row []driver.Value) error {
			ids = append(ids, text(row[0]))
			return nil
		}, before.UnixMicro(), int64(limit))
	})
	return ids, err
}
