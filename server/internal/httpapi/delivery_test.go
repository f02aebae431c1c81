package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Live events are written as far as the system takes them, which is to the middle
// of one: what follows must be the rest of it, whatever else is to be said.
func TestAReaderThatIsBehindForAWhileGetsEveryEventWhole(t *testing.T) {
	const events = 1500
	f := serve(t, func(o *Options) { o.WriteTimeout = 10 * time.Minute })
	task := f.create()
	run := f.longStream(task)
	stream, socket := f.rawConn(64<<10), f.rawConn(64<<10)
	stream.send("GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
	stream.head(http.StatusOK)
	socket.send("%s%s", upgradeRequest, subscribeText(task, ""))
	socket.head(http.StatusSwitchingProtocols)
	for i := range events {
		must(t, run.Message(t.Context(), taskbridge.Message{Text: strings.Repeat("x", 3*i%2000)}))
		if i%100 == 0 {
			socket.send("%s", clientFrameOf(opPing, []byte("still there?")))
		}
	}
	f.complete(run, "1")

	var ids []string
	for pongs := 0; ; {
		opcode, payload, err := socket.frame()
		must(t, err)
		if opcode == opClose {
			if pongs != events/100 {
				t.Errorf("%d pings were answered, of %d", pongs, events/100)
			}
			break
		}
		if opcode == opPing+1 {
			pongs++
			continue
		}
		var frame map[string]any
		must(t, json.Unmarshal(payload, &frame))
		if id, ok := frame["eventId"].(string); ok {
			ids = append(ids, id)
		}
	}
	sequences(t, events+2, next(ids))

	body, err := io.ReadAll(httputil.NewChunkedReader(stream.in))
	must(t, err)
	ids = nil
	for line := range strings.Lines(string(body)) {
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && !json.Valid([]byte(data)) {
			t.Errorf("data %q", data)
		}
	}
	sequences(t, events+2, next(ids))
}

// next returns one after the other.
func next(ids []string) func() (string, error) {
	return func() (string, error) {
		if len(ids) == 0 {
			return "", io.ErrUnexpectedEOF
		}
		id := ids[0]
		ids = ids[1:]
		return id, nil
	}
}

func TestAnIdleStreamHoldsNoGoroutineButTheOneThatReads(t *testing.T) {
	const each = 50
	f := serve(t)
	task := f.create()
	run := f.start(task)
	before := runtime.NumGoroutine()
	for range each {
		stream, socket := f.rawConn(0), f.rawConn(0)
		stream.send("GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
		stream.head(http.StatusOK)
		socket.send("%s%s", upgradeRequest, subscribeText(task, ""))
		socket.head(http.StatusSwitchingProtocols)
		_, _, err := socket.frame()
		must(t, err)
	}
	f.progress(run, 1)
	const others = 10 // the heartbeats', the store's
	for give := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+2*each+others; runtime.Gosched() {
		if time.Now().After(give) {
			t.Fatalf("%d goroutines for %d streams", runtime.NumGoroutine()-before, 2*each)
		}
	}
}

// quietOutlet notes when its heartbeats come.
type quietOutlet struct {
	mu    sync.Mutex
	beats []time.Time
}

func (o *quietOutlet) now([]taskbridge.Frame, time.Time) bool { return true }

func (o *quietOutlet) end(context.Context, error) {}

func (o *quietOutlet) catchUp(_ context.Context, idle bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if idle {
		o.beats = append(o.beats, time.Now())
	}
	return nil
}

func (o *quietOutlet) after(begin time.Time) []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []time.Duration
	for _, at := range o.beats {
		all = append(all, at.Sub(begin))
	}
	return all
}

func TestAHeartbeatComesOnceNothingHasBeenWrittenForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &API{opts: Options{Clock: taskbridge.SystemClock{}}}
		a.beats = newBeats(a.opts.Clock, a.live.hold, func() { a.live.end(nil) })
		deliveries := make([]*delivery, 3)
		outlets := make([]*quietOutlet, len(deliveries))
		begin := time.Now()
		for i := range deliveries {
			outlets[i] = &quietOutlet{}
			deliveries[i] = &delivery{api: a, ctx: t.Context(), stream: outlets[i], every: 10 * time.Second, quiet: begin}
		}
		deliveries[2].every = 4 * time.Second
		for _, d := range deliveries {
			a.beats.add(d)
		}
		work := func(d *delivery) { // as when an event comes
			if !d.take(false) || !d.park(time.Now()) {
				t.Error("the delivery is at work")
			}
		}
		at := time.NewTimer(7 * time.Second)
		<-at.C
		work(deliveries[1])
		at.Reset(6 * time.Second)
		<-at.C
		work(deliveries[1])
		at.Reset(11 * time.Second)
		<-at.C
		synctest.Wait()
		const s = time.Second
		for i, want := range [][]time.Duration{
			{10 * s, 20 * s}, {23 * s}, {4 * s, 8 * s, 12 * s, 16 * s, 20 * s, 24 * s},
		} {
			if got := outlets[i].after(begin); !slices.Equal(got, want) {
				t.Errorf("heartbeats of delivery %d after %v, want %v", i, got, want)
			}
		}
		for _, d := range deliveries {
			a.beats.remove(d)
		}
		<-a.live.wait() // there is no goroutine where there is nothing to do
		a.beats.add(deliveries[0])
		a.beats.remove(deliveries[0])
		<-a.live.wait()
	})
}

