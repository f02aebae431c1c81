//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// startRedis starts a redis-server, or takes the tests' own, and returns its URI.
func startRedis(t *testing.T) string {
	t.Helper()
	if uri := os.Getenv("TASKBRIDGE_TEST_REDIS"); uri != "" {
		return uri
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "redis.sock")
	command := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "")
	if err := command.Start(); err != nil {
		t.Fatalf("this test needs redis-server (Debian: apt-get install redis-server): %v", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it says how it was killed
	})
	client := asynq.NewClient(asynq.RedisClientOpt{Network: "unix", Addr: socket})
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); client.Ping() != nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
	}
	return "redis-socket://" + socket
}

// freeAddress returns one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestTheWorkerDoesWhatTheHostAsksFor(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", host, "./host").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	redis, address, queue := startRedis(t), freeAddress(t), fmt.Sprintf("example-%d", time.Now().UnixNano())
	root := t.TempDir()
	for i := range 150 {
		name := filepath.Join(root, "doc", fmt.Sprintf("d%d", i%7), fmt.Sprintf("f %d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte("x"), i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, settings{redis: redis, server: "http://" + address, queue: queue, root: root, concurrency: 2})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the worker returns %v", err)
		}
	}()
	ask := func(dir string) []string {
		command := exec.Command(host, "-redis", redis, "-listen", address, "-queue", queue, dir)
		command.Stderr = os.Stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}

	lines := ask("doc")
	last, ok := strings.CutPrefix(lines[len(lines)-1], "TASK_COMPLETED ")
	var payload struct{ Result summary }
	if err := json.Unmarshal([]byte(last), &payload); !ok || err != nil {
		t.Fatalf("the task's events are %q", lines)
	}
	command := exec.Command("sh", "-c", `cd "$1" && find doc -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`, "sh", root)
	want, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	if payload.Result.SHA256 != strings.Fields(string(want))[0] || payload.Result.Files != 150 || payload.Result.Bytes != 150*149/2 {
		t.Errorf("the result is %+v, sha256sum says %s", payload.Result, want)
	}
	if lines[0] != "TASK_STARTED {}" || !strings.HasPrefix(lines[len(lines)-2], "TASK_PROGRESS ") {
		t.Errorf("the task's events are %q", lines)
	}

	for dir, code := range map[string]string{"nothing": "NO_SUCH_FOLDER", "../elsewhere": "INVALID_INPUT"} {
		lines := ask(dir)
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, `TASK_FAILED {"code":"`+code+`"`) {
			t.Errorf("%s: the task's events are %q", dir, lines)
		}
	}
}

func TestAnAddressThatIsNoneIsRefusedWithoutItsPassword(t *testing.T) {
	err := run(t.Context(), settings{redis: "redis://:secret@host:port/0", server: "http://127.0.0.1:1", root: t.TempDir()})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the worker says %v", err)
	}
}
