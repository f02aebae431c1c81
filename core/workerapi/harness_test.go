package workerapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

var (
	oldKey = []byte(strings.Repeat("old key ", 4))
	newKey = []byte(strings.Repeat("new key ", 4))
)

// hostKey is what the host of the tests takes for the scope worker.
const hostKey = "Bearer the-hosts-own-key"

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

// lab is a worker API over stores in memory, with the host's side of it.
type lab struct {
	t         *testing.T
	stores    taskbridge.Stores
	lifecycle *taskbridge.LocalLifecycle
	clock     *manualClock
	signer    *workerapi.Signer
	handler   http.Handler
	draining  chan struct{}
	logs      *logBuffer
	tasks     int
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func authorizeHost(r *http.Request) (bool, error) {
	switch r.Header.Get("Authorization") {
	case hostKey:
		return true, nil
	case "Bearer without-the-scope":
		return false, taskbridge.ErrForbidden
	case "Bearer cannot-be-checked":
		return false, io.ErrUnexpectedEOF
	}
	return false, nil
}

func newLab(t *testing.T, configure ...func(*taskbridge.LifecycleOptions, *workerapi.Options)) *lab {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	l := &lab{t: t, clock: newManualClock(), draining: make(chan struct{}), logs: &logBuffer{}}
	lifecycle := taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}}
	l.signer = l.newSigner(newKey, oldKey)
	opts := workerapi.Options{
		Signer: l.signer, Authorize: authorizeHost, Clock: l.clock, Draining: l.draining,
		Logger: slog.New(slog.NewTextHandler(l.logs, nil)),
	}
	for _, c := range configure {
		c(&lifecycle, &opts)
	}
	l.stores = lifecycle.Stores
	var err error
	l.lifecycle, err = taskbridge.NewLocalLifecycle(lifecycle)
	l.must(err)
	opts.Lifecycle = l.lifecycle
	opts.Service, err = taskbridge.NewWorkerService(l.lifecycle)
	l.must(err)
	l.handler, err = workerapi.NewHandler(opts)
	l.must(err)
	return l
}

func (l *lab) newSigner(keys ...[]byte) *workerapi.Signer {
	l.t.Helper()
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: keys, Clock: l.clock})
	l.must(err)
	return signer
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// task makes a row as the creation service leaves it once it is submitted.
func (l *lab) task() string {
	l.t.Helper()
	l.tasks++
	key := string(rune('a' + l.tasks))
	now := time.Now().UTC().Truncate(time.Microsecond)
	row, created, err := l.stores.Tasks.CreateTask(l.t.Context(), taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", key), Owner: "owner", ClientRequestID: key, Fingerprint: "f", Type: "work",
		Input: json.RawMessage(`{"some":"<input>"}`), Metadata: json.RawMessage(`{"k":1}`),
		CreatedAt: now, UpdatedAt: now, Status: taskbridge.StatusAccepted,
		Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded, Tries: 1},
	})
	l.must(err)
	if !created {
		l.t.Fatal("the task was there already")
	}
	return row.ID
}

// edit changes a row, over conflicts.
func (l *lab) edit(id string, f func(*taskbridge.Task)) {
	l.t.Helper()
	row := l.row(id)
	f(&row)
	_, err := l.stores.Tasks.UpdateTask(l.t.Context(), row)
	l.must(err)
}

func (l *lab) requestCancel(id string) {
	l.t.Helper()
	l.edit(id, func(row *taskbridge.Task) {
		row.Cancellation = taskbridge.Cancellation{RequestedAt: row.UpdatedAt, Reason: "enough"}
	})
}

func (l *lab) row(id string) taskbridge.Task {
	l.t.Helper()
	row, err := l.stores.Tasks.GetTask(context.WithoutCancel(l.t.Context()), id)
	l.must(err)
	return row
}

// stream is the events of a task, each its type and payload.
func (l *lab) stream(id string) []string {
	l.t.Helper()
	events, err := l.stores.Events.ReadEvents(l.t.Context(), id, 0, 100_000)
	l.must(err)
	all := make([]string, len(events))
	for i, e := range events {
		l.must(taskbridge.ValidatePayload(e.Type, e.Payload))
		all[i] = string(e.Type) + " " + string(e.Payload)
	}
	return all
}

