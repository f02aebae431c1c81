//go:build linux

package asynqadapter

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// patience is how long a test waits for something that must come. A task that
// begins before its submission is recorded is not inspected for a minute, whatever
// the options say.
const patience = 3 * time.Minute

var owner = taskbridge.Principal{Subject: "owner"}

var queueNames atomic.Int64

// newQueue returns the name of a queue that no other test has, and deletes all that
// it has left in the end.
func newQueue(t testing.TB, connection asynq.RedisClientOpt) string {
	t.Helper()
	queue := fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), queueNames.Add(1))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		client := connection.MakeRedisClient().(*redis.Client)
		defer func() { must(t, client.Close()) }()
		keys := client.Scan(ctx, 0, "asynq:{"+queue+"}:*", 1000).Iterator()
		for keys.Next(ctx) {
			must(t, client.Del(ctx, keys.Val()).Err())
		}
		must(t, keys.Err())
		must(t, client.SRem(ctx, "asynq:queues", queue).Err())
	})
	return queue
}

// fixture is a bridge over stores in memory with an executor over a real Redis.
type fixture struct {
	t          testing.TB
	ctx        context.Context
	connection asynq.RedisClientOpt
	queue      string
	store      *memory.Store
	stores     taskbridge.Stores
	lifecycle  taskbridge.TaskLifecycle
	executor   *Executor
	bridge     *taskbridge.Bridge
	inspector  *asynq.Inspector
	redis      *redis.Client
	log        *logBuffer
	keys       atomic.Int64
}

// fixtureOptions changes what newFixture makes; the zero value will do.
type fixtureOptions struct {
	connection *asynq.RedisClientOpt
	// types are beside "work", which has three retries; their queue is filled in.
	types      map[string]TypeOptions
	submission *taskbridge.SubmissionOptions
	change     func(*Options)
	// between stands before the worker API.
	between func(http.Handler) http.Handler
	limit   time.Duration // of the whole test; default 5 min
}

// quick has the reconciler look at everything at once.
var quick = taskbridge.SubmissionOptions{
	Timeout: 10 * time.Second, Lease: 20 * time.Second, RetryMin: 10 * time.Millisecond,
	RetryMax: 50 * time.Millisecond, Silence: 20 * time.Millisecond,
}

func newFixture(t testing.TB, opts fixtureOptions) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(opts.limit, 5*time.Minute))
	f := &fixture{t: t, ctx: ctx, connection: testRedis, store: memory.NewStore(memory.Options{}), log: &logBuffer{}}
	if opts.connection != nil {
		f.connection = *opts.connection
	}
	f.stores = taskbridge.Stores{Tasks: f.store, Events: f.store}
	f.queue = newQueue(t, f.connection)
	var err error
	f.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: f.stores})
	must(t, err)
	types := map[string]TypeOptions{"work": {MaxRetry: 3}}
	for name, o := range opts.types {
		types[name] = o
	}
	routes := map[string]taskbridge.TaskExecutor{}
	for name, o := range types {
		o.Queue = f.queue
		types[name] = o
	}
	options := Options{Redis: f.connection, Lifecycle: f.lifecycle, Types: types, Logger: f.logger()}
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
	submission := quick
	if opts.submission != nil {
		submission = *opts.submission
	}
	f.bridge, err = taskbridge.New(taskbridge.Options{
		Stores: f.stores, Executors: router, Submission: submission,
		Reconciliation: taskbridge.ReconciliationOptions{Interval: 10 * time.Millisecond}, Logger: f.logger(),
	})
	must(t, err)
	f.inspector = asynq.NewInspector(f.connection)
	f.redis = f.connection.MakeRedisClient().(*redis.Client)
	t.Cleanup(func() {
		cancel()
		f.bridge.Subscription.Close()
		must(t, f.executor.Close())
		must(t, f.inspector.Close())
		must(t, f.redis.Close())
		must(t, f.store.Close())
		if t.Failed() {
			t.Logf("log:\n%s", f.log)
		}
	})
	return f
}

// reconcile runs the reconciler until the test ends.
func (f *fixture) reconcile() {
	ctx, cancel := context.WithCancel(f.ctx)
	var running sync.WaitGroup
	running.Go(func() { f.bridge.Reconciler.Run(ctx) })
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (f *fixture) logger() *slog.Logger { return slog.New(slog.NewTextHandler(f.log, nil)) }

// serverConfig is of a server that loses no time.
func serverConfig(queue string) asynq.Config {
	return asynq.Config{
		Concurrency:              4,
		Queues:                   map[string]int{queue: 1},
		TaskCheckInterval:        5 * time.Millisecond,
		DelayedTaskCheckInterval: 10 * time.Millisecond,
		RetryDelayFunc:           func(int, error, *asynq.Task) time.Duration { return 0 },
		ShutdownTimeout:          50 * time.Millisecond,
		LogLevel:                 asynq.FatalLevel,
	}
}

// serve runs an asynq server in this process with a handler for all types. It is
// shut down by stop, or when the test ends.
func (f *fixture) serve(handler asynq.Handler, change ...func(*asynq.Config)) (stop func()) {
	f.t.Helper()
	return serve(f.t, f.connection, f.queue, handler, change...)
}

func serve(t testing.TB, connection asynq.RedisConnOpt, queue string, handler asynq.Handler, change ...func(*asynq.Config)) (stop func()) {
	t.Helper()
	config := serverConfig(queue)
	for _, c := range change {
		c(&config)
	}
	server := asynq.NewServer(connection, config)
	must(t, server.Start(handler))
	stop = sync.OnceFunc(server.Shutdown)
	t.Cleanup(stop)
	return stop
}

// worker makes a handler over the fixture's lifecycle.
func (f *fixture) worker(work HandlerFunc) asynq.Handler {
	f.t.Helper()
	worker, err := NewWorker(WorkerOptions{Lifecycle: f.lifecycle, Logger: f.logger()})
	must(f.t, err)
	return worker.Handle(work)
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
		ClientRequestID: strconv.FormatInt(f.keys.Add(1), 10), TaskType: taskType, Input: json.RawMessage(input),
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

// end waits until the task has ended.
func (f *fixture) end(task taskbridge.Task) taskbridge.Task {
	f.t.Helper()
	row, err := f.bridge.Query.GetTask(f.ctx, owner, task.ID, 30*time.Second)
	for deadline := time.Now().Add(patience); err == nil && !row.Status.Terminal() && time.Now().Before(deadline); {
		row, err = f.bridge.Query.GetTask(f.ctx, owner, task.ID, 30*time.Second)
	}
	must(f.t, err)
	if !row.Status.Terminal() {
		f.t.Fatalf("task %s is still %s", task.ID, row.Status)
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
	var types []string
	for _, line := range f.stream(task) {
		name, _, _ := strings.Cut(line, " ")
		types = append(types, name)
	}
	if got := strings.Join(types, " "); got != want {
		f.t.Fatalf("the stream is %q, want the types %s", f.stream(task), want)
	}
}

// until looks again and again: for what has no event.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("not in time: %s", what)
		}
	}
}

// state is asynq's word for what it has of the task, "" where that is nothing.
func (f *fixture) state(task taskbridge.Task) string {
	f.t.Helper()
	info, err := f.executor.find(f.ctx, task)
	must(f.t, err)
	if info == nil {
		return ""
	}
	return info.State.String()
}

func (f *fixture) awaitState(task taskbridge.Task, state string) {
	f.t.Helper()
	f.until("asynq has the task "+state, func() bool { return f.state(task) == state })
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
