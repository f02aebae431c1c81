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
	stream.closed = a.opts.StreamOpened("sse")
	if taken == nil {
		defer a.live.end(nil)
		ctx, cancel := a.untilDrain(c.r.Context())
		defer cancel()
		c.w.WriteHeader(http.StatusOK)
		stream.body = &responseBody{a, c.w, http.NewResponseController(c.w)}
		if !stream.finish(ctx, stream.deliver(ctx)) {
			panic(http.ErrAbortHandler)
		}
		return false, nil
	}
	stream.body, stream.taken, stream.release = taken, taken, c.keep()
	ctx, cancel := context.WithCancel(a.drained)
	d := a.newDelivery(ctx, taken.conn, subscription, stream, a.opts.Heartbeat)
	stream.gone = whenGone(taken.conn, func() {
		cancel()
		d.wake()
	})
	d.start()
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
	live         bool   // what was there already has been sent
	closed       func() // says that the stream has ended

	held []taskbridge.Frame // taken from the subscription, to be sent next

	// Only on a connection that was taken over.
	taken                   *chunkedBody
	unsentEvents, unsentLen int             // what the body has still to flush; 0: nothing
	gone                    <-chan struct{} // closed when nothing is read any more
	release                 func()          // gives back the stream's place
}

// writeError is a failed write to the client.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// comment is what an EventSource ignores and what shows that the way is open.
const comment = ": ping\n\n"

// finish ends a stream and reports whether it is in good form: err is io.EOF.
func (s *eventStream) finish(ctx context.Context, err error) (ended bool) {
	defer s.closed()
	if errors.Is(err, io.EOF) {
		if err = s.body.end(); err == nil {
			return true
		}
		err = &writeError{err}
	}
	s.logCut(ctx, err) // before the cut, which ends ctx as well
	s.body.cut()
	return false
}

// end is the [outlet]'s.
func (s *eventStream) end(ctx context.Context, err error) {
	s.finish(ctx, err)
	<-s.gone
	s.release()
	s.api.live.end(s.taken.conn)
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

// deliver writes until the stream ends, with io.EOF after the terminal event.
func (s *eventStream) deliver(ctx context.Context) (err error) {
	if err := s.body.write(make([]byte, headroom)); err != nil { // the head
		return &writeError{err}
	}
	for {
		idle := s.live && len(s.held) == 0
		if err := s.catchUp(ctx, idle); err != nil {
			return err
		}
		if s.held, err = s.subscription.Next(ctx, s.api.opts.Heartbeat); err != nil {
			return err
		}
	}
}

// catchUp is the [outlet]'s.
func (s *eventStream) catchUp(ctx context.Context, idle bool) error {
	if s.unsentLen > 0 {
		if err := s.taken.flush(); err != nil {
			return &writeError{err}
		}
		s.api.opts.Delivered("sse", s.unsentEvents, s.unsentLen)
		s.unsentEvents, s.unsentLen = 0, 0
	}
	for {
		frames := s.held
		if s.held = nil; len(frames) == 0 {
			var err error
			if frames, err = s.subscription.Next(ctx, 0); err != nil {
				return err
			}
		}
		err := s.watcher.check()
		switch {
		case err != nil:
		case len(frames) > 0:
			idle = false
			err = s.events(frames)
		case !s.live:
			idle, s.live = false, true
			err = s.write(0, func(p []byte) []byte { return append(p, comment...) })
		case idle:
			idle = false
			err = s.write(0, s.heartbeat)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// now is the [outlet]'s.
func (s *eventStream) now(frames []taskbridge.Frame, at time.Time) bool {
	s.held = frames
	for len(s.held) > 0 {
		if s.watcher.due(at) {
			return false
		}
		n := fitting(s.held)
		piece := takePiece()
		*piece = appendEvents(append(*piece, emptyHeadroom[:]...), s.held[:n])
		size := len(*piece) - headroom
		done := s.taken.now(*piece)
		givePiece(piece)
		s.lastID = s.held[n-1].EventID
		if s.held = s.held[n:]; !done {
			s.unsentEvents, s.unsentLen = n, size
			return false
		}
		s.api.opts.Delivered("sse", n, size)
	}
	s.held = nil
	return true
}

// events writes frames, in pieces that leave at once.
func (s *eventStream) events(frames []taskbridge.Frame) error {
	for len(frames) > 0 {
		n := fitting(frames)
		err := s.write(n, func(p []byte) []byte { return appendEvents(p, frames[:n]) })
		s.lastID = frames[n-1].EventID
		frames = frames[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

func appendEvents(p []byte, frames []taskbridge.Frame) []byte {
	for _, frame := range frames {
		p = append(p, "id: "...)
		p = append(p, frame.EventID...)
		p = append(p, "\ndata: "...)
		p = append(p, frame.Envelope...)
		p = append(p, "\n\n"...)
	}
	return p
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
	*piece = fill(append(*piece, emptyHeadroom[:]...))
	if err := s.body.write(*piece); err != nil {
		return &writeError{err}
	}
	s.api.opts.Delivered("sse", events, len(*piece)-headroom)
	return nil
}
