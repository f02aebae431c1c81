package telemetry_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"

	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

// get sends one request to the handler behind the middleware, over a real
// connection, and returns the status; 0 for a connection that was cut.
func get(t *testing.T, tel *telemetry.Telemetry, handler http.HandlerFunc) int {
	t.Helper()
	finished := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(finished)
		defer func() {
			if fault := recover(); fault != nil {
				if fault == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
					panic(fault)
				}
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		tel.Middleware(handler).ServeHTTP(w, r)
	}))
	defer server.Close()
	response, err := server.Client().Get(server.URL + "/api/v1/tasks/abc-secret?token=secret")
	<-finished
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Logf("body: %v", err)
	}
	return response.StatusCode
}

const pattern = "/api/v1/tasks/{taskId}"

func TestARequestIsCountedByRouteMethodAndClassOfStatus(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  int
		class   string
	}{
		"answered": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
		}, 202, "2xx"},
		"nothing written": {func(http.ResponseWriter, *http.Request) {}, 200, "2xx"},
		"a body alone": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
		}, 200, "2xx"},
		"refused": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}, 404, "4xx"},
		"cut": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, 0, "none"},
		"a fault": {func(http.ResponseWriter, *http.Request) {
			panic("fault")
		}, 500, "5xx"},
	} {
		t.Run(name, func(t *testing.T) {
			tel := telemetry.New(telemetry.Options{})
			status := get(t, tel, func(w http.ResponseWriter, r *http.Request) {
				telemetry.SetRoute(r.Context(), pattern)
				test.handler(w, r)
			})
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			expect(t, tel, 1, "taskbridge_http_requests_total", "route", pattern, "method", "GET", "status", test.class)
			expect(t, tel, 1, "taskbridge_http_request_duration_seconds", "route", pattern, "method", "GET")
			if strings.Contains(exposition(t, tel), "secret") {
				t.Error("the path is in the exposition")
			}
		})
	}
}

func TestATransportMayNoteItsAnswersItself(t *testing.T) {
	tel, spans := recording(t)
	r, request := tel.BeginRequest(httptest.NewRequest(http.MethodGet, "/api/v1/tasks/abc/events/stream", nil))
	telemetry.SetRoute(r.Context(), pattern)
	telemetry.SetStreaming(r.Context(), http.StatusOK)
	telemetry.SetStreaming(r.Context(), http.StatusOK)
	if span := only(t, spans); span.Name != "GET "+pattern || attributeOf(span, "http.response.status_code") != "200" {
		t.Errorf("%s %v", span.Name, span.Attributes)
	}
	expect(t, tel, 0, "taskbridge_http_requests_total", "route", pattern, "method", "GET", "status", "2xx")
	request.End(http.StatusOK)
	expect(t, tel, 1, "taskbridge_http_requests_total", "route", pattern, "method", "GET", "status", "2xx")
	expect(t, tel, 0, "taskbridge_http_request_duration_seconds", "route", pattern, "method", "GET")
	only(t, spans)
}

func TestARequestWithoutARouteAndWithAMethodOfItsOwnAddsNoLabels(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	for _, method := range []string{"BREW", "WHEN"} {
		tel.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/coffee", nil))
	}
	expect(t, tel, 2, "taskbridge_http_requests_total", "route", "unmatched", "method", "_OTHER", "status", "4xx")
}

func TestAStreamCanStillBeFlushedAndGivenADeadline(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	get(t, tel, func(w http.ResponseWriter, r *http.Request) {
		telemetry.SetRoute(r.Context(), pattern)
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		if err := control.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("read deadline: %v", err)
		}
		if err := control.Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := control.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Errorf("write deadline: %v", err)
		}
		// The connection's own error comes through, which it does not where a
		// wrapper has a Flush of its own.
		if control.Flush() == nil {
			t.Error("a flush behind the write deadline gives no error")
		}
	})
	expect(t, tel, 1, "taskbridge_http_requests_total", "route", pattern, "method", "GET", "status", "2xx")
}

