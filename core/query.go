package taskbridge

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// TaskQueryService reads rows. Safe for concurrent use.
type TaskQueryService struct{ *base }

// GetTask returns the row. If wait is above zero and the task has not ended, it
// waits that long for the end and returns the row as it is then, also when ctx
// ends before. Errors: [ErrForbidden], [ErrTaskNotFound].
func (s *TaskQueryService) GetTask(ctx context.Context, principal Principal, taskID string, wait time.Duration) (Task, error) {
	row, err := s.visible(ctx, principal, taskID, PermissionRead)
	if err != nil || wait <= 0 || row.Status.Terminal() {
		return row, err
	}
	waiter, err := s.newWaiter(wait, func(wake func()) (func(), error) {
		return s.journal.tasks.WatchTask(ctx, taskID, wake)
	})
	if err != nil {
		return Task{}, err
	}
	defer waiter.stop()
	for {
		// Read after the watch has begun, and after each wake-up.
		if row, err = s.visible(context.WithoutCancel(ctx), principal, taskID, PermissionRead); err != nil {
			return row, err
		}
		if row.Status.Terminal() || !waiter.wait(ctx) {
			return row, nil
		}
	}
}

// waiter waits for wake-ups up to a limit.
type waiter struct {
	clock     Clock
	wakes     chan struct{}
	limit     Timer
	stopWatch func()
}

// backstop is how often a waiter reads without having been woken, should a
// wake-up have been lost.
const backstop = 15 * time.Second

func (b *base) newWaiter(limit time.Duration, watch func(wake func()) (func(), error)) (*waiter, error) {
	w := &waiter{clock: b.clock, wakes: make(chan struct{}, 1)}
	stop, err := watch(func() {
		select {
		case w.wakes <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	w.stopWatch = stop
	w.limit = b.clock.NewTimer(limit)
	return w, nil
}

// wait returns true when it is time to look again, false when the limit has
// passed or ctx has ended.
func (w *waiter) wait(ctx context.Context) bool {
	again := w.clock.NewTimer(backstop)
	defer again.Stop()
	select {
	case <-w.wakes:
		return true
	case <-again.C():
		return true
	case <-w.limit.C():
	case <-ctx.Done():
	}
	return false
}

func (w *waiter) stop() {
	w.limit.Stop()
	w.stopWatch()
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

// The bounds of a page of tasks.
const (
	DefaultListLimit = 50
	MaxListLimit     = 200
)

// ListTasks returns the principal's tasks, newest first, without input and
// result. Errors: [ErrForbidden], [*ArgumentError], [ErrInvalidCursor].
func (s *TaskQueryService) ListTasks(ctx context.Context, principal Principal, request ListTasksRequest) (ListTasksResult, error) {
	for _, status := range request.Statuses {
		if !status.Valid() {
			return ListTasksResult{}, argumentErrorf("status", "must be a task status")
		}
	}
	limit := request.Limit
	if limit == 0 {
		limit = DefaultListLimit
	}
	if limit < 1 || limit > MaxListLimit {
		return ListTasksResult{}, argumentErrorf("limit", "must be 1 to %d", MaxListLimit)
	}
	after, err := parseListCursor(request.Cursor)
	if err != nil {
		return ListTasksResult{}, err
	}
	if !s.ownership.Allows(principal, PermissionRead) {
		return ListTasksResult{}, ErrForbidden
	}
	all := s.ownership.MayListAll(principal)
	rows, err := s.journal.tasks.ListTasks(ctx, TaskQuery{
		Owner: principal.Subject, AnyOwner: all,
		Statuses: request.Statuses, Types: request.Types,
		After: after, Limit: limit + 1,
	})
	if err != nil {
		return ListTasksResult{}, err
	}
	result := ListTasksResult{Tasks: rows}
	if len(rows) > limit {
		result.Tasks = rows[:limit]
		last := rows[limit-1]
		result.NextCursor = ListCursor{last.CreatedAt, last.ID}.encode()
	}
	return result, nil
}

func (c ListCursor) encode() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.CreatedAt.UnixMicro(), 10) + " " + c.TaskID))
}

func parseListCursor(s string) (ListCursor, error) {
	if s == "" {
		return ListCursor{}, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return ListCursor{}, ErrInvalidCursor
	}
	micros, id, ok := strings.Cut(string(data), " ")
	at, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || !ok || !ValidTaskID(id) {
		return ListCursor{}, ErrInvalidCursor
	}
	return ListCursor{time.UnixMicro(at).UTC(), id}, nil
}
