package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// streamEvents delivers a task's events as server-sent events. What can be
// refused is refused before the first byte; from then on the stream either ends
// in good form, which means that the task has finished, or is cut, which means
// "come back with your cursor".
func (a *API) streamEvents(c *call) error {
	request, given, err := decodeStream(c.r)
	if err != nil {
		return err
	}
	if a.drained.Err() != nil {
		return errDraining
	}
	request.TaskID = c.taskID
	ctx, cancel := a.untilDrain(c.r.Context())
	defer cancel()
	subscription, err := a.opts.Bridge.Subscription.Subscribe(ctx, c.principal, request)
	switch {
	case err != nil && a.drained.Err() != nil && c.r.Context().Err() == nil:
		return errDraining
	case err != nil:
		return err
	}
	defer subscription.Close()
	if subscription.AtEnd() {
		c.w.Header().Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNoContent) // a browser's EventSource stops at this
		return nil
	}
	stream := &eventStream{api: a, w: c.w, control: http.NewResponseController(c.w), taskID: c.taskID, lastID: given}
	err = stream.run(ctx, subscription)
	if err == nil {
		return nil
	}
	a.logCut(c, err)
	panic(http.ErrAbortHandler)
}

// decodeStream reads the cursor of a stream; given is how it came in, "0" where
// none did. The header wins: a browser's reconnect adds it to the old address.
func decodeStream(r *http.Request) (request taskbridge.SubscribeRequest, given string, err error) {
	q, err := parseQuery(r)
	if err != nil {
		return request, "", err
	}
	given = r.Header.Get("Last-Event-ID")
	if given == "" {
		given = q.text("lastEventId")
	}
	if request.After, err = taskbridge.ParseCursor(given); err != nil {
		return request, "", err
	}
	if given == "" {
		given = "0"
	}
	request.GapError, err = q.gapError()
	return request, given, err
}

// logCut says why a stream was cut; that its client has gone is no news.
func (a *API) logCut(c *call, err error) {
	logger := a.logger.With("requestId", requestID(c.r.Context()), "taskId", c.taskID)
	var failed *writeError
	switch {
	case errors.As(err, &failed):
		logger.Debug("a stream's reader has gone or is too slow", "error", err)
	case c.r.Context().Err() != nil, a.drained.Err() != nil, errors.Is(err, taskbridge.ErrClosed):
		logger.Debug("a stream was cut", "error", err)
	default:
		logger.Error("a stream failed and was cut", "error", err)
	}
}

// eventStream writes one response.
type eventStream struct {
	api     *API
	w       http.ResponseWriter
	control *http.ResponseController
	taskID  string
	lastID  string // the last event id sent, or the cursor that came in
	buf     []byte
}

// writeError is a failed write to the client.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// keptBuffer is the size of the buffer that a stream keeps between writes.
const keptBuffer = 4 << 10

// comment is what an EventSource ignores and what shows that the way is open.
const comment = ": ping\n\n"

// run writes until the terminal event has been written (nil) or the stream must
// be cut.
func (s *eventStream) run(ctx context.Context, subscription *taskbridge.Subscription) error {
	header := s.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("X-Content-Type-Options", "nosniff")
	s.w.WriteHeader(http.StatusOK)
	if err := s.flush(); err != nil {
		return err
	}
	heartbeat := s.api.opts.Heartbeat
	replayed := false
	for {
		idle := heartbeat
		if !replayed {
			idle = 0 // what is there already comes at once
		}
		frames, err := subscription.Next(ctx, idle)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(frames) > 0:
			if err := s.frames(frames); err != nil {
				return err
			}
		case !replayed:
			replayed = true
			s.buf = append(s.buf, comment...)
		default:
			s.buf = append(s.buf, comment...)
			s.heartbeat()
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

// frames puts events into the buffer, and sends it whenever it is full.
func (s *eventStream) frames(frames []taskbridge.Frame) error {
	for _, frame := range frames {
		if len(s.buf) > 0 && len(s.buf)+len(frame.Envelope) > writePiece {
			if err := s.flush(); err != nil {
				return err
			}
		}
		s.buf = append(s.buf, "id: "...)
		s.buf = append(s.buf, frame.EventID...)
		s.buf = append(s.buf, "\ndata: "...)
		s.buf = append(s.buf, frame.Envelope...)
		s.buf = append(s.buf, "\n\n"...)
	}
	s.lastID = frames[len(frames)-1].EventID
	return nil
}

// heartbeat is a data line without an id: some clients take data alone for a
// sign of life, and none must take it for an event.
func (s *eventStream) heartbeat() {
	s.buf = append(s.buf, `data: {"type":"HEARTBEAT","taskId":`...)
	s.buf = appendString(s.buf, s.taskID)
	s.buf = append(s.buf, `,"eventId":`...)
	s.buf = appendString(s.buf, s.lastID)
	s.buf = append(s.buf, `,"createdAt":"`...)
	s.buf = timestamp(s.api.opts.Clock.Now()).AppendFormat(s.buf, time.RFC3339Nano)
	s.buf = append(s.buf, "\",\"payload\":{\"live\":true}}\n\n"...)
}

// flush sends what has gathered, within the write timeout. The errors of both
// steps count: a flush after a failed write may well succeed.
func (s *eventStream) flush() error {
	if err := s.api.setWriteDeadline(s.w); err != nil {
		return &writeError{err}
	}
	if len(s.buf) > 0 {
		if _, err := s.w.Write(s.buf); err != nil {
			return &writeError{err}
		}
	}
	if err := s.control.Flush(); err != nil {
		return &writeError{err}
	}
	s.buf = s.buf[:0]
	if cap(s.buf) > keptBuffer {
		s.buf = nil // an idle stream holds little
	}
	return nil
}
