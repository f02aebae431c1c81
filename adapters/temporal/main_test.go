//go:build linux

package temporaladapter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.uber.org/goleak"
)

// testServer is the address of the Temporal server of all tests but those that stop
// theirs. Tests keep apart by their prefixes and task queues.
var testServer string

// TestMain runs the tests, or, as a process of its own, a worker.
func TestMain(m *testing.M) {
	// The parent's death is told to the server by the thread that started it, so
	// that has to be one that lives as long as the process.
	runtime.LockOSThread()
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		if err := runWorker(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	status := runTests(m)
	if status == 0 {
		if err := findLeaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// findLeaks waits for goroutines to end. Temporal's SDK leaves some behind where a
// worker is stopped in the middle of a local activity: they look again when the
// workflow task's next heartbeat is due, which is 8 s after its begin.
func findLeaks() error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err := goleak.Find(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func runTests(m *testing.M) int {
	if testServer = os.Getenv("TASKBRIDGE_TEST_TEMPORAL"); testServer != "" {
		return m.Run() // one that runs already; the tests that kill theirs start one
	}
	dir, err := os.MkdirTemp("", "temporal")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := newServer(dir)
	if err == nil {
		err = server.start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer server.kill()
	testServer = server.address
	if err := os.Setenv("TASKBRIDGE_TEST_TEMPORAL", testServer); err != nil { // for the examples
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return m.Run()
}

// temporalServer is a Temporal server of its own over a file, which can be killed
// and comes back at the same address.
type temporalServer struct {
	dir, address string
	command      *exec.Cmd
}

func newServer(dir string) (*temporalServer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &temporalServer{dir: dir, address: listener.Addr().String()}, listener.Close()
}

// start starts it, again perhaps, and returns once it takes workflows.
func (s *temporalServer) start() error {
	path := os.Getenv("TASKBRIDGE_TEMPORAL_DEVSERVER")
	if path == "" {
		return errors.New("these tests need the Temporal server that \"make temporal-devserver\" builds, by its path in TASKBRIDGE_TEMPORAL_DEVSERVER")
	}
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	s.command = exec.Command(path, "-port", port, "-db", filepath.Join(s.dir, "temporal.db"))
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.command.Stderr = log
	stdout, err := s.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		return fmt.Errorf("start the Temporal server: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != s.address {
		s.kill()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the Temporal server says %q: %w\n%s", line, err, text)
	}
	return s.await()
}

// await returns once the namespace is known everywhere in the server.
func (s *temporalServer) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		c, err := client.DialContext(ctx, clientOptions(s.address))
		if err == nil {
			_, err = c.DescribeTaskQueue(ctx, "none", 1)
			c.Close()
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the Temporal server does not answer: %w", err)
		}
	}
}

// kill ends it as a power cut would.
func (s *temporalServer) kill() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait() // it says how it was killed
}

func clientOptions(address string) client.Options {
	return client.Options{HostPort: address, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))}
}

// number makes names that differ.
func number(n int64) string { return strconv.FormatInt(n, 10) }
