package taskbridge

import (
	"context"
	"time"
)

// TaskPollingService replays a stream page by page. Safe for concurrent use.
type TaskPollingService struct{ *base }

// PollRequest asks for the events after a cursor.
type PollRequest struct {
	TaskID string
	// After is the last event that the client has; zero: from the beginning.
	After Cursor
	// MaxEvents is 1 to 500; 0 means 100.
	MaxEvents int
	// Wait is how long to wait for the first event; 0 to 60 s.
	Wait time.Duration
	// GapError: tell a cursor that cannot be honoured as an error, rather than
	// by starting again behind a warning.
	GapError bool
}

// PollResult is one page of a stream.
type PollResult struct {
	// Events holds the page. After a gap its first event is a TASK_MESSAGE of
	// level warning with Sequence 0, made up for this answer.
	Events []Event
	// Next is the cursor behind the last event, or the one that came in.
	Next    Cursor
	HasMore bool
	// Status is never behind the events of this page.
	Status TaskStatus
}

// PollEvents returns as soon as one event is there, else after the whole of
// request.Wait with none, whether or not the task has ended.
// Errors: [ErrTaskNotFound], [*ArgumentError], [*GapError].
func (s *TaskPollingService) PollEvents(ctx context.Context, principal Principal, request PollRequest) (PollResult, error) {
	panic("not yet")
}
