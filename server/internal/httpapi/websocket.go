package httpapi

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Close codes. Those from 4400 to 4499, and 1008, are final to a client; after
// every other it comes back with its cursor.
const (
	closeEnded       = websocket.StatusNormalClosure
	closeGoingAway   = websocket.StatusGoingAway
	closeBadFrame    = websocket.StatusPolicyViolation
	closeFault       = websocket.StatusInternalError
	closeTooSlow     = websocket.StatusTryAgainLater
	closeForbidden   = websocket.StatusCode(4403)
	closeNotFound    = websocket.StatusCode(4404)
	closeGap         = websocket.StatusCode(4410)
	maxClientFrame   = 16 << 10
	maxCloseReason   = 123
	socketProtocol   = "taskbridge.v1"
	partingFrameSize = 64
)

// webSocket upgrades the connection. From then on a session has it.
func (a *API) webSocket(c *call) error {
	if !strings.EqualFold(c.r.Header.Get("Upgrade"), "websocket") {
		return invalidRequest("this route is for WebSockets")
	}
	if origin := c.r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !a.hosts.allows(u.Host) {
			return invalidRequest("origin not allowed")
		}
	}
	if !a.live.begin() {
		return errDraining
	}
	small := &smallBuffers{ResponseWriter: c.w}
	conn, err := websocket.Accept(small, c.r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // checked above, by our own rule
		Subprotocols:       []string{socketProtocol},
	})
	if err != nil {
		a.live.running.Done()
		a.logger.Debug("a WebSocket's handshake failed", "requestId", requestID(c.r.Context()), "error", err)
		if small.conn != nil {
			return errCut
		}
		return nil // it is answered
	}
	if rec, ok := c.w.(*recorder); ok {
		rec.status = http.StatusSwitchingProtocols
	}
	conn.SetReadLimit(maxClientFrame)
	s := &socketSession{
		api: a, conn: conn, raw: small.conn, requestID: requestID(c.r.Context()),
		principal: c.principal, watcher: a.watch(c, nil), first: make(chan clientFrame, 1),
	}
	go func() {
		defer a.live.running.Done()
		defer a.opts.StreamOpened("websocket")()
		s.run(a.drained)
	}()
	return nil
}

// socketSession is one WebSocket after its handshake.
type socketSession struct {
	api       *API
	conn      *websocket.Conn
	raw       *batchConn
	requestID string
	principal taskbridge.Principal
	watcher   *watcher
	first     chan clientFrame
	taskID    string
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

// run has the session from its first frame to its close.
func (s *socketSession) run(drained context.Context) {
	ctx, cancel := context.WithCancel(drained)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer cancel()
		s.read()
	}()
	err := s.serve(ctx)
	if drained.Err() == nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // the client has gone: there is nobody to tell
	}
	s.close(drained, err)
	cancel()
	<-read
}

// read takes the first frame and goes on reading, so that pings are answered
// and a client that goes away is noticed. Later frames say nothing.
func (s *socketSession) read() {
	for {
		kind, data, err := s.conn.Read(context.Background())
		if err != nil {
			return
		}
		select {
		case s.first <- clientFrame{kind, data}:
		default:
		}
	}
}

// subscribeFrame is what a client sends first.
type subscribeFrame struct {
	Action      string  `json:"action"`
	TaskID      string  `json:"taskId"`
	LastEventID *string `json:"lastEventId"`
	Gap         string  `json:"gap"`
}

// serve returns how the session ends: an *ending, or a context's or writer's error.
func (s *socketSession) serve(ctx context.Context) error {
	var frame clientFrame
	timer := s.api.opts.Clock.NewTimer(s.api.opts.SubscribeTimeout)
	defer timer.Stop()
	select {
	case frame = <-s.first:
	case <-timer.C():
		return &ending{closeGoingAway, "no subscription came in time", nil}
	case <-ctx.Done():
		return ctx.Err()
	}
	var subscribe subscribeFrame
	if frame.kind != websocket.MessageText || json.Unmarshal(frame.data, &subscribe) != nil ||
		subscribe.Action != "subscribe" || subscribe.TaskID == "" || subscribe.Gap != "" && subscribe.Gap != "error" {
		return &ending{closeBadFrame, "the first frame must be a subscription", nil}
	}
	frame.data = nil
	request := taskbridge.SubscribeRequest{TaskID: subscribe.TaskID, GapError: subscribe.Gap == "error"}
	if subscribe.LastEventID != nil {
		var err error
		if request.After, err = taskbridge.ParseCursor(*subscribe.LastEventID); err != nil {
			return &ending{closeBadFrame, "lastEventId is none of this server's", nil}
		}
	}
	subscription, err := s.api.opts.Bridge.Subscription.Subscribe(ctx, s.principal, request)
	if err != nil {
		return err
	}
	defer subscription.Close()
	s.taskID = subscribe.TaskID
	s.watcher.subscription = subscription
	return s.deliver(ctx, subscription, request)
}

