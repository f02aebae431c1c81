//go:build linux

package temporaladapter

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// patience is how long a test waits for something that must come.
const patience = 100 * time.Second

var owner = taskbridge.Principal{Subject: "owner"}

var names atomic.Int64

// newName returns a name that no other test has, of this run or another one.
func newName() string {
	return fmt.Sprintf("t%d-%d-%d", os.Getpid(), time.Now().UnixNano(), names.Add(1))
}

// fixture is a bridge over stores in memory with an executor over a real Temporal.
type fixture struct {
	t         testing.TB
	ctx       context.Context
	client    client.Client
	queue     string
	prefix    string
	store     *memory.Store
	stores    taskbridge.Stores
	lifecycle *taskbridge.LocalLifecycle
	executor  *Executor
	bridge    *taskbridge.Bridge
	log       *logBuffer
	keys      atomic.Int64
	there     bool // Temporal is never stopped
}

// fixtureOptions changes what newFixture makes; the zero value will do.
type fixtureOptions struct {
	address string
	// types are beside those of the workflows in work_test.go; their queue is
	// filled in.
	types      map[string]TypeOptions
	submission *taskbridge.SubmissionOptions
	change     func(*Options)
	connect    func(*client.Options)
}

// quick has the reconciler look at everything at once.
var quick = taskbridge.SubmissionOptions{
	Timeout: 20 * time.Second, Lease: 30 * time.Second, RetryMin: 20 * time.Millisecond,
	RetryMax: 200 * time.Millisecond, Silence: 100 * time.Millisecond,
}

// unwatched never looks at silent tasks, so that only the sweep finds ends.
var unwatched = taskbridge.SubmissionOptions{Timeout: 20 * time.Second, Silence: time.Hour}

func newFixture(t testing.TB, opts fixtureOptions) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	name := newName()
	f := &fixture{t: t, ctx: ctx, queue: name, prefix: name + "-", store: memory.NewStore(memory.Options{}), log: &logBuffer{}}
	f.stores = taskbridge.Stores{Tasks: f.store, Events: f.store}
	f.there = opts.address == ""
	address := testServer
	if opts.address != "" {
		address = opts.address
	}
	var err error
	connection := clientOptions(address)
	if opts.connect != nil {
		opts.connect(&connection)
	}
	f.client, err = client.NewLazyClient(connection)
	must(t, err)
	f.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: f.stores})
	must(t, err)
	types := map[string]TypeOptions{}
	for name := range works {
		types[name] = TypeOptions{}
	}
	for name, o := range opts.types {
		types[name] = o
	}
	routes := map[string]taskbridge.TaskExecutor{}
	for name, o := range types {
		o.TaskQueue = f.queue
		types[name] = o
	}
	submission := quick
	if opts.submission != nil {
		submission = *opts.submission
	}
	options := Options{
		Client: f.client, Lifecycle: f.lifecycle, Rows: f.store, Types: types, Prefix: f.prefix,
		SweepInterval: 200 * time.Millisecond, Submission: submission, Logger: f.logger(),
	}
	if f.there { // if slow
		options.StartTimeout = 20 * time.Second
	}
	if opts.change != nil {
		opts.change(&options)
	}
	f.executor, err = New(options)
	must(t, err)
	for name := range types {
		routes[name] = f.executor
	}
	router, err := taskbridge.NewExecutorRouter(routes)
	must(t, err)
	f.bridge, err = taskbridge.New(taskbridge.Options{
		Stores: f.stores, Executors: router, Submission: submission,
		Reconciliation: taskbridge.ReconciliationOptions{Interval: 20 * time.Millisecond}, Logger: f.logger(),
	})
	must(t, err)
	t.Cleanup(func() {
		cancel()
		must(t, f.executor.Close())
		f.bridge.Subscription.Close()
		f.client.Close()
		must(t, f.store.Close())
		if t.Failed() {
			t.Logf("log:\n%s", f.log)
		}
	})
	return f
}

// reconcile runs the reconciler until the test ends.
func (f *fixture) reconcile() *fixture {
	ctx, cancel := context.WithCancel(f.ctx)
	var running sync.WaitGroup
	running.Go(func() { f.bridge.Reconciler.Run(ctx) })
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

func (f *fixture) logger() *slog.Logger { return slog.New(slog.NewTextHandler(f.log, nil)) }

// work runs a worker in this process, with the plugin. It is stopped by stop, or
// when the test ends.
func (f *fixture) work() (stop func()) {
	f.t.Helper()
	p, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(f.t, err)
	return f.serve(worker.Options{Plugins: []worker.Plugin{p}})
}

// serve runs a worker with the options.
func (f *fixture) serve(options worker.Options) (stop func()) {
	f.t.Helper()
	w := worker.New(f.client, f.queue, options)
	register(w)
	must(f.t, w.Start())
	stop = sync.OnceFunc(w.Stop)
	f.t.Cleanup(stop)
	return stop
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
		ClientRequestID: number(f.keys.Add(1)), TaskType: taskType, Input: json.RawMessage(input),
	})
	must(f.t, err)
	if f.there && result.Task.Submission.State != taskbridge.SubmissionRecorded && !result.Task.Status.Terminal() {
		// A busy machine, and there may be no reconciler to go on with it.
		f.until("Temporal takes the task", func() bool { return f.executor.SubmitTask(f.ctx, result.Task) == nil })
	}
	return result.Task
}

