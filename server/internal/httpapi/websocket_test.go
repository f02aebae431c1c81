package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// socket is a WebSocket's client.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

// connect makes the handshake, which must succeed.
func (f *fixture) connect(header ...string) *socket {
	f.Helper()
	s, response, err := f.tryConnect(header...)
	if err != nil {
		f.Fatalf("%v, %+v", err, response)
	}
	return s
}

func (f *fixture) tryConnect(header ...string) (*socket, *http.Response, error) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f.Cleanup(cancel)
	h := http.Header{}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	conn, response, err := websocket.Dial(ctx, f.url+"/api/v1/tasks/ws", &websocket.DialOptions{HTTPClient: f.client, HTTPHeader: h})
	if err != nil {
		return nil, response, err
	}
	conn.SetReadLimit(-1)
	f.Cleanup(func() { _ = conn.CloseNow() }) // closed by the test already, or by the server
	return &socket{f.T, conn, ctx}, response, nil
}

func (s *socket) send(frame string) {
	s.t.Helper()
	must(s.t, s.conn.Write(s.ctx, websocket.MessageText, []byte(frame)))
}

// subscribe sends the first frame; last is the cursor, "" for none.
func (s *socket) subscribe(taskID, last string) {
	s.t.Helper()
	frame := map[string]any{"action": "subscribe", "taskId": taskID, "lastEventId": nil}
	if last != "" {
		frame["lastEventId"] = last
	}
	text, err := json.Marshal(frame)
	must(s.t, err)
	s.send(string(text))
}

// next returns the next frame, which must be text, or the error of the end.
func (s *socket) next() (map[string]any, error) {
	kind, data, err := s.conn.Read(s.ctx)
	if err != nil {
		return nil, err
	}
	var frame map[string]any
	if err := json.Unmarshal(data, &frame); err != nil || kind != websocket.MessageText {
		s.t.Errorf("frame %v %q: %v", kind, data, err)
	}
	return frame, nil
}

func (s *socket) frame() map[string]any {
	s.t.Helper()
	frame, err := s.next()
	must(s.t, err)
	return frame
}

// confirmed reads the confirmation; after is nil or the cursor that it names.
func (s *socket) confirmed(taskID string, after any) {
	s.t.Helper()
	frame := s.frame()
	checkKeys(s.t, frame, "type", "taskId", "replayStartedAfterEventId", "live")
	if frame["type"] != "SUBSCRIPTION_CONFIRMED" || frame["taskId"] != taskID || frame["live"] != true ||
		frame["replayStartedAfterEventId"] != after {
		s.t.Errorf("confirmation %v, want the replay after %v", frame, after)
	}
}

// event reads the next event's envelope.
func (s *socket) event(taskID, eventType string) map[string]any {
	s.t.Helper()
	for {
		frame := s.frame()
		if frame["type"] == "HEARTBEAT" {
			continue
		}
		checkEnvelope(s.t, frame, taskID, eventType)
		return frame
	}
}

// closed reads to the end and returns the close code.
func (s *socket) closed() websocket.StatusCode {
	s.t.Helper()
	for {
		if _, err := s.next(); err != nil {
			code := websocket.CloseStatus(err)
			if code == -1 {
				s.t.Fatalf("no close frame: %v", err)
			}
			return code
		}
	}
}

func (s *socket) wantClosed(code websocket.StatusCode) {
	s.t.Helper()
	if got := s.closed(); got != code {
		s.t.Errorf("closed with %d, want %d", got, code)
	}
}

func TestAWebSocketConfirmsReplaysFollowsAndClosesWithTheTask(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	f.progress(run, 10)
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	s.event(task, "TASK_STARTED")
	s.event(task, "TASK_PROGRESS")
	f.progress(run, 20)
	if e := s.event(task, "TASK_PROGRESS"); e["payload"].(map[string]any)["progress"] != 20.0 {
		t.Errorf("event %v", e)
	}
	must(t, run.Message(t.Context(), taskbridge.Message{Text: strings.Repeat("é", 15_000)}))
	if e := s.event(task, "TASK_MESSAGE"); e["payload"].(map[string]any)["message"] != strings.Repeat("é", 15_000) {
		t.Error("a long message has changed on its way")
	}
	f.complete(run, `"`+strings.Repeat("x", 100_000)+`"`)
	if e := s.event(task, "TASK_COMPLETED"); e["payload"].(map[string]any)["result"] != strings.Repeat("x", 100_000) {
		t.Error("a long result has changed on its way")
	}
	s.wantClosed(1000)
}

