package taskbridge

import (
	"context"
	"time"
)

// TaskQueryService reads rows. Safe for concurrent use.
type TaskQueryService struct{ *base }

// GetTask returns the row. If wait is above zero and the task has not ended, it
// waits that long for the end and returns the row as it is then.
// Error: [ErrTaskNotFound].
func (s *TaskQueryService) GetTask(ctx context.Context, principal Principal, taskID string, wait time.Duration) (Task, error) {
	panic("not yet")
}

// ListTasksRequest selects rows for [TaskQueryService.ListTasks].
type ListTasksRequest struct {
	Statuses []TaskStatus
	Types    []string
	// Limit is 1 to 200; 0 means 50.
	Limit int
	// Cursor is the NextCursor of the page before; empty for the first.
	Cursor string
}

// ListTasksResult is one page. NextCursor is empty on the last one.
type ListTasksResult struct {
	Tasks      []Task
	NextCursor string
}

// ListTasks returns the principal's tasks, newest first, without Input and
// Terminal. Errors: [*ArgumentError]; [ErrInvalidCursor].
func (s *TaskQueryService) ListTasks(ctx context.Context, principal Principal, request ListTasksRequest) (ListTasksResult, error) {
	panic("not yet")
}
