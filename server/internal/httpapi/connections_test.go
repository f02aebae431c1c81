package httpapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// raw is a connection on which a test says each byte itself.
type raw struct {
	t    *testing.T
	conn *net.TCPConn
	in   *bufio.Reader
}

// rawConn opens a connection; readBuffer bounds what the system takes for it
// while the test does not read, 0: the system's own bound.
func (f *fixture) rawConn(readBuffer int) *raw {
	f.Helper()
	conn := f.dial().(*net.TCPConn)
	if readBuffer > 0 {
		must(f.T, conn.SetReadBuffer(readBuffer))
	}
	must(f.T, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &raw{f.T, conn, bufio.NewReader(conn)}
}

func (r *raw) send(format string, args ...any) {
	r.t.Helper()
	_, err := fmt.Fprintf(r.conn, format, args...)
	must(r.t, err)
}

// head reads the head of an answer.
func (r *raw) head(status int) http.Header {
	r.t.Helper()
	response, err := http.ReadResponse(r.in, nil)
	must(r.t, err)
	if response.StatusCode != status {
		r.t.Fatalf("status %d, want %d", response.StatusCode, status)
	}
	if response.Close { // net/http has taken it out
		response.Header.Set("Connection", "close")
	}
	return response.Header
}

const upgradeRequest = "GET /api/v1/tasks/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// clientText is a text frame as a client sends it, with the mask 0.
func clientText(text string) string {
	return string(clientFrameOf(opText, []byte(text)))
}

func clientFrameOf(opcode byte, payload []byte) []byte {
	frame := []byte{final | opcode}
	if len(payload) < 126 {
		frame = append(frame, 0x80|byte(len(payload)))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(len(payload)))
	}
	return append(append(frame, 0, 0, 0, 0), payload...)
}

func subscribeText(taskID, last string) string {
	return clientText(fmt.Sprintf(`{"action":"subscribe","taskId":%q,"lastEventId":%q}`, taskID, last))
}