func TestTheFramesOfAWebSocketAreThoseOfAPoll(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	for i := range all {
		last, after := "", any(nil)
		if i > 0 {
			last = all[i-1]["eventId"].(string)
			after = last
		}
		s := f.connect()
		s.subscribe(task, last)
		s.confirmed(task, after)
		for _, want := range all[i:] {
			if got := s.frame(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("after %d: got %v, want %v", i, got, want)
			}
		}
		s.wantClosed(1000)
	}
}

func TestACursorAtTheTerminalEventGetsItOnceMore(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	last := all[len(all)-1]
	s := f.connect()
	s.subscribe(task, last["eventId"].(string))
	s.confirmed(task, last["eventId"])
	if got := s.event(task, "TASK_COMPLETED"); fmt.Sprint(got) != fmt.Sprint(last) {
		t.Errorf("got %v, want %v", got, last)
	}
	if _, err := s.next(); websocket.CloseStatus(err) != 1000 {
		t.Errorf("then %v, want 1000", err)
	}
}

func TestAFirstFrameThatIsNoSubscriptionClosesForGood(t *testing.T) {
	f := serve(t)
	task := f.create()
	for name, frame := range map[string]string{
		"no JSON":             `subscribe`,
		"no object":           `["subscribe"]`,
		"empty":               ``,
		"another action":      `{"action":"publish","taskId":"` + task + `"}`,
		"no action":           `{"taskId":"` + task + `"}`,
		"no task":             `{"action":"subscribe"}`,
		"a task that is none": `{"action":"subscribe","taskId":7}`,
		"a cursor in form":    `{"action":"subscribe","taskId":"` + task + `","lastEventId":"rubbish!"}`,
		"a heartbeat's id":    `{"action":"subscribe","taskId":"` + task + `","lastEventId":"hb-1"}`,
		"a number for cursor": `{"action":"subscribe","taskId":"` + task + `","lastEventId":1}`,
		"an unknown gap":      `{"action":"subscribe","taskId":"` + task + `","gap":"fill"}`,
		"two frames in one":   `{"action":"subscribe","taskId":"` + task + `"}{}`,
		"a long one":          `{"action":"subscribe","taskId":"` + task + `","x":"` + strings.Repeat("x", maxClientFrame) + `"}`,
	} {
		s := f.connect()
		s.send(frame)
		if _, err := s.next(); websocket.CloseStatus(err) != 1008 {
			t.Errorf("%s: %v, want 1008", name, err)
		}
	}
	s := f.connect()
	must(t, s.conn.Write(s.ctx, websocket.MessageBinary, []byte(`{"action":"subscribe","taskId":"`+task+`"}`)))
	s.wantClosed(1008)
}

func TestExtraMembersAndLaterFramesOfAClientSayNothing(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	s := f.connect()
	s.send(`{"action":"subscribe","taskId":"` + task + `","lastEventId":"0-0","client":{"name":"x"}}`)
	s.confirmed(task, nil)
	s.event(task, "TASK_STARTED")
	s.send("rubbish")
	s.send(strings.Repeat("x", 3*maxClientFrame))
	must(t, s.conn.Write(s.ctx, websocket.MessageBinary, []byte{1}))
	f.complete(run, "1")
	s.event(task, "TASK_COMPLETED")
	s.wantClosed(1000)
}

func TestAForeignTaskLooksLikeAMissingOneToAWebSocket(t *testing.T) {
	f := serve(t, func(o *Options) { o.Authenticator = bySubject })
	owner := "X-Subject: owner"
	body := fmt.Sprintf(`{"clientRequestId":%q,"taskType":"scripted"}`, newKey())
	task := f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body, owner)["taskId"].(string)
	answer := func(id string) string {
		s := f.connect("X-Subject: other")
		s.subscribe(id, "")
		_, err := s.next()
		if websocket.CloseStatus(err) != 4404 {
			t.Errorf("%s: %v, want 4404", id, err)
		}
		var closed websocket.CloseError
		errors.As(err, &closed)
		return closed.Reason
	}
	foreign := answer(task)
	for _, id := range []string{"nothing", task + "x", "..", "a/b", " ", "\x00"} {
		if missing := answer(id); missing != foreign {
			t.Errorf("a missing task %q: %q, a foreign one: %q", id, missing, foreign)
		}
	}
	s := f.connect(owner)
	s.subscribe(task, "")
	s.confirmed(task, nil)
}

// bySubject takes the header X-Subject for whoever calls.
var bySubject = AuthenticatorFunc(func(r *http.Request) (taskbridge.Principal, error) {
	subject := r.Header.Get("X-Subject")
	if subject == "" {
		return taskbridge.Principal{}, ErrUnauthenticated
	}
	return localUser(subject), nil
})