func TestADirectWriteTakesWhatTheSystemTakesAndNeverWaits(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
	must(t, err)
	conn, err := listener.Accept()
	must(t, err)
	w := newDirectWriter(conn)
	if w == nil {
		t.Fatal("a TCP connection cannot be written to directly")
	}
	sent := 0
	for piece := make([]byte, 64<<10); ; {
		n := w.try(piece)
		if sent += n; n < len(piece) {
			break // the client reads nothing
		}
	}
	_, err = io.CopyN(io.Discard, client, int64(sent))
	must(t, err)
	must(t, conn.SetWriteDeadline(time.Now().Add(-time.Second)))
	if n := w.try([]byte("late")); n != 0 {
		t.Errorf("%d bytes after the deadline", n)
	}
	must(t, conn.Close())
	if n := w.try([]byte("closed")); n != 0 {
		t.Errorf("%d bytes to a closed connection", n)
	}
	must(t, client.Close())

	pipe, other := net.Pipe()
	if n := newDirectWriter(pipe).try([]byte("no descriptor")); n != 0 {
		t.Errorf("%d bytes to a pipe", n)
	}
	must(t, pipe.Close())
	must(t, other.Close())
}

// beatingOutlet has a heartbeat come due while an event is being written.
type beatingOutlet struct {
	d      *delivery
	beaten chan struct{}
}

func (o *beatingOutlet) now([]taskbridge.Frame, time.Time) bool {
	o.d.beat()
	return true
}

func (o *beatingOutlet) end(context.Context, error) {}

func (o *beatingOutlet) catchUp(_ context.Context, idle bool) error {
	if idle {
		o.beaten <- struct{}{}
	}
	return nil
}

func TestAHeartbeatThatComesDueWhileAnEventIsWrittenHoldsUpNobody(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	sub, err := f.bridge.Subscription.Subscribe(t.Context(), localUser("local"), taskbridge.SubscribeRequest{TaskID: task})
	must(t, err)
	defer sub.Close()
	for behind := true; behind; {
		frames, err := sub.Next(t.Context(), 0)
		must(t, err)
		behind = len(frames) > 0
	}
	o := &beatingOutlet{beaten: make(chan struct{}, 1)}
	o.d = &delivery{api: f.api, ctx: t.Context(), subscription: sub, stream: o, every: time.Hour}
	sub.Watch(o.d.changed)
	for range 3 {
		f.progress(run, 1)
		receive(t, o.beaten)
	}
}

// talkative is a connection whose client pings whenever something is written, and
// whose end waits.
type talkative struct {
	net.Conn
	socket  *socketConn
	written int
	closing chan struct{}
	closed  chan struct{}
}

