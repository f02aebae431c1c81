package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/taskbridge/taskbridge/server/internal/openapi/openapitest"
)

// waitLimit is how long a test waits for what must come. It is no expectation:
// the machine may be busy with anything else.
const waitLimit = 2 * time.Minute

var contract = sync.OnceValues(openapitest.Load)

// checkFrame checks what a WebSocket was sent against the document.
func checkFrame(t *testing.T, frame []byte) {
	t.Helper()
	c, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckFrame(frame); err != nil {
		t.Errorf("the frame %s is not as the document says: %v", frame, err)
	}
}

var transports = []string{"sse", "websocket", "longpoll"}

// errCut: the stream has ended before its task. A poll is cut by its refusal.
var errCut = errors.New("the stream was cut")

// follower reads a task's events by one transport, as they come. It ends with
// its stream, at the latest with the test.
type follower struct {
	t         *testing.T
	transport string
	cancel    context.CancelFunc
	ended     chan struct{}
	err       error // once ended: io.EOF after the terminal event

	mu     sync.Mutex
	events int
	last   string        // the last event's id
	came   chan struct{} // closed at the next event
}

// follow opens a stream; status is what the server said to that, and there is
// no follower unless it was good.
func (i *instance) follow(transport, task string, credential http.Header, after string) (f *follower, status int) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	f = &follower{t: i.t, transport: transport, cancel: cancel, ended: make(chan struct{}), last: after, came: make(chan struct{})}
	var read func() error
	switch transport {
	case "sse":
		read, status = f.openSSE(ctx, i, task, credential)
	case "websocket":
		read, status = f.openSocket(ctx, i, task, credential)
	case "longpoll":
		read, status = f.openPoll(ctx, i, task, credential)
	}
	if read == nil {
		cancel()
		return nil, status
	}
	go func() {
		defer close(f.ended)
		defer cancel()
		f.err = read()
	}()
	i.t.Cleanup(f.stop)
	return f, status
}

func (f *follower) stop() {
	f.cancel()
	<-f.ended
}

// note takes an event.
func (f *follower) note(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events++
	f.last = id
	close(f.came)
	f.came = make(chan struct{})
}

// seen returns how many events have come.
func (f *follower) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

// until waits for so many events.
func (f *follower) until(events int) {
	f.t.Helper()
	for {
		f.mu.Lock()
		seen, came := f.events, f.came
		f.mu.Unlock()
		if seen >= events {
			return
		}
		select {
		case <-came:
		case <-f.ended:
			if seen = f.seen(); seen < events {
				f.t.Fatalf("the %s stream ended after %d events, %d were to come: %v", f.transport, seen, events, f.err)
			}
		}
	}
}

// wantEnd waits for the end of the stream.
func (f *follower) wantEnd(want error) {
	f.t.Helper()
	<-f.ended
	if !errors.Is(f.err, want) {
		f.t.Errorf("the %s stream ended with %v after %d events, want %v", f.transport, f.err, f.seen(), want)
	}
}

func (i *instance) get(ctx context.Context, path string, credential http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+path, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range credential {
		r.Header[name] = values
	}
	return openapitest.Transport(i.t, i.client.Transport).RoundTrip(r)
}

func (f *follower) openSSE(ctx context.Context, i *instance, task string, credential http.Header) (read func() error, status int) {
	f.t.Helper()
	response, err := i.get(ctx, "/api/v1/tasks/"+task+"/events/stream?lastEventId="+f.last+i.query, credential)
	if err != nil {
		f.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		if err := response.Body.Close(); err != nil {
			f.t.Error(err)
		}
		return nil, response.StatusCode
	}
	return func() error {
		defer response.Body.Close()
		lines := bufio.NewReader(response.Body)
		for {
			line, err := lines.ReadString('\n')
			switch {
			case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				return io.EOF
			case err != nil && ctx.Err() == nil: // cut in chunks, or a reset stream of HTTP/2
				return fmt.Errorf("%w: %w", errCut, err)
			case err != nil:
				return err
			}
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				f.note(strings.TrimSuffix(id, "\n"))
			}
		}
	}, response.StatusCode
}

