package taskbridge

import (
	"context"
	"encoding/json"
	"time"
)

// EventStore keeps one ordered, append-only stream of events a task.
//
// The general obligations are those of [TaskRegistry]: safe for concurrent use,
// durable when nil is returned, visible everywhere at once, sentinel errors mean
// that nothing changed, values in and out, [ErrClosed] after closing. A stream
// needs no row: the store neither creates nor asks for one.
type EventStore interface {
	// AppendEvent gives the event the next sequence number and stores it. These
	// rules are applied in this order, atomically with the append:
	//
	//  1. Ordinal > 0, and the stream has seen the producer with this epoch and
	//     this ordinal or a higher one: nothing is appended, the answer is
	//     Duplicate. So a repeated call never doubles an event.
	//  2. Attempt > 0 and lower than the highest seen: [ErrStaleAttempt].
	//  3. The stream has seen the producer with a higher epoch: [ErrStaleProducer].
	//  4. The stream has its terminal event: [ErrTaskFinished].
	//  5. MaxSequence > 0 and the next sequence number is higher: [ErrStreamFull].
	//  6. A producer beyond [MaxProducers] different ones: [ErrInvalidArgument].
	//
	// Of each producer only the last epoch and ordinal are kept.
	AppendEvent(ctx context.Context, event EventAppend) (AppendResult, error)

	// ReadEvents returns the events with a sequence number above after, in
	// order and without a hole, at most limit (1 or more) of them; fewer than
	// limit only at the end of the stream. A stream without events gives none.
	// It never answers from a replica that may lag behind an append which has
	// returned.
	ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]Event, error)

	// StreamState describes the stream as of now; the zero value for a stream
	// without events.
	StreamState(ctx context.Context, taskID string) (StreamState, error)

	// DeleteEvents deletes up to limit (1 or more) events of a retired task's
	// stream, oldest first, and reports whether any are left; after the last one
	// the stream is forgotten. It is bounded so that it holds nobody up for long.
	DeleteEvents(ctx context.Context, taskID string, limit int) (more bool, err error)

	// WatchEvents calls wake after later appends to the stream, under the same
	// terms as [TaskRegistry.WatchTask].
	WatchEvents(ctx context.Context, taskID string, wake func()) (stop func(), err error)
}

// MaxProducers is how many different producers a stream takes.
const MaxProducers = 32

// ControlProducer is the name of the producer of control events: those that
// follow from a change of the row (TASK_STARTED, the warning of a later
// attempt, TASK_SUSPENDED, the terminal event). Its epoch is always 1 and its
// ordinals are the row's Controls.
const ControlProducer = "control"

// Producer is a source of events within a stream. Two processes that may both
// take themselves for the same source use the same name with different epochs;
// the higher one fences the lower.
type Producer struct {
	Name  string
	Epoch int64
}

// EventAppend is an event to be appended.
type EventAppend struct {
	TaskID    string
	Type      EventType
	CreatedAt time.Time
	// Attempt is the attempt that reports the event, 0 for none.
	Attempt int64
	// Payload is a compact JSON object that [ValidatePayload] accepts.
	Payload json.RawMessage
	// Tag is [EventTag] of the above.
	Tag string

	Producer Producer
	// Ordinal rises from 1 within an epoch of the producer, gaps allowed. With
	// 0 a repetition is not recognised.
	Ordinal int64
	// MaxSequence is the highest sequence number that the event may get; 0: any.
	MaxSequence int64
}

// AppendResult is the answer to an append.
type AppendResult struct {
	// Sequence is the event's number; 0 for a duplicate that is no longer the
	// producer's last.
	Sequence int64
	// Duplicate: the event was there already and was not appended again.
	Duplicate bool
}

// StreamState describes a stream.
type StreamState struct {
	// First and Last are the sequence numbers of the first and last event that
	// are there; 0 where there is none.
	First, Last int64
	// FirstTag and LastTag are their tags.
	FirstTag, LastTag string
	// LastAt is the CreatedAt of the last event.
	LastAt time.Time
	// Ended: the last event is terminal.
	Ended bool
	// Attempt is the highest attempt seen.
	Attempt int64
	// Controls is the last ordinal of [ControlProducer].
	Controls int64
}

// AtomicStore is a store that holds rows and events together. Services that are
// given one as both use it; with two separate stores they write the row, which
// is the commit point, then the event, and repair the stream from the row when
// a crash has come between.
type AtomicStore interface {
	TaskRegistry
	EventStore

	// UpdateTaskAndAppend does what UpdateTask and then AppendEvent for each of
	// the events do (all of the task next.ID), in one atomic step: all of it or,
	// on an error, nothing. A duplicate among the events is no error.
	UpdateTaskAndAppend(ctx context.Context, next Task, events []EventAppend) (Task, error)
}

// Leaser grants short leases by name. Time is the leaser's own; a lease that is
// not renewed ends by itself. Obligations as those of [TaskRegistry].
type Leaser interface {
	// AcquireLease gives the lease to holder for ttl if nobody else holds it,
	// or renews it if holder does, and reports whether holder has it now.
	AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	// ReleaseLease ends the lease if holder has it; otherwise it does nothing.
	ReleaseLease(ctx context.Context, name, holder string) error
	// LeaseHolder returns who holds the lease, "" for nobody.
	LeaseHolder(ctx context.Context, name string) (string, error)
}
