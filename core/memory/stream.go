package memory

import (
	"bytes"
	"fmt"
	"maps"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// stream is one task's events. The caller holds the lock of [Events].
type stream struct {
	// base is the head as it was before the first event that is still there.
	base head
	// head is base with the events applied.
	head    head
	records []record
}

// record is an event together with who appended it, which the head can be
// counted up from again.
type record struct {
	event    taskbridge.Event
	producer taskbridge.Producer
	ordinal  int64
}

// head is what the rules of an append ask about. Its zero value is that of a
// stream without events.
type head struct {
	last      int64
	ended     bool
	attempt   int64
	producers map[string]producerState
}

type producerState struct {
	epoch, ordinal int64
	// sequence is that of the event which has the ordinal.
	sequence int64
}

func (h head) clone() head {
	h.producers = maps.Clone(h.producers)
	return h
}

// check applies the rules of [taskbridge.EventStore.AppendEvent], in their
// order. duplicate is set where the event is not to be appended.
func (h *head) check(e taskbridge.EventAppend) (duplicate *taskbridge.AppendResult, err error) {
	p, known := h.producers[e.Producer.Name]
	switch {
	case e.Ordinal > 0 && known && p.epoch == e.Producer.Epoch && p.ordinal >= e.Ordinal:
		result := taskbridge.AppendResult{Duplicate: true}
		if p.ordinal == e.Ordinal {
			result.Sequence = p.sequence
		}
		return &result, nil
	case e.Attempt > 0 && e.Attempt < h.attempt:
		return nil, fmt.Errorf("attempt %d: %w: %d", e.Attempt, taskbridge.ErrStaleAttempt, h.attempt)
	case known && p.epoch > e.Producer.Epoch:
		return nil, fmt.Errorf("epoch %d of producer %q: %w: %d", e.Producer.Epoch, e.Producer.Name, taskbridge.ErrStaleProducer, p.epoch)
	case h.ended:
		return nil, taskbridge.ErrTaskFinished
	case e.MaxSequence > 0 && h.last+1 > e.MaxSequence:
		return nil, taskbridge.ErrStreamFull
	case !known && len(h.producers) >= taskbridge.MaxProducers:
		return nil, argumentError("producer", fmt.Sprintf("%q is one more than the %d that a stream takes", e.Producer.Name, taskbridge.MaxProducers))
	}
	return nil, nil
}

// apply counts an event that has been accepted.
func (h *head) apply(r record) {
	h.last = r.event.Sequence
	h.ended = r.event.Type.Terminal()
	h.attempt = max(h.attempt, r.event.Attempt)
	p := h.producers[r.producer.Name]
	if p.epoch != r.producer.Epoch {
		p = producerState{epoch: r.producer.Epoch}
	}
	if r.ordinal > 0 {
		p.ordinal, p.sequence = r.ordinal, r.event.Sequence
	}
	if h.producers == nil {
		h.producers = make(map[string]producerState)
	}
	h.producers[r.producer.Name] = p
}

func (s *stream) append(e taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	if duplicate, err := s.head.check(e); err != nil {
		return taskbridge.AppendResult{}, err
	} else if duplicate != nil {
		return *duplicate, nil
	}
	r := record{
		event: taskbridge.Event{
			TaskID:    e.TaskID,
			Sequence:  s.head.last + 1,
			Tag:       e.Tag,
			Type:      e.Type,
			CreatedAt: e.CreatedAt,
			Attempt:   e.Attempt,
			Payload:   bytes.Clone(e.Payload),
		},
		producer: e.Producer,
		ordinal:  e.Ordinal,
	}
	s.records = append(s.records, r)
	s.head.apply(r)
	return taskbridge.AppendResult{Sequence: r.event.Sequence}, nil
}

// appendAll appends all of the events or, on an error, none of them. It reports
// whether one was no duplicate.
func (s *stream) appendAll(events []taskbridge.EventAppend) (appended bool, err error) {
	before, length := s.head.clone(), len(s.records)
	for _, e := range events {
		result, err := s.append(e)
		if err != nil {
			clear(s.records[length:])
			s.head, s.records = before, s.records[:length]
			return false, err
		}
		appended = appended || !result.Duplicate
	}
	return appended, nil
}

// read returns at most limit events with a sequence number above after.
func (s *stream) read(after int64, limit int) []taskbridge.Event {
	if len(s.records) == 0 || after >= s.head.last {
		return nil
	}
	records := s.records[max(0, after+1-s.records[0].event.Sequence):]
	events := make([]taskbridge.Event, min(limit, len(records)))
	for i := range events {
		events[i] = records[i].event
	}
	return events
}

func (s *stream) state() taskbridge.StreamState {
	if len(s.records) == 0 {
		return taskbridge.StreamState{}
	}
	first, last := s.records[0].event, s.records[len(s.records)-1].event
	return taskbridge.StreamState{
		First: first.Sequence, FirstTag: first.Tag,
		Last: last.Sequence, LastTag: last.Tag,
		LastAt:   last.CreatedAt,
		Ended:    s.head.ended,
		Attempt:  s.head.attempt,
		Controls: s.head.producers[taskbridge.ControlProducer].ordinal,
	}
}

// truncate forgets the events above last, and all that the head had from them.
func (s *stream) truncate(last int64) {
	kept := s.records[:0]
	s.head = s.base.clone()
	for _, r := range s.records {
		if r.event.Sequence > last {
			break
		}
		kept = append(kept, r)
		s.head.apply(r)
	}
	clear(s.records[len(kept):])
	s.records = kept
}

// trim forgets the events below first, but keeps the last one and the head.
func (s *stream) trim(first int64) {
	n := 0
	for n < len(s.records)-1 && s.records[n].event.Sequence < first {
		n++
	}
	s.drop(n)
}

// drop forgets the first n events and keeps the head.
func (s *stream) drop(n int) {
	for _, r := range s.records[:n] {
		s.base.apply(r)
	}
	clear(s.records[:n])
	s.records = s.records[n:]
}
