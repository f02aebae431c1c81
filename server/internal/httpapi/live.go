package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// liveStreams owns the streams that have left their handler: a stream on a
// connection that was taken over from net/http runs in goroutines of its own, so
// that the buffers and the grown stack of the handler are not held for it.
type liveStreams struct {
	mu       sync.Mutex
	stopping bool
	running  int
	ended    chan struct{}          // closed when none is running; nil: nobody waits
	conns    map[net.Conn]*delivery // nil until it runs
}

// hold counts something in that end counts out, even when shutting down.
func (l *liveStreams) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running++
}

// begin counts a stream in, unless the server is shutting down.
func (l *liveStreams) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.running++
	return true
}

// has notes the connection of a stream that has begun.
func (l *liveStreams) has(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[net.Conn]*delivery)
	}
	l.conns[conn] = nil
	setSendBuffer(conn, sendBuffer)
}

// runs notes what is to be woken when draining begins. One that is noted too late
// for that finds its context ended before it rests.
func (l *liveStreams) runs(conn net.Conn, d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = d
}

// sendBuffer is what the system takes for a stream whose reader is behind; left
// to itself it takes megabytes. partingBuffer leaves room for a close frame when
// that is full.
const (
	sendBuffer    = 64 << 10
	partingBuffer = 200 << 10
)

// setSendBuffer does nothing for connections that have none.
func setSendBuffer(conn net.Conn, bytes int) {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	if tcp, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(bytes) // the connection has gone: the next write says so
	}
}

// forget is for a connection that was closed before its stream began.
func (l *liveStreams) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// end counts a stream out; conn is nil where none was taken over.
func (l *liveStreams) end(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
	l.running--
	if l.running == 0 && l.ended != nil {
		close(l.ended)
		l.ended = nil
	}
}

func (l *liveStreams) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
}

// hurry gives the writes that are under way no more than partingTime, and wakes
// the streams that rest.
func (l *liveStreams) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := time.Now().Add(partingTime)
	for conn, d := range l.conns {
		_ = conn.SetWriteDeadline(limit) // it fails on those that are closed already
		if d != nil {
			d.wake()
		}
	}
}

// wait returns a channel that is closed when no stream is running.
func (l *liveStreams) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if l.ended == nil {
		l.ended = make(chan struct{})
	}
	return l.ended
}

// Wait returns when all streams have ended, which Drain makes them do, or when
// ctx ends.
func (a *API) Wait(ctx context.Context) error {
	select {
	case <-a.live.wait():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// partingTime is how long a client is waited for when there is nothing more for
// it than the leave-taking.
const partingTime = 2 * time.Second

// writeSoon gives the next write to a connection that was taken over its time:
// WriteTimeout, and once the server drains no more than partingTime. A write
// that was begun before the draining is hurried by Drain.
func (a *API) writeSoon(conn net.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(a.opts.WriteTimeout)); err != nil {
		return err
	}
	if a.drained.Err() != nil && a.opts.WriteTimeout > partingTime {
		return conn.SetWriteDeadline(time.Now().Add(partingTime))
	}
	return nil
}

// errNoLongerPermitted ends a stream whose credentials have ended.
var errNoLongerPermitted = errors.New("the credentials do not allow this any more")

// watcher asks now and then whether a stream's client may still have it. It keeps
// what authentication needs of the request and not the request itself, which
// holds on to its connection's buffers.
type watcher struct {
	api          *API
	subscription *taskbridge.Subscription
	checked      time.Time

	url              *url.URL
	header           http.Header
	host, remoteAddr string
	tls              *tls.ConnectionState
}

func (a *API) watch(c *call, subscription *taskbridge.Subscription) watcher {
	header := make(http.Header)
	for name, values := range c.r.Header {
		switch {
		case name == "Connection":
		// A browser's token is a subprotocol, which counts in an upgrade alone.
		case strings.HasPrefix(name, "Sec-Websocket-") && name != "Sec-Websocket-Protocol":
		default:
			header[name] = values
		}
	}
	return watcher{
		api: a, subscription: subscription, checked: a.opts.Clock.Now(),
		url: c.r.URL, header: header, host: c.r.Host, remoteAddr: c.r.RemoteAddr, tls: c.r.TLS,
	}
}

// due reports whether check would look.
func (w *watcher) due(now time.Time) bool { return now.Sub(w.checked) >= w.api.opts.Recheck }

// check returns errNoLongerPermitted if the stream must end. It is asked before
// anything is delivered, so nothing is once the last look is Recheck old. That
// the authenticator cannot tell at the moment ends nothing.
func (w *watcher) check() error {
	now := w.api.opts.Clock.Now()
	if !w.due(now) {
		return nil
	}
	w.checked = now
	principal, err := w.api.opts.Authenticator.Authenticate(&http.Request{
		Method: http.MethodGet, URL: w.url, Header: w.header.Clone(), Host: w.host, RemoteAddr: w.remoteAddr, TLS: w.tls,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	})
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return errNoLongerPermitted
	case err != nil:
		w.api.logger.Warn("credentials of a stream cannot be checked", "error", err)
		return nil
	case !w.subscription.Permitted(principal):
		return errNoLongerPermitted
	}
	return nil
}
