package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// platformSupported says why executions could not be found again here.
func platformSupported() error {
	if _, err := readProcess(os.Getpid()); err != nil {
		return fmt.Errorf("/proc is needed: %w", err)
	}
	return nil
}

// readProcess reads /proc/PID/stat. A process that is not there, or is gone but
// for its parent's wait, is fs.ErrNotExist or has ended set.
func readProcess(pid int) (process, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, syscall.ESRCH) { // it went between open and read
			err = fs.ErrNotExist
		}
		return process{}, err
	}
	// The name, in brackets, may hold anything; nothing after it has a bracket.
	_, text, found := strings.Cut(string(data[max(0, bytes.LastIndexByte(data, ')')):]), ") ")
	fields := strings.Fields(text)
	const state, parent, group, session, started = 0, 1, 2, 3, 19
	if !found || len(fields) <= started {
		return process{}, fmt.Errorf("/proc/%d/stat: %q", pid, data)
	}
	p := process{pid: pid, started: fields[started]}
	p.ended = fields[state] == "Z" || fields[state] == "X" || fields[state] == "x"
	for _, field := range []struct {
		index int
		value *int
	}{{parent, &p.parent}, {group, &p.group}, {session, &p.session}} {
		if *field.value, err = strconv.Atoi(fields[field.index]); err != nil {
			return process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	return p, nil
}

// isDead reports whether the child has ended and is still to be waited for.
func isDead(pid int) bool {
	p, err := readProcess(pid)
	return err == nil && p.ended
}

// startTime tells the process apart from any other that has or had its id since
// the machine was booted.
func startTime(pid int) (string, error) {
	p, err := readProcess(pid)
	return p.started, err
}

// bootID tells one run of the kernel from another; "" where it is not known.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// readClaim returns the TASKBRIDGE_CLAIM that the process was started with; ""
// if it has none or belongs to somebody else.
func readClaim(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for len(data) > 0 {
		entry, rest, _ := bytes.Cut(data, []byte{0})
		if claim, ok := bytes.CutPrefix(entry, []byte(envClaim+"=")); ok {
			return string(claim)
		}
		data = rest
	}
	return ""
}

// look returns the processes of the executions that have not ended: those of
// the session and group, those that carry the claim, and all descendants.
//
// A look remembers what it has found, and the sessions and groups led by that:
// what loses its parents between two looks, or is born then, is still known.
//
// This process is never among them, nor what descends from it alone: it may
// have been started by a task of an earlier server.
func (s *search) look() ([]process, error) {
	all, err := readProcesses()
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	all = slices.DeleteFunc(all, func(p process) bool { return p.pid == self })
	member, certain := evidence(all, s.ids)
	ours := func(number int) bool { return certain[number] || s.groups[number] }
	children := make(map[int][]process)
	var found []process
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
		if ours(p.group) || ours(p.session) || p.started == s.seen[p.pid] {
			member[p.pid] = true
		}
		if member[p.pid] {
			found = append(found, p)
		}
	}
	for i := 0; i < len(found); i++ { // found grows
		for _, child := range children[found[i].pid] {
			if !member[child.pid] {
				member[child.pid] = true
				found = append(found, child)
			}
		}
	}
	groups := make(map[int]bool)
	s.seen = make(map[int]string)
	for _, p := range found {
		if p.pid == p.group || p.pid == p.session {
			groups[p.pid] = true
		}
		// One without members is forgotten: its number is free.
		for _, number := range []int{p.group, p.session} {
			if ours(number) {
				groups[number] = true
			}
		}
		s.seen[p.pid] = p.started
	}
	s.groups = groups
	return slices.DeleteFunc(found, func(p process) bool { return p.ended }), nil
}

// evidence returns the processes that carry a claim, and the sessions and groups
// of the commands that certainly are theirs: the leader is there (a dead one counts
// until it is waited for) or a member carries the claim. Without either the
// number may be another's by now.
func evidence(all []process, ids []identity) (carriers, groups map[int]bool) {
	carriers, groups = make(map[int]bool), make(map[int]bool)
	claims := make(map[string]identity, len(ids))
	leaders := make(map[int][]string, len(ids)) // when those of a number were started
	oldest := ""
	for i, id := range ids {
		claims[id.claim] = id
		if id.pid != 0 {
			leaders[id.pid] = append(leaders[id.pid], id.started)
		}
		if i == 0 || earlier(id.started, oldest) {
			oldest = id.started
		}
	}
	for _, p := range all {
		if slices.Contains(leaders[p.pid], p.started) {
			groups[p.pid] = true
		}
		if p.ended || earlier(p.started, oldest) {
			continue // it has no environment any more, or was there before
		}
		if id, ok := claims[readClaim(p.pid)]; ok {
			carriers[p.pid] = true
			if id.pid != 0 && (p.group == id.pid || p.session == id.pid) {
				groups[id.pid] = true
			}
		}
	}
	return carriers, groups
}

// earlier compares two start times; "", unknown, is before all others.
func earlier(a, b string) bool {
	return len(a) < len(b) || len(a) == len(b) && a < b
}

// readProcesses reads what is there of every process. One that comes or goes
// meanwhile may be missing.
func readProcesses() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	all := make([]process, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		switch {
		case err == nil:
			all = append(all, p)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
			return nil, err
		}
	}
	return all, nil
}

// signal sends to this very process, not to one that has got its id since.
func (p process) signal(sig syscall.Signal) error {
	handle, err := os.FindProcess(p.pid) // a pidfd, where the kernel has them
	if err != nil {
		return err
	}
	now, err := readProcess(p.pid)
	if err == nil && now.started == p.started {
		err = handle.Signal(sig)
	}
	err = errors.Join(err, handle.Release())
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// present keeps the identities that may have living processes.
func present(recs []record) (ids []identity) {
	boot := bootID()
	for _, rec := range recs {
		if rec.Boot == "" || boot == "" || rec.Boot == boot {
			ids = append(ids, rec.identity())
		}
	}
	return ids
}

// awaitExit blocks until the command has ended and leaves it to be waited for:
// until then nobody else gets its number, so that its group can be signalled.
func awaitExit(cmd *exec.Cmd) error {
	const byPID = 1
	for {
		// Without a place for the details only the waiting remains.
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(cmd.Process.Pid), 0,
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return os.NewSyscallError("waitid", errno)
		}
	}
}

// reap returns how the command ended, once awaitExit has returned.
func reap(cmd *exec.Cmd) error { return cmd.Wait() }