// wantStream fails unless the task's events are these.
func (l *lab) wantStream(id string, want ...string) {
	l.t.Helper()
	if got := strings.Join(l.stream(id), "\n\t"); got != strings.Join(want, "\n\t") {
		l.t.Errorf("the stream is\n\t%s\nwant\n\t%s", got, strings.Join(want, "\n\t"))
	}
}

// reply is an answer that has been read.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// request makes a request: the body is nil, a string, or encoded.
func (l *lab) request(method, path, authorization string, body any) *http.Request {
	l.t.Helper()
	var reader io.Reader = http.NoBody
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		l.must(err)
		reader = bytes.NewReader(data)
	}
	r := httptest.NewRequestWithContext(l.t.Context(), method, path, reader)
	if body != nil {
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func (l *lab) serve(r *http.Request) reply {
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r)
	return reply{l.t, w.Code, w.Header(), w.Body.Bytes()}
}

func (l *lab) post(id, route, authorization string, body any) reply {
	l.t.Helper()
	return l.serve(l.request("POST", workerapi.BasePath+id+"/"+route, authorization, body))
}

func (l *lab) get(id, route, authorization string) reply {
	l.t.Helper()
	return l.serve(l.request("GET", workerapi.BasePath+id+"/"+route, authorization, nil))
}

// decode reads an answer of 200 strictly.
func decode[T any](r reply) T {
	r.t.Helper()
	if r.status != http.StatusOK {
		r.t.Fatalf("%d %s, want 200", r.status, r.body)
	}
	var value T
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		r.t.Fatalf("%s: %v", r.body, err)
	}
	return value
}

// problem checks the answer of an error and returns its details.
func (r reply) problem(status int, code string) map[string]any {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%d %s, want %d %s", r.status, r.body, status, code)
	}
	var members map[string]any
	if err := json.Unmarshal(r.body, &members); err != nil {
		r.t.Fatalf("%s: %v", r.body, err)
	}
	details, ok := members["details"].(map[string]any)
	timestamp, _ := members["timestamp"].(string)
	_, err := time.Parse(time.RFC3339, timestamp)
	if members["code"] != code || members["message"] == "" || !ok || err != nil || len(members) != 4 {
		r.t.Fatalf("%s, want the code %s", r.body, code)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		r.t.Errorf("content type %q", got)
	}
	if r.header.Get("Cache-Control") != "no-store" {
		r.t.Errorf("Cache-Control is %q", r.header.Get("Cache-Control"))
	}
	if got := r.header.Get("Retry-After"); status != http.StatusTooManyRequests && (got == "1") != (status == http.StatusServiceUnavailable) {
		r.t.Errorf("Retry-After is %q", got)
	}
	if got := r.header.Get("WWW-Authenticate"); (got == "Bearer") != (status == http.StatusUnauthorized) {
		r.t.Errorf("WWW-Authenticate is %q", got)
	}
	return details
}

func bearer(token string) string { return "Bearer " + token }

// submission is the Authorization header with the task's submission token.
func (l *lab) submission(id string) string {
	l.t.Helper()
	token, err := l.signer.SubmissionToken(id)
	l.must(err)
	return bearer(token)
}

func (l *lab) start(id, claim string) workerapi.StartResponse {
	l.t.Helper()
	return decode[workerapi.StartResponse](l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: claim}))
}

// running makes a task and starts it.
func (l *lab) running() (id, authorization string) {
	l.t.Helper()
	id = l.task()
	return id, bearer(l.start(id, "claim").Token)
}

func (l *lab) report(id, authorization string, first int64, reports ...workerapi.Report) reply {
	l.t.Helper()
	return l.post(id, "reports", authorization, workerapi.ReportsRequest{FirstOrdinal: first, Reports: reports})
}

func token(text string) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportToken, Text: text}
}

func message(text string) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportMessage, Message: text}
}

func progress(percent float64) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportProgress, Progress: &percent}
}

func complete(result string) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportComplete, Result: json.RawMessage(result)}
}