// frame reads one frame of the server's.
func (r *raw) frame() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var n [2]byte
		_, err = io.ReadFull(r.in, n[:])
		size = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		_, err = io.ReadFull(r.in, n[:])
		size = binary.BigEndian.Uint64(n[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if head[0]&final == 0 || size > 1<<24 {
		return 0, nil, fmt.Errorf("a frame begins with %x", head)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r.in, payload)
	return head[0] &^ final, payload, err
}

func TestASubscriptionThatDoesNotWaitForTheAnswerIsRead(t *testing.T) {
	f := serve(t)
	task := f.finished()
	r := f.rawConn(0)
	r.send("%s%s%s", upgradeRequest, subscribeText(task, ""), clientFrameOf(opPing, []byte("early")))
	r.head(http.StatusSwitchingProtocols)
	var texts, pongs int
	for {
		opcode, payload, err := r.frame()
		must(t, err)
		switch opcode {
		case opText:
			texts++
			continue
		case opPing + 1:
			pongs++
			if string(payload) != "early" {
				t.Errorf("pong %q", payload)
			}
			continue
		case opClose:
			if code := binary.BigEndian.Uint16(payload); code != 1000 {
				t.Errorf("closed with %d", code)
			}
		}
		break
	}
	if texts != 4 || pongs > 1 {
		t.Errorf("%d texts, %d pongs", texts, pongs)
	}
	// The server waits for our close, then nothing follows.
	_, err := r.conn.Write(clientFrameOf(opClose, []byte{3, 232}))
	must(t, err)
	if n, err := io.Copy(io.Discard, r.in); n != 0 || err != nil {
		t.Errorf("after the close: %d bytes, %v", n, err)
	}
}

func TestPingsAreAnsweredBetweenEvents(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	r := f.rawConn(0)
	r.send("%s%s", upgradeRequest, subscribeText(task, ""))
	r.head(http.StatusSwitchingProtocols)
	const pings = 200
	pinging := make(chan error, 1)
	go func() {
		var err error
		for i := range pings {
			if _, err = r.conn.Write(clientFrameOf(opPing, []byte{byte(i)})); err != nil {
				break
			}
		}
		pinging <- err
	}()
	for range 300 {
		f.progress(run, 1)
	}
	must(t, <-pinging)
	for next := byte(0); next < pings; {
		opcode, payload, err := r.frame()
		must(t, err)
		switch opcode {
		case opText:
		case opPing + 1:
			if !bytes.Equal(payload, []byte{next}) {
				t.Fatalf("pong %d, want %d", payload, next)
			}
			next++
		default:
			t.Fatalf("frame %x %q", opcode, payload)
		}
	}
}

func TestACloseByTheClientIsAnsweredWithItsCode(t *testing.T) {
	f := serve(t)
	task := f.create()
	r := f.rawConn(0)
	r.send("%s%s", upgradeRequest, subscribeText(task, ""))
	r.head(http.StatusSwitchingProtocols)
	if opcode, _, err := r.frame(); opcode != opText || err != nil {
		t.Fatalf("%x, %v", opcode, err)
	}
	_, err := r.conn.Write(clientFrameOf(opClose, []byte{3, 233, 'b', 'y', 'e'}))
	must(t, err)
	opcode, payload, err := r.frame()
	if opcode != opClose || string(payload) != "\x03\xe9bye" || err != nil {
		t.Errorf("%x %q, %v", opcode, payload, err)
	}
	if n, err := io.Copy(io.Discard, r.in); n != 0 || err != nil {
		t.Errorf("after the close: %d bytes, %v", n, err)
	}
}

func TestAClientThatAnswersNoPingsIsGivenUp(t *testing.T) {
	f := serve(t, func(o *Options) { o.SocketHeartbeat = 10 * time.Millisecond })
	task := f.create()
	r := f.rawConn(0)
	r.send("%s%s", upgradeRequest, subscribeText(task, ""))
	r.head(http.StatusSwitchingProtocols)
	for {
		opcode, payload, err := r.frame()
		must(t, err)
		if opcode == opClose {
			if code := binary.BigEndian.Uint16(payload); code != 1013 {
				t.Errorf("closed with %d", code)
			}
			return
		}
	}
}

// gauge counts streams as the metrics do.
type gauge struct{ opened, closed chan string }

func newGauge(o *Options) *gauge {
	g := &gauge{make(chan string, 100), make(chan string, 100)}
	o.StreamOpened = func(transport string) func() {
		g.opened <- transport
		return func() { g.closed <- transport }
	}
	return g
}

func TestAClientThatGoesAwayIsNoticedAtOnce(t *testing.T) {
	var g *gauge
	f := serve(t, func(o *Options) { g = newGauge(o) })
	task := f.create()
	for name, open := range map[string]func() io.Closer{
		"sse": func() io.Closer {
			s := f.open(task, "")
			s.ping()
			return s.response.Body
		},
		"sse/1.0": func() io.Closer {
			r := f.rawConn(0)
			r.send("GET /api/v1/tasks/%s/events/stream HTTP/1.0\r\n\r\n", task)
			r.head(http.StatusOK)
			return r.conn
		},
		"websocket": func() io.Closer {
			s := f.connect()
			s.subscribe(task, "")
			s.confirmed(task, nil)
			return closer(s.conn.CloseNow)
		},
		"websocket/before it subscribes": func() io.Closer { return closer(f.connect().conn.CloseNow) },
		"websocket/in good form": func() io.Closer {
			s := f.connect()
			s.subscribe(task, "")
			s.confirmed(task, nil)
			return closer(func() error { return s.conn.Close(1000, "") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			transport, _, _ := strings.Cut(name, "/")
			client := open()
			if got := receive(t, g.opened); got != transport {
				t.Errorf("opened %s", got)
			}
			must(t, client.Close())
			if got := receive(t, g.closed); got != transport {
				t.Errorf("closed %s", got)
			}
		})
	}
	must(t, f.api.Wait(t.Context()))
}

type closer func() error

func (c closer) Close() error { return c() }

func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing in 30 s")
	}
	return value
}

