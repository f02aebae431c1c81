package httpapi

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// UnderTLS wraps a listener whose connections will be encrypted. It makes it
// possible to tell a WebSocket's client that it was too slow: a [crypto/tls.Conn]
// one of whose writes has met its deadline writes nothing ever after, not even a
// close frame. So the deadline is kept from it: see [heldConn].
func UnderTLS(inner net.Listener) net.Listener { return underTLS{inner} }

type underTLS struct{ net.Listener }

// Accept waits for a connection.
func (l underTLS) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &heldConn{Conn: conn}, nil
}

// heldConn is a connection below an encrypted one. Once holds is set, a write that
// meets its deadline succeeds, as far as those above can see: what the system has
// not taken is held back, in whole records, and everything that is written later
// behind it. Whoever writes asks after each write whether it is behind, writes the
// last of it and releases what is held; no more than that is ever held.
type heldConn struct {
	net.Conn
	holds  atomic.Bool
	behind atomic.Bool

	mu   sync.Mutex // encrypted connections write from one goroutine at a time
	held []byte
}

// heldBelow returns the connection below an encrypted one, told to hold; nil where
// there is none.
func heldBelow(conn net.Conn) *heldConn {
	encrypted, ok := conn.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	held, ok := encrypted.NetConn().(*heldConn)
	if !ok {
		return nil
	}
	held.holds.Store(true)
	return held
}

// Write writes p, or holds what is left of it.
func (c *heldConn) Write(p []byte) (int, error) {
	if !c.holds.Load() {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	if !c.behind.Load() {
		var err error
		if n, err = c.Conn.Write(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.behind.Store(true)
	}
	c.held = append(c.held, p[n:]...)
	return len(p), nil
}

// isBehind reports whether something is held back. c may be nil.
func (c *heldConn) isBehind() bool { return c != nil && c.behind.Load() }

// release writes what is held within the deadline that is set. Nothing can be
// written after an error.
func (c *heldConn) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(c.held)
	c.held = c.held[n:]
	return err
}

// SetWriteBuffer is what the transport calls for streams.
func (c *heldConn) SetWriteBuffer(bytes int) error {
	if tcp, ok := c.Conn.(interface{ SetWriteBuffer(int) error }); ok {
		return tcp.SetWriteBuffer(bytes)
	}
	return nil
}
