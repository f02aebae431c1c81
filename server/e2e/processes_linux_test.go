package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// process is one that was seen in /proc; the start time tells it from a later
// one with the same id.
type process struct {
	pid     int
	started string
	command string
}

// processesWith returns the living processes that have the entry in their
// environment.
func processesWith(t *testing.T, entry string) []process {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, path := range paths {
		environ, err := os.ReadFile(filepath.Join(path, "environ"))
		if err != nil || !bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+entry+"\x00")) {
			continue // it has gone, is another user's, or is none of ours
		}
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := identify(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// identify returns false for a process that has ended.
func identify(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// pid (command) state ppid …, the start time being the 22nd field.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	return process{pid, fields[19], string(stat[bytes.IndexByte(stat, '(')+1 : end])}, true
}

func (p process) alive() bool {
	now, ok := identify(p.pid)
	return ok && now.started == p.started
}
