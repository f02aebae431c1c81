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
	if got := s.request("GET", "/metrics", "", http.StatusOK); !strings.Contains(got, `taskbridge_authentication_failures_total{mode="none"} 1`) {
		t.Error("the refusal was not counted")
	}
	s.url = at("profiles")
	s.request("GET", "/debug/pprof/cmdline", "", http.StatusOK)
	s.url = main
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// scrape returns the metrics of a server whose --metrics-listen is set.
func (i *instance) scrape() string {
	i.t.Helper()
	_, rest, ok := strings.Cut(i.log.String(), "what=metrics address=")
	if !ok {
		i.t.Fatalf("no address of metrics in %s", i.log)
	}
	address, _, _ := strings.Cut(rest, "\n")
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		i.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(content)
}

func TestRefusalsAreCountedByWhatWasPresentedWhateverModesAreOn(t *testing.T) {
	ring, provider := newKeyring(t), newIssuer(t)
	token := provider.rotate(t, "k")
	s := startServer(t, load(t, "--store", "memory", "--metrics-listen", "127.0.0.1:0", "--auth-modes", "apikey,jwt,proxy",
		"--auth-api-keys-file", ring.file, "--auth-proxy-trusted", "10.0.0.1",
		"--auth-jwt-issuer", "https://id.example", "--auth-jwt-audiences", "taskbridge", "--auth-jwt-keys-url", provider.URL), openStore)
	for _, headers := range []map[string]string{
		{},
		{"Authorization": "Bearer tbk_unknown"},
		{"Authorization": "Bearer " + token[:len(token)-4] + "AAAA"},
		{"X-Taskbridge-Subject": "alice"},
		{"Authorization": "Bearer tbk_unknown", "X-API-Key": "tbk_another"},
	} {
		r, err := http.NewRequest("GET", s.url+"/api/v1/tasks", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%v: %d, %v", headers, response.StatusCode, err)
		}
	}
	metrics := s.scrape()
	for _, mode := range []string{"none", "api_key", "jwt", "identity_header", "unclear"} {
		if want := `taskbridge_authentication_failures_total{mode="` + mode + `"} 1`; !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(metrics, `failures_total{mode="other"}`) {
		t.Error("a refusal is of no known mode")
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestEveryLimitIsCountedUnderItsOwnName(t *testing.T) {
	for label, test := range map[string]struct {
		setting []string
		held    string // the transport by which the limit's one place is taken; "": by requests
		over    func(s *instance, task, started string, key http.Header) (status int)
		want    int
	}{
		"rate": {[]string{"--rate-limit-requests-per-second=0.001", "--rate-limit-requests-burst=20"}, "",
			(*instance).listTillRefused, 429},
		"creations": {[]string{"--rate-limit-creates-per-second=0.001", "--rate-limit-creates-burst=1"}, "",
			func(s *instance, _, _ string, key http.Header) int {
				status, _ := s.exchange("POST", "/api/v1/tasks", key, `{"clientRequestId":"another","taskType":"demo"}`)
				return status
			}, 429},
		"streams":       {[]string{"--rate-limit-streams=1"}, "websocket", (*instance).openStream, 429},
		"total_streams": {[]string{"--rate-limit-total-streams=1"}, "sse", (*instance).openStream, 503},
		"concurrency":   {[]string{"--rate-limit-concurrent-requests=1"}, "longpoll", (*instance).listTillRefused, 429},
	} {
		t.Run(label, func(t *testing.T) {
			ring := newKeyring(t, auth.KeyEntry{ID: "k", Subject: "alice", Scopes: both()})
			key := bearer(ring.keys["k"])
			s := startServer(t, load(t, append(test.setting, "--store", "memory", "--metrics-listen", "127.0.0.1:0",
				"--auth-modes", "apikey", "--auth-api-keys-file", ring.file)...), openStore)
			s.pollWait = time.Minute
			task, started := s.demo(key, "k", 3_600_000)
			var held *follower
			if test.held != "" {
				s.untilMetric(`taskbridge_streams_open{transport="longpoll"} 0`) // demo's own
				held, _ = s.follow(test.held, task, key, started)
				s.untilMetric(`taskbridge_streams_open{transport="` + test.held + `"} 1`)
			}
			if status := test.over(s, task, started, key); status != test.want {
				t.Errorf("over the limit: %d, want %d", status, test.want)
			}
			if metrics, want := s.scrape(), `taskbridge_rate_limited_requests_total{limit="`+label+`"} 1`; !strings.Contains(metrics, want) {
				t.Errorf("no %s", want)
			}
			if held != nil {
				held.stop()
			}
			if err := s.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

func (i *instance) untilMetric(line string) {
	i.t.Helper()
	for limit := time.Now().Add(waitLimit); !strings.Contains(i.scrape(), line); {
		if time.Now().After(limit) {
			i.t.Fatalf("%s never comes", line)
		}
	}
}

// listTillRefused lists until that is refused.
func (i *instance) listTillRefused(_, _ string, key http.Header) (status int) {
	for range 30 {
		if status, _ = i.exchange("GET", "/api/v1/tasks", key, ""); status != http.StatusOK {
			return status
		}
	}
	return status
}

func (i *instance) openStream(task, started string, key http.Header) (status int) {
	_, status = i.follow("sse", task, key, started)
	return status
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
