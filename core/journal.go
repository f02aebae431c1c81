package taskbridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// journal writes rows together with the control events that follow from them.
//
// The row is the commit point. With an [AtomicStore] both are one step. With
// separate stores the row is written first, marked with Due.Stream, then the
// events, then the mark is taken away; whoever meets the mark, or a row whose
// Controls are ahead of its stream's, completes the stream from the row. Control
// events can be derived from the row alone and carry ordinals from it, so any
// number of repairers may run at once.
type journal struct {
	tasks  TaskRegistry
	events EventStore
	atomic AtomicStore // nil: separate stores
	clock  Clock
	// observer is told of ends, which are recorded here and nowhere else.
	observer Observer
}

func newJournal(stores Stores, clock Clock, observer Observer) *journal {
	j := &journal{tasks: stores.Tasks, events: stores.Events, clock: clock, observer: observer}
	if atomic, ok := stores.Tasks.(AtomicStore); ok && any(stores.Tasks) == any(stores.Events) {
		j.atomic = atomic
	}
	return j
}

func (j *journal) now() time.Time { return timestamp(j.clock.Now()) }

// commit writes next, which was made from the row prev, and the control events
// by which next is ahead of prev. If it fails after the row was written, the
// row is returned with the error and the stream is owed.
func (j *journal) commit(ctx context.Context, prev, next Task) (Task, error) {
	if !next.Status.Terminal() || prev.Status.Terminal() {
		return j.write(ctx, prev, next)
	}
	operation := next.operation(OperationEnd)
	operation.Event = terminalEvent(next.Status)
	ctx, done := begin(ctx, j.observer, operation)
	row, err := j.write(ctx, prev, next)
	done(err)
	return row, err
}

func (j *journal) write(ctx context.Context, prev, next Task) (Task, error) {
	if !prev.Due.Stream.IsZero() {
		// The events that prev owes come first, and a row can owe only what can
		// be derived from it.
		repaired, err := j.repair(ctx, prev)
		if err != nil {
			return prev, err
		}
		if repaired.Revision != prev.Revision {
			return repaired, ErrRevisionConflict
		}
	}
	next.UpdatedAt = j.now()
	events, err := controlEvents(next, prev.Controls)
	if err != nil {
		return prev, err
	}
	if len(events) == 0 {
		return j.tasks.UpdateTask(ctx, next)
	}
	if j.atomic != nil {
		return j.atomic.UpdateTaskAndAppend(ctx, next, events)
	}
	next.Due.Stream = next.UpdatedAt
	row, err := j.tasks.UpdateTask(ctx, next)
	if err != nil {
		return row, err
	}
	return j.complete(ctx, row, events)
}

// complete appends the events that the row owes its stream and takes the mark
// away.
func (j *journal) complete(ctx context.Context, row Task, events []EventAppend) (Task, error) {
	for _, event := range events {
		if _, err := j.events.AppendEvent(ctx, event); err != nil {
			return row, fmt.Errorf("append %s of task %s: %w", event.Type, row.ID, err)
		}
	}
	if row.Due.Stream.IsZero() {
		return row, nil
	}
	unmarked := row
	unmarked.Due.Stream = time.Time{}
	updated, err := j.tasks.UpdateTask(ctx, unmarked)
	switch {
	case err == nil:
		return updated, nil
	case errors.Is(err, ErrRevisionConflict):
		return row, nil // whoever changed the row has the mark before it
	}
	return row, fmt.Errorf("unmark task %s: %w", row.ID, err)
}

// repair completes the stream of a row that is, or may be, ahead of it, and
// returns the row as it is then.
func (j *journal) repair(ctx context.Context, row Task) (Task, error) {
	state, err := j.events.StreamState(ctx, row.ID)
	if err != nil {
		return row, fmt.Errorf("read stream state of task %s: %w", row.ID, err)
	}
	events, err := controlEvents(row, state.Controls)
	if err != nil {
		return row, err
	}
	return j.complete(ctx, row, events)
}

// load reads a row and completes its stream if the row says that it owes.
func (j *journal) load(ctx context.Context, taskID string) (Task, error) {
	row, err := j.tasks.GetTask(ctx, taskID)
	if err != nil || row.Due.Stream.IsZero() {
		return row, err
	}
	return j.repair(ctx, row)
}

