package httpapi

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// confirm is the first thing that a client is told.
func (s *socketSession) confirm() error {
	subscription := s.watcher.subscription
	if err := s.message(s.confirmation(subscription.Cursor())); err != nil {
		return err
	}
	if last, atEnd := subscription.Final(); atEnd {
		if err := s.events([]taskbridge.Frame{last}); err != nil {
			return err
		}
		return &ending{closeEnded, "the task has ended", nil}
	}
	return nil
}

// catchUp is the [outlet]'s.
func (s *socketSession) catchUp(ctx context.Context, idle bool) error {
	if !s.confirmed {
		s.confirmed = true
		if err := s.confirm(); err != nil {
			return err
		}
	}
	if s.unsentLen > 0 {
		if err := s.raw.flush(); err != nil {
			return &writeError{err}
		}
		s.api.opts.Delivered("websocket", s.unsentEvents, s.unsentLen)
		s.unsentEvents, s.unsentLen = 0, 0
	}
	for {
		frames := s.held
		if s.held = nil; len(frames) == 0 {
			var err error
			if frames, err = s.next(ctx); err != nil {
				return err
			}
		}
		if err := s.watcher.check(); err != nil {
			return &ending{closeGoingAway, err.Error(), nil}
		}
		var err error
		switch {
		case len(frames) > 0:
			err = s.events(frames)
		case idle:
			err = s.heartbeat()
		default:
			return nil
		}
		if err != nil {
			return err
		}
		idle = false
	}
}

// next takes what there is from the subscription.
func (s *socketSession) next(ctx context.Context) ([]taskbridge.Frame, error) {
	frames, err := s.watcher.subscription.Next(ctx, 0)
	switch {
	case errors.Is(err, io.EOF):
		return nil, &ending{closeEnded, "the task has ended", nil}
	case asGap(err) && !s.gapError:
		// The history was replaced. An old client is not to give up: it
		// comes back and is told as its kind is told.
		return nil, &ending{closeFault, "the stream was replaced", err}
	}
	return frames, err
}

// now is the [outlet]'s.
func (s *socketSession) now(frames []taskbridge.Frame, at time.Time) bool {
	s.held = frames
	for len(s.held) > 0 {
		if s.watcher.due(at) {
			return false
		}
		n := fitting(s.held)
		piece := takePiece()
		*piece = appendTexts(*piece, s.held[:n])
		size := len(*piece)
		done := s.raw.sendNow(*piece)
		givePiece(piece)
		if s.held = s.held[n:]; !done {
			s.unsentEvents, s.unsentLen = n, size
			return false
		}
		s.api.opts.Delivered("websocket", n, size)
	}
	s.held = nil
	return true
}

func asGap(err error) bool { return errors.Is(err, taskbridge.ErrEventGap) }

func (s *socketSession) confirmation(after taskbridge.Cursor) []byte {
	b := append([]byte(`{"type":"SUBSCRIPTION_CONFIRMED","taskId":`), appendString(nil, s.taskID)...)
	b = append(b, `,"replayStartedAfterEventId":`...)
	if after.Sequence == 0 {
		b = append(b, "null"...)
	} else {
		b = appendString(b, after.String())
	}
	return append(b, `,"live":true}`...)
}

// heartbeat says that the stream lives, and pings: from a peer that is no more
// nothing is heard.
func (s *socketSession) heartbeat() error {
	if s.silence++; s.raw.heard.Swap(false) {
		s.silence = 0
	}
	if s.silence > maxSilence {
		return &ending{closeTooSlow, "no answer to pings", nil}
	}
	b := append([]byte(`{"type":"HEARTBEAT","taskId":`), appendString(nil, s.taskID)...)
	b = append(b, `,"live":true}`...)
	return s.write(0, func(p []byte) []byte { return append(appendText(p, b), final|opPing, 0) })
}

// events writes frames, in pieces that leave at once.
func (s *socketSession) events(frames []taskbridge.Frame) error {
	for len(frames) > 0 {
		n := fitting(frames)
		err := s.write(n, func(p []byte) []byte { return appendTexts(p, frames[:n]) })
		frames = frames[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

func appendTexts(p []byte, frames []taskbridge.Frame) []byte {
	for _, frame := range frames {
		p = appendText(p, frame.Envelope)
	}
	return p
}

func (s *socketSession) message(text []byte) error {
	return s.write(0, func(p []byte) []byte { return appendText(p, text) })
}

// write sends the WebSocket frames that fill appends, so many events.
func (s *socketSession) write(events int, fill func([]byte) []byte) error {
	piece := takePiece()
	defer givePiece(piece)
	*piece = fill(*piece)
	if err := s.raw.send(*piece); err != nil {
		return &writeError{err}
	}
	s.api.opts.Delivered("websocket", events, len(*piece))
	return nil
}

// end closes the connection with the code that fits.
func (s *socketSession) end(ctx context.Context, err error) {
	defer s.api.live.end(s.raw.Conn)
	defer s.release()
	defer s.closed()
	defer s.cancel()
	logger := s.api.logger.With("requestId", s.requestID, "taskId", s.taskID)
	left := false
	if e := s.ending(ctx, err); e == nil {
		logger.Debug("a WebSocket's client has gone", "error", err)
	} else {
		if e.cause != nil {
			logger.Error("a WebSocket failed and was closed", "code", int(e.code), "error", e.cause)
		} else {
			logger.Debug("a WebSocket was closed", "code", int(e.code), "reason", e.reason)
		}
		left = s.takeLeave(e)
	}
	if !left {
		abort(s.raw.Conn)
	}
	_ = s.conn.CloseNow()  // it is given up either way
	_ = s.raw.Conn.Close() // the library may have left that to a write
	<-s.gone
}

// takeLeave sends the close frame and waits for the client's, but not for long.
// It reports whether that has come, or the connection's end.
func (s *socketSession) takeLeave(e *ending) bool {
	if s.raw.part(e.code, e.reason) != nil {
		return false // nothing can be done for a client that does not even read this
	}
	timer := time.NewTimer(partingTime)
	defer timer.Stop()
	select {
	case <-s.gone:
		return true
	case <-timer.C:
		return false
	}
}

// ending says how the client is told of an error; nil: there is nobody to tell.
func (s *socketSession) ending(ctx context.Context, err error) *ending {
	var (
		e      *ending
		failed *writeError
		gap    *taskbridge.GapError
	)
	drained := s.api.drained.Err() != nil
	switch {
	case ctx.Err() != nil && !drained:
		return nil // the client has gone
	case errors.As(err, &failed) && !errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.As(err, &e):
		return e
	case drained, errors.Is(err, taskbridge.ErrClosed):
		return &ending{closeGoingAway, "the server is shutting down", nil}
	case failed != nil:
		s.api.opts.SlowReaderCut("websocket")
		return &ending{closeTooSlow, "too slow: resume from your cursor", nil}
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		return &ending{closeNotFound, "there is no such task", nil}
	case errors.Is(err, taskbridge.ErrForbidden):
		return &ending{closeForbidden, "the caller may not do this", nil}
	case errors.As(err, &gap):
		return &ending{closeGap, "events are missing: " + gap.FirstEventID + " to " + gap.LastEventID + " are there", nil}
	}
	return &ending{closeFault, "the store cannot be used at the moment", err}
}
