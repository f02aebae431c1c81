package k8sjob

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

var owner = taskbridge.Principal{Subject: "owner"}

// bridge is what a server is: services over stores in memory, which may be shared
// with another one, and an executor over the cluster.
type bridge struct {
	*cluster
	*taskbridge.Bridge
	store     *memory.Store
	lifecycle *taskbridge.LocalLifecycle
	executor  *Executor
	log       *logBuffer
	opts      bridgeOptions
	keys      *atomic.Int64
	close     func() // as a server that is shut down; the test's end calls it too
}

// bridgeOptions changes what newBridge makes; only types is required.
type bridgeOptions struct {
	types map[string]TypeOptions
	// submission is quick unless it is set.
	submission *taskbridge.SubmissionOptions
	change     func(*Options)
	// store is another bridge's; nil: one of its own.
	store *memory.Store
	// lifecycle is what the executor gets in the place of its own.
	lifecycle func(*taskbridge.LocalLifecycle) taskbridge.TaskLifecycle
	// unreconciled: the reconciler does not run.
	unreconciled bool
}

// quick has the reconciler look at everything at once.
var quick = taskbridge.SubmissionOptions{
	Timeout: 20 * time.Second, Lease: 30 * time.Second, RetryMin: 20 * time.Millisecond,
	RetryMax: 200 * time.Millisecond, Silence: 500 * time.Millisecond,
}

// newBridge makes a bridge and runs its reconciler.
func (c *cluster) newBridge(opts bridgeOptions) *bridge {
	c.t.Helper()
	b := &bridge{cluster: c, store: opts.store, log: &logBuffer{}, opts: opts, keys: &atomic.Int64{}}
	if b.store == nil {
		b.store = memory.NewStore(memory.Options{})
		c.t.Cleanup(func() { must(c.t, b.store.Close()) })
	}
	stores := taskbridge.Stores{Tasks: b.store, Events: b.store}
	var err error
	b.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	must(c.t, err)
	submission := quick
	if opts.submission != nil {
		submission = *opts.submission
	}
	client := c.newClient()
	options := Options{
		Client: client, Namespace: c.namespace, Lifecycle: b.lifecycle, Rows: b.store, Types: opts.types,
		Submission: submission, Logger: b.logger(),
	}
	if opts.lifecycle != nil {
		options.Lifecycle = opts.lifecycle(b.lifecycle)
	}
	if opts.change != nil {
		opts.change(&options)
	}
	b.executor, err = New(options)
	must(c.t, err)
	routes := map[string]taskbridge.TaskExecutor{}
	for name := range opts.types {
		routes[name] = b.executor
	}
	router, err := taskbridge.NewExecutorRouter(routes)
	must(c.t, err)
	b.Bridge, err = taskbridge.New(taskbridge.Options{
		Stores: stores, Executors: router, Submission: submission,
		Reconciliation: taskbridge.ReconciliationOptions{Interval: 50 * time.Millisecond}, Logger: b.logger(),
	})
	must(c.t, err)
	ctx, cancel := context.WithCancel(c.ctx)
	var reconciling sync.WaitGroup
	if !opts.unreconciled {
		reconciling.Go(func() { b.Reconciler.Run(ctx) })
	}
	b.close = sync.OnceFunc(func() {
		cancel()
		reconciling.Wait()
		must(c.t, b.executor.Close())
		b.Subscription.Close()
		closeConnections(client)
	})
	c.t.Cleanup(func() {
		b.close()
		if c.t.Failed() {
			c.t.Logf("log:\n%s", b.log)
		}
	})
	return b
}

// another makes a second bridge over the same stores, as of another server or of the
// same one started anew.
func (b *bridge) another() *bridge {
	b.t.Helper()
	opts := b.opts
	opts.store = b.store
	other := b.newBridge(opts)
	other.keys = b.keys
	return other
}

// newTypes makes the options of one type, "work", that takes the steps.
func (c *cluster) newTypes(steps ...string) map[string]TypeOptions {
	c.t.Helper()
	return map[string]TypeOptions{"work": {Template: c.template(steps, nil)}}
}

func (b *bridge) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// create creates a task of the type "work".
func (b *bridge) create(input string) taskbridge.Task {
	b.t.Helper()
	return b.createOf("work", input)
}

func (b *bridge) createOf(taskType, input string) taskbridge.Task {
	b.t.Helper()
	request := taskbridge.CreateTaskRequest{ClientRequestID: strconv.FormatInt(b.keys.Add(1), 10), TaskType: taskType}
	if input != "" {
		request.Input = json.RawMessage(input)
	}
	result, err := b.Creation.CreateTask(b.ctx, owner, request)
	must(b.t, err)
	return result.Task
}

func (b *bridge) cancel(task taskbridge.Task, reason string) {
	b.t.Helper()
	_, _, err := b.Cancellation.CancelTask(b.ctx, owner, task.ID, reason)
	must(b.t, err)
}

func (b *bridge) row(task taskbridge.Task) taskbridge.Task {
	b.t.Helper()
	row, err := b.store.GetTask(b.ctx, task.ID)
	must(b.t, err)
	return row
}

