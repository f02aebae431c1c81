package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// stateFolder holds what says that a cluster is there. It is not for setting: two
// clusters at once would take each other's host settings for the host's own.
const stateFolder = "/run/taskbridge-testcluster"

// state is what a cluster changes on its host outside its folder, written down
// before it does, so that a later one can put things right after a SIGKILL.
type state struct {
	// Dir is the cluster's folder.
	Dir string `json:"dir"`
	// Sysctls are the values before.
	Sysctls map[string]string `json:"sysctls"`
	// Absent are the files and folders which were not there before.
	Absent []string `json:"absent"`
}

// sysctls are those that the kubelet and the network plugin change.
var sysctls = []string{
	"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	"vm/overcommit_memory", "net/ipv4/ip_forward",
}

// shared are folders outside the cluster's own that its programs make.
var shared = []string{
	"/var/lib/kubelet", "/var/log/containers", "/var/log/pods", "/var/lib/cni", "/run/containerd", "/run/netns",
}

// survey notes how the host is before a cluster is made in dir.
func survey(dir string) (*state, error) {
	s := &state{Dir: dir, Sysctls: map[string]string{}}
	for _, name := range sysctls {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("note the host's settings: %w", err)
		}
		s.Sysctls[name] = strings.TrimSpace(string(value))
	}
	for _, folder := range shared {
		if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			s.Absent = append(s.Absent, folder)
		}
	}
	return s, nil
}

// write keeps the state for whoever comes later.
func (s *state) write() error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(stateFile()+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(stateFile()+".new", stateFile())
}

// readState is nil where no cluster left one behind.
func readState() (*state, error) {
	text, err := os.ReadFile(stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", stateFile(), err)
	}
	if !strings.HasPrefix(filepath.Base(s.Dir), prefix) {
		return nil, fmt.Errorf("%s names a folder that no cluster had: %q", stateFile(), s.Dir)
	}
	return s, nil
}

func stateFile() string { return filepath.Join(stateFolder, "state.json") }

// lock makes this process the only one with a cluster until the returned file is
// closed. Where another has one, it says so on messages and waits for its end, or
// for stop.
func lock(stop <-chan struct{}, messages io.Writer) (*os.File, error) {
	if err := os.MkdirAll(stateFolder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(stateFolder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	say(messages, "testcluster: another cluster runs on this host (%s): waiting until it has ended\n", f.Name())
	locked := make(chan error, 1)
	go func() { // ends with the lock, or with this process
		locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}()
	select {
	case err := <-locked:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		return f, nil
	case <-stop:
		return nil, errors.New("stopped while it waited for another cluster to end")
	}
}
