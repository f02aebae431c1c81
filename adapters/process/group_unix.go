//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

const (
	sigContinue = syscall.SIGCONT
	sigStop     = syscall.SIGSTOP
)

// lead makes the command the leader of a session and group of its own, which
// also keeps it from a terminal that would stop it for reading.
func lead(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}

func signalGroup(group int, sig syscall.Signal) error {
	err := syscall.Kill(-group, sig)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return os.NewSyscallError("kill", err)
}

func ownGroup(group int) bool { return group == syscall.Getpgrp() }

func lockFile(file *os.File) error {
	return os.NewSyscallError("flock", syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}
