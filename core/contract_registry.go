package taskbridge

import (
	"context"
	"time"
)

// TaskRegistry keeps the durable rows of tasks.
//
// Obligations of every implementation, all of them in conformance.RunTaskRegistry:
//
//   - All methods are safe for concurrent use and honour their context: one that
//     is cancelled before the work begins has no effect. They may block for as
//     long as the store needs, never for another task's work.
//   - A method that returns nil has taken effect durably (as durably as the
//     store is) and is visible to every later call on any connection or server.
//   - A returned error that matches a sentinel of this package means that
//     nothing has changed. Any other error means that the outcome is unknown;
//     the caller reads the row again. Implementations retry only what is safe
//     to run twice and do so within the context.
//   - Rows are values: the store neither keeps nor hands out a slice that it or
//     the caller goes on to write to.
//   - After the store is closed every method returns [ErrClosed].
type TaskRegistry interface {
	// CreateTask inserts the row if no row has its (Owner, ClientRequestID) and
	// returns it with created true; otherwise it returns the row that is there
	// with created false, whatever else differs. It is atomic: of any number of
	// concurrent calls with one key exactly one creates. The row's Revision is
	// set to 1.
	CreateTask(ctx context.Context, task Task) (row Task, created bool, err error)

	// GetTask returns the row, or [ErrTaskNotFound].
	GetTask(ctx context.Context, taskID string) (Task, error)

	// UpdateTask replaces the changeable fields of the row if [Task.CheckUpdate]
	// allows it, raises Revision by one and returns the new row. The fields that
	// CreateTask wrote are left as they are, whatever next says, and are
	// returned as next has them. Errors: [ErrTaskNotFound],
	// [ErrRevisionConflict], [ErrIllegalTransition].
	UpdateTask(ctx context.Context, next Task) (Task, error)

	// ListTasks returns the rows that match, newest first (by CreatedAt, then
	// by ID, both descending), at most query.Limit of them, without Input and,
	// for COMPLETED ones, Terminal (nil both), which may be large. A row that is there throughout is neither left out
	// nor repeated by paging with the last row's ListCursor.
	ListTasks(ctx context.Context, query TaskQuery) ([]Task, error)

	// DueTasks returns the ids of at most limit rows whose Due time of that
	// kind is set and not after before, the longest overdue first.
	DueTasks(ctx context.Context, kind DueKind, before time.Time, limit int) ([]string, error)

	// RetireTask makes a task that has ended disappear, if its Revision is still
	// the row's: from then on no call finds it and its idempotency key is free.
	// It leaves a tombstone, which DueTasks gives for [DueDeletion] from at on.
	// Errors: [ErrTaskNotFound], [ErrRevisionConflict], [ErrIllegalTransition]
	// for a task that has not ended.
	RetireTask(ctx context.Context, task Task, at time.Time) error

	// DeleteTask removes the tombstone of a retired task, after its events were
	// deleted. Without one it does nothing.
	DeleteTask(ctx context.Context, taskID string) error

	// WatchTask calls wake after each later change of the row, until stop is
	// called. It is a hint: changes may coalesce into one call, calls without
	// a change happen, and over a network a call may be lost, so that the
	// caller also reads now and then. wake must not block nor call the store;
	// it may be called from any goroutine, once more while stop runs, and never
	// after stop has returned. stop may be called more than once. The task need
	// not exist.
	WatchTask(ctx context.Context, taskID string, wake func()) (stop func(), err error)
}

// TaskQuery selects rows for [TaskRegistry.ListTasks]. All conditions hold
// together; an empty list does not restrict.
type TaskQuery struct {
	// Owner restricts to one owner's rows, unless AnyOwner is set.
	Owner    string
	AnyOwner bool
	Statuses []TaskStatus
	Types    []string
	// CreatedBefore, unless zero, restricts to rows created before it.
	CreatedBefore time.Time
	// After, unless zero, is the last row of the page before.
	After ListCursor
	// Limit is 1 or more.
	Limit int
}

// ListCursor names a row's place in the order of [TaskRegistry.ListTasks].
type ListCursor struct {
	CreatedAt time.Time
	TaskID    string
}

// IsZero reports whether the cursor stands before the first row.
func (c ListCursor) IsZero() bool { return c.TaskID == "" }
