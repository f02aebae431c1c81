package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// restore removes all that a cluster of that state has left and puts the host's
// settings back. The cluster's components have ended before, or are ended here. It
// goes on after an error; the state is kept unless all went well.
func (s *state) restore() error {
	err := errors.Join(
		s.endProcesses(),
		s.unmount(),
		disconnect(),
		s.removeCgroups(),
		s.removeShared(),
		s.resetSysctls(),
	)
	if err != nil {
		return err
	}
	// Nothing is mounted there any more: unmount has looked again.
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	return os.Remove(stateFile())
}

// patience bounds the wait for what the kernel does in its own time.
const patience = 30 * time.Second

// eventually repeats what returns false until it returns true.
func eventually(what string, try func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := try()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, patience)
		}
	}
}

// endProcesses kills what starts containers, then the containers. Their processes
// are known by their control groups, whoever their parent is.
func (s *state) endProcesses() error {
	return eventually("end the cluster's processes", func() (bool, error) {
		pids, err := s.processes()
		if err != nil {
			return false, err
		}
		for _, dir := range s.cgroups() {
			inside, err := cgroupProcesses(dir)
			if err != nil {
				return false, err
			}
			pids = append(pids, inside...)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		return len(pids) == 0, nil
	})
}

// processes are those of programs that name the cluster's folder in their
// arguments: containerd, its shims, the components.
func (s *state) processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that ended meanwhile has neither.
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || !bytes.Contains(line, []byte(s.Dir+"/")) {
			continue
		}
		name, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "comm"))
		if err != nil {
			continue
		}
		program := strings.TrimSpace(string(name))
		own := slices.ContainsFunc([]string{"containerd", "runc", "ctr", "bridge", "host-local", selfName()},
			func(known string) bool { return strings.HasPrefix(program, known) })
		if own {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// selfName is this program's name as the kernel shows it.
func selfName() string {
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return "testcluster"
	}
	return strings.TrimSpace(string(name))
}

// unmount unmounts all below the folder, the last mounted first.
func (s *state) unmount() error {
	mounts, err := mountsBelow(s.Dir)
	if err != nil {
		return err
	}
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	mounts, err = mountsBelow(s.Dir)
	if err == nil && len(mounts) > 0 {
		err = fmt.Errorf("still mounted: %q", mounts)
	}
	return err
}

// mountsBelow are the mount points below dir in the order in which they were made.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var mounts []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			mounts = append(mounts, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4]))
		}
	}
	return mounts, lines.Err()
}

// removeShared removes what the programs put into folders that are not the
// cluster's own, and those folders where they were not there before.
func (s *state) removeShared() error {
	err := errors.Join(
		removeMatching("/var/log/containers/*", func(file string) bool {
			target, err := os.Readlink(file)
			return err == nil && strings.HasPrefix(target, s.Dir+"/")
		}),
		removeMatching("/var/lib/cni/results/*", func(file string) bool {
			result, err := os.ReadFile(file)
			return err == nil && bytes.Contains(result, []byte(s.Dir+"/"))
		}),
		removeMatching("/run/containerd/s/*", dead),
	)
	for _, folder := range s.Absent {
		// Only what holds no files of somebody else's.
		if folder == "/var/lib/kubelet" {
			err = errors.Join(err, os.RemoveAll(folder))
			continue
		}
		err = errors.Join(err, removeEmpty(folder))
	}
	return err
}

func removeMatching(pattern string, matches func(file string) bool) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, file := range files {
		if matches(file) {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// dead says of a socket that nobody listens on it any more.
func dead(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second) //nolint:noctx // it has a time-out
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// removeEmpty removes a folder if there are no files in it and those below it.
func removeEmpty(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeEmpty(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(folder); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (s *state) resetSysctls() error {
	var failed error
	for name, value := range s.Sysctls {
		file := filepath.Join("/proc/sys", name)
		now, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(now)) != value {
			err = os.WriteFile(file, []byte(value), 0)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
