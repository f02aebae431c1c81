package app

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// limitListener accepts so many connections at once; those beyond wait, in the
// system's queue, until one is closed.
//
// (The one of golang.org/x/net hides what lies below its connections, and with it
// the size of a connection's send buffer, by which the transport bounds what a
// reader who stands still may cost, and the way to write without waiting.)
type limitListener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	close  func() error
}

func newLimitListener(inner net.Listener, connections int) *limitListener {
	l := &limitListener{Listener: inner, places: make(chan struct{}, connections), closed: make(chan struct{})}
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		return inner.Close()
	})
	return l
}

// Accept waits for a place and for a connection.
func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close makes Accept return; calling it again does nothing. Connections that were
// accepted go on.
func (l *limitListener) Close() error { return l.close() }

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// SetWriteBuffer is what the transport calls for streams.
func (c *limitedConn) SetWriteBuffer(bytes int) error {
	if tcp, ok := c.Conn.(interface{ SetWriteBuffer(int) error }); ok {
		return tcp.SetWriteBuffer(bytes)
	}
	return nil
}

// SyscallConn is by what the transport writes events to streams without waiting.
func (c *limitedConn) SyscallConn() (syscall.RawConn, error) {
	if tcp, ok := c.Conn.(syscall.Conn); ok {
		return tcp.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
