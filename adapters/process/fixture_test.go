//go:build linux

package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

var owner = taskbridge.Principal{Subject: "tester"}

// fixture is a bridge with this executor over stores in memory.
type fixture struct {
	t         testing.TB
	ctx       context.Context
	store     *memory.Store
	bridge    *taskbridge.Bridge
	executor  *Executor
	lifecycle *hookLifecycle
	clock     *heldClock
	log       *logBuffer
	keys      atomic.Int64
}

// newFixture makes a fixture whose executor runs the commands. Unless options
// say otherwise SIGKILL never comes: see heldClock.
func newFixture(t testing.TB, commands map[string]Command, change ...func(*Options)) *fixture {
	t.Helper()
	return newLimitedFixture(t, taskbridge.Limits{}, commands, change...)
}

func newLimitedFixture(t testing.TB, limits taskbridge.Limits, commands map[string]Command, change ...func(*Options)) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	f := &fixture{t: t, ctx: ctx, store: memory.NewStore(memory.Options{}), clock: newHeldClock(), log: &logBuffer{}}
	local, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: f.store, Events: f.store},
		Limits: limits,
	})
	must(t, err)
	f.lifecycle = &hookLifecycle{TaskLifecycle: local}
	opts := Options{
		Lifecycle:  f.lifecycle,
		InstanceID: "instance-1",
		Commands:   commands,
		StateDir:   filepath.Join(t.TempDir(), "state"),
		MaxRunning: 4,
		Grace:      graceHeld,
		Clock:      f.clock,
		Logger:     slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&opts)
	}
	f.executor, err = New(opts)
	must(t, err)
	routes := make(map[string]taskbridge.TaskExecutor)
	for taskType := range commands {
		routes[taskType] = f.executor
	}
	router, err := taskbridge.NewExecutorRouter(routes)
	must(t, err)
	f.bridge, err = taskbridge.New(taskbridge.Options{
		Stores:    taskbridge.Stores{Tasks: f.store, Events: f.store},
		Executors: router,
	})
	must(t, err)
	t.Cleanup(func() {
		// What a failed test left running is not waited for.
		if t.Failed() {
			cancel()
			t.Logf("log:\n%s", f.log)
		}
		if err := f.executor.Close(ctx); err != nil && !t.Failed() {
			t.Errorf("close: %v", err)
		}
		f.bridge.Subscription.Close()
		if left, err := os.ReadDir(opts.StateDir); err != nil || len(left) != 1 {
			t.Errorf("the state folder holds %v, %v", left, err)
		}
		must(t, f.store.Close())
		cancel()
	})
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) create(taskType, input string) taskbridge.Task {
	f.t.Helper()
	result, err := f.bridge.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{
		ClientRequestID: strconv.FormatInt(f.keys.Add(1), 10),
		TaskType:        taskType,
		Input:           json.RawMessage(input),
	})
	must(f.t, err)
	return result.Task
}

func (f *fixture) cancel(task taskbridge.Task, reason string) {
	f.t.Helper()
	_, _, err := f.bridge.Cancellation.CancelTask(f.ctx, owner, task.ID, reason)
	must(f.t, err)
}

func (f *fixture) row(task taskbridge.Task) taskbridge.Task {
	f.t.Helper()
	row, err := f.store.GetTask(f.ctx, task.ID)
	must(f.t, err)
	return row
}

// end waits until the task has ended and the executor has let go of it.
func (f *fixture) end(task taskbridge.Task) taskbridge.Task {
	f.t.Helper()
	row, err := f.bridge.Query.GetTask(f.ctx, owner, task.ID, patience)
	must(f.t, err)
	if !row.Status.Terminal() {
		f.t.Fatalf("task %s is still %s; log:\n%s", task.ID, row.Status, f.log)
	}
	f.until(deadline(), "the executor lets go of the task", func() bool {
		inspection, err := f.executor.InspectTask(f.ctx, task)
		must(f.t, err)
		return inspection.Knowledge == taskbridge.InspectionAbsent
	})
	return row
}

func deadline() time.Time { return time.Now().Add(patience) }

// until looks again and again: for what has no event.
func (f *fixture) until(deadline time.Time, what string, holds func() bool) {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			f.t.Fatalf("not in time: %s; log:\n%s", what, f.log)
		}
		<-tick.C
	}
}

// payload holds the keys of all payloads.
type payload struct {
	Type                  taskbridge.EventType `json:"-"`
	Progress              float64
	Stage, Message, Level string
	Code, Reason          string
	Retryable             bool
	Result                json.RawMessage
}

// events returns the stream so far.
func (f *fixture) events(task taskbridge.Task) []payload {
	f.t.Helper()
	var all []payload
	var after int64
	for {
		events, err := f.store.ReadEvents(f.ctx, task.ID, after, 1000)
		must(f.t, err)
		if len(events) == 0 {
			return all
		}
		for _, event := range events {
			p := payload{Type: event.Type}
			must(f.t, json.Unmarshal(event.Payload, &p))
			all = append(all, p)
			after = event.Sequence
		}
	}
}

// messages returns the texts of the task's messages.
func (f *fixture) messages(task taskbridge.Task) []string {
	f.t.Helper()
	var texts []string
	for _, event := range f.events(task) {
		if event.Type == taskbridge.EventMessage {
			texts = append(texts, event.Message)
		}
	}
	return texts
}

// message waits until the task has reported a message that begins with text and
// returns what follows it.
func (f *fixture) message(task taskbridge.Task, text string) string {
	f.t.Helper()
	var cursor taskbridge.Cursor
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for {
		page, err := f.bridge.Polling.PollEvents(ctx, owner, taskbridge.PollRequest{TaskID: task.ID, After: cursor, Wait: patience})
		must(f.t, err)
		for _, event := range page.Events {
			var p payload
			must(f.t, json.Unmarshal(event.Payload, &p))
			if rest, ok := cutPrefix(p.Message, text); ok && event.Type == taskbridge.EventMessage {
				return rest
			}
		}
		cursor = page.Next
		if len(page.Events) == 0 || page.Status.Terminal() {
			f.t.Fatalf("the task is %s and has not said %q; log:\n%s", page.Status, text, f.log)
		}
	}
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || s[:len(prefix)] != prefix {
		return "", false
	}
	return s[len(prefix):], true
}

// wantFailure checks that the task has failed.
func (f *fixture) wantFailure(row taskbridge.Task, code string, retryable bool) taskbridge.Failure {
	f.t.Helper()
	failure, ok := row.Failure()
	if !ok || failure.Code != code || failure.Retryable != retryable {
		f.t.Fatalf("the task is %s %s, want %s, retryable %v", row.Status, row.Terminal, code, retryable)
	}
	return failure
}

// script is a command that runs sh.
func script(text string) Command {
	return Command{Path: "/bin/sh", Args: []string{"-c", text}}
}

// helper is a command that runs a mode of this test binary.
func helper(mode string, args ...string) Command {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Command{Path: path, Args: append([]string{"helper", mode}, args...)}
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func describeEvents(events []payload) string { return fmt.Sprintf("%+v", events) }
