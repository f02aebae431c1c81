package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const (
	// streamNo is a stream's number, NULL where it has none. Streams that began
	// without a task are few, mostly none.
	streamNo = "coalesce((SELECT stream_no FROM streams WHERE task_id = ?1), (SELECT task_no FROM tasks WHERE id = ?1))"

	sqlStreamNo    = "SELECT " + streamNo
	sqlInsertNo    = "INSERT INTO streams (task_id, stream_no) VALUES (?, ?)"
	sqlLastEvent   = "SELECT event_no, state FROM events WHERE event_no BETWEEN ? AND ? ORDER BY event_no DESC LIMIT 1"
	sqlInsertEvent = "INSERT INTO events (event_no, type, created_at, attempt, tag, state, payload) VALUES (?, ?, ?, ?, ?, ?, ?)"
)

var (
	streamRange = fmt.Sprintf("WITH stream (base) AS MATERIALIZED (SELECT %s << %d) ", streamNo, sequenceBits)

	sqlReadEvents = streamRange +
		"SELECT event_no, type, created_at, attempt, tag, payload FROM events " +
		fmt.Sprintf("WHERE event_no > (SELECT base FROM stream) + ?2 AND event_no <= (SELECT base FROM stream) + %d ", maxSequence) +
		"ORDER BY event_no LIMIT ?3"
	sqlStreamEnds = streamRange + fmt.Sprintf(
		"SELECT * FROM (SELECT %[1]s ORDER BY event_no LIMIT 1) UNION ALL SELECT * FROM (SELECT %[1]s ORDER BY event_no DESC LIMIT 1)",
		fmt.Sprintf("event_no, tag, created_at, state FROM events WHERE event_no BETWEEN (SELECT base FROM stream) + 1 AND (SELECT base FROM stream) + %d", maxSequence))
)

// AppendEvent implements [taskbridge.EventStore]. No stream takes more than 268
// million events ([taskbridge.ErrStreamFull]).
func (s *Store) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	r := s.appends.Get().(*appendEvent)
	payload := append(r.payload[:0], event.Payload...)
	r.event, r.payload = event, payload
	r.event.Payload = payload // the writer may still read it when this call has ended
	if err := s.write(ctx, r); err != nil {
		if ctx.Err() == nil {
			s.release(r)
		}
		return taskbridge.AppendResult{}, fmt.Errorf("sqlitestore: append to stream %q: %w", event.TaskID, err)
	}
	result := r.result
	s.release(r)
	return result, nil
}

// appendEvent is the request of AppendEvent.
type appendEvent struct {
	operation
	event   taskbridge.EventAppend
	payload []byte
	result  taskbridge.AppendResult
}

// maxKeptPayload is the largest room for a payload that is used again.
const maxKeptPayload = 64 << 10

// release makes the request ready to be used again. The writer must be through
// with it.
func (s *Store) release(r *appendEvent) {
	if cap(r.payload) > maxKeptPayload {
		r.payload = nil
	}
	r.event, r.result, r.refusal = taskbridge.EventAppend{}, taskbridge.AppendResult{}, nil
	s.appends.Put(r)
}

func (r *appendEvent) apply(w *writer) error {
	head, err := w.head(r.event.TaskID)
	if err != nil {
		return err
	}
	if r.result, r.refusal = head.check(&r.event); r.refusal != nil || r.result.Duplicate {
		return nil
	}
	r.result, err = w.append(head, &r.event)
	return err
}

func (r *appendEvent) committed(s *Store) {
	if !r.result.Duplicate {
		s.eventWatchers.notify(r.event.TaskID)
	}
}

