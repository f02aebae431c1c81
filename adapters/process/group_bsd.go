//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package process

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

func platformSupported() error { return nil }

// isDead: a dead child is waited for at once.
func isDead(int) bool { return false }

// startTime tells the process apart from another that gets its id later, to the
// second; "" if it has gone already. Only ps knows it on all of these systems.
func startTime(pid int) (string, error) {
	ps := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid))
	ps.Env = []string{"PATH=/bin:/usr/bin", "LC_ALL=C", "TZ=UTC"}
	out, err := ps.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", nil
	}
	return strings.TrimSpace(string(out)), err
}

func bootID() string { return "" }

// look returns one process for each group that has members; its pid is the
// group's, negative. What has left the group is not found.
func (s *search) look() ([]process, error) {
	var found []process
	for _, id := range s.ids {
		if id.pid == 0 {
			continue
		}
		err := syscall.Kill(-id.pid, 0)
		switch {
		case err == nil:
			found = append(found, process{pid: -id.pid, group: id.pid})
			s.groups[id.pid] = true
		case errors.Is(err, syscall.ESRCH), errors.Is(err, syscall.EPERM): // gone; only dead ones left
		default:
			return nil, os.NewSyscallError("kill", err)
		}
	}
	return found, nil
}

func (p process) signal(sig syscall.Signal) error { return signalGroup(p.group, sig) }

// present keeps the identities whose leader is still the one that was recorded:
// without it the group may be another's by now.
func present(recs []record) (ids []identity) {
	for _, rec := range recs {
		if rec.PID == 0 || rec.Started == "" {
			continue
		}
		if started, err := startTime(rec.PID); err == nil && started == rec.Started {
			ids = append(ids, rec.identity())
		}
	}
	return ids
}

// awaitExit blocks until the command has ended.
func awaitExit(cmd *exec.Cmd) error {
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}

func reap(*exec.Cmd) error { return nil }