func TestAClientThatDoesNotTakeLeaveHoldsADrainForAShortTime(t *testing.T) {
	var g *gauge
	f := serve(t, func(o *Options) {
		o.WriteTimeout = time.Minute
		g = newGauge(o)
	})
	// One that has read everything and never answers, two that read nothing.
	quiet, still := f.create(), f.create()
	r := f.rawConn(0)
	r.send("%s%s", upgradeRequest, subscribeText(quiet, ""))
	r.head(http.StatusSwitchingProtocols)
	for _, request := range []string{
		upgradeRequest + subscribeText(still, ""),
		"GET /api/v1/tasks/" + still + "/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		f.rawConn(4<<10).send("%s", request)
		receive(t, g.opened)
	}
	receive(t, g.opened)
	run := f.start(still)
	text := strings.Repeat("x", 30<<10)
	for range 600 { // more than the system takes for a connection
		must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
	}
	f.complete(run, "1")
	started := time.Now()
	f.api.Drain()
	must(t, f.api.Wait(t.Context()))
	if took := time.Since(started); took > 30*time.Second { // and not the write timeout
		t.Errorf("the drain took %s", took)
	}
	for {
		opcode, payload, err := r.frame()
		must(t, err)
		if opcode == opClose {
			if code := binary.BigEndian.Uint16(payload); code != 1001 {
				t.Errorf("closed with %d", code)
			}
			return
		}
	}
}

func TestAnEventStreamToAnOldClientEndsWithTheConnection(t *testing.T) {
	f := serve(t)
	task := f.finished()
	r := f.rawConn(0)
	r.send("GET /api/v1/tasks/%s/events/stream HTTP/1.0\r\n\r\n", task)
	if header := r.head(http.StatusOK); header.Get("Transfer-Encoding") != "" || header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("header %v", header)
	}
	body, err := io.ReadAll(r.in)
	must(t, err)
	if n := bytes.Count(body, []byte("\ndata: ")); n != 3 {
		t.Errorf("%d events in %q", n, body)
	}
}

func TestAnEventStreamIsInWellFormedChunks(t *testing.T) {
	f := serve(t)
	task := f.create()
	run := f.start(task)
	for range 300 {
		must(t, run.Message(t.Context(), taskbridge.Message{Text: strings.Repeat("x", 5_000)}))
	}
	f.complete(run, "1")
	r := f.rawConn(0)
	r.send("GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
	header := r.head(http.StatusOK)
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", "Connection": "close",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if header.Get("Date") == "" || header.Get("X-Request-Id") == "" {
		t.Errorf("header %v", header)
	}
	var body bytes.Buffer
	for {
		line, err := r.in.ReadString('\n')
		must(t, err)
		var size int64
		if _, err := fmt.Sscanf(line, "%x\r\n", &size); err != nil || strings.HasPrefix(line, "0") && size > 0 {
			t.Fatalf("size %q: %v", line, err)
		}
		_, err = io.CopyN(&body, r.in, size)
		must(t, err)
		if end, err := r.in.ReadString('\n'); end != "\r\n" || err != nil {
			t.Fatalf("a chunk ends with %q, %v", end, err)
		}
		if size == 0 {
			break
		}
	}
	if n := bytes.Count(body.Bytes(), []byte("\ndata: ")); n != 302 {
		t.Errorf("%d events", n)
	}
	// The request behind it is not answered: the connection was to be closed.
	if n, err := io.Copy(io.Discard, r.in); n != 0 || err != nil {
		t.Errorf("%d bytes after the end, %v", n, err)
	}
}

func TestThereIsNoHeadOfAStream(t *testing.T) {
	f := serve(t)
	if r := f.do("HEAD", "/api/v1/tasks/"+f.finished()+"/events/stream", ""); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status %d", r.StatusCode)
	}
}
