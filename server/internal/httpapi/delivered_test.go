package httpapi

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// deliveries counts what streams say of themselves.
type deliveries struct {
	mu            sync.Mutex
	events, bytes map[string]int
}

func newDeliveries(o *Options) *deliveries {
	d := &deliveries{events: map[string]int{}, bytes: map[string]int{}}
	o.Delivered = func(transport string, events, bytes int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events[transport] += events
		d.bytes[transport] += bytes
	}
	return d
}

func (d *deliveries) of(transport string) (events, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events[transport], d.bytes[transport]
}

func TestWhatIsDeliveredIsCountedByTransport(t *testing.T) {
	var d *deliveries
	var g *gauge
	f := serve(t, func(o *Options) { d, g = newDeliveries(o), newGauge(o) })
	task := f.create()
	run := f.start(task)
	text := strings.Repeat("x", 1000)
	for range 100 { // more than one piece
		must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
	}
	f.complete(run, "1")
	want := len(f.events(task))

	body, err := io.ReadAll(f.open(task, "").lines)
	must(t, err)
	receive(t, g.closed)
	if events, bytes := d.of("sse"); events != want || bytes != len(body) {
		t.Errorf("server-sent events: %d events in %d bytes, want %d in %d", events, bytes, want, len(body))
	}

	socket := f.connect()
	socket.subscribe(task, "")
	socket.confirmed(task, nil)
	last := ""
	for range want {
		if last, err = socket.eventID(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = socket.next() // the close frame
	if err == nil {
		t.Fatal("a frame behind the end")
	}
	receive(t, g.closed)
	events, bytes := d.of("websocket")
	if events != want || bytes < want*100 {
		t.Errorf("WebSocket: %d events in %d bytes, want %d", events, bytes, want)
	}

	// A client that has the end already gets it once more.
	again := f.connect()
	again.subscribe(task, last)
	again.confirmed(task, last)
	if id, err := again.eventID(); err != nil || id != last {
		t.Errorf("event %q, %v", id, err)
	}
	if _, err = again.next(); err == nil {
		t.Fatal("a frame behind the end")
	}
	receive(t, g.closed)
	if events, _ := d.of("websocket"); events != want+1 {
		t.Errorf("%d events, want %d", events, want+1)
	}
}

func TestAPollThatWaitsIsCountedAsOpenWhileItDoes(t *testing.T) {
	var g *gauge
	f := serve(t, func(o *Options) { g = newGauge(o) })
	task := f.create()
	polled := make(chan reply, 1)
	go func() { polled <- f.do("GET", "/api/v1/tasks/"+task+"/events?waitTimeoutMs=60000", "") }()
	if got := receive(t, g.opened); got != "longpoll" {
		t.Errorf("%q was opened", got)
	}
	f.start(task)
	if r := receive(t, polled); r.StatusCode != http.StatusOK {
		t.Errorf("answered %d", r.StatusCode)
	}
	if got := receive(t, g.closed); got != "longpoll" {
		t.Errorf("%q was closed", got)
	}
	f.events(task) // does not wait
	if len(g.opened) > 0 {
		t.Error("a poll that does not wait counts as open")
	}
}

func TestAStreamThatIsCutSinceItsReaderStandsStillIsCounted(t *testing.T) {
	cut := make(chan string, 10)
	f := serve(t, func(o *Options) {
		o.WriteTimeout = 300 * time.Millisecond
		o.SlowReaderCut = func(transport string) { cut <- transport }
	})
	task := f.create()
	run := f.longStream(task)
	stopped := map[string]*raw{"sse": f.rawConn(4 << 10), "websocket": f.rawConn(4 << 10)}
	stopped["websocket"].send("%s%s", upgradeRequest, subscribeText(task, ""))
	stopped["sse"].send("GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
	text := strings.Repeat("x", 1000)
	for len(stopped) > 0 {
		select {
		case transport := <-cut:
			if stopped[transport] == nil {
				t.Errorf("%q was cut", transport)
			}
			delete(stopped, transport)
		default:
			must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
		}
	}
	f.complete(run, "1")
}