// controlEvents derives from a row its control events with an ordinal above
// have, in their order.
func controlEvents(row Task, have int64) ([]EventAppend, error) {
	if row.Controls <= have {
		return nil, nil
	}
	var events []EventAppend
	add := func(ordinal int64, t EventType, at time.Time, payload []byte) {
		events = append(events, EventAppend{
			TaskID: row.ID, Type: t, CreatedAt: at, Attempt: row.Attempt, Payload: payload,
			Tag:      EventTag(t, at, row.Attempt, payload),
			Producer: Producer{ControlProducer, 1}, Ordinal: ordinal,
		})
	}
	if !row.StartedAt.IsZero() && have < 1 {
		add(1, EventStarted, row.StartedAt, []byte("{}"))
	}
	if row.AttemptControl > have {
		add(row.AttemptControl, EventMessage, row.AttemptStartedAt, mustMarshal(messagePayload{
			Message: fmt.Sprintf("attempt %d has started, the one before it did not finish", row.Attempt),
			Level:   LevelWarning,
		}))
	}
	if row.SuspendControl > have && row.Suspension != nil {
		payload, err := marshal(row.Suspension)
		if err != nil {
			return nil, fmt.Errorf("encode suspension of task %s: %w", row.ID, err)
		}
		add(row.SuspendControl, EventSuspended, row.UpdatedAt, payload)
	}
	slices.SortFunc(events, func(a, b EventAppend) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	if t := terminalEvent(row.Status); t != "" {
		add(row.Controls, t, row.FinishedAt, row.Terminal)
	}
	return events, nil
}

// terminalEvent returns the event type that a terminal status stands for.
func terminalEvent(status TaskStatus) EventType {
	switch status {
	case StatusCompleted:
		return EventCompleted
	case StatusFailed:
		return EventFailed
	case StatusCancelled:
		return EventCancelled
	}
	return ""
}

// finished returns the row as it is to be after its end.
func finished(row Task, status TaskStatus, payload []byte, at time.Time) Task {
	row.Status = status
	row.Terminal = payload
	row.FinishedAt = at
	row.Suspension = nil
	row.Controls++
	if row.Submission.State != SubmissionRecorded {
		row.Submission.LeaseUntil = time.Time{}
	}
	row.Due = Due{Retention: at}
	return row
}

// started returns the row as it is to be once its work has begun.
func started(row Task, at time.Time) Task {
	row.Status = StatusRunning
	row.StartedAt = at
	row.Controls++
	return row
}

// submitted returns the row as it is to be once its executor has the task.
func submitted(row Task, inspectAt time.Time) Task {
	row.Submission.State = SubmissionRecorded
	row.Submission.LeaseUntil = time.Time{}
	row.Submission.Barred = false
	row.Due.Submission = time.Time{}
	if row.Due.Inspection.IsZero() {
		row.Due.Inspection = inspectAt
	}
	return row
}

// change applies f to the row until it is written: after a conflict, to the row
// as it is then. f returns false to leave the row as it is. The row that was
// read or written last is returned.
func (j *journal) change(ctx context.Context, row Task, f func(Task) (Task, bool)) (Task, error) {
	for {
		next, ok := f(row)
		if !ok {
			return row, nil
		}
		updated, err := j.commit(ctx, row, next)
		if err == nil || !errors.Is(err, ErrRevisionConflict) {
			if updated.ID == "" {
				updated = row
			}
			return updated, err
		}
		latest, err := j.load(ctx, row.ID)
		if err != nil {
			return row, err // out of date, but nothing that f would take for another attempt
		}
		row = latest
	}
}

// end ends a task. A row that has ended already is left as it is and is
// returned with [ErrTaskFinished].
func (j *journal) end(ctx context.Context, row Task, status TaskStatus, payload func(Task) []byte) (Task, error) {
	already := false
	row, err := j.change(ctx, row, func(row Task) (Task, bool) {
		if already = row.Status.Terminal(); already {
			return row, false
		}
		return finished(row, status, payload(row), j.now()), true
	})
	if err == nil && already {
		err = ErrTaskFinished
	}
	return row, err
}
