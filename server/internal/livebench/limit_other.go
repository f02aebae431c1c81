//go:build !linux

package livebench

import (
	"errors"
	"time"
)

// raiseFileLimit says that these measurements read Linux's account of memory.
func raiseFileLimit() error { return errors.New("livebench: only on Linux") }

func cpuTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
