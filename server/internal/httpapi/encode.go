package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// timestamp cuts a time to what the wire shows: UTC, microseconds.
func timestamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// answer encodes the value and writes it.
func (a *API) answer(c *call, status int, value any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // a client's JSON goes back as it came
	if err := encoder.Encode(value); err != nil {
		// A row with a broken payload: a fault of ours, and no client's.
		a.logger.Error("an answer cannot be encoded", "requestId", requestID(c.r.Context()), "taskId", c.taskID, "error", err)
		return internalError(requestID(c.r.Context()))
	}
	a.write(c.w, c.r, body.Bytes(), status)
	return nil
}

// writePiece is how much of an answer must get through within one WriteTimeout:
// a client with a thin line gets a large answer too, one that stands still does
// not hold the server.
const writePiece = 64 << 10

// write sends a whole JSON body. That the client cannot take it is no fault.
func (a *API) write(w http.ResponseWriter, r *http.Request, body []byte, status int) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	for piece := range slices.Chunk(body, writePiece) {
		err := a.setWriteDeadline(w)
		if err == nil {
			_, err = w.Write(piece)
		}
		if err != nil {
			a.logger.Debug("an answer was not taken", "requestId", requestID(r.Context()), "error", err)
			return
		}
	}
}

// setWriteDeadline gives the next write its time. The server has no WriteTimeout
// of its own since streams last for as long as their tasks do.
func (a *API) setWriteDeadline(w http.ResponseWriter) error {
	return supported(http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.opts.WriteTimeout)))
}

// supported passes over that a writer has no deadlines: one without a connection.
func supported(err error) error {
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// taskRow is a task as clients see it.
type taskRow struct {
	TaskID                string                 `json:"taskId"`
	ClientRequestID       string                 `json:"clientRequestId"`
	TaskType              string                 `json:"taskType"`
	Status                taskbridge.TaskStatus  `json:"status"`
	Input                 json.RawMessage        `json:"input,omitempty"` // required but in lists
	Metadata              json.RawMessage        `json:"metadata"`
	CreatedAt             time.Time              `json:"createdAt"`
	UpdatedAt             time.Time              `json:"updatedAt"`
	Attempt               int64                  `json:"attempt"`
	CancellationRequested bool                   `json:"cancellationRequested"`
	StartedAt             time.Time              `json:"startedAt,omitzero"`
	FinishedAt            time.Time              `json:"finishedAt,omitzero"`
	Result                json.RawMessage        `json:"result,omitempty"`
	Failure               *taskbridge.Failure    `json:"failure,omitempty"`
	CancelReason          string                 `json:"cancelReason,omitempty"`
	Suspension            *taskbridge.Suspension `json:"suspension,omitempty"`
}

func rowOf(t taskbridge.Task) taskRow {
	row := taskRow{
		TaskID:                t.ID,
		ClientRequestID:       t.ClientRequestID,
		TaskType:              t.Type,
		Status:                t.Status,
		Input:                 t.Input,
		Metadata:              t.Metadata,
		CreatedAt:             timestamp(t.CreatedAt),
		UpdatedAt:             timestamp(t.UpdatedAt),
		Attempt:               t.Attempt,
		CancellationRequested: !t.Cancellation.RequestedAt.IsZero(),
		CancelReason:          cancelReason(t),
		Suspension:            t.Suspension,
	}
	if !t.StartedAt.IsZero() {
		row.StartedAt = timestamp(t.StartedAt)
	}
	if !t.FinishedAt.IsZero() {
		row.FinishedAt = timestamp(t.FinishedAt)
	}
	if result, ok := t.Result(); ok {
		row.Result = result
	}
	if failure, ok := t.Failure(); ok {
		row.Failure = &failure
	}
	return row
}

// cancelReason is the client's, or the one that a task without any was ended with.
func cancelReason(t taskbridge.Task) string {
	if t.Cancellation.Reason != "" || t.Status != taskbridge.StatusCancelled {
		return t.Cancellation.Reason
	}
	var payload struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(t.Terminal, &payload) != nil {
		return ""
	}
	return payload.Reason
}

// eventPage is the answer to a poll. Envelopes are appended as they are, since
// they are JSON already.
func eventPage(taskID string, result taskbridge.PollResult, next *string) []byte {
	size := 256
	for _, event := range result.Events {
		size += 256 + len(event.Payload)
	}
	body := make([]byte, 0, size)
	body = append(body, `{"taskId":`...)
	body = appendString(body, taskID)
	body = append(body, `,"status":`...)
	body = appendString(body, string(result.Status))
	body = append(body, `,"events":[`...)
	for i, event := range result.Events {
		if i > 0 {
			body = append(body, ',')
		}
		body = event.AppendEnvelope(body)
	}
	body = append(body, `],"nextAfterEventId":`...)
	if next == nil {
		body = append(body, `null`...)
	} else {
		body = appendString(body, *next)
	}
	if result.HasMore {
		return append(body, `,"hasMore":true}`...)
	}
	return append(body, `,"hasMore":false}`...)
}

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a string always encodes
		panic(err)
	}
	return append(dst, quoted...)
}