func (c *talkative) Write(p []byte) (int, error) {
	c.written++
	if c.socket != nil {
		if _, err := c.socket.Write([]byte{final | opPing + 1, 0}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (c *talkative) Close() error {
	close(c.closing)
	<-c.closed
	return c.Conn.Close()
}

// newTalkative returns one on a connection that nobody reads.
func newTalkative(t *testing.T) (*talkative, *API) {
	t.Helper()
	conn, other := net.Pipe()
	t.Cleanup(func() { must(t, other.Close()) })
	a := &API{opts: Options{WriteTimeout: time.Minute}}
	a.drained, a.drain = context.WithCancel(t.Context())
	t.Cleanup(a.drain)
	return &talkative{Conn: conn, closing: make(chan struct{}), closed: make(chan struct{})}, a
}

func TestAFloodOfPingsEndsBeforeTheStreamDoes(t *testing.T) {
	conn, a := newTalkative(t)
	conn.socket = newSocketConn(a, conn, nil)
	must(t, conn.socket.send(appendText(nil, []byte("event"))))
	if conn.written < 2 || conn.written > 2*maxRounds {
		t.Errorf("%d writes", conn.written)
	}
	close(conn.closed)
	must(t, conn.socket.Close())
}

func TestAConnectionThatWaitsToBeClosedHoldsUpNobodyWhoTellsOfEvents(t *testing.T) {
	conn, a := newTalkative(t)
	socket := newSocketConn(a, conn, nil)
	ended := make(chan error, 1)
	go func() { ended <- socket.Close() }()
	<-conn.closing
	told := make(chan bool, 1)
	go func() { told <- socket.sendNow(appendText(nil, []byte("event"))) }()
	if receive(t, told) {
		t.Error("an event was written")
	}
	close(conn.closed)
	must(t, receive(t, ended))
}

// lateOutlet is told of an event when it has just looked what there is.
type lateOutlet struct {
	d     *delivery
	looks chan int
	n     int
}

func (o *lateOutlet) now([]taskbridge.Frame, time.Time) bool { return true }

func (o *lateOutlet) end(context.Context, error) {}

func (o *lateOutlet) catchUp(context.Context, bool) error {
	if o.n++; o.n < 4 {
		o.d.changed()
	}
	o.looks <- o.n
	return nil
}

func TestAStreamThatIsToldOfAnEventWhenItHasLookedLooksAgain(t *testing.T) {
	o := &lateOutlet{looks: make(chan int, 10)}
	o.d = &delivery{api: &API{opts: Options{Clock: taskbridge.SystemClock{}}}, ctx: t.Context(), stream: o}
	o.d.wake()
	for want := 1; want <= 4; want++ {
		if got := receive(t, o.looks); got != want {
			t.Errorf("look %d, want %d", got, want)
		}
	}
}

func TestNothingIsWrittenIntoAFrameThatHasBeenBegun(t *testing.T) {
	grudging.Store(true)
	defer grudging.Store(false)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
	must(t, err)
	conn, err := listener.Accept()
	must(t, err)
	_, a := newTalkative(t)
	socket := newSocketConn(a, conn, nil)
	const events = 500
	r := &raw{t, nil, bufio.NewReader(client)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for texts, pongs := 0, 0; texts < events || pongs < events; {
			opcode, payload, err := r.frame()
			switch {
			case err != nil:
				t.Error(err)
				return
			case opcode == opText && string(payload) == strings.Repeat("x", 3*texts):
				texts++
			case opcode == opPing+1 && len(payload) == 0:
				pongs++
			default:
				t.Errorf("after event %d and pong %d: frame %x %.50q", texts, pongs, opcode, payload)
				return
			}
		}
	})
	for i := range events {
		done := socket.sendNow(appendText(nil, []byte(strings.Repeat("x", 3*i))))
		_, err := socket.Write([]byte{final | opPing + 1, 0})
		must(t, err)
		if !done {
			must(t, socket.flush())
		}
	}
	reading.Wait()
	must(t, socket.Close())
	must(t, client.Close())
}
