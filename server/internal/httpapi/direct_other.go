//go:build !unix

package httpapi

import "net"

// directWriter is for systems with non-blocking sockets.
type directWriter struct{}

func newDirectWriter(net.Conn) *directWriter { return nil }

func (*directWriter) try([]byte) int { return 0 }
