package httpapi

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// serve2 serves the API over HTTP/2 as well, and returns a fixture that speaks
// nothing else.
func (f *fixture) serve2() *fixture {
	f.Helper()
	server := httptest.NewUnstartedServer(f.api)
	server.EnableHTTP2 = true
	server.StartTLS()
	over2 := *f
	over2.url, over2.client = server.URL, &http.Client{Transport: second{f.T, server.Client().Transport}}
	f.Cleanup(func() {
		f.api.Drain()
		server.Client().CloseIdleConnections()
		server.Close()
	})
	return &over2
}

// second checks that answers come by HTTP/2.
type second struct {
	t    *testing.T
	next http.RoundTripper
}

func (s second) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.next.RoundTrip(r)
	if err == nil && response.ProtoMajor != 2 {
		s.t.Errorf("%s %s was answered by %s", r.Method, r.URL.Path, response.Proto)
	}
	return response, err
}

func TestOverHTTP2AnswersAndStreamsAreTheSameToTheByte(t *testing.T) {
	clock := fakes.NewManualClock(time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC))
	f := serve(t, func(o *Options) { o.Clock = clock })
	over2 := f.serve2()
	task := over2.finished() // created over HTTP/2
	open := over2.create()
	for _, path := range []string{
		"/" + task, "/" + task + "/events", "/" + task + "/events?afterEventId=rubbish", "/" + task + "/events/stream", "/nothing",
		"/nothing/events/stream", "", "?limit=0", "/" + open + "/events?waitTimeoutMs=1", "/ws",
	} {
		first, second := f.do("GET", "/api/v1/tasks"+path, "", "X-Request-Id: r"), over2.do("GET", "/api/v1/tasks"+path, "", "X-Request-Id: r")
		if first.StatusCode != second.StatusCode || string(first.body) != string(second.body) {
			t.Errorf("%s: %s %s\nand over HTTP/2 %s %s", path, first.Status, first.body, second.Status, second.body)
		}
		for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "X-Request-Id", "X-Content-Type-Options"} {
			if a, b := first.Header.Get(name), second.Header.Get(name); a != b {
				t.Errorf("%s: %s %q, and over HTTP/2 %q", path, name, a, b)
			}
		}
	}
	// The terminal event's cursor: nothing more is to come.
	events := f.events(task)
	last := events[len(events)-1]["eventId"].(string)
	if got := over2.do("GET", "/api/v1/tasks/"+task+"/events/stream", "", "Last-Event-ID: "+last); got.StatusCode != http.StatusNoContent {
		t.Errorf("%s %s", got.Status, got.body)
	}
	if got := over2.do("POST", "/api/v1/tasks/"+open+"/cancel", `{"reason":"r"}`); got.StatusCode != http.StatusAccepted {
		t.Errorf("%s %s", got.Status, got.body)
	}
}

func TestOverHTTP2AStreamFollowsItsTaskAndEndsWithIt(t *testing.T) {
	f := serve(t)
	over2 := f.serve2()
	task := f.create()
	s := over2.open(task, "")
	s.ping()
	run := f.start(task)
	s.wantEvent(task, "TASK_STARTED")
	for range 10 { // each leaves at once
		f.progress(run, 1)
		s.wantEvent(task, "TASK_PROGRESS")
	}
	f.complete(run, "1")
	s.wantEvent(task, "TASK_COMPLETED")
	s.end()
}

// reset reads to the end, which must be that of a stream that was reset.
func (s *sse) reset() {
	s.t.Helper()
	for {
		_, err := s.next()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			s.t.Fatal("the stream ended in good form")
		case !strings.Contains(err.Error(), "stream error"):
			s.t.Fatalf("the stream ended with %v, it should have been reset", err)
		default:
			return
		}
	}
}

func TestOverHTTP2ACutStreamIsResetAndItsConnectionServesOn(t *testing.T) {
	for name, cut := range map[string]func(*fixture, *revocable){
		"by a drain":            func(f *fixture, _ *revocable) { f.api.Drain() },
		"by its credential":     func(_ *fixture, r *revocable) { r.become(taskbridge.Principal{}, ErrUnauthenticated) },
		"by the closed service": func(f *fixture, _ *revocable) { f.bridge.Subscription.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := &revocable{principal: localUser("local")}
			f := serve(t, func(o *Options) {
				o.Authenticator, o.Recheck, o.Heartbeat = r, time.Nanosecond, 20*time.Millisecond
			})
			over2 := f.serve2()
			task := f.create()
			f.progress(f.start(task), 1)
			s := over2.open(task, "")
			s.wantEvent(task, "TASK_STARTED")
			s.wantEvent(task, "TASK_PROGRESS")
			cut(f, r)
			s.reset()
			if got := over2.do("GET", "/health", ""); got.StatusCode != http.StatusOK {
				t.Errorf("afterwards: %s", got.Status)
			}
			// The client comes back with its cursor, to this server or the next.
			if r.err == nil && name == "by a drain" {
				over2.do("GET", "/api/v1/tasks/"+task+"/events/stream", "").checkProblem(t, http.StatusServiceUnavailable, codeUnavailable)
			}
		})
	}
}

func TestOverHTTP2AReaderThatStandsStillIsResetAndItsConnectionServesOn(t *testing.T) {
	var g *gauge
	slow := make(chan string, 1)
	f := serve(t, func(o *Options) {
		g = newGauge(o)
		o.WriteTimeout = time.Second
		o.SlowReaderCut = func(transport string) { slow <- transport }
	})
	over2 := f.serve2()
	task := f.create()
	run := f.longStream(task)
	still := over2.open(task, "") // and is not read
	if got := receive(t, g.opened); got != "sse" {
		t.Fatalf("opened %s", got)
	}
	// More than the client and the server take of a stream that is not read.
	const events = 400
	text := strings.Repeat("x", 30_000)
	for i := range events {
		must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
		if i%20 == 0 { // others on its connection are served meanwhile
			over2.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task, "")
		}
	}
	receive(t, g.closed)
	if got := receive(t, slow); got != "sse" {
		t.Errorf("counted as %s", got)
	}
	if _, err := io.Copy(io.Discard, still.response.Body); err == nil || !strings.Contains(err.Error(), "stream error") {
		t.Errorf("what has come ends with %v", err)
	}
	f.complete(run, "1")
	again := over2.open(task, "")
	sequences(t, events+2, again.eventID)
	again.end()
}
