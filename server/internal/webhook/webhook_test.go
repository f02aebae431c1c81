package webhook_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/server/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokens makes tokens that say whose they are.
type tokens struct{}

func (tokens) SubmissionToken(taskID string) (string, error) { return "token of " + taskID, nil }

func open(t *testing.T, opts webhook.Options) *webhook.Executor {
	t.Helper()
	client := &http.Client{Transport: new(http.Transport)}
	t.Cleanup(client.CloseIdleConnections)
	opts.Tokens, opts.WorkerURL, opts.Client = tokens{}, "https://tasks.example", client
	e, err := webhook.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// message is what a worker reads.
type message struct {
	Type string
	Data struct{ TaskID, TaskType, Owner, URL, Token, Reason, Traceparent string }
	Body []byte
}

// receive serves the worker's address.
func receive(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, m message)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := message{Body: body}
		if err = errors.Join(err, json.Unmarshal(body, &m)); err != nil {
			t.Errorf("%v in %q", err, body)
		}
		answer(w, r, m)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestATaskIsPostedWithAllThatItsWorkNeeds(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	row := taskbridge.Task{
		ID: "a1b-task", Type: "resize", Owner: "alice", Input: json.RawMessage(`{"width":5}`), Metadata: json.RawMessage(`{"a":"b"}`),
		CreatedAt: time.Date(2026, 11, 1, 10, 0, 0, 5000, time.UTC), Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	var got []message
	url := receive(t, func(_ http.ResponseWriter, r *http.Request, m message) {
		got = append(got, m)
		if want := m.Type + "/a1b-task"; r.Header.Get("Webhook-Id") != want || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", r.Header)
		}
		if want := webhook.Sign(secret, r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp"), m.Body); r.Header.Get("Webhook-Signature") != want {
			t.Errorf("signature %q, want %q", r.Header.Get("Webhook-Signature"), want)
		}
		if r.Header.Get("Traceparent") != row.Traceparent {
			t.Errorf("traceparent %q", r.Header.Get("Traceparent"))
		}
	})
	e := open(t, webhook.Options{URL: url, Secret: secret})
	if err := errors.Join(e.SubmitTask(t.Context(), row), e.RequestCancellation(t.Context(), row, "changed my mind")); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	submitted, cancel := got[0], got[1]
	if submitted.Type != "task.submitted" || submitted.Data.TaskID != row.ID || submitted.Data.Token != "token of a1b-task" ||
		submitted.Data.URL != "https://tasks.example" || submitted.Data.Owner != "alice" || submitted.Data.TaskType != "resize" ||
		!strings.Contains(string(submitted.Body), `"input":{"width":5},"metadata":{"a":"b"},"createdAt":"2026-11-01T10:00:00.000005Z"`) {
		t.Errorf("submitted with %s", submitted.Body)
	}
	if cancel.Type != "task.cancel" || cancel.Data.TaskID != row.ID || cancel.Data.Reason != "changed my mind" || strings.Contains(string(cancel.Body), "width") {
		t.Errorf("cancelled with %s", cancel.Body)
	}
}

// The vector is that of the Standard Webhooks libraries.
func TestTheSignatureIsTheStandards(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := webhook.Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%q", got)
	}
}

