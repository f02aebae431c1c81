package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// apiKey is what the host of the tests takes for the scope worker.
const apiKey = "the-hosts-own-key"

// impatient pauses shortly: nothing that the tests fail takes long to mend.
var impatient = remote.Retry{First: time.Millisecond, Most: 50 * time.Millisecond, MostAsked: 2 * time.Millisecond}

// patience bounds how long a test with a network may wait: far longer than
// anything takes.
const patience = 2 * time.Minute

// lab is a server over stores in memory, and a lifecycle that reaches it without
// a network. Its tests are in bubbles of testing/synctest: time passes by itself.
type lab struct {
	t         *testing.T
	ctx       context.Context
	stores    taskbridge.Stores
	local     *taskbridge.LocalLifecycle
	clock     *manualClock // of the tokens
	signer    *workerapi.Signer
	handler   http.Handler
	wire      *wire
	lifecycle *remote.Lifecycle
	tasks     int
}

// newLab makes a lab. The options' URL, HTTPClient, Credential and Retry are the
// lab's unless given.
func newLab(t *testing.T, opts remote.Options, local ...func(*taskbridge.LifecycleOptions)) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour) // of a bubble
	t.Cleanup(cancel)
	store := memory.NewStore(memory.Options{})
	options := taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}}
	for _, configure := range local {
		configure(&options)
	}
	l := &lab{t: t, ctx: ctx, stores: options.Stores, clock: newManualClock()}
	l.local, l.signer, l.handler = newServer(t, options, l.clock)
	l.wire = &wire{handler: l.handler}
	l.lifecycle = l.another(opts)
	return l
}

// another makes a lifecycle beside the lab's own.
func (l *lab) another(opts remote.Options) *remote.Lifecycle {
	l.t.Helper()
	if opts.URL == "" {
		opts.URL = "http://server.test"
		opts.HTTPClient = &http.Client{Transport: l.wire}
	}
	if opts.Credential == nil {
		opts.Credential = credential
	}
	if opts.Retry == (remote.Retry{}) {
		opts.Retry = impatient
	}
	lifecycle, err := remote.NewLifecycle(opts)
	l.must("NewLifecycle", err)
	return lifecycle
}

func credential(context.Context) (string, error) { return apiKey, nil }

// newServer makes the worker API over the stores of the options.
func newServer(t *testing.T, opts taskbridge.LifecycleOptions, clock taskbridge.Clock) (*taskbridge.LocalLifecycle, *workerapi.Signer, http.Handler) {
	t.Helper()
	local, err := taskbridge.NewLocalLifecycle(opts)
	if err != nil {
		t.Fatalf("NewLocalLifecycle: %v", err)
	}
	service, err := taskbridge.NewWorkerService(local)
	if err != nil {
		t.Fatalf("NewWorkerService: %v", err)
	}
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{bytes.Repeat([]byte("key "), 8)}, Clock: clock})
	if err != nil {
		t.Fatalf("NewSigner: %v", err)
	}
	handler, err := workerapi.NewHandler(workerapi.Options{
		Service: service, Lifecycle: local, Signer: signer,
		Authorize: func(r *http.Request) (bool, error) { return r.Header.Get("Authorization") == "Bearer "+apiKey, nil },
	})
	if err != nil {
		t.Fatalf("NewHandler: %v", err)
	}
	return local, signer, handler
}

// wire carries requests to the handler without a network.
type wire struct {
	handler http.Handler

	mu   sync.Mutex
	meet func(r *http.Request, body []byte) (*http.Response, error) // nil: nothing
	sent []sent
}

// sent is a request that reached the server.
type sent struct {
	at    time.Time
	route string
	body  []byte
}

// when makes every request meet something first; a response or an error of it
// is the answer.
func (w *wire) when(meet func(r *http.Request, body []byte) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.meet = meet
}

// requests returns those of the route that have reached the server so far.
func (w *wire) requests(route string) []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []sent
	for _, s := range w.sent {
		if s.route == route {
			all = append(all, s)
		}
	}
	return all
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	meet := w.meet
	w.mu.Unlock()
	if meet != nil {
		if response, err := meet(r, body); response != nil || err != nil {
			return response, err
		}
	}
	w.mu.Lock()
	w.sent = append(w.sent, sent{time.Now(), route(r), body})
	w.mu.Unlock()
	return w.serve(r, body)
}

