//go:build !linux

package livebench

import "errors"

// raiseFileLimit says that these measurements read Linux's account of memory.
func raiseFileLimit() error { return errors.New("livebench: only on Linux") }
