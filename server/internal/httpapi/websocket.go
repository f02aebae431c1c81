package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

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
