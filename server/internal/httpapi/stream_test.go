package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
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

// sse reads one stream as a browser's EventSource does.
type sse struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Reader
}

// message is one block of a stream.
type message struct {
	id      string // "" for none
	data    map[string]any
	comment bool
}

func (f *fixture) stream(taskID, query string, header ...string) *sse {
	f.Helper()
	// A test that waits for what never comes is to fail, not to hang.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	f.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/api/v1/tasks/"+taskID+"/events/stream"+query, nil)
	must(f.T, err)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	response, err := f.client.Do(r)
	must(f.T, err)
	f.Cleanup(func() { _ = response.Body.Close() }) // closed by the test already, or cut
	return newSSE(f.T, response)
}

func newSSE(t *testing.T, response *http.Response) *sse {
	return &sse{t, response, bufio.NewReader(response.Body)}
}

// open opens a stream that must be there.
func (f *fixture) open(taskID, query string, header ...string) *sse {
	f.Helper()
	s := f.stream(taskID, query, header...)
	if s.response.StatusCode != http.StatusOK {
		f.Fatalf("status %d", s.response.StatusCode)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no",
	} {
		if got := s.response.Header.Get(name); got != want {
			f.Errorf("%s: %q", name, got)
		}
	}
	return s
}

// next returns the next block, or the error with which the stream ends.
func (s *sse) next() (message, error) {
	var m message
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			if line != "" {
				s.t.Errorf("the stream ends within a line: %q", line)
			}
			return m, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case line == "\n":
			return m, nil
		case strings.HasPrefix(line, ":"):
			m.comment = true
		case field == "id":
			m.id = value
		case field == "data" && m.data == nil:
			if err := json.Unmarshal([]byte(value), &m.data); err != nil {
				s.t.Errorf("data %q: %v", value, err)
			}
		default:
			s.t.Errorf("line %q", line)
		}
	}
}

// event skips comments and heartbeats.
func (s *sse) event() message {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for an event: %v", err)
		}
		if m.data != nil && m.data["type"] != "HEARTBEAT" {
			return m
		}
	}
}

// ping reads the comment that follows a replay.
func (s *sse) ping() {
	s.t.Helper()
	if m, err := s.next(); err != nil || !m.comment || m.data != nil || m.id != "" {
		s.t.Fatalf("want a comment, got %+v, %v", m, err)
	}
}

func (s *sse) wantEvent(taskID, eventType string) message {
	s.t.Helper()
	m := s.event()
	checkEnvelope(s.t, m.data, taskID, eventType)
	if m.id != m.data["eventId"] {
		s.t.Errorf("id %q of the event %v", m.id, m.data["eventId"])
	}
	return m
}

// end reads to the end, which must be a clean one.
func (s *sse) end() {
	s.t.Helper()
	for {
		if m, err := s.next(); errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return
		} else if err != nil {
			s.t.Fatalf("the stream was cut: %v", err)
		} else if m.data != nil {
			s.t.Errorf("after the end: %v", m.data)
		}
	}
}

// cut reads to the end, which must not be a clean one.
func (s *sse) cut() {
	s.t.Helper()
	for {
		_, err := s.next()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		if err != nil {
			s.t.Fatalf("the stream ended with %v, it should have been cut", err)
		}
	}
}

func TestAStreamReplaysThenFollowsAndEndsWithTheTask(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	f.progress(run, 10)

	s := f.open(task, "")
	s.wantEvent(task, "TASK_STARTED")
	s.wantEvent(task, "TASK_PROGRESS")
	s.ping()
	f.progress(run, 20)
	if m := s.wantEvent(task, "TASK_PROGRESS"); m.data["payload"].(map[string]any)["progress"] != 20.0 {
		t.Errorf("event %v", m.data)
	}
	f.complete(run, `1`)
	s.wantEvent(task, "TASK_COMPLETED")
	s.end()
}

func TestAStreamOfATaskThatHasNotStartedPingsAtOnce(t *testing.T) {
	f := serve(t)
	task := f.create()
	s := f.open(task, "")
	s.ping()
	f.complete(f.start(task), `null`)
	s.wantEvent(task, "TASK_STARTED")
	s.wantEvent(task, "TASK_COMPLETED")
	s.end()
}