// end waits until the task has ended.
func (b *bridge) end(task taskbridge.Task) taskbridge.Task {
	b.t.Helper()
	row := b.row(task)
	var err error
	for deadline := time.Now().Add(patience); err == nil && !row.Status.Terminal() && time.Now().Before(deadline); {
		row, err = b.Query.GetTask(b.ctx, owner, task.ID, 10*time.Second)
	}
	must(b.t, err)
	if !row.Status.Terminal() {
		b.t.Fatalf("task %s is still %s: %q\n%s", task.ID, row.Status, b.stream(task), b.describe(task))
	}
	return row
}

// wantEnd waits for the end and checks that it is this failure, or with code "" a
// completion.
func (b *bridge) wantEnd(task taskbridge.Task, code string, retryable bool) taskbridge.Task {
	b.t.Helper()
	row := b.end(task)
	failure, failed := row.Failure()
	if code == "" && row.Status != taskbridge.StatusCompleted || code != "" && (!failed || failure.Code != code || failure.Retryable != retryable) {
		b.t.Fatalf("the task is %s %s, want %q, retryable %v; its stream is %q", row.Status, row.Terminal, code, retryable, b.stream(task))
	}
	return row
}

func (b *bridge) wantResult(task taskbridge.Task, want string) {
	b.t.Helper()
	row := b.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != want {
		b.t.Fatalf("the result is %s, want %s; the stream is %q", result, want, b.stream(task))
	}
}

func (b *bridge) wantCancelled(task taskbridge.Task, reason string) taskbridge.Task {
	b.t.Helper()
	row := b.end(task)
	var payload struct{ Reason string }
	must(b.t, json.Unmarshal(row.Terminal, &payload))
	if row.Status != taskbridge.StatusCancelled || payload.Reason != reason {
		b.t.Fatalf("the task is %s %s, want CANCELLED for %q", row.Status, row.Terminal, reason)
	}
	return row
}

// stream returns the events, each as its type without the prefix and its payload.
func (b *bridge) stream(task taskbridge.Task) []string {
	b.t.Helper()
	var lines []string
	for {
		events, err := b.store.ReadEvents(b.ctx, task.ID, int64(len(lines)), 1000)
		must(b.t, err)
		if len(events) == 0 {
			return lines
		}
		for _, event := range events {
			lines = append(lines, fmt.Sprintf("%s %s", strings.TrimPrefix(string(event.Type), "TASK_"), event.Payload))
		}
	}
}

// types returns the types of the events, as in "STARTED MESSAGE COMPLETED".
func (b *bridge) types(task taskbridge.Task) string {
	b.t.Helper()
	var types []string
	for _, line := range b.stream(task) {
		name, _, _ := strings.Cut(line, " ")
		types = append(types, name)
	}
	return strings.Join(types, " ")
}

func (b *bridge) wantStream(task taskbridge.Task, want string) {
	b.t.Helper()
	if got := b.types(task); got != want {
		b.t.Fatalf("the stream is %q, want the types %s", b.stream(task), want)
	}
}

// awaitStream waits until the stream has these types.
func (b *bridge) awaitStream(task taskbridge.Task, want string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	until(b.t, "the stream is "+want, func() bool {
		if time.Now().After(deadline.Add(-time.Second)) {
			b.t.Fatalf("the stream is %q, want the types %s\n%s", b.stream(task), want, b.describe(task))
		}
		return b.types(task) == want
	})
}

// job returns the task's Job.
func (b *bridge) job(task taskbridge.Task) *batchv1.Job {
	b.t.Helper()
	name := jobName(b.executor.Instance, task.ID)
	job, err := b.cluster.client.BatchV1().Jobs(b.namespace).Get(b.ctx, name, metav1.GetOptions{})
	must(b.t, err)
	return job
}

// pods returns the task's pods.
func (b *bridge) pods(task taskbridge.Task) []corev1.Pod {
	b.t.Helper()
	pods, err := b.cluster.client.CoreV1().Pods(b.namespace).List(b.ctx,
		metav1.ListOptions{LabelSelector: labelTask + "=" + hashOf(task.ID)})
	must(b.t, err)
	return pods.Items
}

// describe says what the cluster has of the task: for a test that fails.
func (b *bridge) describe(task taskbridge.Task) string {
	var text strings.Builder
	jobs, err := b.cluster.client.BatchV1().Jobs(b.namespace).List(b.ctx, metav1.ListOptions{LabelSelector: labelTask + "=" + hashOf(task.ID)})
	if err != nil {
		return err.Error()
	}
	for _, job := range jobs.Items {
		status, err := json.Marshal(job.Status)
		fmt.Fprintf(&text, "job %s %v: %s %v\n", job.Name, job.Annotations, status, err)
	}
	for _, pod := range b.pods(task) {
		status, err := json.Marshal(pod.Status)
		fmt.Fprintf(&text, "pod %s: %s %v\n", pod.Name, status, err)
	}
	return text.String()
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
