//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

var errUnsupported = errors.New("commands cannot be run as tasks on " + runtime.GOOS + ": it has no process groups to end them by")

const (
	sigContinue = syscall.Signal(0)
	sigStop     = syscall.Signal(0)
)

func platformSupported() error              { return errUnsupported }
func startTime(int) (string, error)         { return "", errUnsupported }
func isDead(int) bool                       { return false }
func bootID() string                        { return "" }
func (s *search) look() ([]process, error)  { return nil, errUnsupported }
func (process) signal(syscall.Signal) error { return errUnsupported }
func present([]record) []identity           { return nil }
func awaitExit(*exec.Cmd) error             { return errUnsupported }
func reap(*exec.Cmd) error                  { return errUnsupported }
func lead(*exec.Cmd)                        {}
func signalGroup(int, syscall.Signal) error { return errUnsupported }
func ownGroup(int) bool                     { return false }
func lockFile(*os.File) error               { return errUnsupported }
