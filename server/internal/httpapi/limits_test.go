package httpapi

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
)

// limited is a server at which the header X-Who says who asks.
func limited(t *testing.T, limits ratelimit.Options) *fixture {
	t.Helper()
	limiter, err := ratelimit.New(limits)
	must(t, err)
	return serve(t, func(o *Options) {
		o.Limiter = limiter
		o.Authenticator = AuthenticatorFunc(func(r *http.Request) (taskbridge.Principal, error) {
			return taskbridge.Principal{Subject: "user " + r.Header.Get("X-Who")}, nil
		})
	})
}

func (r reply) checkLimited(t *testing.T) {
	t.Helper()
	r.checkProblem(t, http.StatusTooManyRequests, "RATE_LIMITED")
	if after := r.Header.Get("Retry-After"); after == "" || strings.Trim(after, "0123456789") != "" || after == "0" {
		t.Errorf("Retry-After %q", after)
	}
}

func TestRequestsAndCreationsOverTheirRateAreTurnedAway(t *testing.T) {
	f := limited(t, ratelimit.Options{
		Requests: ratelimit.Rate{PerSecond: 0.01, Burst: 3}, Creates: ratelimit.Rate{PerSecond: 0.01, Burst: 1},
	})
	f.create()
	f.do("POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"}`).checkLimited(t)
	f.expect(http.StatusOK, "GET", "/api/v1/tasks", "")
	f.do("GET", "/api/v1/tasks", "").checkLimited(t)
	f.expect(http.StatusOK, "GET", "/api/v1/tasks", "", "X-Who: other")
	f.expect(http.StatusOK, "GET", "/health", "")
}

// openStream opens an event stream and returns when its first line is there.
func (f *fixture) openStream(task string) *http.Response {
	f.Helper()
	r, err := http.NewRequest("GET", f.url+"/api/v1/tasks/"+task+"/events/stream", nil)
	must(f.T, err)
	response, err := f.client.Do(r)
	must(f.T, err)
	f.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		f.Fatalf("status %d", response.StatusCode)
	}
	_, err = bufio.NewReader(response.Body).ReadString('\n')
	must(f.T, err)
	return response
}

// handshake tries to open a WebSocket; the connection is nil unless it succeeds.
func (f *fixture) handshake(who string, want int) (*websocket.Conn, context.Context) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f.Cleanup(cancel)
	conn, response, err := websocket.Dial(ctx, f.url+"/api/v1/tasks/ws", &websocket.DialOptions{
		HTTPClient: f.client, HTTPHeader: http.Header{"X-Who": {who}},
	})
	if response == nil || response.StatusCode != want {
		f.Fatalf("handshake: %v, %+v, want %d", err, response, want)
	}
	if conn != nil {
		f.Cleanup(func() { _ = conn.CloseNow() }) // it may be closed already
	}
	return conn, ctx
}

func TestAStreamThatEndsByWhicheverWayMakesRoomForAnother(t *testing.T) {
	f := limited(t, ratelimit.Options{Streams: 1})
	task := f.create()
	path := "/api/v1/tasks/" + task + "/events/stream"
	room := func() { // until a place is free
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); ; {
			r, err := http.NewRequest("GET", f.url+path, nil)
			must(t, err)
			response, err := f.client.Do(r)
			must(t, err)
			must(t, response.Body.Close())
			if response.StatusCode == http.StatusOK {
				return
			}
			if time.Now().After(limit) {
				t.Fatal("a place was never given back")
			}
		}
	}
	for way, end := range map[string]func(){
		"the client of an event stream goes": func() {
			response := f.openStream(task)
			f.do("GET", path, "").checkLimited(t)
			must(t, response.Body.Close())
		},
		"the stream is refused":    func() { f.do("GET", "/api/v1/tasks/nothing/events/stream", "").checkProblem(t, 404, "TASK_NOT_FOUND") },
		"the cursor is refused":    func() { f.do("GET", path+"?lastEventId=rubbish!", "").checkProblem(t, 400, "INVALID_REQUEST") },
		"the handshake is refused": func() { f.do("GET", "/api/v1/tasks/ws", "").checkProblem(t, 400, "INVALID_REQUEST") },
		"the client of a WebSocket goes": func() {
			conn, _ := f.handshake("", http.StatusSwitchingProtocols)
			f.handshake("", http.StatusTooManyRequests)
			must(t, conn.CloseNow())
		},
		"the WebSocket is refused": func() {
			conn, ctx := f.handshake("", http.StatusSwitchingProtocols)
			must(t, conn.Write(ctx, websocket.MessageText, []byte(`{"action":"subscribe","taskId":"nothing"}`)))
			if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != 4404 {
				t.Errorf("closed by %v", err)
			}
		},
	} {
		t.Log(way)
		room()
		waitGone(f)
		end()
	}
	room()
}

// waitGone returns when no stream is running any more.
func waitGone(f *fixture) {
	f.Helper()
	select {
	case <-f.api.live.wait():
	case <-time.After(30 * time.Second):
		f.Fatal("a stream goes on")
	}
}

func TestAFullServerTurnsStreamsAwayForAWhile(t *testing.T) {
	f := limited(t, ratelimit.Options{TotalStreams: 1})
	task := f.create()
	f.openStream(task)
	r := f.do("GET", "/api/v1/tasks/"+task+"/events/stream", "", "X-Who: second")
	r.checkProblem(t, http.StatusServiceUnavailable, "UNAVAILABLE")
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	conn, ctx := f.handshake("second", http.StatusSwitchingProtocols)
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("closed by %v", err)
	}
}
