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

// The bounds of a poll.
const (
	DefaultPollEvents = 100
	MaxPollEvents     = 500
	MaxPollWait       = 60 * time.Second
)

// PollResult is one page of a stream.
type PollResult struct {
	// Events holds the page. After a gap its first event is a TASK_MESSAGE of
	// level warning with Sequence 0, made up for this answer.
	Events []Event
	// Next is the cursor behind the last event, or the one that came in.
	Next    Cursor
	HasMore bool
	// Status is the task's, as the stream up to the end of this page or later
	// tells it; it is terminal only if the terminal event is in the stream.
	Status TaskStatus
}

// PollEvents returns as soon as one event is there, else after the whole of
// request.Wait with none, whether or not the task has ended. If ctx ends while
// it waits, the page is empty and there is no error.
// Errors: [ErrForbidden], [ErrTaskNotFound], [*ArgumentError], [*GapError].
func (s *TaskPollingService) PollEvents(ctx context.Context, principal Principal, request PollRequest) (PollResult, error) {
	limit := request.MaxEvents
	if limit == 0 {
		limit = DefaultPollEvents
	}
	if limit < 1 || limit > MaxPollEvents {
		return PollResult{}, argumentErrorf("maxEvents", "must be 1 to %d", MaxPollEvents)
	}
	if request.Wait < 0 || request.Wait > MaxPollWait {
		return PollResult{}, argumentErrorf("waitTimeoutMs", "must be 0 to %d", MaxPollWait.Milliseconds())
	}
	// The row comes before the events: so the status is never ahead of them.
	row, err := s.visible(ctx, principal, request.TaskID, PermissionRead)
	if err != nil {
		return PollResult{}, err
	}
	page, err := s.readPage(ctx, row, request.After, limit, request.GapError)
	if err != nil || len(page.Events) > 0 || request.Wait == 0 {
		return page, err
	}
	waiter, err := s.newWaiter(request.Wait, func(wake func()) (func(), error) {
		return s.journal.events.WatchEvents(ctx, request.TaskID, wake)
	})
	if err != nil {
		return PollResult{}, err
	}
	defer waiter.stop()
	for {
		page, err = s.readPage(context.WithoutCancel(ctx), row, request.After, limit, request.GapError)
		if err != nil || len(page.Events) > 0 || !waiter.wait(ctx) {
			return page, err
		}
	}
}

// readPage reads one page, with the warning where there is a gap.
func (b *base) readPage(ctx context.Context, row Task, after Cursor, limit int, gapError bool) (PollResult, error) {
	events, err := b.readVerified(ctx, row, after, limit+1)
	var gap *GapError
	if gap = asGap(err); gap != nil && !gapError {
		events, err = b.readVerified(ctx, row, Cursor{}, limit)
		events = append([]Event{b.gapWarning(gap)}, events...)
	}
	if err != nil {
		return PollResult{}, err
	}
	page := PollResult{Events: events, Next: after, Status: row.Status}
	if len(events) > limit {
		page.Events, page.HasMore = events[:limit], true
	}
	for _, event := range events {
		// Each change of the status has its event.
		if status := event.Type.Status(); status != "" {
			page.Status = status
		} else if event.Type == EventStarted && page.Status == StatusAccepted {
			page.Status = StatusRunning
		}
	}
	if n := len(page.Events); n > 0 {
		last := page.Events[n-1]
		page.Next = Cursor{last.Sequence, last.Tag}
		if last.Sequence == 0 {
			page.Next = Cursor{}
		}
	}
	return page, nil
}