func TestTheAnswerSaysWhatBecameOfTheSubmission(t *testing.T) {
	for _, test := range []struct {
		status   int
		body     string
		taken    bool
		rejected string // the reason
	}{
		{200, "", true, ""}, {202, "{}", true, ""}, {204, "", true, ""},
		{422, `{"message":"width must be positive"}`, false, "width must be positive"},
		{422, "rubbish", false, "the worker answered 422 Unprocessable Entity"},
		{410, "", false, "the worker answered 410 Gone"},
		{302, "", false, ""}, {401, "", false, ""}, {404, "", false, ""}, {429, "", false, ""}, {500, "", false, ""}, {503, "", false, ""},
	} {
		e := open(t, webhook.Options{URL: receive(t, func(w http.ResponseWriter, _ *http.Request, _ message) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		})})
		err := e.SubmitTask(t.Context(), taskbridge.Task{ID: "a"})
		var rejection *taskbridge.RejectionError
		switch {
		case test.taken != (err == nil), errors.As(err, &rejection) != (test.rejected != ""):
			t.Errorf("%d: %v", test.status, err)
		case rejection != nil && (rejection.Failure.Message != test.rejected || rejection.Failure.Code != webhook.CodeRejected):
			t.Errorf("%d: %+v", test.status, rejection.Failure)
		}
	}
	away := open(t, webhook.Options{URL: "http://127.0.0.1:1/"})
	if err := away.SubmitTask(t.Context(), taskbridge.Task{ID: "a"}); err == nil || errors.Is(err, taskbridge.ErrSubmissionRejected) || strings.Contains(err.Error(), "token of") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAnAnswerThatBreaksOffIsAnAnswer(t *testing.T) {
	e := open(t, webhook.Options{URL: receive(t, func(w http.ResponseWriter, _ *http.Request, _ message) {
		w.Header().Set("Content-Length", "1000")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})})
	if err := e.SubmitTask(t.Context(), taskbridge.Task{ID: "a"}); err != nil {
		t.Errorf("submit: %v", err)
	}
	if err := e.RequestCancellation(t.Context(), taskbridge.Task{ID: "a"}, "why"); err != nil {
		t.Errorf("cancel: %v", err)
	}
}

