package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/openapi"
)

func TestMetricsTellWhatTheServerDid(t *testing.T) {
	s := startServer(t, load(t), openStore)
	id := s.create("k", "demo", `{"ticks":3,"tickMillis":1}`, http.StatusCreated)
	s.request("GET", "/api/v1/tasks/"+id, "", http.StatusOK)
	s.request("GET", "/api/v1/tasks/"+id+"/events/stream", "", http.StatusOK)
	var metrics string
	// A client sees the end of its stream before the server has closed it.
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit) && !strings.Contains(metrics, `taskbridge_streams_open{transport="sse"} 0`); {
		metrics = s.request("GET", "/metrics", "", http.StatusOK)
	}
	for _, want := range []string{
		`taskbridge_operations_total{kind="create",outcome="ok"} 1`,
		`taskbridge_tasks_ended_total{status="COMPLETED",type="demo"} 1`,
		`taskbridge_events_appended_total{type="TASK_PROGRESS"} 3`,
		`taskbridge_http_requests_total{method="POST",route="/api/v1/tasks",status="2xx"} 1`,
		`taskbridge_http_requests_total{method="GET",route="/api/v1/tasks/:taskId/events/stream",status="2xx"} 1`,
		`taskbridge_streams_open{transport="sse"} 0`,
		`taskbridge_ready{part="process"} 1`,
		`taskbridge_ready{part="store"} 1`,
		`taskbridge_store_file_bytes{file="database"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(metrics, id) {
		t.Error("the metrics have a task's id")
	}
	if got := s.request("GET", "/openapi.yaml", "", http.StatusOK); got != string(openapi.Document()) {
		t.Error("another document")
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestWithAccessControlMetricsAreOnTheirOwnAddressAlone(t *testing.T) {
	ring := newKeyring(t, auth.KeyEntry{ID: "k", Subject: "alice", Scopes: both()})
	s := startServer(t, load(t, "--store", "memory", "--auth-modes", "apikey", "--auth-api-keys-file", ring.file,
		"--metrics-listen", "127.0.0.1:0", "--pprof-listen", "127.0.0.1:0"), openStore)
	s.request("GET", "/metrics", "", http.StatusNotFound)
	s.request("GET", "/debug/pprof/", "", http.StatusNotFound)
	s.request("GET", "/api/v1/tasks", "", http.StatusUnauthorized)
	main := s.url
	at := func(what string) string {
		_, rest, ok := strings.Cut(s.log.String(), "what="+what+" address=")
		if !ok {
			t.Fatalf("no address of %s in %s", what, s.log)
		}
		address, _, _ := strings.Cut(rest, "\n")
		return "http://" + address
	}
	s.url = at("metrics")
	if got := s.request("GET", "/metrics", "", http.StatusOK); !strings.Contains(got, `taskbridge_authentication_failures_total{mode="api_key"} 1`) {
		t.Error("the refusal was not counted")
	}
	s.url = at("profiles")
	s.request("GET", "/debug/pprof/cmdline", "", http.StatusOK)
	s.url = main
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestTheTraceOfARequestReachesTheCommand(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	t.Setenv("TRACEPARENT", "the server's own")
	s := startServer(t, load(t, "--task", `trace=sh -c 'echo "::taskbridge {\"result\":\"=$TRACEPARENT=\"}"'`), openStore)
	for header, want := range map[string]string{parent: parent, "rubbish": "", "": ""} {
		r, err := http.NewRequest("POST", s.url+"/api/v1/tasks", strings.NewReader(`{"clientRequestId":"k`+header+`","taskType":"trace"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", header)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.Body.Close() != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(body), `"taskId":"`)
		id, _, _ := strings.Cut(rest, `"`)
		if row := s.request("GET", "/api/v1/tasks/"+id, "", http.StatusOK); !strings.Contains(row, `"result":"=`+want+`="`) {
			t.Errorf("%q: %s", header, row)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}
