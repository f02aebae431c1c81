package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

func TestALongPollReturnsAsSoonAsThereIsAnEvent(t *testing.T) {
	f := serve(t)
	task := f.create()
	answers := make(chan reply)
	go func() { answers <- f.do("GET", "/api/v1/tasks/"+task+"/events?waitTimeoutMs=60000", "") }()
	run := f.start(task)
	if page := (<-answers).object(t); len(page["events"].([]any)) != 1 {
		t.Errorf("page %v", page)
	}
	f.complete(run, "null")
}

func TestALongPollBehindTheEndWaitsForTheWholeTime(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	started := time.Now()
	page := f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task+"/events?waitTimeoutMs=150&afterEventId="+all[2]["eventId"].(string), "")
	if took := time.Since(started); took < 150*time.Millisecond || len(page["events"].([]any)) != 0 {
		t.Errorf("after %s: %v", took, page)
	}
}

func TestDrainingLetsWaitersGoWithWhatThereIs(t *testing.T) {
	f := serve(t)
	task := f.create()
	answers := make(chan reply)
	for _, request := range []struct{ path, header string }{
		{"/api/v1/tasks/" + task + "/events?waitTimeoutMs=60000", ""},
		{"/api/v1/tasks/" + task, "Prefer: wait=60"},
	} {
		go func() { answers <- f.do("GET", request.path, "", request.header) }()
	}
	f.api.Drain()
	for range 2 {
		if r := <-answers; r.StatusCode != http.StatusOK || r.object(t)["status"] != "ACCEPTED" {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	}
}

func TestAPreferenceToWaitIsAppliedAndSaid(t *testing.T) {
	f := serve(t)
	done := f.finished()
	for _, test := range []struct{ prefer, applied string }{
		{"wait=5", "wait=5"}, {"respond-async, WAIT = 7 ;x=y", "wait=7"}, {`wait="9"`, "wait=9"},
		{"wait=100000", "wait=60"}, {"wait=0", "wait=0"},
		{"wait=soon", ""}, {"wait=-1", ""}, {"wait", ""}, {"return=minimal", ""}, {"wait=99999999999999999999", ""},
	} {
		r := f.do("GET", "/api/v1/tasks/"+done, "", "Prefer: "+test.prefer)
		if r.StatusCode != http.StatusOK || r.Header.Get("Preference-Applied") != test.applied {
			t.Errorf("%q: %d, applied %q, want %q", test.prefer, r.StatusCode, r.Header.Get("Preference-Applied"), test.applied)
		}
	}

	task := f.create()
	run := f.start(task)
	answers := make(chan reply)
	go func() { answers <- f.do("GET", "/api/v1/tasks/"+task, "", "Prefer: wait=60") }()
	f.complete(run, "7")
	if row := (<-answers).object(t); row["status"] != "COMPLETED" || row["result"] != 7.0 {
		t.Errorf("row %v", row)
	}
}

func TestAPanicIsAFaultOfOursAndTellsOnlyTheRequestsID(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.Authenticator = AuthenticatorFunc(func(*http.Request) (taskbridge.Principal, error) { panic("secret state") })
	})
	r := f.do("GET", "/api/v1/tasks", "", "X-Request-Id: abc-1")
	details := r.checkProblem(t, http.StatusInternalServerError, codeInternal)
	checkKeys(t, details, "requestId")
	if details["requestId"] != "abc-1" || r.Header.Get("X-Request-Id") != "abc-1" {
		t.Errorf("details %v", details)
	}
	if strings.Contains(string(r.body), "secret") {
		t.Errorf("told: %s", r.body)
	}
	if log := f.log.String(); !strings.Contains(log, "secret state") || !strings.Contains(log, "abc-1") || !strings.Contains(log, "serve_test.go") {
		t.Errorf("log: %s", log)
	}
	f.expect(http.StatusOK, "GET", "/health", "") // and the server goes on
}

func TestAPanicBehindTheFirstByteCutsTheAnswer(t *testing.T) {
	f := serve(t)
	f.api.router = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, `{"half":`)
		must(t, errors.Join(err, http.NewResponseController(w).Flush()))
		panic("too late")
	})
	r, err := f.client.Get(f.url + "/")
	must(t, err)
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", body, err)
	}
}

func TestARequestsIDIsTakenOverIfItIsSane(t *testing.T) {
	f := serve(t)
	for id, taken := range map[string]bool{
		"a": true, "0191-e3b2.x:y_Z": true, strings.Repeat("i", 128): true,
		strings.Repeat("i", 129): false, "a b": false, `a"b`: false, "gr\u00fcn": false, "a;b": false,
	} {
		got := f.do("GET", "/health", "", "X-Request-Id: "+id).Header.Get("X-Request-Id")
		if (got == id) != taken || got == "" {
			t.Errorf("%q: answered %q, taken should be %v", id, got, taken)
		}
	}
	a, b := f.do("GET", "/health", ""), f.do("GET", "/health", "")
	if a.Header.Get("X-Request-Id") == b.Header.Get("X-Request-Id") {
		t.Error("two requests have one id")
	}
}

