package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
	"github.com/taskbridge/taskbridge/fakes"
	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

// workerKey is the key that the servers of these tests sign tokens with.
const workerKey = "the key that signs what workers hold"

// webhookSecret signs what is posted to workers.
const webhookSecret = "the secret of the worker and its server"

// posted is a message as the worker's address got it.
type posted struct {
	Type string
	Data struct{ TaskID, TaskType, Owner, URL, Token, Reason, Traceparent string }
}

// workshop is a server that hands tasks of the type "work" to a worker's address,
// where the test does the work by hand.
type workshop struct {
	*instance
	ring     keyring
	messages chan posted
	signer   *workerapi.Signer
	tasks    int
}

// openWorkshop starts the server, with keys of the client, of a worker and of
// whoever else is named.
func openWorkshop(t *testing.T, open opener, args ...string) *workshop {
	t.Helper()
	w := &workshop{messages: make(chan posted, 100), signer: signerAt(t, workerKey, time.Now)}
	address := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.take(t, body)
	}))
	t.Cleanup(address.Close)
	file := filepath.Join(t.TempDir(), "taskbridge.yaml")
	content := fmt.Sprintf("executors: {hook: {kind: webhook, url: %q, secret: %q}}\ntasks: {work: {executor: hook}}\n", address.URL, webhookSecret)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ring = newKeyring(t,
		auth.KeyEntry{ID: "client", Subject: "alice", Scopes: both()},
		auth.KeyEntry{ID: "worker", Subject: "worker", Scopes: []taskbridge.Scope{taskbridge.ScopeWorker}},
		auth.KeyEntry{ID: "everything but worker", Subject: "root", Scopes: append(both(), taskbridge.ScopeAdmin)},
		auth.KeyEntry{ID: "expired worker", Subject: "worker", Scopes: []taskbridge.Scope{taskbridge.ScopeWorker}, ExpiresAt: time.Now().Add(-time.Minute)},
	)
	w.instance = startServer(t, load(t, append([]string{
		"--store", "memory", "--config", file, "--worker-keys", workerKey, "--metrics-listen", "127.0.0.1:0", "--log-level", "debug",
		"--auth-modes", "apikey", "--auth-api-keys-file", w.ring.file, "--rate-limit-requests-per-second", "0", "--rate-limit-creates-per-second", "0",
	}, args...)...), open)
	return w
}

// take checks a message against the document and passes it on.
func (w *workshop) take(t *testing.T, body []byte) {
	c, err := contract()
	if err == nil {
		err = c.CheckSchema("WorkerMessage", body)
	}
	var m posted
	if err = errors.Join(err, json.Unmarshal(body, &m)); err != nil {
		t.Errorf("%s is not as the document says: %v", body, err)
	}
	w.messages <- m
}

func signerAt(t *testing.T, key string, now func() time.Time) *workerapi.Signer {
	t.Helper()
	s, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(key)}, Clock: clockAt{now: now}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// clockAt tells another time.
type clockAt struct {
	taskbridge.SystemClock
	now func() time.Time
}

func (c clockAt) Now() time.Time { return c.now() }

// submit creates a task and returns what its worker is sent.
func (w *workshop) submit() posted {
	w.t.Helper()
	w.tasks++
	status, row := w.exchange("POST", "/api/v1/tasks", bearer(w.ring.keys["client"]),
		fmt.Sprintf(`{"clientRequestId":"k%d","taskType":"work","input":{"n":[1.50]},"metadata":{"a":1}}`, w.tasks))
	if status != http.StatusCreated {
		w.t.Fatalf("%d %v", status, row)
	}
	m := <-w.messages
	if m.Type != "task.submitted" || m.Data.TaskID != row["taskId"] || m.Data.URL != w.url || m.Data.Owner != "alice" {
		w.t.Fatalf("%+v for %v", m, row)
	}
	return m
}

// ask makes a request of the worker API; the answer is checked against the document.
func (w *workshop) ask(method, task, route, credential, body string) answered {
	w.t.Helper()
	return w.send(method, workerapi.BasePath+task+"/"+route, credential, body)
}

// begin starts a task under the claim and returns its attempt token.
func (w *workshop) begin(m posted, claim string) string {
	w.t.Helper()
	answer := w.ask("POST", m.Data.TaskID, "start", m.Data.Token, fmt.Sprintf(`{"claim":%q}`, claim))
	var started workerapi.StartResponse
	if err := json.Unmarshal([]byte(answer.Body), &started); err != nil || answer.Status != http.StatusOK {
		w.t.Fatalf("%+v, %v", answer, err)
	}
	return started.Token
}

// row is the task as its client sees it.
func (w *workshop) row(task string) string {
	w.t.Helper()
	return w.send("GET", "/api/v1/tasks/"+task, w.ring.keys["client"], "").Body
}