func TestAStreamResumesAfterTheCursorAndTheHeaderWins(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	first, second := all[0]["eventId"].(string), all[1]["eventId"].(string)
	for _, test := range []struct {
		query, header string
		want          []map[string]any
	}{
		{"", "", all},
		{"?lastEventId=", "", all},
		{"?lastEventId=0", "", all},
		{"?lastEventId=0-0", "", all},
		{"", "Last-Event-ID: 0", all},
		{"?lastEventId=" + first, "", all[1:]},
		{"", "Last-Event-ID: " + first, all[1:]},
		{"?lastEventId=" + first, "Last-Event-ID: " + second, all[2:]},
		{"?lastEventId=rubbish!", "Last-Event-ID: " + second, all[2:]},
		{"?lastEventId=" + first + "&gap=error", "", all[1:]},
	} {
		var headers []string
		if test.header != "" {
			headers = append(headers, test.header)
		}
		s := f.open(task, test.query, headers...)
		for _, want := range test.want {
			if got := s.event().data; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q %q: got %v, want %v", test.query, test.header, got, want)
			}
		}
		s.end()
	}
}

func TestAReconnectBehindTheTerminalEventStopsAnEventSource(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	s := f.stream(task, "", "Last-Event-ID: "+all[len(all)-1]["eventId"].(string))
	if s.response.StatusCode != http.StatusNoContent {
		t.Errorf("status %d", s.response.StatusCode)
	}
	if body, err := io.ReadAll(s.lines); err != nil || len(body) > 0 {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestAStreamWithACursorThatCannotBeHonouredStartsAgainBehindAWarning(t *testing.T) {
	f := serve(t)
	task := f.finished()
	s := f.open(task, "?lastEventId=7-00000000")
	warning := s.event()
	if warning.id != "0-0" || warning.data["eventId"] != "0-0" || warning.data["type"] != "TASK_MESSAGE" {
		t.Errorf("warning %+v", warning)
	}
	for _, want := range f.events(task) {
		if got := s.event().data; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	s.end()
}

func TestAnIdleStreamShowsLifeWithoutMovingTheCursor(t *testing.T) {
	f := serve(t, func(o *Options) { o.Heartbeat = 20 * time.Millisecond })
	task := f.create()
	run := f.start(task)
	started := f.events(task)[0]["eventId"].(string)

	for _, test := range []struct {
		name, query string
		replayed    int
		want        string
	}{
		{"after a replay", "", 1, started},
		{"resumed", "?lastEventId=" + started, 0, started},
	} {
		s := f.open(task, test.query)
		for range test.replayed {
			s.wantEvent(task, "TASK_STARTED")
		}
		s.ping()
		for range 3 {
			s.ping()
			m, err := s.next()
			must(t, err)
			checkKeys(t, m.data, "type", "taskId", "eventId", "createdAt", "payload")
			if m.id != "" || m.data["type"] != "HEARTBEAT" || m.data["taskId"] != task || m.data["eventId"] != test.want ||
				fmt.Sprint(m.data["payload"]) != "map[live:true]" {
				t.Errorf("%s: heartbeat %+v", test.name, m)
			}
			checkTime(t, m.data["createdAt"])
		}
	}

	// The next event's id is the one that later heartbeats repeat.
	s := f.open(task, "?lastEventId="+started)
	f.progress(run, 50)
	id := s.wantEvent(task, "TASK_PROGRESS").id
	for {
		m, err := s.next()
		must(t, err)
		if m.data != nil {
			if m.data["eventId"] != id {
				t.Errorf("heartbeat after %s: %v", id, m.data)
			}
			break
		}
	}

	// Polls never see one.
	for _, event := range f.events(task) {
		if event["type"] == "HEARTBEAT" {
			t.Errorf("a heartbeat in a poll: %v", event)
		}
	}

	// Without any event or cursor there is still a valid cursor in it.
	waiting := f.create()
	s = f.open(waiting, "")
	s.ping()
	s.ping()
	if m, err := s.next(); err != nil || m.data["eventId"] != "0" {
		t.Errorf("heartbeat %+v, %v", m, err)
	}
}

func TestDrainingCutsStreamsAndRefusesNewOnes(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	f.progress(run, 10)
	s := f.open(task, "")
	s.wantEvent(task, "TASK_STARTED")
	last := s.wantEvent(task, "TASK_PROGRESS").id

	f.api.Drain()
	s.cut()
	r := f.do("GET", "/api/v1/tasks/"+task+"/events/stream", "", "Last-Event-ID: "+last)
	r.checkProblem(t, http.StatusServiceUnavailable, codeUnavailable)
	if r.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	// Everything else goes on.
	f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task, "")
	f.create()
	if strings.Contains(f.log.String(), "level=ERROR") {
		t.Errorf("draining was logged as a fault: %s", f.log)
	}
}

func TestAClosedSubscriptionServiceCutsStreams(t *testing.T) {
	f := serve(t)
	task := f.create()
	f.start(task)
	s := f.open(task, "")
	s.wantEvent(task, "TASK_STARTED")
	f.bridge.Subscription.Close()
	s.cut()
}

func TestAStoreThatFailsInMidStreamCutsIt(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	for range 600 { // more than one page of a replay
		f.progress(run, 1)
	}
	f.faults.On(fakes.OpReadEvents, 2, fakes.FailBefore(nil))
	s := f.open(task, "")
	s.wantEvent(task, "TASK_STARTED")
	s.cut()
	if !strings.Contains(f.log.String(), "a stream failed and was cut") {
		t.Errorf("the fault is not in the log: %s", f.log)
	}
}

func TestACutStreamIsAnUnterminatedBodyAndAnEndedOneIsTerminated(t *testing.T) {
	f := serve(t)
	running, done := f.create(), f.finished()
	f.start(running)
	for _, ended := range []bool{true, false} { // the drain, which is for good, comes last
		task := map[bool]string{true: done, false: running}[ended]
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = fmt.Fprintf(conn, "GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
		must(t, err)
		var raw strings.Builder
		reader := bufio.NewReader(conn)
		for {
			line, err := reader.ReadString('\n')
			raw.WriteString(line)
			if ended && strings.HasSuffix(raw.String(), "\r\n0\r\n") || err != nil {
				break
			}
			if !ended && strings.HasPrefix(line, "id: ") {
				f.api.Drain()
			}
		}
		if !strings.Contains(raw.String(), "Transfer-Encoding: chunked") {
			t.Fatalf("not in chunks: %s", raw.String())
		}
		if got := strings.HasSuffix(raw.String(), "\r\n0\r\n"); got != ended {
			t.Errorf("ended in good form: %v, want %v: %q", got, ended, raw.String())
		}
	}
}

func TestAReaderThatStandsStillIsCutAndCostsNobodyElseAnything(t *testing.T) {
	f := serve(t, func(o *Options) { o.WriteTimeout = 2 * time.Second })
	task := f.create()
	run := f.start(task)

	// It sends its request and never reads.
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(t, err)
	defer conn.Close()
	must(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = fmt.Fprintf(conn, "GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
	must(t, err)

	healthy := f.open(task, "")
	healthy.wantEvent(task, "TASK_STARTED")
	text := strings.Repeat("x", 30<<10)
	report := func() {
		must(t, run.Message(context.Background(), taskbridge.Message{Text: text}))
		healthy.wantEvent(task, "TASK_MESSAGE")
	}
	for range 300 { // more than the system takes for it
		report()
	}
	f.log.wait(t, "too slow")
	report()
	f.complete(run, "null")
	healthy.wantEvent(task, "TASK_COMPLETED")
	healthy.end()
}

func TestALongReplayComesInOrderAndWithoutAHole(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	const events = 3_000
	for i := range events {
		f.progress(run, float64(i%101))
	}
	f.complete(run, "null")
	s := f.open(task, "")
	for i := range events + 2 {
		id := s.event().id
		if want := fmt.Sprintf("%d-", i+1); !strings.HasPrefix(id, want) {
			t.Fatalf("event %d has the id %s", i+1, id)
		}
	}
	s.end()
}

func TestAReplayOfLargeEventsIsSentInPieces(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	text := strings.Repeat("x", 30<<10)
	for range 40 {
		must(t, run.Message(context.Background(), taskbridge.Message{Text: text}))
	}
	f.complete(run, "null")
	s := f.open(task, "")
	s.wantEvent(task, "TASK_STARTED")
	for range 40 {
		if m := s.wantEvent(task, "TASK_MESSAGE"); m.data["payload"].(map[string]any)["message"] != text {
			t.Fatal("the message has changed on the way")
		}
	}
	s.wantEvent(task, "TASK_COMPLETED")
	s.end()

	// The same in one page of more than a megabyte.
	if n := len(f.events(task)); n != 42 {
		t.Errorf("%d events in a poll", n)
	}
}