// localUser may do everything with what is its own.
func localUser(subject string) taskbridge.Principal {
	return taskbridge.Principal{Subject: subject, Scopes: []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite}}
}

func TestAWebSocketWithoutCredentialsIsRefusedBeforeTheUpgrade(t *testing.T) {
	f := serve(t, func(o *Options) { o.Authenticator = bySubject })
	_, response, err := f.tryConnect()
	if err == nil || response == nil || response.StatusCode != http.StatusUnauthorized {
		t.Errorf("%v, %+v", err, response)
	}
}

func TestAWebSocketIsForPagesOfOurOwnHostsOnly(t *testing.T) {
	f := serve(t, func(o *Options) { o.AllowedHosts = []string{"app.example"} })
	for origin, want := range map[string]bool{
		"http://localhost:3000": true, "http://127.0.0.1": true, "https://app.example": true,
		"https://evil.example": false, "null": false, "https://app.example.evil.example": false, "file://": false, "%": false,
	} {
		_, response, err := f.tryConnect("Origin: " + origin)
		if (err == nil) != want || !want && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v", origin, err)
		}
	}
}

func TestARequestWithoutAnUpgradeIsNoWebSocket(t *testing.T) {
	f := serve(t)
	f.do("GET", "/api/v1/tasks/ws", "").checkProblem(t, http.StatusBadRequest, codeInvalidRequest)
	for _, test := range []struct{ header, value string }{{"Sec-WebSocket-Version", "12"}, {"Sec-WebSocket-Key", "short"}} {
		r := f.do("GET", "/api/v1/tasks/ws", "", "Upgrade: websocket", "Connection: Upgrade",
			"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", test.header+": "+test.value)
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s: status %d", test.header, test.value, r.StatusCode)
		}
	}
}