// head returns the stream's head, from memory or from the file.
func (w *writer) head(taskID string) (*streamHead, error) {
	if head, ok := w.heads.get(taskID); ok {
		return head, nil
	}
	head := new(streamHead)
	var err error
	if head.no, err = w.conn.integer(sqlStreamNo, taskID); err != nil {
		return nil, fmt.Errorf("stream's number: %w", err)
	}
	if head.no == 0 {
		buried, err := w.conn.integer(sqlBuriedNo, taskID)
		if err != nil {
			return nil, fmt.Errorf("tombstone: %w", err)
		}
		// A retired task has ended. Any other stream may still become a task's:
		// nothing is kept of it.
		head.ended = buried != 0
		return head, nil
	}
	err = w.conn.query(background, sqlLastEvent, func(row []driver.Value) error {
		return head.readState(blob(row[1]), integer(row[0])&maxSequence)
	}, eventNumber(head.no, 1), eventNumber(head.no, maxSequence))
	if err != nil {
		return nil, fmt.Errorf("stream's last event: %w", err)
	}
	w.heads.put(taskID, head)
	return head, nil
}

// append writes an event unless it is a duplicate. The head, which must be the
// one of w.head, has let it through.
func (w *writer) append(head *streamHead, e *taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	result, err := head.check(e)
	if err != nil || result.Duplicate {
		return result, err
	}
	if head.no == 0 {
		if err := w.number(head, e.TaskID); err != nil {
			return result, err
		}
	}
	head.apply(e)
	w.state = head.appendState(w.state[:0])
	err = w.conn.exec(sqlInsertEvent, eventNumber(head.no, head.last), eventTypeValue(e.Type),
		e.CreatedAt.UnixMicro(), e.Attempt, tagValue(e.Tag), w.state, blobValue(e.Payload))
	return result, err
}

// number gives a number to a stream that begins without a task.
func (w *writer) number(head *streamHead, taskID string) error {
	w.firstNo--
	head.no = w.firstNo
	if err := w.conn.exec(sqlInsertNo, taskID, head.no); err != nil {
		return fmt.Errorf("number of a stream: %w", err)
	}
	w.heads.put(taskID, head)
	return nil
}

// ReadEvents implements [taskbridge.EventStore]. A limit below 1 is refused with
// [taskbridge.ErrInvalidArgument].
func (s *Store) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	events, err := s.readEvents(ctx, taskID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: read of stream %q: %w", taskID, err)
	}
	return events, nil
}

func (s *Store) readEvents(ctx context.Context, taskID string, after int64, limit int) (events []taskbridge.Event, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, argumentError("limit", "must be 1 or more")
	}
	after = min(max(after, 0), maxSequence)
	const page = 512 // most ask for no more, and get it
	err = s.read(ctx, func(c *conn) error {
		return c.query(background, sqlReadEvents, func(row []driver.Value) error {
			t, err := eventType(row[1])
			if events == nil {
				events = make([]taskbridge.Event, 0, min(limit, page))
			}
			events = append(events, taskbridge.Event{
				TaskID:    taskID,
				Sequence:  integer(row[0]) & maxSequence,
				Type:      t,
				CreatedAt: timeOf(row[2]),
				Attempt:   integer(row[3]),
				Tag:       tag(row[4]),
				Payload:   blob(row[5]),
			})
			return err
		}, taskID, after, int64(limit))
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// StreamState implements [taskbridge.EventStore].
func (s *Store) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	var state taskbridge.StreamState
	err := s.read(ctx, func(c *conn) error {
		return c.query(background, sqlStreamEnds, func(row []driver.Value) error {
			sequence := integer(row[0]) & maxSequence
			if state.First == 0 {
				state.First, state.FirstTag = sequence, tag(row[1])
				return nil
			}
			var head streamHead
			if err := head.readState(blob(row[3]), sequence); err != nil {
				return err
			}
			state.Last, state.LastTag, state.LastAt = sequence, tag(row[1]), timeOf(row[2])
			state.Ended, state.Attempt = head.ended, head.attempt
			if p := head.producer(taskbridge.ControlProducer); p != nil {
				state.Controls = p.ordinal
			}
			return nil
		}, taskID)
	})
	if err != nil {
		return taskbridge.StreamState{}, fmt.Errorf("sqlitestore: state of stream %q: %w", taskID, err)
	}
	return state, nil
}

// WatchEvents implements [taskbridge.EventStore], on the terms of WatchTask.
func (s *Store) WatchEvents(ctx context.Context, taskID string, wake func()) (stop func(), err error) {
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("sqlitestore: watch of stream %q: %w", taskID, err)
	}
	return s.eventWatchers.watch(taskID, wake), nil
}
