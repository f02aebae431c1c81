//go:build unix

package httpapi

import (
	"errors"
	"net"
	"syscall"
)

// directWriter writes to a connection what the system takes at once. Deliveries
// of one goroutine to many connections use it: no deadline has to be set for a
// write that does not wait.
type directWriter struct {
	raw   syscall.RawConn
	p     []byte
	n     int
	err   error
	write func(fd uintptr) bool // made once
}

// systemWrite is a variable so that tests can have a system that takes less.
var systemWrite = syscall.Write

// newDirectWriter returns nil for a connection that this cannot be done with: one
// that is encrypted, say.
func newDirectWriter(conn net.Conn) *directWriter {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	w := &directWriter{raw: raw}
	w.write = w.writeOnce
	return w
}

// try writes as much of p as can be written at once and returns how much that
// was: nothing where an ordinary write has to find out what is wrong.
func (w *directWriter) try(p []byte) (n int) {
	if w == nil {
		return 0
	}
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.write)
	w.p = nil
	if err != nil || w.err != nil {
		return 0
	}
	return w.n
}

// writeOnce says that it is done in any case: that the system takes nothing at
// the moment is no reason to wait here.
func (w *directWriter) writeOnce(fd uintptr) bool {
	for {
		w.n, w.err = systemWrite(int(fd), w.p)
		if !errors.Is(w.err, syscall.EINTR) {
			return true
		}
	}
}
