package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	goclient "github.com/taskbridge/taskbridge/core/client"
)

// startRedis starts a redis-server of the test's own and returns its address.
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
	for deadline := time.Now().Add(patience); client.Ping() != nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
	}
	return "redis-socket://" + socket
}

// startWorker starts the worker of the asynq example; stop asks it to end and
// waits for that.
func startWorker(t *testing.T, redis, server, queue, root string) (stop func()) {
	t.Helper()
	command := exec.Command(asynqWorkerCommand, "-redis", redis, "-server", server, "-queue", queue, "-root", root)
	log := newTranscript()
	command.Stderr = log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = command.Wait() // it is told by the tasks whether it did its work
		close(exited)
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("log of the worker with pid %d:\n%s", command.Process.Pid, log)
		}
	})
	return func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		<-exited
	}
}

// unusedAddress returns one that nobody listens on, for a server that comes back
// to where it was.
func unusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// sumOf is what the worker is to find: the SHA-256 of the list of all files below
// a folder, as sha256sum prints it.
func sumOf(t *testing.T, root, dir string) string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(root), dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	list := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(list, "%x  %s\n", sha256.Sum256(content), name) // a hash never fails
	}
	return fmt.Sprintf("%x", list.Sum(nil))
}

// ended is how a task ended, as a client that followed it saw it.
type ended struct {
	dir     string
	types   []taskbridge.EventType
	outcome goclient.Event
}

func TestTasksInAQueueOutliveServerAndWorker(t *testing.T) {
	redis, data := startRedis(t), t.TempDir()
	root := goSource(t)
	queue := fmt.Sprintf("e2e-%d", time.Now().UnixNano())
	address := unusedAddress(t)
	config := filepath.Join(data, "taskbridge.yaml")
	content := fmt.Sprintf("executors:\n  files: {kind: asynq, url: %q}\ntasks:\n  checksums: {executor: files, queue: %q, timeout: 5m}\n"+
		"submission: {silence: 2s}\n", redis, queue)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func() *server { return launch(t, data, "--config", config, "--listen", address) }
	s := serve()
	stopWorker := startWorker(t, redis, "http://"+address, queue, root)

	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	c, err := goclient.New(goclient.Options{URL: "http://" + address, Retry: goclient.Retry{MinDelay: 10 * time.Millisecond, MaxDelay: 200 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{"archive", "bufio", "bytes", "compress", "crypto", "debug", "encoding", "go", "image", "net", "os", "strconv", "unicode"}
	begun := make(chan struct{}, 1000)
	ends := make(chan ended, len(dirs))
	var clients sync.WaitGroup
	for _, dir := range dirs {
		created, err := c.Create(ctx, goclient.CreateRequest{ClientRequestID: dir, TaskType: "checksums", Input: map[string]string{"dir": dir}})
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			e := ended{dir: dir}
			for event, err := range c.Follow(ctx, created.TaskID, goclient.FollowOptions{}) {
				if err != nil {
					t.Errorf("%s: %v", dir, err)
					return
				}
				e.types, e.outcome = append(e.types, event.Type), event
				begun <- struct{}{}
			}
			ends <- e
		})
	}
	// Once something has been heard: the server dies and comes back, and another
	// worker takes the first one's place.
	<-begun
	s.kill()
	s = serve()
	stopWorker()
	startWorker(t, redis, "http://"+address, queue, root)
	clients.Wait()
	close(ends)
	n := 0
	for e := range ends {
		n++
		var result struct{ SHA256 string }
		var completed struct{ Result json.RawMessage }
		if err := errors.Join(json.Unmarshal(e.outcome.Payload, &completed), json.Unmarshal(completed.Result, &result)); err != nil || e.outcome.Type != taskbridge.EventCompleted {
			t.Errorf("%s ended with %s %s", e.dir, e.outcome.Type, e.outcome.Payload)
			continue
		}
		if want := sumOf(t, root, e.dir); result.SHA256 != want {
			t.Errorf("%s: %s, want %s", e.dir, result.SHA256, want)
		}
		if e.types[0] != taskbridge.EventStarted || slices.Contains(e.types[1:], taskbridge.EventStarted) {
			t.Errorf("%s: events %v", e.dir, e.types)
		}
	}
	if n != len(dirs) {
		t.Errorf("%d of %d tasks have ended", n, len(dirs))
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestATaskThatWaitsInAQueueIsCancelledAndNeverRun(t *testing.T) {
	redis, data := startRedis(t), t.TempDir()
	config := filepath.Join(data, "taskbridge.yaml")
	queue := fmt.Sprintf("e2e-%d", time.Now().UnixNano())
	content := fmt.Sprintf("executors:\n  files: {kind: asynq, url: %q}\ntasks:\n  checksums: {executor: files, queue: %q}\n", redis, queue)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, data, "--config", config)
	c, err := goclient.New(goclient.Options{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	created, err := c.Create(ctx, goclient.CreateRequest{TaskType: "checksums", Input: map[string]string{"dir": "."}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cancel(ctx, created.TaskID, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	row, err := c.Wait(ctx, created.TaskID)
	if err != nil || row.Status != taskbridge.StatusCancelled || row.CancelReason != "changed my mind" {
		t.Fatalf("%+v, %v", row, err)
	}
	option, err := asynq.ParseRedisURI(redis)
	if err != nil {
		t.Fatal(err)
	}
	inspector := asynq.NewInspector(option)
	defer func() { _ = inspector.Close() }()
	if _, err := inspector.GetTaskInfo(queue, created.TaskID); !errors.Is(err, asynq.ErrTaskNotFound) && !strings.Contains(fmt.Sprint(err), "not found") {
		t.Errorf("asynq still has it: %v", err)
	}
}