// missingTokens are a submission and an attempt token of a task that was never
// there.
func (w *workshop) missingTokens() (submission, attempt string) {
	w.t.Helper()
	submission, err := w.signer.SubmissionToken(missingTask)
	if err == nil {
		attempt, _, err = w.signer.AttemptToken(taskbridge.AttemptRef{
			TaskID: missingTask, Attempt: 1, Producer: taskbridge.Producer{Name: "worker", Epoch: 1},
		}, "claim")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return submission, attempt
}

const missingTask = "000-nosuchtask"

const completion = `{"firstOrdinal":90,"reports":[{"type":"complete","result":{"ok":true}}]}`

func TestAWorkerElsewhereDoesATaskOverTheWorkerAPI(t *testing.T) {
	w := openWorkshop(t, openStore)
	m := w.submit()
	attempt := w.begin(m, "claim")
	if got := w.ask("GET", m.Data.TaskID, "input", attempt, ""); got.Body != `{"n":[1.5]}` {
		t.Errorf("input %+v", got)
	}
	reported := w.ask("POST", m.Data.TaskID, "reports", attempt, `{"firstOrdinal":1,"reports":[{"type":"progress","progress":50,"stage":"half"},
		{"type":"token","text":"hel"},{"type":"token","text":"lo"},{"type":"message","message":"careful","level":"warning"}]}`)
	if reported.Status != http.StatusOK || strings.Contains(reported.Body, "refused") {
		t.Errorf("%+v", reported)
	}
	if got := w.ask("POST", m.Data.TaskID, "notices", w.ring.keys["worker"], `{"message":"seen from outside"}`); got.Status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	if got := w.ask("POST", m.Data.TaskID, "reports", attempt, completion); got.Status != http.StatusOK || !strings.Contains(got.Body, `"COMPLETED"`) {
		t.Errorf("%+v", got)
	}
	page := w.send("GET", "/api/v1/tasks/"+m.Data.TaskID+"/events", w.ring.keys["client"], "").Body
	for _, want := range []string{"TASK_STARTED", `"progress":50`, `"message":"hello"`, `"message":"careful"`, `"message":"seen from outside"`, `"result":{"ok":true}`} {
		if strings.Count(page, want) != 1 {
			t.Errorf("no single %s in %s", want, page)
		}
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
	for name, secret := range map[string]string{"submission token": m.Data.Token, "attempt token": attempt, "worker's key": w.ring.keys["worker"], "secret": webhookSecret} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the %s is in the log", name)
		}
	}
}

