package taskbridge

import (
	"context"
	"time"
)

// SubscriptionOptions tunes live delivery. Zero fields mean the defaults.
type SubscriptionOptions struct {
	// RingBytes bounds the recent events kept in memory for each task that has
	// subscribers; default 256 KiB.
	RingBytes int
	// Backstop is how often a task with subscribers is read without a wake-up;
	// default 30 s.
	Backstop time.Duration
}

// TaskSubscriptionService delivers streams live. Safe for concurrent use.
type TaskSubscriptionService struct{ *base }

func newSubscriptionService(b *base, opts SubscriptionOptions) (*TaskSubscriptionService, error) {
	panic("not yet")
}

// SubscribeRequest asks for a stream from a cursor on.
type SubscribeRequest struct {
	TaskID string
	After  Cursor
	// GapError: see [PollRequest].
	GapError bool
}

// Frame is an event as it is delivered. Its bytes are shared by all subscribers
// and must not be written to.
type Frame struct {
	// Sequence is 0 for the warning that comes before a stream that starts again.
	Sequence int64
	EventID  string
	// Envelope is the wire envelope: one line of JSON.
	Envelope []byte
	Terminal bool
}

// Subscribe opens a subscription; the caller closes it.
// Errors: [ErrTaskNotFound], [*GapError], [ErrClosed].
func (s *TaskSubscriptionService) Subscribe(ctx context.Context, principal Principal, request SubscribeRequest) (*Subscription, error) {
	panic("not yet")
}

// Close ends all subscriptions with [ErrClosed] and waits for what they began.
func (s *TaskSubscriptionService) Close() { panic("not yet") }

// Subscription is one reader's place in a stream. It is used by one goroutine;
// Close may be called from any.
type Subscription struct{}

// Next returns the frames after the last ones returned, at least one and
// bounded in bytes, waiting up to idle for the first; none and no error when
// idle has passed. After the terminal event has been returned: io.EOF.
// Other errors end the subscription: ctx's, [ErrClosed], [*GapError] (the
// history changed underneath), or a store that is away. The client resumes from its cursor.
func (s *Subscription) Next(ctx context.Context, idle time.Duration) ([]Frame, error) {
	panic("not yet")
}

// AtEnd reports whether the cursor that the subscription was opened with is the
// terminal event's: there is nothing more to come.
func (s *Subscription) AtEnd() bool { panic("not yet") }

// Close releases the subscription.
func (s *Subscription) Close() { panic("not yet") }