func TestAStreamIsNoRequestOfThatDuration(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	get(t, tel, func(w http.ResponseWriter, r *http.Request) {
		telemetry.SetRoute(r.Context(), pattern)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
	})
	expect(t, tel, 1, "taskbridge_http_requests_total", "route", pattern, "method", "GET", "status", "2xx")
	expect(t, tel, 0, "taskbridge_http_request_duration_seconds", "route", pattern, "method", "GET")
}

func TestAConnectionCanStillBeHijacked(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	server := httptest.NewServer(tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		telemetry.SetRoute(r.Context(), "/api/v1/tasks/ws")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		_, _ = io.WriteString(conn, "hello\n")
		_ = conn.Close()
	})))
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/tasks/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "echo")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	server.Close() // waits for the handler
	expect(t, tel, 1, "taskbridge_http_requests_total", "route", "/api/v1/tasks/ws", "method", "GET", "status", "1xx")
	expect(t, tel, 0, "taskbridge_http_request_duration_seconds", "route", "/api/v1/tasks/ws", "method", "GET")
}

func TestARequestsSpanHangsUnderItsCaller(t *testing.T) {
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tel, spans := recording(t)
	var kept string
	handler := tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		telemetry.SetRoute(r.Context(), pattern)
		kept = telemetry.TraceparentOf(r)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	request := httptest.NewRequest(http.MethodGet, "/api/v1/tasks/abc-1?access_token=secret", nil)
	request.Header.Set("Traceparent", caller)
	handler.ServeHTTP(httptest.NewRecorder(), request)

	span := only(t, spans)
	if span.Name != "GET "+pattern {
		t.Errorf("name %q", span.Name)
	}
	if got := span.Parent.SpanID().String(); got != "b7ad6b7169203331" || !span.Parent.IsRemote() {
		t.Errorf("parent %s", got)
	}
	if want := "00-0af7651916cd43dd8448eb211c80319c-" + span.SpanContext.SpanID().String() + "-01"; kept != want {
		t.Errorf("a task would be created under %s, want %s", kept, want)
	}
	if span.Status.Code != codes.Error || attributeOf(span, "http.response.status_code") != "503" || attributeOf(span, "http.route") != pattern {
		t.Errorf("status %v, attributes %v", span.Status, span.Attributes)
	}
	for _, a := range span.Attributes {
		if strings.Contains(a.Value.String(), "secret") {
			t.Errorf("%s has the query in it", a.Key)
		}
	}
}

func TestTheSpanOfAStreamEndsWhenTheStreamBegins(t *testing.T) {
	tel, spans := recording(t)
	tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		if n := len(spans.GetSpans()); n != 1 {
			t.Errorf("%d spans have ended while the stream is open", n)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/tasks/abc/events/stream", nil))
	only(t, spans)
}

func TestWhatMachinesAskAllTheTimeIsNotTraced(t *testing.T) {
	tel, spans := recording(t)
	handler := tel.Middleware(http.NotFoundHandler())
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

func TestAServerWithoutTracesPassesItsCallersOn(t *testing.T) {
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tel := telemetry.New(telemetry.Options{})
	for name, test := range map[string]struct {
		headers []string
		want    string
	}{
		"one":    {[]string{caller}, caller},
		"none":   {nil, ""},
		"two":    {[]string{caller, caller}, ""},
		"broken": {[]string{"00-x"}, ""},
	} {
		request := httptest.NewRequest(http.MethodPost, "/api/v1/tasks", nil)
		request.Header["Traceparent"] = test.headers
		got := "not asked"
		tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = telemetry.TraceparentOf(r)
		})).ServeHTTP(httptest.NewRecorder(), request)
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestAFaultPassesThroughToWhoAnswersForIt(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	defer func() {
		if got := recover(); got != "fault" {
			t.Errorf("recovered %v", got)
		}
	}()
	tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("fault") })).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(context.Background()))
}

func TestProfilesAreBelowTheirOwnPathAlone(t *testing.T) {
	for path, status := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/cmdline": 200, "/": 404, "/debug/pprof/none": 404,
	} {
		answer := httptest.NewRecorder()
		telemetry.Profiles().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		if answer.Code != status {
			t.Errorf("%s: %d, want %d", path, answer.Code, status)
		}
	}
}
