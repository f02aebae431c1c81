//go:build linux

package process

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// witness is a named pipe that processes hold open for writing: it tells the
// test when the first one does and when the last one has gone.
type witness struct {
	t    *testing.T
	path string
	pipe *os.File
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	w := &witness{t: t, path: filepath.Join(t.TempDir(), "witness")}
	must(t, syscall.Mkfifo(w.path, 0o600))
	// Both ends at first, so that opening does not wait for anybody.
	var err error
	w.pipe, err = os.OpenFile(w.path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() {
		_ = w.pipe.Close()
		for _, pid := range w.holders() {
			t.Errorf("process %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return w
}

// holders returns the other processes that have the pipe open.
func (w *witness) holders() []int {
	var pids []int
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	must(w.t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != w.path {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		must(w.t, err)
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hears waits for n bytes that the processes have written.
func (w *witness) hears(n int) string {
	w.t.Helper()
	must(w.t, w.pipe.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, n)
	for read := 0; read < n; {
		k, err := w.pipe.Read(buf[read:])
		must(w.t, err)
		read += k
	}
	return string(buf)
}

// opens lets one process go on that reads a line from the pipe.
func (w *witness) opens() {
	w.t.Helper()
	_, err := w.pipe.WriteString("go\n")
	must(w.t, err)
}

// gone waits until no process holds the pipe any more.
func (w *witness) gone() {
	w.t.Helper()
	reader, err := os.OpenFile(w.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	must(w.t, err)
	must(w.t, w.pipe.Close()) // from here on only the processes write
	defer func() { must(w.t, reader.Close()) }()
	must(w.t, reader.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1024)
	for {
		n, err := reader.Read(buf)
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) {
			return
		}
		w.t.Fatalf("processes are still there: %v", err)
	}
}