func TestACursorOfAnEventThatIsNotThere(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	s := f.connect()
	s.send(`{"action":"subscribe","taskId":"` + task + `","lastEventId":"7-00000000","gap":"error"}`)
	_, err := s.next()
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != 4410 ||
		!strings.Contains(closed.Reason, all[0]["eventId"].(string)) || !strings.Contains(closed.Reason, all[2]["eventId"].(string)) {
		t.Errorf("with gap=error: %v", err)
	}

	s = f.connect()
	s.subscribe(task, "7-00000000")
	s.confirmed(task, nil) // it begins again
	if warning := s.frame(); warning["type"] != "TASK_MESSAGE" || warning["eventId"] != "0-0" || warning["payload"].(map[string]any)["level"] != "warning" {
		t.Errorf("warning %v", warning)
	}
	for _, want := range all {
		if got := s.frame(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	s.wantClosed(1000)
}

func TestAWebSocketGoesOnWhereAnEventStreamStoppedAndTheOtherWayRound(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	f.progress(run, 1, 2, 3)
	events := f.open(task, "")
	events.wantEvent(task, "TASK_STARTED")
	last := events.wantEvent(task, "TASK_PROGRESS").id
	must(t, events.response.Body.Close())

	s := f.connect()
	s.subscribe(task, last)
	s.confirmed(task, last)
	e := s.event(task, "TASK_PROGRESS")
	if e["payload"].(map[string]any)["progress"] != 2.0 {
		t.Errorf("event %v", e)
	}
	must(t, s.conn.CloseNow())

	events = f.open(task, "", "Last-Event-ID: "+e["eventId"].(string))
	if m := events.wantEvent(task, "TASK_PROGRESS"); m.data["payload"].(map[string]any)["progress"] != 3.0 {
		t.Errorf("event %v", m.data)
	}
	f.complete(run, "1")
	events.wantEvent(task, "TASK_COMPLETED")
	events.end()
}

func TestAnIdleWebSocketHasHeartbeats(t *testing.T) {
	f := serve(t, func(o *Options) { o.SocketHeartbeat = 20 * time.Millisecond })
	task := f.create()
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	for range 2 * maxSilence { // it answers the pings
		frame := s.frame()
		checkKeys(t, frame, "type", "taskId", "live")
		if frame["type"] != "HEARTBEAT" || frame["taskId"] != task || frame["live"] != true {
			t.Errorf("heartbeat %v", frame)
		}
	}
}

func TestAFirstFrameThatDoesNotComeClosesTheWebSocket(t *testing.T) {
	f := serve(t, func(o *Options) { o.SubscribeTimeout = 20 * time.Millisecond })
	f.connect().wantClosed(1001)
}

func TestAStoreThatCannotBeUsedClosesTheWebSocketForNow(t *testing.T) {
	for _, op := range []fakes.Op{fakes.OpGetTask, fakes.OpWatchEvents, fakes.OpStreamState} {
		f := serve(t)
		task := f.create()
		f.faults.On(op, 1, fakes.FailBefore(nil))
		s := f.connect()
		s.subscribe(task, "")
		if _, err := s.next(); websocket.CloseStatus(err) != 1011 {
			t.Errorf("%s: %v, want 1011", op, err)
		}
		f.log.wait(t, "a WebSocket failed and was closed")
	}
}

func TestAStoreThatFailsInMidStreamClosesTheWebSocketForNow(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	for range 600 {
		f.progress(run, 1)
	}
	f.faults.On(fakes.OpReadEvents, 2, fakes.FailBefore(nil))
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	s.event(task, "TASK_STARTED")
	s.wantClosed(1011)
}

// revocable is an authenticator whose answer can change.
type revocable struct {
	mu        sync.Mutex
	principal taskbridge.Principal
	err       error
	asked     chan struct{}
}

func (r *revocable) Authenticate(*http.Request) (taskbridge.Principal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.asked <- struct{}{}:
	default:
	}
	return r.principal, r.err
}

func (r *revocable) become(principal taskbridge.Principal, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.principal, r.err = principal, err
}

func TestAStreamEndsWithItsCredentialsAndNothingIsDeliveredAfterwards(t *testing.T) {
	for name, after := range map[string]struct {
		principal taskbridge.Principal
		err       error
	}{
		"revoked":         {taskbridge.Principal{}, ErrUnauthenticated},
		"somebody else's": {localUser("other"), nil},
		"without rights":  {taskbridge.Principal{}, nil},
	} {
		for _, transport := range []string{"sse", "websocket"} {
			t.Run(name+"/"+transport, func(t *testing.T) {
				r := &revocable{principal: localUser("local")}
				f := serve(t, func(o *Options) {
					o.Authenticator, o.Recheck = r, time.Nanosecond
				})
				task := f.create()
				run := f.start(task)
				if transport == "sse" {
					s := f.open(task, "")
					s.wantEvent(task, "TASK_STARTED")
					s.ping()
					r.become(after.principal, after.err)
					f.progress(run, 1)
					s.cut()
					return
				}
				s := f.connect()
				s.subscribe(task, "")
				s.confirmed(task, nil)
				s.event(task, "TASK_STARTED")
				r.become(after.principal, after.err)
				f.progress(run, 1)
				if frame, err := s.next(); websocket.CloseStatus(err) != 1001 {
					t.Errorf("then %v, %v, want 1001", frame, err)
				}
			})
		}
	}
}

func TestAnIdleStreamEndsWithItsCredentials(t *testing.T) {
	r := &revocable{principal: localUser("local")}
	f := serve(t, func(o *Options) {
		o.Authenticator, o.Recheck = r, time.Nanosecond
		o.Heartbeat, o.SocketHeartbeat = 20*time.Millisecond, 20*time.Millisecond
	})
	task := f.create()
	events, s := f.open(task, ""), f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	r.become(taskbridge.Principal{}, ErrUnauthenticated)
	events.cut()
	s.wantClosed(1001)
}

func TestAnAuthenticatorThatIsAwayEndsNoStream(t *testing.T) {
	r := &revocable{principal: localUser("local"), asked: make(chan struct{})}
	f := serve(t, func(o *Options) { o.Authenticator, o.Recheck = r, time.Nanosecond })
	task := f.create()
	run := f.start(task)
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	s.event(task, "TASK_STARTED")
	r.become(taskbridge.Principal{}, errors.New("the key server does not answer"))
	f.progress(run, 1)
	s.event(task, "TASK_PROGRESS")
	f.complete(run, "1")
	s.event(task, "TASK_COMPLETED")
	s.wantClosed(1000)
}

func TestDrainingClosesWebSocketsAndRefusesNewOnes(t *testing.T) {
	f := serve(t)
	task := f.create()
	f.start(task)
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	s.event(task, "TASK_STARTED")
	silent := f.connect() // has not subscribed yet
	f.api.Drain()
	s.wantClosed(1001)
	silent.wantClosed(1001)
	_, response, err := f.tryConnect()
	if err == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("while draining: %v, %+v", err, response)
	}
	must(t, f.api.Wait(t.Context()))
	if strings.Contains(f.log.String(), "level=ERROR") {
		t.Errorf("draining was logged as a fault: %s", f.log)
	}
}