func TestTheLogNamesTheRequestAndTheTaskAndNoContents(t *testing.T) {
	f := serve(t)
	id := f.expect(http.StatusCreated, "POST", "/api/v1/tasks",
		`{"clientRequestId":"k-secret","taskType":"scripted","input":{"password":"p-secret"}}`, "X-Request-Id: r1")["taskId"].(string)
	f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+id+"?token=q-secret", "", "X-Request-Id: r2", "Authorization: Bearer h-secret")
	for _, want := range []string{"requestId=r1", "requestId=r2", "taskId=" + id, "status=201", "method=POST", "seconds="} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("no %s in the log: %s", want, f.log)
		}
	}
	if strings.Contains(f.log.String(), "secret") {
		t.Errorf("contents in the log: %s", f.log)
	}
}

func TestLoopbackNamesAndThoseConfiguredMayBeAskedFor(t *testing.T) {
	f := serve(t, func(o *Options) { o.AllowedHosts = []string{"tasks.example", "192.0.2.7"} })
	for _, host := range []string{
		"localhost", "LOCALHOST:8080", "localhost.:80", "app.localhost", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8080",
		"[::ffff:127.0.0.1]", "tasks.example", "Tasks.Example:443", "192.0.2.7:80",
	} {
		f.expect(http.StatusOK, "GET", "/api/v1/tasks", "", "Host: "+host)
	}
	for _, origin := range []string{"http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173", "https://tasks.example"} {
		body := fmt.Sprintf(`{"clientRequestId":%q,"taskType":"scripted"}`, newKey())
		f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body, "Origin: "+origin)
	}
	f.do("GET", "/api/v1/tasks", "", "Host: other.example").checkProblem(t, 400, codeInvalidRequest)

	open := serve(t, func(o *Options) { o.AllowedHosts = []string{"*"} })
	open.expect(http.StatusOK, "GET", "/api/v1/tasks", "", "Host: any.example")
}

// dial opens a connection for requests that no client would send.
func (f *fixture) dial() net.Conn {
	f.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(f.T, err)
	f.Cleanup(func() { _ = conn.Close() }) // closed by the test already, or by the server
	must(f.T, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return conn
}

func TestABodyThatComesTooSlowlyIsCut(t *testing.T) {
	f := serve(t, func(o *Options) { o.BodyTimeout = 100 * time.Millisecond })
	for _, head := range []string{
		"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\"",
		"GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
	} {
		conn := f.dial()
		_, err := io.WriteString(conn, head)
		must(t, err)
		if answer, err := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("answered %q, %v", answer, err)
		}
	}
}

func TestAConnectionServesOnAfterABody(t *testing.T) {
	f := serve(t, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
	conn := f.dial()
	reader := bufio.NewReader(conn)
	task := f.create()
	// The body's deadline is long past when the poll has waited.
	for _, request := range []string{
		"POST /api/v1/tasks/" + task + "/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"GET /api/v1/tasks/" + task + "/events?waitTimeoutMs=200 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
		"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		_, err := io.WriteString(conn, request)
		must(t, err)
		response, err := http.ReadResponse(reader, nil)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		if response.StatusCode >= 300 {
			t.Errorf("%s: %d %s", request, response.StatusCode, body)
		}
	}
}

func TestBrokenChunksAreRefusedOrCut(t *testing.T) {
	f := serve(t)
	conn := f.dial()
	_, err := io.WriteString(conn, "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	body, err := io.ReadAll(response.Body)
	must(t, err)
	reply{response, body}.checkProblem(t, http.StatusBadRequest, codeInvalidRequest)
}

func TestAClientThatGoesAwayMakesNoNoise(t *testing.T) {
	f := serve(t)
	task := f.create()
	for i, path := range []string{"/events?waitTimeoutMs=60000", "/events/stream", ""} {
		ctx, cancel := context.WithCancel(context.Background())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/api/v1/tasks/"+task+path, nil)
		must(t, err)
		r.Header.Set("Prefer", "wait=60")
		r.Header.Set("X-Request-Id", fmt.Sprintf("gone-%d", i))
		reached := make(chan struct{})
		f.faults.On(fakes.OpGetTask, 1, fakes.HookAfter(func(fakes.Call) { close(reached) }))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := f.client.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, response.Body) // until it is cancelled
				_ = response.Body.Close()
			}
		}()
		<-reached
		cancel()
		<-done
		f.log.wait(t, fmt.Sprintf("msg=request requestId=gone-%d", i)) // the handler has ended
	}
	for _, level := range []string{"level=INFO", "level=WARN", "level=ERROR"} {
		if strings.Contains(f.log.String(), level) {
			t.Errorf("a client that went away was logged: %s", f.log)
		}
	}
}

func TestARequestThatTakesTooLongIsUnavailable(t *testing.T) {
	f := serve(t, func(o *Options) { o.RequestTimeout = 50 * time.Millisecond })
	// Not by a request: on a machine that is busy it may take that long, too.
	created, err := f.bridge.Creation.CreateTask(t.Context(), localUser("local"), taskbridge.CreateTaskRequest{ClientRequestID: newKey(), TaskType: scripted})
	must(t, err)
	task := created.Task.ID
	f.faults.OnEvery(fakes.OpGetTask, fakes.Hang())
	f.do("GET", "/api/v1/tasks/"+task, "").checkProblem(t, http.StatusServiceUnavailable, codeUnavailable)
}
