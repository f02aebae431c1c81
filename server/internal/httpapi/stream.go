package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
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
		if err := a.setWriteDeadline(c.w); err != nil {
			return errCut
		}
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
		a.live.end(nil)
		return false, errCut
	}
	if taken == nil {
		defer a.live.end(nil)
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
	release := c.keep()
	go func() {
		defer a.live.end(taken.conn)
		defer release()
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
	watcher      watcher
	taskID       string
	requestID    string
	lastID       string // the last event id sent, or the cursor that came in
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
		if errors.Is(err, os.ErrDeadlineExceeded) && s.api.drained.Err() == nil {
			s.api.opts.SlowReaderCut("sse")
		}
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
	if err := s.body.write(make([]byte, headroom)); err != nil { // the head
		return &writeError{err}
	}
	replayed := false
	for {
		idle := s.api.opts.Heartbeat
		if !replayed {
			idle = 0 // what is there already comes at once
		}
		frames, err := s.subscription.Next(ctx, idle)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := s.watcher.check(); err != nil {
			return err
		}
		switch {
		case len(frames) > 0:
			err = s.events(frames)
		case !replayed:
			replayed = true
			err = s.write(0, func(p []byte) []byte { return append(p, comment...) })
		default:
			err = s.write(0, s.heartbeat)
		}
		if err != nil {
			return err
		}
	}
}

// events writes frames, in pieces that leave at once.
func (s *eventStream) events(frames []taskbridge.Frame) error {
	for len(frames) > 0 {
		n := fitting(frames)
		err := s.write(n, func(p []byte) []byte {
			for _, frame := range frames[:n] {
				p = append(p, "id: "...)
				p = append(p, frame.EventID...)
				p = append(p, "\ndata: "...)
				p = append(p, frame.Envelope...)
				p = append(p, "\n\n"...)
			}
			return p
		})
		s.lastID = frames[n-1].EventID
		frames = frames[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// heartbeat is a data line without an id: some clients take data alone for a
// sign of life, and none must take it for an event.
func (s *eventStream) heartbeat(p []byte) []byte {
	p = append(p, comment...)
	p = append(p, `data: {"type":"HEARTBEAT","taskId":`...)
	p = appendString(p, s.taskID)
	p = append(p, `,"eventId":`...)
	p = appendString(p, s.lastID)
	p = append(p, `,"createdAt":"`...)
	p = timestamp(s.api.opts.Clock.Now()).AppendFormat(p, time.RFC3339Nano)
	return append(p, "\",\"payload\":{\"live\":true}}\n\n"...)
}

// fitting returns how many of the frames, one at least, go into one piece.
func fitting(frames []taskbridge.Frame) int {
	size := len(frames[0].Envelope)
	for n := 1; n < len(frames); n++ {
		if size += len(frames[n].Envelope) + aroundEvent; size > livePiece {
			return n
		}
	}
	return len(frames)
}

// aroundEvent is about what a transport puts round an event.
const aroundEvent = 64

// write sends what fill appends, so many events.
func (s *eventStream) write(events int, fill func([]byte) []byte) error {
	piece := takePiece()
	defer givePiece(piece)
	*piece = fill(append(*piece, make([]byte, headroom)...))
	if err := s.body.write(*piece); err != nil {
		return &writeError{err}
	}
	s.api.opts.Delivered("sse", events, len(*piece)-headroom)
	return nil
}