// deliver confirms and writes events until the terminal one has been written.
func (s *socketSession) deliver(ctx context.Context, subscription *taskbridge.Subscription, request taskbridge.SubscribeRequest) error {
	if err := s.write(s.confirmation(request.After)); err != nil {
		return err
	}
	if final, atEnd := subscription.Final(); atEnd {
		if err := s.write(final.Envelope); err != nil {
			return err
		}
		return &ending{closeEnded, "the task has ended", nil}
	}
	var heartbeat []byte
	for {
		frames, err := subscription.Next(ctx, s.api.opts.SocketHeartbeat)
		switch {
		case errors.Is(err, io.EOF):
			return &ending{closeEnded, "the task has ended", nil}
		case asGap(err) && !request.GapError:
			// The history was replaced. An old client is not to give up: it
			// comes back and is told as its kind is told.
			return &ending{closeFault, "the stream was replaced", err}
		case err != nil:
			return err
		}
		if err := s.watcher.check(); err != nil {
			return &ending{closeGoingAway, err.Error(), nil}
		}
		if len(frames) == 0 {
			if heartbeat == nil {
				heartbeat = s.heartbeat()
			}
			err = s.write(heartbeat)
		} else {
			err = s.writeFrames(frames)
		}
		if err != nil {
			return err
		}
	}
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

func (s *socketSession) heartbeat() []byte {
	b := append([]byte(`{"type":"HEARTBEAT","taskId":`), appendString(nil, s.taskID)...)
	return append(b, `,"live":true}`...)
}

func (s *socketSession) write(message []byte) error {
	return s.writeFrames([]taskbridge.Frame{{Envelope: message}})
}

// writeFrames sends messages with one write.
func (s *socketSession) writeFrames(frames []taskbridge.Frame) error {
	s.raw.begin()
	for _, frame := range frames {
		// Into memory: it waits for nothing but a pong that is being written.
		if err := s.conn.Write(context.Background(), websocket.MessageText, frame.Envelope); err != nil {
			return &writeError{err}
		}
		s.raw.mark()
	}
	rest, err := s.raw.send(s.api.opts.WriteTimeout)
	if err != nil {
		return s.part(rest, err)
	}
	return nil
}

// part takes leave of a client that did not keep up: what is missing of the
// message that was begun, and the close frame that says "come back". Should it
// read again within the write timeout, it gets both.
func (s *socketSession) part(rest []byte, cause error) error {
	const reason = "too slow: resume from your cursor"
	last := make([]byte, 0, len(rest)+partingFrameSize)
	last = append(last, rest...)
	last = append(last, 0x80|0x8, byte(2+len(reason)))
	last = binary.BigEndian.AppendUint16(last, uint16(closeTooSlow))
	last = append(last, reason...)
	if err := s.raw.SetWriteDeadline(time.Now().Add(s.api.opts.WriteTimeout)); err == nil {
		_, _ = s.raw.Conn.Write(last) // nothing can be done for a client that still does not read
	}
	return &writeError{cause}
}

// close closes the connection with the code that fits.
func (s *socketSession) close(drained context.Context, err error) {
	e := s.endingOf(drained, err)
	logger := s.api.logger.With("requestId", s.requestID, "taskId", s.taskID)
	if e == nil {
		logger.Debug("a WebSocket's client has gone or is too slow", "error", err)
		_ = s.conn.CloseNow() // it is given up either way
		return
	}
	if e.cause != nil {
		logger.Error("a WebSocket failed and was closed", "code", int(e.code), "error", e.cause)
	}
	if len(e.reason) > maxCloseReason {
		e.reason = e.reason[:maxCloseReason]
	}
	if err := s.conn.Close(e.code, e.reason); err != nil {
		logger.Debug("a WebSocket's client did not take leave", "error", err)
	}
}

// endingOf says how an error is told; nil: it is not, the client cannot be told.
func (s *socketSession) endingOf(drained context.Context, err error) *ending {
	var (
		e      *ending
		failed *writeError
		gap    *taskbridge.GapError
	)
	switch {
	case err == nil, errors.As(err, &failed):
		return nil
	case errors.As(err, &e):
		return e
	case drained.Err() != nil, errors.Is(err, taskbridge.ErrClosed):
		return &ending{closeGoingAway, "the server is shutting down", nil}
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		return &ending{closeNotFound, "there is no such task", nil}
	case errors.Is(err, taskbridge.ErrForbidden):
		return &ending{closeForbidden, "the caller may not do this", nil}
	case errors.As(err, &gap):
		return &ending{closeGap, "events are missing: " + gap.FirstEventID + " to " + gap.LastEventID + " are there", nil}
	}
	return &ending{closeFault, "the store cannot be used at the moment", err}
}