func (f *fixture) cancel(task taskbridge.Task, reason string) {
	f.t.Helper()
	_, _, err := f.bridge.Cancellation.CancelTask(f.ctx, owner, task.ID, reason)
	must(f.t, err)
}

// signal sends a signal to the task's workflow.
func (f *fixture) signal(task taskbridge.Task, name string, arg any) {
	f.t.Helper()
	must(f.t, f.client.SignalWorkflow(f.ctx, f.prefix+task.ID, "", name, arg))
}

func (f *fixture) row(task taskbridge.Task) taskbridge.Task {
	f.t.Helper()
	row, err := f.store.GetTask(f.ctx, task.ID)
	must(f.t, err)
	return row
}

// end waits until the task has ended.
func (f *fixture) end(task taskbridge.Task) taskbridge.Task {
	f.t.Helper()
	row, err := f.bridge.Query.GetTask(f.ctx, owner, task.ID, 30*time.Second)
	for deadline := time.Now().Add(patience); err == nil && !row.Status.Terminal() && time.Now().Before(deadline); {
		row, err = f.bridge.Query.GetTask(f.ctx, owner, task.ID, 30*time.Second)
	}
	must(f.t, err)
	if !row.Status.Terminal() {
		f.t.Fatalf("task %s is still %s: %q", task.ID, row.Status, f.stream(task))
	}
	return row
}

// wantEnd waits for the end and checks that it is this failure, or with code "" a
// completion.
func (f *fixture) wantEnd(task taskbridge.Task, code string, retryable bool) taskbridge.Task {
	f.t.Helper()
	row := f.end(task)
	failure, failed := row.Failure()
	if code == "" && row.Status != taskbridge.StatusCompleted || code != "" && (!failed || failure.Code != code || failure.Retryable != retryable) {
		f.t.Fatalf("the task is %s %s, want %q, retryable %v; its stream is %q", row.Status, row.Terminal, code, retryable, f.stream(task))
	}
	return row
}

func (f *fixture) wantResult(task taskbridge.Task, want string) {
	f.t.Helper()
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != want {
		f.t.Fatalf("the result is %s, want %s", result, want)
	}
}

func (f *fixture) wantCancelled(task taskbridge.Task, reason string) taskbridge.Task {
	f.t.Helper()
	row := f.end(task)
	var payload struct{ Reason string }
	must(f.t, json.Unmarshal(row.Terminal, &payload))
	if row.Status != taskbridge.StatusCancelled || payload.Reason != reason {
		f.t.Fatalf("the task is %s %s, want CANCELLED for %q", row.Status, row.Terminal, reason)
	}
	return row
}

// stream returns the events, each as its type without the prefix and its payload.
func (f *fixture) stream(task taskbridge.Task) []string {
	f.t.Helper()
	events, err := f.store.ReadEvents(f.ctx, task.ID, 0, 1000)
	must(f.t, err)
	lines := []string{}
	for _, event := range events {
		lines = append(lines, fmt.Sprintf("%s %s", strings.TrimPrefix(string(event.Type), "TASK_"), event.Payload))
	}
	return lines
}

// wantStream checks the types of the events, as in "STARTED MESSAGE COMPLETED".
func (f *fixture) wantStream(task taskbridge.Task, want string) {
	f.t.Helper()
	if got := f.types(task); got != want {
		f.t.Fatalf("the stream is %q, want the types %s", f.stream(task), want)
	}
}

func (f *fixture) types(task taskbridge.Task) string {
	f.t.Helper()
	var types []string
	for _, line := range f.stream(task) {
		name, _, _ := strings.Cut(line, " ")
		types = append(types, name)
	}
	return strings.Join(types, " ")
}

// until looks again and again: for what has no event.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("not in time: %s", what)
		}
	}
}

// awaitStream waits until the stream has these types.
func (f *fixture) awaitStream(task taskbridge.Task, want string) {
	f.t.Helper()
	f.until("the stream is "+want, func() bool { return f.types(task) == want })
}

// receive takes from a channel, or fails.
func receive[T any](t testing.TB, what string, channel <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case value := <-channel:
		return value
	case <-timer.C:
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
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
