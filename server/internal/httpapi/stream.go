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
	defer func() {
		if subscription != nil {
			subscription.Close()
		}
	}()
	if subscription.AtEnd() {
		c.w.Header().Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNoContent) // a browser's EventSource stops at this
		return nil
	}
	handedOver, err := a.startStream(c, subscription, given)
	if handedOver {
		subscription = nil // the stream closes it
	}
	return err
}

// startStream delivers on a connection taken over, in a goroutine of the API, or
// where there is none in this one.
func (a *API) startStream(c *call, subscription *taskbridge.Subscription, given string) (handedOver bool, err error) {
	header := c.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("X-Content-Type-Options", "nosniff")
	stream := &eventStream{
		api: a, taskID: c.taskID, requestID: requestID(c.r.Context()), lastID: given,
		watcher: a.watch(c, subscription), subscription: subscription,
	}
	if !a.live.begin() {
		return false, errDraining
	}
	taken, err := a.takeOver(c)
	if err != nil {
		a.live.running.Done()
		return false, errCut
	}
	if taken == nil {
		defer a.live.running.Done()
		ctx, cancel := a.untilDrain(c.r.Context())
		defer cancel()
		c.w.WriteHeader(http.StatusOK)
		stream.body = &responseBody{a, c.w, http.NewResponseController(c.w)}
		if !stream.run(ctx) {
			panic(http.ErrAbortHandler)
		}
		return false, nil
	}
	stream.body = taken
	go func() {
		defer a.live.running.Done()
		defer subscription.Close()
		ctx, stop := untilGone(a.drained, taken.conn)
		defer stop()
		defer taken.cut() // closed already after an end in good form
		stream.run(ctx)
	}()
	return true, nil
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

// eventStream writes one response.
type eventStream struct {
	api          *API
	body         streamBody
	subscription *taskbridge.Subscription
	watcher      *watcher
	taskID       string
	requestID    string
	lastID       string // the last event id sent, or the cursor that came in
	buf          []byte
}

// writeError is a failed write to the client.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// comment is what an EventSource ignores and what shows that the way is open.
const comment = ": ping\n\n"

// run delivers until the terminal event has been written, and reports whether
// it was; otherwise the stream is cut.
func (s *eventStream) run(ctx context.Context) (ended bool) {
	defer s.api.opts.StreamOpened("sse")()
	err := s.deliver(ctx)
	if err == nil {
		if err = s.body.end(); err == nil {
			return true
		}
		err = &writeError{err}
	}
	s.logCut(ctx, err) // before the cut, which ends ctx as well
	s.body.cut()
	return false
}

// logCut says why a stream was cut; that its client has gone is no news.
func (s *eventStream) logCut(ctx context.Context, err error) {
	logger := s.api.logger.With("requestId", s.requestID, "taskId", s.taskID)
	var failed *writeError
	switch {
	case errors.As(err, &failed):
		logger.Debug("a stream's reader has gone or is too slow", "error", err)
	case ctx.Err() != nil, errors.Is(err, taskbridge.ErrClosed), errors.Is(err, errNoLongerPermitted):
		logger.Debug("a stream was cut", "error", err)
	default:
		logger.Error("a stream failed and was cut", "error", err)
	}
}

// deliver writes until the terminal event has been written (nil) or the stream
// must be cut.
func (s *eventStream) deliver(ctx context.Context) error {
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
		frames, err := s.subscription.Next(ctx, idle)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(frames) > 0:
			s.frames(frames)
		case !replayed:
			replayed = true
			s.buf = append(s.buf, comment...)
		default:
			s.buf = append(s.buf, comment...)
			s.heartbeat()
		}
		if err := s.watcher.check(); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

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

// flush sends what has gathered.
func (s *eventStream) flush() error {
	if err := s.body.write(s.buf); err != nil {
		return &writeError{err}
	}
	if cap(s.buf) > keptBuffer {
		s.buf = nil // a large batch must not be held for the stream's life
	}
	s.buf = s.buf[:0]
	return nil
}

// keptBuffer is the largest buffer that an idle stream keeps.
const keptBuffer = 1 << 10
