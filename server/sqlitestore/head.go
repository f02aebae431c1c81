package sqlitestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// sequenceBits is how many bits of an event's number are its sequence number;
// the bits above are the stream's. They allow 268 million events a stream and 34
// thousand million streams.
const (
	sequenceBits = 28
	maxSequence  = 1<<sequenceBits - 1
	maxStreamNo  = 1<<(63-sequenceBits) - 1
)

// eventNumber is the key of an event's row. Streams that began without a task
// have negative numbers; the order within a stream is the same.
func eventNumber(streamNo, sequence int64) int64 { return streamNo<<sequenceBits + sequence }

// streamHead is what the rules of an append ask about. Every event's row carries
// it as of after that event.
type streamHead struct {
	// no is the stream's number, 0 while it has none.
	no        int64
	last      int64
	ended     bool
	attempt   int64
	producers []producerHead
}

type producerHead struct {
	name           string
	epoch, ordinal int64
	// sequence is that of the event which has the ordinal, 0 without one.
	sequence int64
}

func (h *streamHead) producer(name string) *producerHead {
	for i := range h.producers {
		if h.producers[i].name == name {
			return &h.producers[i]
		}
	}
	return nil
}

func (h *streamHead) clone() *streamHead {
	c := *h
	c.producers = slices.Clone(h.producers)
	return &c
}

// check applies the rules of [taskbridge.EventStore.AppendEvent] in their order.
// It changes nothing.
func (h *streamHead) check(e *taskbridge.EventAppend) (result taskbridge.AppendResult, err error) {
	p := h.producer(e.Producer.Name)
	switch {
	case e.Ordinal > 0 && p != nil && p.epoch == e.Producer.Epoch && p.ordinal >= e.Ordinal:
		result.Duplicate = true
		if p.ordinal == e.Ordinal {
			result.Sequence = p.sequence
		}
		return result, nil
	case e.Attempt > 0 && e.Attempt < h.attempt:
		return result, fmt.Errorf("attempt %d: %w: %d", e.Attempt, taskbridge.ErrStaleAttempt, h.attempt)
	case p != nil && p.epoch > e.Producer.Epoch:
		return result, fmt.Errorf("epoch %d of producer %q: %w: %d", e.Producer.Epoch, e.Producer.Name, taskbridge.ErrStaleProducer, p.epoch)
	case h.ended:
		return result, taskbridge.ErrTaskFinished
	case e.MaxSequence > 0 && h.last >= e.MaxSequence, h.last >= maxSequence:
		return result, taskbridge.ErrStreamFull
	case p == nil && len(h.producers) >= taskbridge.MaxProducers:
		return result, argumentError("producer", fmt.Sprintf("%q is one more than the %d that a stream takes", e.Producer.Name, taskbridge.MaxProducers))
	}
	result.Sequence = h.last + 1
	return result, nil
}

// apply counts an event that check has let through.
func (h *streamHead) apply(e *taskbridge.EventAppend) {
	h.last++
	h.ended = e.Type.Terminal()
	h.attempt = max(h.attempt, e.Attempt)
	p := h.producer(e.Producer.Name)
	if p == nil {
		h.producers = append(h.producers, producerHead{name: e.Producer.Name, epoch: e.Producer.Epoch})
		p = &h.producers[len(h.producers)-1]
	}
	if p.epoch != e.Producer.Epoch {
		*p = producerHead{name: p.name, epoch: e.Producer.Epoch}
	}
	if e.Ordinal > 0 {
		p.ordinal, p.sequence = e.Ordinal, h.last
	}
}

// The state of an event's row: a byte of flags, then as variable-length integers
// the highest attempt and the number of producers, and of each producer its
// name, epoch, ordinal, and how far behind the event its last one is. A name is
// a number below wellKnown, or its length plus wellKnown and its bytes.
const (
	flagEnded = 1 << 0
	wellKnown = 2
)

var wellKnownProducers = [wellKnown]string{taskbridge.ControlProducer, "worker"}

func (h *streamHead) appendState(b []byte) []byte {
	flags := byte(0)
	if h.ended {
		flags |= flagEnded
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(h.attempt))
	b = binary.AppendUvarint(b, uint64(len(h.producers)))
	for i := range h.producers {
		p := &h.producers[i]
		if at := slices.Index(wellKnownProducers[:], p.name); at >= 0 {
			b = binary.AppendUvarint(b, uint64(at))
		} else {
			b = binary.AppendUvarint(b, uint64(len(p.name)+wellKnown))
			b = append(b, p.name...)
		}
		b = binary.AppendVarint(b, p.epoch)
		b = binary.AppendUvarint(b, uint64(p.ordinal))
		b = binary.AppendUvarint(b, uint64(h.last-p.sequence))
	}
	return b
}

var errBadState = errors.New("the event's state cannot be read")

// readState sets all but no from the state of the event with the sequence number.
func (h *streamHead) readState(b []byte, sequence int64) error {
	if len(b) == 0 || b[0]&^flagEnded != 0 {
		return errBadState
	}
	h.last, h.ended = sequence, b[0]&flagEnded != 0
	r := stateReader{rest: b[1:]}
	h.attempt = r.uvarint()
	n := r.uvarint()
	if n < 0 || n > taskbridge.MaxProducers {
		return errBadState
	}
	h.producers = make([]producerHead, n, n+1)
	for i := range h.producers {
		h.producers[i] = producerHead{name: r.name(), epoch: r.varint(), ordinal: r.uvarint(), sequence: sequence - r.uvarint()}
	}
	if r.bad || len(r.rest) > 0 {
		return errBadState
	}
	return nil
}

// stateReader takes values off the front of a state.
type stateReader struct {
	rest []byte
	bad  bool
}

func (r *stateReader) uvarint() int64 {
	v, n := binary.Uvarint(r.rest)
	r.drop(n)
	return int64(v)
}

func (r *stateReader) varint() int64 {
	v, n := binary.Varint(r.rest)
	r.drop(n)
	return v
}

// drop drops the n bytes of a number, of which there was none if n is not above 0.
func (r *stateReader) drop(n int) {
	if n <= 0 {
		r.bad, r.rest = true, nil
		return
	}
	r.rest = r.rest[n:]
}

func (r *stateReader) name() string {
	n := r.uvarint()
	if n >= 0 && n < wellKnown {
		return wellKnownProducers[n]
	}
	n -= wellKnown
	if n < 0 || n > int64(len(r.rest)) {
		r.bad = true
		return ""
	}
	name := string(r.rest[:n])
	r.rest = r.rest[n:]
	return name
}