// serve has the handler answer.
func (w *wire) serve(r *http.Request, body []byte) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return recorder.Result(), nil
}

// route is the last segment of the request's path.
func route(r *http.Request) string { return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] }

// answer makes a response.
func answer(status int, contentType, body string) *http.Response {
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Content-Type", contentType)
	recorder.WriteHeader(status)
	_, _ = recorder.WriteString(body)
	return recorder.Result()
}

// manualClock is a clock whose time passes when the test says so. Its timers are
// real ones.
type manualClock struct {
	taskbridge.SystemClock
	mu  sync.Mutex
	now time.Time
}

func newManualClock() *manualClock {
	return &manualClock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (l *lab) must(what string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// refused fails unless the error matches the wanted one.
func (l *lab) refused(what string, err, want error) {
	l.t.Helper()
	if !errors.Is(err, want) {
		l.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// task makes a row as the creation service leaves it once it is submitted.
func (l *lab) task() string {
	l.t.Helper()
	l.tasks++
	return newTask(l.ctx, l.t, l.stores.Tasks, fmt.Sprint(l.tasks))
}

func newTask(ctx context.Context, t *testing.T, tasks taskbridge.TaskRegistry, key string) string {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	row, _, err := tasks.CreateTask(ctx, taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", key), Owner: "owner", ClientRequestID: key, Fingerprint: "f", Type: "work",
		Input: json.RawMessage(`{"some":"<input>"}`), Metadata: json.RawMessage(`{"k":1}`),
		CreatedAt: now, UpdatedAt: now, Status: taskbridge.StatusAccepted,
		Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded, Tries: 1},
	})
	if err != nil {
		t.Fatalf("CreateTask: %v", err)
	}
	return row.ID
}

// start starts a run of a new task. It is closed with the test.
func (l *lab) start() (id string, run taskbridge.Run) {
	l.t.Helper()
	id = l.task()
	run, err := l.lifecycle.Start(l.ctx, id, taskbridge.Claim{ID: "claim"})
	l.must("Start", err)
	l.t.Cleanup(func() { _ = run.Close() }) // its own test asks for the error
	return id, run
}

func (l *lab) flush(run taskbridge.Run) {
	l.t.Helper()
	l.must("Flush", run.(remote.Flusher).Flush(l.ctx))
}

// requestCancel stores a client's wish for cancellation.
func (l *lab) requestCancel(taskID, reason string) {
	l.t.Helper()
	row, err := l.stores.Tasks.GetTask(l.ctx, taskID)
	l.must("GetTask", err)
	row.Cancellation = taskbridge.Cancellation{RequestedAt: row.UpdatedAt, Reason: reason}
	_, err = l.stores.Tasks.UpdateTask(l.ctx, row)
	l.must("UpdateTask", err)
}

// await waits for the channel.
func await[T any](l *lab, what string, c <-chan T) {
	l.t.Helper()
	select {
	case <-c:
	case <-l.ctx.Done():
		l.t.Fatalf("waited in vain for %s", what)
	}
}

// stream returns the task's events as lines: the type without TASK_, a space and
// the payload.
func (l *lab) stream(taskID string) []string {
	l.t.Helper()
	var lines []string
	for _, e := range readAll(l.ctx, l.t, l.stores.Events, taskID) {
		lines = append(lines, strings.TrimPrefix(string(e.Type), "TASK_")+" "+string(e.Payload))
	}
	return lines
}

func readAll(ctx context.Context, t *testing.T, events taskbridge.EventStore, taskID string) []taskbridge.Event {
	t.Helper()
	var all []taskbridge.Event
	for {
		page, err := events.ReadEvents(ctx, taskID, int64(len(all)), 1000)
		if err != nil {
			t.Fatalf("ReadEvents: %v", err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

func (l *lab) expect(taskID string, want ...string) {
	l.t.Helper()
	if got := l.stream(taskID); strings.Join(got, "\n") != strings.Join(want, "\n") {
		l.t.Errorf("the stream is\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestMain fails the package if a run leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if code == 0 && !settled() {
		code = 1
	}
	os.Exit(code)
}

// settled waits until no goroutine is in this package's code, and tells of those
// that are.
func settled() bool {
	var stacks string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		buf := make([]byte, 1<<20)
		stacks = string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "core/remote.(*run)") {
			return true
		}
	}
	fmt.Println("goroutines of runs are left:\n" + stacks)
	return false
}
