package e2e

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/core/client"
)

// local is a server beside the cluster: taskbridge serve, a process of its own.
type local struct {
	url     string
	process *exec.Cmd
	ended   chan struct{}
	err     error
	killed  atomic.Bool
	log     lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServer starts a server with the configuration taskbridge.yaml of a folder, into
// which the files are written first. With reports, pods reach its worker API by way of
// the address that this machine has for them.
func startServer(t *testing.T, dir string, files map[string]string, reports bool) *local {
	t.Helper()
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	address := filepath.Join(dir, "address")
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	args := []string{
		"serve", "--config", filepath.Join(dir, "taskbridge.yaml"), "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--listen-file", address,
	}
	var way *service
	if reports {
		way = serve(t)
		args = append(args, "--worker-url", way.url(), "--http-allowed-hosts", os.Getenv(envAddress))
	}
	s := &local{process: exec.Command(build(t, "server", "cmd/taskbridge"), args...), ended: make(chan struct{})}
	s.process.Stderr = &s.log
	must(t, s.process.Start())
	go func() {
		defer close(s.ended)
		s.err = s.process.Wait()
	}()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("the server says:\n%s", s.log.String())
		}
	})
	until(t, "the server listens", func() (bool, string) {
		content, err := os.ReadFile(address)
		s.url = strings.TrimSpace(string(content))
		select {
		case <-s.ended:
			t.Fatalf("the server has ended: %v\n%s", s.err, s.log.String())
		default:
		}
		return err == nil && s.url != "", s.log.String()
	})
	if _, _, err := net.SplitHostPort(s.url); err == nil {
		s.url = "http://" + s.url
	}
	if way != nil {
		way.lead(strings.TrimPrefix(s.url, "http://"))
	}
	return s
}

// stop ends the server in good order. It may be called again.
func (s *local) stop(t *testing.T) {
	t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		t.Errorf("the server does not end:\n%s", s.log.String())
		_ = s.process.Process.Kill()
		<-s.ended
	}
	if s.err != nil && !s.killed.Load() {
		t.Errorf("the server ended with %v:\n%s", s.err, s.log.String())
	}
}

// kill ends the server as a power cut would, and returns once it is gone.
func (s *local) kill() {
	s.killed.Store(true)
	_ = s.process.Process.Kill() // it may have ended
	<-s.ended
}

func (s *local) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: s.url})
	must(t, err)
	return c
}