func (f *follower) openSocket(ctx context.Context, i *instance, task string, credential http.Header) (read func() error, status int) {
	f.t.Helper()
	options := &websocket.DialOptions{HTTPHeader: credential.Clone(), HTTPClient: i.client}
	if offered := options.HTTPHeader.Get("Sec-Websocket-Protocol"); offered != "" { // the library's to send
		options.Subprotocols = strings.Split(offered, ", ")
		options.HTTPHeader.Del("Sec-Websocket-Protocol")
	}
	conn, response, err := websocket.Dial(ctx, i.url+"/api/v1/tasks/ws"+i.query, options)
	if err != nil {
		if response == nil {
			f.t.Fatal(err)
		}
		return nil, response.StatusCode
	}
	var last any
	if f.last != "" {
		last = f.last
	}
	first, err := json.Marshal(map[string]any{"action": "subscribe", "taskId": task, "lastEventId": last})
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, first)
	}
	if err != nil {
		f.t.Fatal(errors.Join(err, conn.CloseNow()))
	}
	return func() error {
		defer conn.CloseNow()
		for {
			_, data, err := conn.Read(ctx)
			switch code := websocket.CloseStatus(err); {
			case code == websocket.StatusNormalClosure:
				return io.EOF
			case code == websocket.StatusGoingAway:
				return fmt.Errorf("%w: %w", errCut, err)
			case err != nil:
				return err
			}
			checkFrame(f.t, data)
			var frame struct{ EventID string }
			if err := json.Unmarshal(data, &frame); err != nil {
				return err
			}
			if frame.EventID != "" {
				f.note(frame.EventID)
			}
		}
	}, response.StatusCode
}

// openPoll asks for nothing yet: what a poll is told, it is told by its answer.
func (f *follower) openPoll(ctx context.Context, i *instance, task string, credential http.Header) (read func() error, status int) {
	return func() error {
		for {
			response, err := i.get(ctx, fmt.Sprintf("/api/v1/tasks/%s/events?waitTimeoutMs=%d&afterEventId=%s", task, i.pollWait.Milliseconds(), f.last), credential)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%w: %s %s", errCut, response.Status, body)
			}
			var page struct {
				Events  []struct{ EventID, Type string }
				Status  string
				HasMore bool
			}
			if err := json.Unmarshal(body, &page); err != nil {
				return err
			}
			for _, event := range page.Events {
				f.note(event.EventID)
				if strings.Contains(" TASK_COMPLETED TASK_FAILED TASK_CANCELLED ", " "+event.Type+" ") {
					return io.EOF
				}
			}
		}
	}, http.StatusOK
}

// bearer is the header of a key or token.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// exchange makes a request with any credential and decodes the object that is
// answered.
func (i *instance) exchange(method, path string, credential http.Header, body string) (status int, object map[string]any) {
	i.t.Helper()
	r, err := http.NewRequest(method, i.url+path, strings.NewReader(body))
	if err != nil {
		i.t.Fatal(err)
	}
	for name, values := range credential {
		r.Header[name] = values
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := openapitest.Transport(i.t, i.client.Transport).RoundTrip(r)
	if err != nil {
		i.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err == nil && len(bytes.TrimSpace(content)) > 0 {
		err = json.Unmarshal(content, &object)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return response.StatusCode, object
}

// demo makes a task that reports every so many milliseconds for a long time, and
// waits until it has started.
func (i *instance) demo(credential http.Header, key string, tickMillis int) (task, started string) {
	i.t.Helper()
	status, row := i.exchange("POST", "/api/v1/tasks", credential,
		fmt.Sprintf(`{"clientRequestId":%q,"taskType":"demo","input":{"ticks":90000,"tickMillis":%d}}`, key, tickMillis))
	if status != http.StatusCreated {
		i.t.Fatalf("%d %v", status, row)
	}
	task = row["taskId"].(string)
	status, page := i.exchange("GET", "/api/v1/tasks/"+task+"/events?maxEvents=1&waitTimeoutMs=60000", credential, "")
	if started, _ = page["nextAfterEventId"].(string); status != http.StatusOK || started == "" {
		i.t.Fatalf("the task does not start: %d %v", status, page)
	}
	return task, started
}
