package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const (
	sqlBury         = "INSERT INTO tombstones (task_id, stream_no, due) VALUES (?, ?, ?)"
	sqlDropRow      = "DELETE FROM tasks WHERE task_no = ?"
	sqlDropAside    = "DELETE FROM task_documents WHERE task_no = ?"
	sqlUnbury       = "DELETE FROM tombstones WHERE task_id = ?"
	sqlBuriedNo     = "SELECT stream_no FROM tombstones WHERE task_id = ?"
	sqlDropNo       = "DELETE FROM streams WHERE task_id = ?"
	sqlDropEvents   = "DELETE FROM events WHERE event_no BETWEEN ?1 AND (SELECT max(event_no) FROM (SELECT event_no FROM events WHERE event_no BETWEEN ?1 AND ?2 ORDER BY event_no LIMIT ?3))"
	sqlPages        = "PRAGMA page_count"
	sqlFreePages    = "PRAGMA freelist_count"
	sqlEventsRemain = "SELECT EXISTS (SELECT 1 FROM events WHERE event_no BETWEEN ? AND ?)"
)

const (
	// keptFree is how many free pages of the file are worth nobody's time.
	keptFree = 1024
	// givenBack is how many pages of the file a commit gives back at most. More
	// than a deletion makes free, so that the file follows; few enough that those
	// who wait for the commit hardly notice.
	givenBack = 128
)

var sqlGiveBack = fmt.Sprintf("PRAGMA incremental_vacuum(%d)", givenBack)

// RetireTask implements [taskbridge.TaskRegistry]. The row is deleted at once;
// the events wait for DeleteEvents.
func (s *Store) RetireTask(ctx context.Context, task taskbridge.Task, at time.Time) error {
	if err := s.write(ctx, &retireTask{task: task, at: at}); err != nil {
		return fmt.Errorf("sqlitestore: retirement of task %q: %w", task.ID, err)
	}
	return nil
}

// retireTask is the request of RetireTask.
type retireTask struct {
	operation
	task taskbridge.Task
	at   time.Time
}

func (r *retireTask) apply(w *writer) error {
	row, err := w.taskState(r.task.ID)
	if err != nil {
		return err
	}
	current, err := row.task()
	switch {
	case row.no == 0:
		r.refusal = taskbridge.ErrTaskNotFound
	case row.revision != r.task.Revision:
		r.refusal = taskbridge.ErrRevisionConflict
	case err != nil:
		return err
	case !current.Status.Terminal():
		r.refusal = fmt.Errorf("%w: the task has not ended", taskbridge.ErrIllegalTransition)
	}
	if r.refusal != nil {
		return nil
	}
	// A stream that began without its task keeps the number that it has.
	streamNo, err := w.conn.integer(sqlStreamNo, r.task.ID)
	if err != nil {
		return fmt.Errorf("stream's number: %w", err)
	}
	for _, step := range []struct {
		sql    string
		values []driver.Value
	}{
		{sqlBury, []driver.Value{r.task.ID, streamNo, r.at.UnixMicro()}},
		{sqlDropRow, []driver.Value{row.no}},
		{sqlDropAside, []driver.Value{row.no}},
		{sqlDropNo, []driver.Value{r.task.ID}},
	} {
		if err := w.conn.exec(step.sql, step.values...); err != nil {
			return err
		}
	}
	w.heads.remove(r.task.ID)
	w.rows.remove(r.task.ID)
	w.deleted = true
	return nil
}

func (r *retireTask) committed(s *Store) { s.taskWatchers.notify(r.task.ID) }

// DeleteTask implements [taskbridge.TaskRegistry].
func (s *Store) DeleteTask(ctx context.Context, taskID string) error {
	if err := s.write(ctx, &deleteTask{taskID: taskID}); err != nil {
		return fmt.Errorf("sqlitestore: deletion of task %q: %w", taskID, err)
	}
	return nil
}

// deleteTask is the request of DeleteTask.
type deleteTask struct {
	operation
	taskID string
}

func (r *deleteTask) apply(w *writer) error {
	w.deleted = true
	return w.conn.exec(sqlUnbury, r.taskID)
}

// giveBack makes the file smaller by a bounded step where much of it is free.
// What is free is used again; some is kept for that.
func giveBack(c *conn) error {
	pages, err := c.integer(sqlPages)
	if err != nil {
		return err
	}
	free, err := c.integer(sqlFreePages)
	if err != nil || free <= max(keptFree, pages/8) {
		return err
	}
	return c.script(sqlGiveBack)
}

func (*deleteTask) committed(*Store) {}

// DeleteEvents implements [taskbridge.EventStore]. The stream may be that of a
// retired task or one that never had a row.
func (s *Store) DeleteEvents(ctx context.Context, taskID string, limit int) (more bool, err error) {
	r := &deleteEvents{taskID: taskID, limit: int64(limit)}
	if limit < 1 {
		err = argumentError("limit", "must be 1 or more")
	} else {
		err = s.write(ctx, r)
	}
	if err != nil {
		return false, fmt.Errorf("sqlitestore: deletion of events of %q: %w", taskID, err)
	}
	return r.more, nil
}

// deleteEvents is the request of DeleteEvents.
type deleteEvents struct {
	operation
	taskID string
	limit  int64
	more   bool
}

func (r *deleteEvents) apply(w *writer) error {
	no, err := w.conn.integer(sqlBuriedNo, r.taskID)
	if err == nil && no == 0 {
		no, err = w.conn.integer(sqlStreamNo, r.taskID)
	}
	if err != nil {
		return fmt.Errorf("stream's number: %w", err)
	}
	r.more = false
	if no == 0 {
		return nil
	}
	w.heads.remove(r.taskID)
	w.deleted = true
	first, last := eventNumber(no, 1), eventNumber(no, maxSequence)
	if err := w.conn.exec(sqlDropEvents, first, last, r.limit); err != nil {
		return err
	}
	remain, err := w.conn.integer(sqlEventsRemain, first, last)
	if err != nil {
		return err
	}
	if r.more = remain != 0; !r.more {
		err = w.conn.exec(sqlDropNo, r.taskID)
	}
	return err
}

func (*deleteEvents) committed(*Store) {}
