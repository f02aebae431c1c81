//go:build unix

package httpapi

import (
	"math/rand/v2"
	"syscall"
)

func init() { // before any connection is written to
	take := systemWrite
	systemWrite = func(fd int, p []byte) (int, error) {
		if !grudging.Load() {
			return take(fd, p)
		}
		switch rand.IntN(10) {
		case 0:
			return -1, syscall.EAGAIN
		case 1:
			return -1, syscall.EINTR
		case 2, 3:
			return take(fd, p[:1+rand.IntN(len(p))])
		}
		return take(fd, p)
	}
}