func TestAWorkerThatWaitsIsToldOfACancellationAndTheAddressToo(t *testing.T) {
	w := openWorkshop(t, openStore)
	m := w.submit()
	attempt := w.begin(m, "claim")
	waited := make(chan answered, 1)
	go func() { waited <- w.ask("GET", m.Data.TaskID, "attempt?waitTimeoutMs=60000", attempt, "") }()
	if got := w.send("POST", "/api/v1/tasks/"+m.Data.TaskID+"/cancel", w.ring.keys["client"], `{"reason":"enough"}`); got.Status != http.StatusAccepted {
		t.Errorf("%+v", got)
	}
	if got := <-waited; got.Status != http.StatusOK || !strings.Contains(got.Body, `"cancelReason":"enough"`) {
		t.Errorf("%+v", got)
	}
	if told := <-w.messages; told.Type != "task.cancel" || told.Data.TaskID != m.Data.TaskID || told.Data.Reason != "enough" || told.Data.Token == "" {
		t.Errorf("%+v", told)
	}
	// One who knows waits for the end alone.
	go func() {
		waited <- w.ask("GET", m.Data.TaskID, "attempt?waitTimeoutMs=60000&cancellationKnown=true", attempt, "")
	}()
	if got := w.ask("POST", m.Data.TaskID, "reports", attempt, `{"firstOrdinal":1,"reports":[{"type":"cancelled"}]}`); !strings.Contains(got.Body, `"CANCELLED"`) {
		t.Errorf("%+v", got)
	}
	if got := <-waited; got.Status != http.StatusConflict || !strings.Contains(got.Body, "TASK_FINISHED") {
		t.Errorf("%+v", got)
	}
	if row := w.row(m.Data.TaskID); !strings.Contains(row, `"status":"CANCELLED"`) {
		t.Error(row)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

// watchedStore tells when somebody begins to watch a task.
type watchedStore struct {
	store
	watched chan string
}

func (s watchedStore) WatchTask(ctx context.Context, taskID string, wake func()) (func(), error) {
	stop, err := s.store.WatchTask(ctx, taskID, wake)
	s.watched <- taskID
	return stop, err
}

func TestAShutdownAnswersWorkersThatWait(t *testing.T) {
	watched := make(chan string, 10)
	w := openWorkshop(t, func(ctx context.Context, c *config.Config) (store, error) {
		s, err := openStore(ctx, c)
		return watchedStore{s, watched}, err
	})
	m := w.submit()
	attempt := w.begin(m, "claim")
	waited := make(chan answered, 1)
	go func() { waited <- w.ask("GET", m.Data.TaskID, "attempt?waitTimeoutMs=60000", attempt, "") }()
	if got := <-watched; got != m.Data.TaskID {
		t.Errorf("the task %s is watched", got)
	}
	w.stop()
	if got := <-waited; got.Status != http.StatusOK || !strings.Contains(got.Body, `"RUNNING"`) {
		t.Errorf("%+v", got)
	}
	if err := <-w.done; err != nil {
		t.Error(err)
	}
}

func TestRequestsOfWorkersAreCountedAndTracedByTheirRoutes(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	spans := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.URL)
	w := openWorkshop(t, openStore)
	status, row := w.exchange("POST", "/api/v1/tasks", http.Header{
		"Authorization": {"Bearer " + w.ring.keys["client"]}, "Traceparent": {"00-" + trace + "-b7ad6b7169203331-01"},
	}, `{"clientRequestId":"traced","taskType":"work"}`)
	if status != http.StatusCreated {
		t.Fatalf("%d %v", status, row)
	}
	m := <-w.messages
	if !strings.HasPrefix(m.Data.Traceparent, "00-"+trace+"-") {
		t.Errorf("the worker is told the trace %q", m.Data.Traceparent)
	}
	status, started := w.exchange("POST", workerapi.BasePath+m.Data.TaskID+"/start", http.Header{
		"Authorization": {"Bearer " + m.Data.Token}, "Traceparent": {m.Data.Traceparent},
	}, `{"claim":"c"}`)
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, started)
	}
	attempt := started["token"].(string)
	w.ask("GET", m.Data.TaskID, "attempt", attempt, "")
	w.ask("POST", m.Data.TaskID, "reports", "tba1.forged", completion)
	w.ask("POST", m.Data.TaskID, "notices", w.ring.keys["worker"], `{"message":"m"}`)
	w.ask("POST", m.Data.TaskID, "reports", attempt, completion)
	w.ask("GET", m.Data.TaskID, "input", attempt, "")
	w.ask("POST", m.Data.TaskID, "settle", w.ring.keys["everything but worker"], `{"outcome":{"type":"cancelled"}}`)
	metrics := w.scrape()
	for _, want := range []string{
		`{method="POST",route="/api/v1/worker/tasks/:taskId/start",status="2xx"} 1`,
		`{method="GET",route="/api/v1/worker/tasks/:taskId/attempt",status="2xx"} 1`,
		`{method="POST",route="/api/v1/worker/tasks/:taskId/reports",status="4xx"} 1`,
		`{method="POST",route="/api/v1/worker/tasks/:taskId/reports",status="2xx"} 1`,
		`{method="POST",route="/api/v1/worker/tasks/:taskId/notices",status="2xx"} 1`,
		`{method="GET",route="/api/v1/worker/tasks/:taskId/input",status="4xx"} 1`,
		`{method="POST",route="/api/v1/worker/tasks/:taskId/settle",status="4xx"} 1`,
	} {
		if !strings.Contains(metrics, "taskbridge_http_requests_total"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(metrics, m.Data.TaskID) {
		t.Error("the metrics have a task's id")
	}
	if err := w.end(); err != nil { // which sends the spans that are left
		t.Error(err)
	}
	if got := spans.of(trace)["POST /api/v1/worker/tasks/:taskId/start"]; len(got) != 1 {
		t.Errorf("%d spans of the start in the task's trace", len(got))
	}
}

func TestAWorkerIsToldWhenTheStoreIsAway(t *testing.T) {
	var plan *fakes.Faults
	w := openWorkshop(t, faulty(func(f *fakes.Faults) { plan = f }))
	m := w.submit()
	attempt := w.begin(m, "claim")
	plan.OnEvery(fakes.OpGetTask, fakes.FailBefore(errors.New("no disk today")))
	for _, test := range []struct{ method, route, credential, body string }{
		{"POST", "start", m.Data.Token, `{"claim":"claim"}`},
		{"POST", "reports", attempt, completion},
		{"GET", "attempt", attempt, ""},
		{"GET", "input", attempt, ""},
		{"POST", "settle", w.ring.keys["worker"], `{"outcome":{"type":"cancelled"}}`},
	} {
		got := w.ask(test.method, m.Data.TaskID, test.route, test.credential, test.body)
		if got.Status != http.StatusServiceUnavailable || got.Header.Get("Retry-After") != "1" || strings.Contains(got.Body, "disk") {
			t.Errorf("%s: %+v", test.route, got)
		}
	}
	plan.Clear()
	if got := w.ask("POST", m.Data.TaskID, "reports", attempt, completion); got.Status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

func TestTokensOutliveTheServerByTheKeyInItsDataFolder(t *testing.T) {
	c := load(t)
	s := startServer(t, c, openStore)
	task := s.create("k", "demo", `{"ticks":0}`, http.StatusCreated)
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Data, "worker.key")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	signer, err := newSigner(c)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.SubmissionToken(task)
	if err != nil {
		t.Fatal(err)
	}
	s = startServer(t, c, openStore)
	if got := s.send("POST", workerapi.BasePath+task+"/start", token, `{"claim":"c"}`); got.Status != http.StatusConflict || !strings.Contains(got.Body, "NOT_RUNNABLE") {
		t.Errorf("under the folder's key: %+v", got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	// Without the file there is another key.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, c, openStore)
	if got := s.send("POST", workerapi.BasePath+task+"/start", token, `{"claim":"c"}`); got.Status != http.StatusUnauthorized {
		t.Errorf("under another key: %+v", got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newSigner(c); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}
