package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

func TestRefusedTokensOfWorkersAreCountedByTheirKind(t *testing.T) {
	w := openWorkshop(t, openStore)
	m, other := w.submit(), w.submit()
	attempt := w.begin(m, "claim")
	for _, test := range []struct {
		method, task, route, credential, body string
		status                                int
	}{
		{"POST", m.Data.TaskID, "start", m.Data.Token + "A", `{"claim":"c"}`, http.StatusUnauthorized},
		{"POST", m.Data.TaskID, "start", other.Data.Token, `{"claim":"c"}`, http.StatusForbidden},
		{"GET", m.Data.TaskID, "input", m.Data.Token, "", http.StatusForbidden},
		{"GET", m.Data.TaskID, "attempt", attempt + "A", "", http.StatusUnauthorized},
		{"GET", other.Data.TaskID, "attempt", attempt, "", http.StatusForbidden},
		{"GET", m.Data.TaskID, "attempt", attempt, "", http.StatusOK},
		{"POST", m.Data.TaskID, "notices", "tbk_unknown", `{"message":"m"}`, http.StatusUnauthorized},
	} {
		if got := w.ask(test.method, test.task, test.route, test.credential, test.body); got.Status != test.status {
			t.Errorf("%s: %d %s, want %d", test.route, got.Status, got.Body, test.status)
		}
	}
	metrics := w.scrape()
	for mode, count := range map[string]string{"submission_token": "3", "attempt_token": "2", "api_key": "1"} {
		if want := `taskbridge_authentication_failures_total{mode="` + mode + `"} ` + count + "\n"; !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(metrics, `failures_total{mode="other"}`) {
		t.Error("a refusal is of no known mode")
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

func TestARequestOverTheLimitOfATasksWorkerIsToldSoAndTakesNothingFromOthers(t *testing.T) {
	w := openWorkshop(t, openStore, "--worker-requests-per-second=0.001", "--worker-requests-burst=3")
	m, other := w.submit(), w.submit()
	task, attempt := m.Data.TaskID, w.begin(m, "claim")
	for range 3 {
		if got := w.ask("GET", task, "attempt", attempt, ""); got.Status != http.StatusOK {
			t.Errorf("%d %s", got.Status, got.Body)
		}
	}
	events := w.row(task)
	got := w.ask("POST", task, "reports", attempt, completion)
	if got.Status != http.StatusTooManyRequests || !strings.Contains(got.Body, `"RATE_LIMITED"`) {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if now := w.row(task); now != events {
		t.Errorf("%s, it was %s", now, events)
	}
	// Another task, another attempt and whoever starts one have room of their own.
	if got := w.ask("GET", other.Data.TaskID, "input", w.begin(other, "claim"), ""); got.Status != http.StatusOK {
		t.Errorf("another task: %d %s", got.Status, got.Body)
	}
	if got := w.ask("GET", task, "attempt", w.begin(m, "newer"), ""); got.Status != http.StatusOK {
		t.Errorf("another attempt: %d %s", got.Status, got.Body)
	}
	if want := `taskbridge_rate_limited_requests_total{limit="worker_rate"} 1`; !strings.Contains(w.scrape(), want) {
		t.Errorf("no %s", want)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

func TestRequestsOfATasksWorkerThatWaitAreLimitedByTheirNumber(t *testing.T) {
	w := openWorkshop(t, openStore, "--worker-concurrent-requests=1")
	m := w.submit()
	task, attempt := m.Data.TaskID, w.begin(m, "claim")
	// One of the two is turned away, whichever comes second; the other waits until the
	// work is settled.
	answers := make(chan answered, 2)
	for range 2 {
		go func() { answers <- w.ask("GET", task, "attempt?waitTimeoutMs=60000", attempt, "") }()
	}
	if first := <-answers; first.Status != http.StatusTooManyRequests {
		t.Errorf("%d %s", first.Status, first.Body)
	}
	if got := w.ask("POST", task, "settle", w.ring.keys["worker"], `{"outcome":{"type":"cancelled"}}`); got.Status != http.StatusOK {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if second := <-answers; second.Status != http.StatusConflict {
		t.Errorf("%d %s", second.Status, second.Body)
	}
	if want := `taskbridge_rate_limited_requests_total{limit="worker_concurrency"} 1`; !strings.Contains(w.scrape(), want) {
		t.Errorf("no %s", want)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

// The tokens come faster than a thousand a second; a machine that is slow makes
// fewer requests of them and not more.
func TestAWorkerThatStreamsTextNeverMeetsTheDefaultLimits(t *testing.T) {
	w := openWorkshop(t, openStore)
	m := w.submit()
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: w.url})
	if err != nil {
		t.Fatal(err)
	}
	run, err := lifecycle.Start(t.Context(), m.Data.TaskID, taskbridge.Claim{ID: "claim", Token: m.Data.Token})
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		if err := run.Token(t.Context(), "word "); err != nil {
			t.Fatal(err)
		}
	}
	if err := run.Complete(t.Context(), taskbridge.Completion{}); err != nil {
		t.Error(err)
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	if metrics := w.scrape(); strings.Contains(metrics, `{limit="worker`) {
		t.Error("the worker was turned away")
	}
	// Two requests a batch, for its reports and for a wait that ends with it, ten times over.
	const batches = float64(time.Second) / float64(35*time.Millisecond)
	if got := config.Default().Worker; got.RequestsPerSecond < 20*batches/2 || got.ConcurrentRequests < 20 {
		t.Errorf("the defaults are %+v", got)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}
