package httpapi

import "syscall"

// smallSegments has a connection carry segments as they are on a real line. On
// loopback they are larger than a small buffer, and each would wait for a timer.
func smallSegments(_, _ string, conn syscall.RawConn) (err error) {
	controlled := conn.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
	})
	if controlled != nil {
		return controlled
	}
	return err
}
