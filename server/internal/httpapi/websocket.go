package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Close codes. Those from 4400 to 4499, and 1008, are final to a client; after
// every other it comes back with its cursor.
const (
	closeEnded     = websocket.StatusNormalClosure
	closeGoingAway = websocket.StatusGoingAway
	closeBadFrame  = websocket.StatusPolicyViolation
	closeFault     = websocket.StatusInternalError
	closeTooSlow   = websocket.StatusTryAgainLater
	closeOverload  = websocket.StatusTryAgainLater
	closeForbidden = websocket.StatusCode(4403)
	closeNotFound  = websocket.StatusCode(4404)
	closeGap       = websocket.StatusCode(4410)
)

const (
	maxClientFrame = 16 << 10
	maxCloseReason = 123
	maxSilence     = 3 // heartbeats without any answer to their pings
	socketProtocol = "taskbridge.v1"
)

// webSocket upgrades the connection. From then on a session has it.
func (a *API) webSocket(c *call) error {
	if !strings.EqualFold(c.r.Header.Get("Upgrade"), "websocket") {
		return invalidRequest("this route is for WebSockets")
	}
	if !a.hosts.allowsOrigin(c.r) {
		return invalidRequest("origin not allowed")
	}
	if !a.live.begin() {
		return errDraining
	}
	up := &upgrade{ResponseWriter: c.w, api: a}
	conn, err := websocket.Accept(up, c.r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // checked above, by our own rule
		Subprotocols:       []string{socketProtocol},
	})
	if err != nil {
		a.live.end(nil)
		a.logger.Debug("a WebSocket's handshake failed", "requestId", requestID(c.r.Context()), "error", err)
		return nil // it is answered, or the connection has gone
	}
	if rec, ok := c.w.(*recorder); ok {
		rec.status = http.StatusSwitchingProtocols
	}
	conn.SetReadLimit(-1) // what is read is bounded by the session
	s := &socketSession{
		api: a, conn: conn, raw: up.conn, requestID: requestID(c.r.Context()), principal: c.principal, watcher: a.watch(c, nil),
		first: make(chan clientFrame, 1), gone: make(chan struct{}), closed: a.opts.StreamOpened("websocket"),
		release: c.keep(), overloaded: c.overloaded,
	}
	ctx, cancel := context.WithCancel(a.drained)
	s.cancel = cancel
	go s.read()
	go s.start(ctx)
	return nil
}

// socketSession is one WebSocket after its handshake. One goroutine reads; the
// rest is done by one that exists while there is something to do.
type socketSession struct {
	api       *API
	conn      *websocket.Conn
	raw       *socketConn
	requestID string
	taskID    string
	principal taskbridge.Principal // until it has subscribed
	watcher   watcher
	first     chan clientFrame // until it has come
	cancel    context.CancelFunc
	gone      chan struct{} // closed when nothing is read any more
	closed    func()        // says that the stream has ended
	release   func()        // gives back the stream's place
	silence   int           // heartbeats since something was heard of the client

	overloaded bool // there is no room for it

	// Once it has subscribed.
	delivery  atomic.Pointer[delivery]
	gapError  bool
	confirmed bool
	held      []taskbridge.Frame // taken from the subscription, to be sent next

	unsentEvents, unsentLen int // what raw has still to flush; 0: nothing
}

type clientFrame struct {
	kind websocket.MessageType
	data []byte
}

// ending is how a session ends, as an error.
type ending struct {
	code   websocket.StatusCode
	reason string
	cause  error // for the log; nil: nothing to say
}

func (e *ending) Error() string { return e.reason }

// read takes the first frame and goes on reading, so that pings are answered
// and a client that goes away is noticed. Later frames say nothing.
func (s *socketSession) read() {
	if kind, message, err := s.conn.Reader(context.Background()); err == nil {
		data, err := io.ReadAll(io.LimitReader(message, maxClientFrame+1))
		if err == nil {
			s.first <- clientFrame{kind, data}
			go s.readOn(message) // with a stack that has not grown
			return
		}
	}
	s.leave()
}

func (s *socketSession) readOn(message io.Reader) {
	defer s.leave()
	for err := error(nil); err == nil; {
		if _, err = io.Copy(io.Discard, message); err == nil {
			_, message, err = s.conn.Reader(context.Background())
		}
	}
}

// leave says that nothing is read any more.
func (s *socketSession) leave() {
	s.cancel()
	if d := s.delivery.Load(); d != nil { // else it finds out by itself
		d.wake()
	}
	close(s.gone)
}

// start subscribes, and leaves what follows to a delivery.
func (s *socketSession) start(ctx context.Context) {
	subscription, err := s.subscribe(ctx)
	if err != nil {
		s.end(ctx, err)
		return
	}
	s.first, s.principal = nil, taskbridge.Principal{}
	s.watcher.subscription = subscription
	d := s.api.newDelivery(ctx, s.raw.Conn, subscription, s, s.api.opts.SocketHeartbeat)
	s.delivery.Store(d)
	d.start()
}

// subscribeFrame is what a client sends first.
type subscribeFrame struct {
	Action      string  `json:"action"`
	TaskID      string  `json:"taskId"`
	LastEventID *string `json:"lastEventId"`
	Gap         string  `json:"gap"`
}

// subscribe waits for the first frame and does what it asks. Its error is how
// the session ends: an *ending, or one of a context, a service or a write.
func (s *socketSession) subscribe(ctx context.Context) (*taskbridge.Subscription, error) {
	var request taskbridge.SubscribeRequest
	if s.overloaded {
		return nil, &ending{closeOverload, "too many open streams on this server", nil}
	}
	var first clientFrame
	timer := s.api.opts.Clock.NewTimer(s.api.opts.SubscribeTimeout)
	defer timer.Stop()
	select {
	case first = <-s.first:
	case <-timer.C():
		return nil, &ending{closeGoingAway, "no subscription came in time", nil}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var frame subscribeFrame
	if first.kind != websocket.MessageText || len(first.data) > maxClientFrame || json.Unmarshal(first.data, &frame) != nil ||
		frame.Action != "subscribe" || frame.TaskID == "" || frame.Gap != "" && frame.Gap != "error" {
		return nil, &ending{closeBadFrame, "the first frame must be a subscription", nil}
	}
	if frame.LastEventID != nil {
		var err error
		if request.After, err = taskbridge.ParseCursor(*frame.LastEventID); err != nil {
			return nil, &ending{closeBadFrame, "lastEventId is none of this server's", nil}
		}
	}
	if !taskbridge.ValidTaskID(frame.TaskID) {
		return nil, taskbridge.ErrTaskNotFound
	}
	request.TaskID, request.GapError = frame.TaskID, frame.Gap == "error"
	s.taskID, s.gapError = frame.TaskID, request.GapError
	return s.api.opts.Bridge.Subscription.Subscribe(ctx, s.principal, request)
}

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
	if e := s.ending(ctx, err); e == nil {
		logger.Debug("a WebSocket's client has gone", "error", err)
	} else {
		if e.cause != nil {
			logger.Error("a WebSocket failed and was closed", "code", int(e.code), "error", e.cause)
		} else {
			logger.Debug("a WebSocket was closed", "code", int(e.code), "reason", e.reason)
		}
		s.takeLeave(e)
	}
	_ = s.conn.CloseNow() // it is given up either way
	<-s.gone
}

// takeLeave sends the close frame and waits for the client's, but not for long.
func (s *socketSession) takeLeave(e *ending) {
	if s.raw.part(e.code, e.reason) != nil {
		return // nothing can be done for a client that does not even read this
	}
	timer := time.NewTimer(partingTime)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-timer.C:
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
