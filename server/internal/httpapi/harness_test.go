package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server on loopback over a store in memory. Tasks of the type
// "scripted" do nothing by themselves: a test reports through the lifecycle.
type fixture struct {
	*testing.T
	url       string
	client    *http.Client
	api       *API
	bridge    *taskbridge.Bridge
	lifecycle *taskbridge.LocalLifecycle
	store     *memory.Store
	executor  *fakes.ScriptedExecutor
	faults    *fakes.Faults
	log       *logBuffer
}

const scripted = "scripted"

func serve(t *testing.T, adjust ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{
		T: t, store: memory.NewStore(memory.Options{}), executor: fakes.NewScriptedExecutor(),
		faults: fakes.NewFaults(), log: &logBuffer{},
	}
	stores := fakes.WrapStores(taskbridge.Stores{Tasks: f.store, Events: f.store}, f.faults)
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{scripted: f.executor})
	must(t, err)
	f.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	must(t, err)
	// What the work reports comes by a way without faults.
	f.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: f.store, Events: f.store},
	})
	must(t, err)
	options := Options{
		Bridge:        f.bridge,
		Authenticator: Anyone(taskbridge.Principal{Subject: "local"}),
		Logger:        slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, change := range adjust {
		change(&options)
	}
	f.api, err = New(options)
	must(t, err)
	server := httptest.NewServer(f.api)
	f.url, f.client = server.URL, server.Client()
	t.Cleanup(func() {
		f.api.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := f.api.Wait(ctx); err != nil {
			t.Errorf("streams have not ended: %v", err)
		}
		f.client.CloseIdleConnections()
		server.Close()
		f.bridge.Subscription.Close()
	})
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logBuffer is a log that tests read and wait for.
type logBuffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	written chan struct{} // closed at the next write, if somebody waits
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written != nil {
		close(b.written)
		b.written = nil
	}
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// wait returns once the log has the text.
func (b *logBuffer) wait(t *testing.T, text string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		there := strings.Contains(b.buf.String(), text)
		if b.written == nil {
			b.written = make(chan struct{})
		}
		written := b.written
		b.mu.Unlock()
		if there {
			return
		}
		select {
		case <-written:
		case <-limit:
			t.Fatalf("the log never has %q: %s", text, b)
		}
	}
}

// reply is an answer with its body.
type reply struct {
	*http.Response
	body []byte
}

// do sends a request; header lines are "Name: value". A body of "" is none.
func (f *fixture) do(method, path, body string, header ...string) reply {
	f.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, f.url+path, reader)
	must(f.T, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if value == "" {
			r.Header.Del(name)
			continue
		}
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	response, err := f.client.Transport.RoundTrip(r) // no redirects are followed
	must(f.T, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	must(f.T, err)
	return reply{response, content}
}

// expect sends a request and decodes the JSON object that is answered.
func (f *fixture) expect(status int, method, path, body string, header ...string) map[string]any {
	f.Helper()
	r := f.do(method, path, body, header...)
	if r.StatusCode != status {
		f.Fatalf("%s %s: status %d, want %d: %s", method, path, r.StatusCode, status, r.body)
	}
	return r.object(f.T)
}

func (r reply) object(t *testing.T) map[string]any {
	t.Helper()
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	var object map[string]any
	if err := json.Unmarshal(r.body, &object); err != nil {
		t.Fatalf("the answer is no JSON object: %v: %s", err, r.body)
	}
	return object
}

// checkProblem checks the form of an error's answer and its code.
func (r reply) checkProblem(t *testing.T, status int, code string) map[string]any {
	t.Helper()
	object := r.object(t)
	if r.StatusCode != status || object["code"] != code {
		t.Fatalf("answered %d %s, want %d %s", r.StatusCode, r.body, status, code)
	}
	checkKeys(t, object, "code", "message", "details", "timestamp")
	details, ok := object["details"].(map[string]any)
	if !ok {
		t.Errorf("details %v", object["details"])
	}
	if object["message"] == "" {
		t.Error("no message")
	}
	checkTime(t, object["timestamp"])
	if r.Header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
	return details
}

// checkKeys checks that an object has exactly these members and no null.
func checkKeys(t *testing.T, object map[string]any, keys ...string) {
	t.Helper()
	slices.Sort(keys)
	if got := slices.Sorted(maps.Keys(object)); !slices.Equal(got, keys) {
		t.Errorf("members %v, want %v", got, keys)
	}
}

// checkTime checks a time on the wire: RFC 3339, Z, at most six fraction digits.
func checkTime(t *testing.T, value any) {
	t.Helper()
	text, _ := value.(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !strings.HasSuffix(text, "Z") || at.Truncate(time.Microsecond) != at {
		t.Errorf("time %v", value)
	}
	if age := time.Since(at); age < -time.Minute || age > time.Hour {
		t.Errorf("time %v is not now", value)
	}
}

var keys = struct {
	sync.Mutex
	n int
}{}

func newKey() string {
	keys.Lock()
	defer keys.Unlock()
	keys.n++
	return fmt.Sprintf("key-%d", keys.n)
}

// create makes a task of the type "scripted" and returns its id.
func (f *fixture) create() string {
	f.Helper()
	body := fmt.Sprintf(`{"clientRequestId":%q,"taskType":"scripted","input":{"n":1},"metadata":{"m":2}}`, newKey())
	return f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body)["taskId"].(string)
}

// start begins the work of a task. Its end or the test's releases it.
func (f *fixture) start(taskID string) taskbridge.Run {
	f.Helper()
	run, err := f.lifecycle.Start(context.Background(), taskID, taskbridge.Claim{ID: "claim"})
	must(f.T, err)
	f.Cleanup(func() {
		if err := run.Close(); err != nil {
			f.Error(err)
		}
	})
	return run
}

func (f *fixture) progress(run taskbridge.Run, percents ...float64) {
	f.Helper()
	for _, percent := range percents {
		must(f.T, run.Progress(context.Background(), taskbridge.Progress{Percent: percent}))
	}
}

func (f *fixture) complete(run taskbridge.Run, result string) {
	f.Helper()
	must(f.T, run.Complete(context.Background(), taskbridge.Completion{Result: json.RawMessage(result)}))
}

// finished makes a task that has completed: TASK_STARTED, one TASK_PROGRESS,
// TASK_COMPLETED.
func (f *fixture) finished() string {
	f.Helper()
	id := f.create()
	run := f.start(id)
	f.progress(run, 50)
	f.complete(run, `{"answer":42}`)
	return id
}

// events polls the whole stream.
func (f *fixture) events(taskID string) []map[string]any {
	f.Helper()
	page := f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+taskID+"/events?maxEvents=500", "")
	var events []map[string]any
	for _, event := range page["events"].([]any) {
		events = append(events, event.(map[string]any))
	}
	return events
}