// The way to an address may be what lets a sender in.
func TestOfAnAddressOnlyTheServerIsInErrors(t *testing.T) {
	const way = "/hooks/secret?key=secret"
	refusing := receive(t, func(w http.ResponseWriter, _ *http.Request, _ message) { w.WriteHeader(http.StatusInternalServerError) })
	for _, server := range []string{refusing, "http://127.0.0.1:1"} {
		e := open(t, webhook.Options{URL: server + way})
		for what, err := range map[string]error{
			"submit": e.SubmitTask(t.Context(), taskbridge.Task{ID: "a"}),
			"cancel": e.RequestCancellation(t.Context(), taskbridge.Task{ID: "a"}, "why"),
		} {
			if err == nil || !strings.Contains(err.Error(), server) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if _, err := webhook.New(webhook.Options{URL: "http://me:secret%zz@host", Tokens: tokens{}, WorkerURL: "http://x"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that is none: %v", err)
	}
}

func TestATaskPastItsDeadlineHasFailed(t *testing.T) {
	now := time.Now()
	e := open(t, webhook.Options{URL: "http://127.0.0.1:1/", Deadlines: map[string]time.Duration{"short": time.Hour}})
	recorded := taskbridge.Submission{State: taskbridge.SubmissionRecorded}
	for _, test := range []struct {
		name string
		row  taskbridge.Task
		want taskbridge.Knowledge
	}{
		{"not recorded", taskbridge.Task{Type: "short", CreatedAt: now}, taskbridge.InspectionAbsent},
		{"recorded", taskbridge.Task{Type: "short", CreatedAt: now, Submission: recorded}, taskbridge.InspectionWaiting},
		{"begun", taskbridge.Task{Type: "short", CreatedAt: now, Attempt: 1}, taskbridge.InspectionRunning},
		{"late", taskbridge.Task{Type: "short", CreatedAt: now.Add(-2 * time.Hour), Attempt: 1, Submission: recorded}, taskbridge.InspectionFinished},
		{"old, without a deadline", taskbridge.Task{Type: "long", CreatedAt: now.Add(-2 * time.Hour), Attempt: 1}, taskbridge.InspectionRunning},
	} {
		got, err := e.InspectTask(t.Context(), test.row)
		if err != nil || got.Knowledge != test.want {
			t.Errorf("%s: %v, %v", test.name, got, err)
		}
		if got.Knowledge == taskbridge.InspectionFinished && (got.Outcome.Failure.Code != webhook.CodeDeadline || !got.Outcome.Failure.Retryable) {
			t.Errorf("%s: %+v", test.name, got.Outcome)
		}
	}
}

func TestWhatAnExecutorNeedsMustBeGiven(t *testing.T) {
	for _, opts := range []webhook.Options{
		{Tokens: tokens{}, WorkerURL: "http://x"}, {URL: "http://x", WorkerURL: "http://x"}, {URL: "http://x", Tokens: tokens{}},
	} {
		if _, err := webhook.New(opts); err == nil {
			t.Errorf("%+v was taken", opts)
		}
	}
}

// worker does the work of posted tasks, each once.
type worker struct {
	t         *testing.T
	lifecycle taskbridge.TaskLifecycle
	working   sync.WaitGroup
	life      context.Context

	mu    sync.Mutex
	known map[string]bool
	begun map[string]int
	held  bool
	queue []string
}

func (w *worker) answer(rw http.ResponseWriter, _ *http.Request, m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.Type == "task.cancel":
		if w.known[m.Data.TaskID] { // one that waits is told at its start
			w.working.Go(func() { w.work(m.Data.TaskID, m.Data.TaskType, "the cancellation of "+m.Data.TaskID) })
		}
		return
	case m.Data.TaskType == "nonsense":
		rw.WriteHeader(http.StatusUnprocessableEntity)
		return
	case w.known[m.Data.TaskID]:
		return
	}
	w.known[m.Data.TaskID] = true
	if w.held {
		w.queue = append(w.queue, m.Data.TaskID+" "+m.Data.TaskType)
		return
	}
	w.working.Go(func() { w.work(m.Data.TaskID, m.Data.TaskType, "the work of "+m.Data.TaskID) })
}

func (w *worker) work(taskID, taskType, claim string) {
	if strings.HasPrefix(claim, "the cancellation") {
		w.mu.Lock()
		begun := w.begun[taskID] > 0
		w.mu.Unlock()
		if begun {
			return // it learns by its run
		}
	}
	run, err := w.lifecycle.Start(w.life, taskID, taskbridge.Claim{ID: claim})
	if err != nil {
		if !errors.Is(err, taskbridge.ErrNotRunnable) && !errors.Is(err, taskbridge.ErrStaleAttempt) && w.life.Err() == nil {
			w.t.Errorf("start of %s: %v", taskID, err)
		}
		return
	}
	w.mu.Lock()
	w.begun[taskID]++
	w.mu.Unlock()
	switch taskType {
	case "echo":
		err = run.Complete(w.life, taskbridge.Completion{Result: run.Task().Input})
	case "fail":
		err = run.Fail(w.life, taskbridge.Failure{Code: "NO_LUCK", Message: "no luck"})
	default:
		select {
		case <-run.CancelRequested():
			err = run.Cancelled(w.life, "")
		case <-run.Done():
		case <-w.life.Done():
		}
	}
	if err = errors.Join(err, run.Close()); err != nil && w.life.Err() == nil {
		w.t.Errorf("work on %s: %v", taskID, err)
	}
}

func (w *worker) hold() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held = false
		for _, entry := range w.queue {
			taskID, taskType, _ := strings.Cut(entry, " ")
			w.working.Go(func() { w.work(taskID, taskType, "the work of "+taskID) })
		}
		w.queue = nil
	}
}

func TestTheExecutorConforms(t *testing.T) {
	conformance.RunExecutor(t, conformance.ExecutorHarness{
		New: func(t *testing.T, _ taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
			life, stop := context.WithCancel(context.Background())
			w := &worker{t: t, lifecycle: lifecycle, life: life, known: map[string]bool{}, begun: map[string]int{}}
			t.Cleanup(func() {
				stop()
				w.working.Wait()
			})
			return conformance.Runtime{
				// Without the inspector, which knows the row and not the worker.
				Executor: struct{ taskbridge.TaskExecutor }{open(t, webhook.Options{URL: receive(t, w.answer)})},
				Hold:     w.hold,
				Begun: func(taskID string) int {
					w.mu.Lock()
					defer w.mu.Unlock()
					return w.begun[taskID]
				},
			}
		},
		Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":[1]}`), Result: json.RawMessage(`{"a":[1]}`)},
		Fails:     conformance.Work{Type: "fail", Code: "NO_LUCK"},
		RunsOn:    conformance.Work{Type: "wait"},
		Rejected:  conformance.Work{Type: "nonsense"},
	})
}
