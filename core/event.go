package taskbridge

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// EventType is the type of an event, as on the wire.
type EventType string

// The event types. The last three are terminal: a stream has at most one of
// them and nothing after it.
const (
	EventStarted        EventType = "TASK_STARTED"
	EventProgress       EventType = "TASK_PROGRESS"
	EventMessage        EventType = "TASK_MESSAGE"
	EventSuspended      EventType = "TASK_SUSPENDED"
	EventActionAccepted EventType = "TASK_ACTION_ACCEPTED"
	EventCompleted      EventType = "TASK_COMPLETED"
	EventFailed         EventType = "TASK_FAILED"
	EventCancelled      EventType = "TASK_CANCELLED"
)

// Terminal reports whether nothing follows an event of this type.
func (t EventType) Terminal() bool {
	return t == EventCompleted || t == EventFailed || t == EventCancelled
}

// Status returns the task status that a terminal event stands for, else "".
func (t EventType) Status() TaskStatus {
	switch t {
	case EventCompleted:
		return StatusCompleted
	case EventFailed:
		return StatusFailed
	case EventCancelled:
		return StatusCancelled
	}
	return ""
}

// Event is one element of a task's stream. It is a value; its payload is not to
// be written to.
type Event struct {
	TaskID string
	// Sequence is dense from 1 within the stream.
	Sequence int64
	// Tag is eight hex digits over the content; see [EventTag].
	Tag       string
	Type      EventType
	CreatedAt time.Time
	// Attempt is the attempt that made the event; 0: none did.
	Attempt int64
	// Payload is a compact JSON object.
	Payload json.RawMessage
}

// ID returns the event's id on the wire, "<sequence>-<tag>".
func (e Event) ID() string { return Cursor{e.Sequence, e.Tag}.String() }

// EventTag returns the tag of an event's content: the first four bytes, in hex,
// of SHA-256 over type, creation time, attempt and payload. With it a cursor
// names the event and not only its place.
func EventTag(t EventType, createdAt time.Time, attempt int64, payload []byte) string {
	buf := make([]byte, 0, 64+len(payload))
	buf = append(buf, t...)
	buf = append(buf, 0)
	buf = binary.BigEndian.AppendUint64(buf, uint64(createdAt.UnixMicro()))
	buf = binary.BigEndian.AppendUint64(buf, uint64(attempt))
	buf = append(buf, payload...)
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:4])
}

// AppendEnvelope appends the event's wire envelope, one line of JSON, to dst:
// the five fields of the protocol and nothing else.
func (e Event) AppendEnvelope(dst []byte) []byte {
	// None of these strings needs escaping: types are constants, ids match
	// their patterns, and the payload is JSON already.
	dst = append(dst, `{"type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, `","taskId":"`...)
	dst = append(dst, e.TaskID...)
	dst = append(dst, `","eventId":"`...)
	dst = strconv.AppendInt(dst, e.Sequence, 10)
	dst = append(dst, '-')
	dst = append(dst, e.Tag...)
	dst = append(dst, `","createdAt":"`...)
	dst = e.CreatedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","payload":`...)
	dst = append(dst, e.Payload...)
	return append(dst, '}')
}

// MarshalJSON returns the wire envelope.
func (e Event) MarshalJSON() ([]byte, error) {
	return e.AppendEnvelope(make([]byte, 0, 192+len(e.Payload))), nil
}

// Cursor is a position in a stream: after the event that it names. The zero
// value is the beginning.
type Cursor struct {
	Sequence int64
	Tag      string
}

// String returns the cursor as clients see it; "0-0" for the beginning.
func (c Cursor) String() string {
	if c.Sequence == 0 {
		return "0-0"
	}
	return strconv.FormatInt(c.Sequence, 10) + "-" + c.Tag
}

// ParseCursor reads an event id that a client sends back. Empty, "0" and "0-0"
// are the beginning. Anything that no event can have for an id gives
// [ErrInvalidCursor].
func ParseCursor(s string) (Cursor, error) {
	if s == "" || s == "0" || s == "0-0" {
		return Cursor{}, nil
	}
	number, tag, ok := strings.Cut(s, "-")
	if !ok || len(tag) != 8 || len(number) == 0 || len(number) > 19 || number[0] == '0' {
		return Cursor{}, ErrInvalidCursor
	}
	for i := range len(number) {
		if number[i] < '0' || number[i] > '9' {
			return Cursor{}, ErrInvalidCursor
		}
	}
	for i := range len(tag) {
		if (tag[i] < '0' || tag[i] > '9') && (tag[i] < 'a' || tag[i] > 'f') {
			return Cursor{}, ErrInvalidCursor
		}
	}
	sequence, err := strconv.ParseInt(number, 10, 64)
	if err != nil || sequence == math.MaxInt64 {
		return Cursor{}, ErrInvalidCursor
	}
	return Cursor{sequence, tag}, nil
}
