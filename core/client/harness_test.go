package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

const taskID = "3ff-oneoneone"

// pipes is a network inside the process: in a synctest bubble, waiting for it
// lets the bubble's time pass.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.dialled:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.dialled <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect returns a client of a server with the handler, for use in a bubble.
func connect(t *testing.T, handler http.Handler, change ...func(*client.Options)) *client.Client {
	t.Helper()
	network := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler, ErrorLog: nil}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(network) // ends by the close below
	}()
	transport := &http.Transport{DialContext: network.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	opts := client.Options{URL: "http://bridge.example", Token: "secret-token", HTTPClient: &http.Client{Transport: transport}}
	for _, apply := range change {
		apply(&opts)
	}
	c, err := client.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Ways in which a stream ends.
type ending int

const (
	clean ending = iota // in good form
	cut                 // aborted
	hold                // not at all, until the client goes away
)

// bridge is a server of one task that keeps to the protocol, with faults on
// demand.
type bridge struct {
	t      *testing.T
	events []client.Event

	// fault, if set, changes the n-th stream's body (n from 1) and says how it ends.
	fault func(n int, body string) (string, ending)
	// answer, if set, may answer the n-th request (n from 1) in place of the bridge.
	answer func(n int, w http.ResponseWriter, r *http.Request) bool
	// replay is how many events before the cursor each answer repeats.
	replay int

	mu       sync.Mutex
	requests []string
	streams  int
	gone     chan struct{} // one element for each held stream that the client has left
}

func newBridge(t *testing.T, events ...client.Event) *bridge {
	return &bridge{t: t, events: events, gone: make(chan struct{}, 100)}
}

// story is a stream of n events, the last of them terminal.
func story(n int, id func(int) string) []client.Event {
	events := make([]client.Event, n)
	for i := range events {
		events[i] = client.Event{
			Type: taskbridge.EventMessage, TaskID: taskID, ID: id(i + 1),
			CreatedAt: time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC),
			Payload:   json.RawMessage(fmt.Sprintf(`{"message":"number %d"}`, i+1)),
		}
	}
	events[0].Type, events[0].Payload = taskbridge.EventStarted, json.RawMessage(`{}`)
	events[n-1].Type, events[n-1].Payload = taskbridge.EventCompleted, json.RawMessage(`{"result":{"n":1}}`)
	return events
}

func ordered(n int) string { return fmt.Sprintf("%d-%08x", n, n) }

// opaque ids tell no order.
func opaque(n int) string { return fmt.Sprintf("ev%x", (n*7919)%10007) }

func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.URL.RequestURI()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		line += " behind " + id
	}
	b.mu.Lock()
	b.requests = append(b.requests, line)
	n := len(b.requests)
	b.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret-token" {
		b.t.Errorf("%s: no credential", line)
	}
	if b.answer != nil && b.answer(n, w, r) {
		return
	}
	switch strings.TrimPrefix(r.URL.Path, "/api/v1/tasks/"+taskID) {
	case "/events/stream":
		b.stream(w, r)
	case "/events":
		b.poll(w, r)
	default:
		http.NotFound(w, r)
	}
}

// seen returns the requests so far.
func (b *bridge) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests)
}

// after returns what lies behind the cursor, and false where it names no event.
func (b *bridge) after(w http.ResponseWriter, r *http.Request, cursor string) (rest []client.Event, ok bool) {
	if r.URL.Query().Get("gap") != "error" {
		b.t.Errorf("%s does not ask to be told of a gap", r.URL)
	}
	if cursor == "" {
		return b.events, true
	}
	for i, e := range b.events {
		if e.ID == cursor {
			return b.events[max(0, i+1-b.replay):], true
		}
	}
	problem(w, http.StatusGone, "EVENT_GAP", map[string]any{"firstEventId": b.events[0].ID, "lastEventId": b.events[len(b.events)-1].ID})
	return nil, false
}

func (b *bridge) stream(w http.ResponseWriter, r *http.Request) {
	if accepted := r.Header.Get("Accept") + ", " + r.Header.Get("Accept-Encoding"); accepted != "text/event-stream, identity" {
		b.t.Errorf("a stream is asked for as %s", accepted)
	}
	cursor := r.Header.Get("Last-Event-ID")
	rest, ok := b.after(w, r, cursor)
	if !ok {
		return
	}
	if cursor != "" && cursor == b.events[len(b.events)-1].ID {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b.mu.Lock()
	b.streams++
	n := b.streams
	b.mu.Unlock()
	body, end := frames(rest...), clean
	if b.fault != nil {
		body, end = b.fault(n, body)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send(w, body)
	switch end {
	case cut:
		panic(http.ErrAbortHandler)
	case hold:
		<-r.Context().Done()
		b.gone <- struct{}{}
	}
}

func (b *bridge) poll(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	rest, ok := b.after(w, r, q.Get("afterEventId"))
	if !ok {
		return
	}
	if limit, err := strconv.Atoi(q.Get("maxEvents")); err != nil || limit < 1 || limit > 500 {
		b.t.Errorf("maxEvents=%s", q.Get("maxEvents"))
	} else {
		rest = rest[:min(limit, len(rest))]
	}
	page(w, rest, b.events[len(b.events)-1].Type.Status())
}

func page(w http.ResponseWriter, events []client.Event, status taskbridge.TaskStatus) {
	if events == nil {
		events = []client.Event{}
	}
	if status == "" {
		status = taskbridge.StatusRunning
	}
	answer(w, http.StatusOK, map[string]any{"taskId": taskID, "events": events, "nextAfterEventId": nil, "hasMore": false, "status": status})
}

// frames is how events go over a stream.
func frames(events ...client.Event) string {
	var body strings.Builder
	for _, e := range events {
		envelope, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&body, "id: %s\ndata: %s\n\n", e.ID, envelope)
	}
	return body.String()
}

const beat = ": ping\n\n" + `data: {"type":"HEARTBEAT","taskId":"` + taskID + `","eventId":"0","createdAt":"2026-01-01T00:00:00Z","payload":{"live":true}}` + "\n\n"

// send writes at once, also nothing: the head.
func send(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text) // the client may have gone
	_ = http.NewResponseController(w).Flush()
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

func problem(w http.ResponseWriter, status int, code string, details map[string]any) {
	if details == nil {
		details = map[string]any{}
	}
	answer(w, status, map[string]any{"code": code, "message": "said the server", "details": details, "timestamp": "2026-01-01T00:00:00Z"})
}

// follow collects what a loop yields.
func follow(t *testing.T, c *client.Client, opts client.FollowOptions) ([]client.Event, error) {
	t.Helper()
	var events []client.Event
	for e, err := range c.Follow(t.Context(), taskID, opts) {
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

// same compares what came with what was sent.
func same(t *testing.T, got, want []client.Event) {
	t.Helper()
	if a, b := frames(got...), frames(want...); a != b {
		t.Errorf("came:\n%s\nwanted:\n%s", a, b)
	}
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.NewTimer(d).C }

// quick has no delays to speak of, for tests that count requests.
func quick(o *client.Options) {
	o.Retry.MinDelay, o.Retry.MaxDelay = time.Millisecond, time.Millisecond
}
