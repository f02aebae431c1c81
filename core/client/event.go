package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Event is one element of a task's stream. As JSON it is the wire's envelope.
type Event struct {
	Type   taskbridge.EventType `json:"type"`
	TaskID string               `json:"taskId"`
	// ID is opaque. It is the cursor behind this event: a caller that keeps it
	// goes on from here with FollowOptions.After.
	ID        string    `json:"eventId"`
	CreatedAt time.Time `json:"createdAt"`
	// Payload is a JSON object; what is in it depends on the type.
	Payload json.RawMessage `json:"payload"`
}

// Terminal reports whether the event is the stream's last.
func (e Event) Terminal() bool { return e.Type.Terminal() }

// Outcome is the end of a task that has completed.
type Outcome struct {
	TaskID string
	// Result is any JSON. It is null also where the result was over the server's
	// limit; Event says so then.
	Result json.RawMessage
	// Event is the terminal event.
	Event Event
}

// Outcome returns what a terminal event says of its task: the outcome, or a
// [*TaskError] if it has failed or was cancelled. Another event gives an error.
func (e Event) Outcome() (Outcome, error) {
	if !e.Terminal() {
		return Outcome{}, fmt.Errorf("%s does not end its task", e.Type)
	}
	var completed struct {
		Result json.RawMessage `json:"result"`
	}
	failed := &TaskError{TaskID: e.TaskID, Status: e.Type.Status()}
	var payload any
	switch e.Type {
	case taskbridge.EventCompleted:
		payload = &completed // its other members may be anything
	case taskbridge.EventFailed:
		payload = &failed.Failure
	default:
		payload = &struct {
			Reason *string `json:"reason"`
		}{&failed.Reason}
	}
	if err := json.Unmarshal(e.Payload, payload); err != nil {
		return Outcome{}, fmt.Errorf("payload of %s: %w", e.Type, err)
	}
	if e.Type != taskbridge.EventCompleted {
		return Outcome{}, failed
	}
	return Outcome{TaskID: e.TaskID, Result: completed.Result, Event: e}, nil
}

// heartbeat is what a stream sends instead of events; it is none.
const heartbeat taskbridge.EventType = "HEARTBEAT"

// maxIDBytes bounds an event's id, which goes into a header.
const maxIDBytes = 1 << 10

// check says what is wrong with an envelope of the task's stream.
func (e Event) check(taskID string) error {
	switch {
	case e.Type == "":
		return errors.New("an event has no type")
	case e.TaskID != taskID:
		return errors.New("an event belongs to another task")
	case e.ID == "" || len(e.ID) > maxIDBytes || !sendable(e.ID):
		return errors.New("an event has no usable id")
	case !bytes.HasPrefix(bytes.TrimSpace(e.Payload), []byte("{")):
		return errors.New("the payload of an event is no object")
	}
	return nil
}

// decodeBlock reads an event of the stream. live: it is a heartbeat and no event.
func decodeBlock(b block, taskID string) (e Event, live bool, err error) {
	if err := json.Unmarshal(b.data, &e); err != nil {
		return Event{}, false, unexpected(http.StatusOK, "an event cannot be understood: %v", err)
	}
	if e.Type == heartbeat {
		return Event{}, true, nil
	}
	if err := e.check(taskID); err != nil {
		return Event{}, false, unexpected(http.StatusOK, "%v", err)
	}
	if b.hasID && b.id != e.ID {
		return Event{}, false, unexpected(http.StatusOK, "an event came with the id of another")
	}
	return e, false, nil
}

// position is how far a stream has been read.
type position struct {
	id     string // of the last event, or the cursor that came in
	cursor taskbridge.Cursor
	parsed bool
	recent map[string]bool // ids, where they are not of the form that tells an order
	ring   []string
	oldest int
}

// recentIDs bounds what is remembered of ids that tell no order.
const recentIDs = 1 << 10

func newPosition(id string) *position {
	p := &position{recent: map[string]bool{}}
	p.move(id)
	return p
}

// errReplaced: another event stands where one that was seen stood. The server is
// asked with the cursor, which it will find to be gone.
var errReplaced = errors.New("the stream's history has changed")

// isNew reports whether the event has not been read yet.
func (p *position) isNew(id string) (bool, error) {
	cursor, err := taskbridge.ParseCursor(id)
	if err != nil || !p.parsed {
		return id != p.id && !p.recent[id], nil
	}
	if cursor.Sequence == p.cursor.Sequence && cursor != p.cursor {
		return false, errReplaced
	}
	return cursor.Sequence > p.cursor.Sequence, nil
}

func (p *position) move(id string) {
	p.id = id
	cursor, err := taskbridge.ParseCursor(id)
	if p.parsed = err == nil; p.parsed {
		p.cursor = cursor
		return
	}
	if len(p.ring) < recentIDs {
		p.ring = append(p.ring, id)
	} else {
		delete(p.recent, p.ring[p.oldest])
		p.ring[p.oldest] = id
		p.oldest = (p.oldest + 1) % recentIDs
	}
	p.recent[id] = true
}
