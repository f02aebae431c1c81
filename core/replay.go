package taskbridge

import (
	"context"
	"errors"
)

// readVerified reads up to limit events after the cursor, having checked that
// the event which the cursor names is there, and completes the stream from the
// row if it finds it short. Error: [*GapError].
func (b *base) readVerified(ctx context.Context, row Task, after Cursor, limit int) ([]Event, error) {
	for tries := 0; ; tries++ {
		events, named, err := b.readAfter(ctx, row.ID, after, limit)
		if err != nil {
			return nil, err
		}
		if tries > 0 || len(events) >= limit || !b.mayOwe(row, events, named) {
			return events, nil
		}
		if _, err := b.journal.repair(ctx, row); err != nil {
			return nil, err
		}
	}
}

// mayOwe reports whether a stream that ends with these events, or with the one
// that the cursor named, is behind its row.
func (b *base) mayOwe(row Task, events []Event, named *Event) bool {
	if row.Controls == 0 {
		return false
	}
	if n := len(events); n > 0 {
		named = &events[n-1]
	}
	if named == nil {
		return true
	}
	return row.Status.Terminal() && !named.Type.Terminal()
}

// readAfter reads up to limit events after the cursor and the one that it names,
// nil for the beginning. The named event is read with the others, so that it is
// the same history that is checked and handed out.
func (b *base) readAfter(ctx context.Context, taskID string, after Cursor, limit int) (events []Event, named *Event, err error) {
	if after.Sequence == 0 {
		events, err = b.journal.events.ReadEvents(ctx, taskID, 0, limit)
		return events, nil, err
	}
	events, err = b.journal.events.ReadEvents(ctx, taskID, after.Sequence-1, limit+1)
	if err != nil {
		return nil, nil, err
	}
	if len(events) == 0 || events[0].Sequence != after.Sequence || events[0].Tag != after.Tag {
		return nil, nil, b.gap(ctx, taskID)
	}
	return events[1:], &events[0], nil
}

// gap makes the error that says what the stream has.
func (b *base) gap(ctx context.Context, taskID string) error {
	state, err := b.journal.events.StreamState(ctx, taskID)
	if err != nil {
		return err
	}
	gap := &GapError{TaskID: taskID}
	if state.Last > 0 {
		gap.FirstEventID = Cursor{state.First, state.FirstTag}.String()
		gap.LastEventID = Cursor{state.Last, state.LastTag}.String()
	}
	return gap
}

func asGap(err error) *GapError {
	var gap *GapError
	errors.As(err, &gap)
	return gap
}

// gapWarning is the event that stands before a stream which starts again.
func (b *base) gapWarning(gap *GapError) Event {
	return Event{
		TaskID:    gap.TaskID,
		Tag:       "0", // with sequence 0 the id is "0-0": the beginning
		Type:      EventMessage,
		CreatedAt: b.journal.now(),
		Payload: mustMarshal(messagePayload{
			Message: "events are missing: the stream does not have the event to resume after, and starts again at the first that is there",
			Level:   LevelWarning,
		}),
	}
}
