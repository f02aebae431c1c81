//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"

	temporaladapter "github.com/taskbridge/taskbridge/adapters/temporal"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startTemporal starts the Temporal server of the tests and returns its address.
func startTemporal(t *testing.T) string {
	t.Helper()
	path := os.Getenv("TASKBRIDGE_TEMPORAL_DEVSERVER")
	if path == "" {
		t.Fatal(`this test needs the Temporal server that "make temporal-devserver" builds, by its path in TASKBRIDGE_TEMPORAL_DEVSERVER`)
	}
	command := exec.Command(path, "-port", "0", "-db", filepath.Join(t.TempDir(), "temporal.db"))
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it says how it was killed
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	address = strings.TrimSpace(address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		c, err := client.DialContext(ctx, client.Options{HostPort: address})
		if err == nil {
			_, err = c.DescribeTaskQueue(ctx, "none", 1)
			c.Close()
		}
		if err == nil {
			return address
		}
		if ctx.Err() != nil {
			t.Fatalf("the Temporal server does not answer: %v", err)
		}
	}
}

// newBridge is a host of TaskBridge that hands checksums to Temporal; workers report
// to the URL.
func newBridge(t *testing.T, address string) (bridge *taskbridge.Bridge, url string) {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	must(t, err)
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{bytes.Repeat([]byte("key "), 8)}})
	must(t, err)
	service, err := taskbridge.NewWorkerService(lifecycle)
	must(t, err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	must(t, err)
	server := httptest.NewServer(handler)
	c, err := client.NewLazyClient(client.Options{HostPort: address})
	must(t, err)
	executor, err := temporaladapter.New(temporaladapter.Options{
		Client: c, Lifecycle: lifecycle, Rows: store, Tokens: signer,
		Types: map[string]temporaladapter.TypeOptions{"checksums": {TaskQueue: "checksums", ExecutionTimeout: time.Hour}},
	})
	must(t, err)
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"checksums": executor})
	must(t, err)
	bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	must(t, err)
	t.Cleanup(func() {
		bridge.Subscription.Close()
		must(t, executor.Close())
		c.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return bridge, server.URL
}

// ask makes a task and returns its events once it has ended.
func ask(t *testing.T, bridge *taskbridge.Bridge, dir string) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	me := taskbridge.Principal{Subject: "me"}
	input, err := json.Marshal(map[string]string{"dir": dir})
	must(t, err)
	created, err := bridge.Creation.CreateTask(ctx, me, taskbridge.CreateTaskRequest{ClientRequestID: dir, TaskType: "checksums", Input: input})
	must(t, err)
	var cursor taskbridge.Cursor
	for {
		page, err := bridge.Polling.PollEvents(ctx, me, taskbridge.PollRequest{TaskID: created.Task.ID, After: cursor, Wait: 10 * time.Second})
		if err != nil {
			t.Fatalf("%v; the task's events are %q", err, lines)
		}
		for _, event := range page.Events {
			lines = append(lines, fmt.Sprintf("%s %s", event.Type, event.Payload))
			if event.Type.Terminal() {
				return lines
			}
		}
		cursor = page.Next
		if ctx.Err() != nil {
			t.Fatalf("the task has not ended; its events are %q", lines)
		}
	}
}

func TestTheWorkflowSumsWhatIsAskedFor(t *testing.T) {
	address := startTemporal(t)
	bridge, url := newBridge(t, address)
	root := t.TempDir()
	for i := range 120 {
		name := filepath.Join(root, "doc", fmt.Sprintf("d%d", i%7), fmt.Sprintf("f %d", i))
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must(t, os.WriteFile(name, bytes.Repeat([]byte("x"), i), 0o600))
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		if err := run(ctx, settings{temporal: address, namespace: "default", server: url, queue: "checksums", root: root}); err != nil {
			t.Errorf("the worker returns %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		working.Wait()
	})

	lines := ask(t, bridge, "doc")
	last, ok := strings.CutPrefix(lines[len(lines)-1], "TASK_COMPLETED ")
	var payload struct{ Result Summary }
	if err := json.Unmarshal([]byte(last), &payload); !ok || err != nil {
		t.Fatalf("the task's events are %q", lines)
	}
	command := exec.Command("bash", "-c", `cd "$1" && find doc -type f -print0 | LC_ALL=C sort -z | xargs -0 -n 50 sh -c 'sha256sum "$@" | sha256sum | cut -d" " -f1' sh | tr -d '\n' | sha256sum`, "bash", root)
	want, err := command.Output()
	must(t, err)
	if payload.Result.SHA256 != strings.Fields(string(want))[0] || payload.Result.Files != 120 || payload.Result.Bytes != 120*119/2 {
		t.Errorf("the result is %+v, sha256sum says %s", payload.Result, want)
	}
	var types []string
	for _, line := range lines {
		types = append(types, strings.Fields(line)[0])
	}
	if got := strings.Join(types, " "); got != "TASK_STARTED TASK_MESSAGE TASK_PROGRESS TASK_PROGRESS TASK_PROGRESS TASK_COMPLETED" {
		t.Errorf("the task's events are %q", lines)
	}
	for dir, code := range map[string]string{"nothing": "NO_SUCH_FOLDER", "../elsewhere": "INVALID_INPUT"} {
		lines := ask(t, bridge, dir)
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, `TASK_FAILED {"code":"`+code+`"`) {
			t.Errorf("%s: the task's events are %q", dir, lines)
		}
	}
}
