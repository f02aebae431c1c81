package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestWhateverHappensEveryClientGetsTheStreamToTheByteAndOneEnd(t *testing.T) {
	for seed := range uint64(2) {
		anything(t, seed, 8, 250)
	}
}

// anything has a task report events of all sizes while its clients, over every
// transport and through buffers that hold next to nothing, read, stand still,
// ping, go away and come back, streams are cut for being slow, credentials are
// asked for again and again, heartbeats come all the time, and the server is
// drained and replaced.
func anything(t *testing.T, seed uint64, clients, events int) {
	t.Helper()
	f := serve(t)
	task := f.create()
	run := f.longStream(task)
	grudging.Store(true)
	defer grudging.Store(false)
	random := rand.New(rand.NewPCG(seed, 0))
	st := &story{fixture: f, task: task, random: random, clients: clients, seen: map[int64]string{}}
	st.grown.L = &st.mu
	st.restart()
	var readers sync.WaitGroup
	for i := range clients {
		own := rand.New(rand.NewPCG(seed, uint64(i+1)))
		readers.Go(func() { st.follow(own) })
	}
	for i := range events {
		size := random.IntN(3_000)
		if random.IntN(20) == 0 {
			size = 30_000
		}
		must(t, run.Message(t.Context(), taskbridge.Message{Text: strings.Repeat("x", size)}))
		st.has(i+2, false)
		if random.IntN(3) > 0 { // else they are behind
			st.delivered(int64(i + 2))
		}
		if random.IntN(150) == 0 {
			st.restart()
		}
	}
	f.complete(run, "1")
	st.has(events+2, true)
	if random.IntN(2) == 0 {
		st.restart()
	}
	readers.Wait()
	st.stop()
	stored, err := f.store.ReadEvents(context.Background(), task, 0, events+10)
	must(t, err)
	if len(stored) != events+2 || len(st.seen) != len(stored) {
		t.Errorf("%d events, of which %d were seen", len(stored), len(st.seen))
	}
	for _, e := range stored {
		if got, want := st.seen[e.Sequence], string(e.AppendEnvelope(nil)); got != want {
			t.Errorf("event %d is\n%.200s, want\n%.200s", e.Sequence, got, want)
		}
	}
	t.Logf("seed %d: %d connections, %d restarts, closed by codes %v", seed, st.connections, st.restarts, st.codes)
}

// story is what the clients of one task share.
type story struct {
	*fixture
	task   string
	random *rand.Rand

	mu                    sync.Mutex
	grown                 sync.Cond // events has changed
	events                int
	over                  bool
	clients, paused       int
	seen                  map[int64]string
	codes                 map[uint16]int
	connections, restarts int

	current *place
}

// place is one server's life.
type place struct {
	api     *API
	plain   *httptest.Server
	crypted *httptest.Server
	trust   *tls.Config // of a client that speaks HTTP/1.1 with crypted
	streams struct {
		sync.Mutex
		opened, closed int
	}
}

// narrow are connections that take next to nothing for a reader who is behind.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return narrowConn{tcp}, err
	}
	return conn, err
}

type narrowConn struct{ *net.TCPConn }

// SetWriteBuffer is what the API calls.
func (c narrowConn) SetWriteBuffer(int) error { return c.TCPConn.SetWriteBuffer(16 << 10) }

// restart has another server take over.
func (st *story) restart() {
	st.stop()
	p := &place{}
	options := Options{
		Bridge: st.bridge, Authenticator: Anyone(localUser("local")),
		Heartbeat: []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Hour}[st.random.IntN(3)],
		// Those who answer none of three pings are closed, too.
		SocketHeartbeat: []time.Duration{5 * time.Millisecond, 100 * time.Millisecond, time.Hour}[st.random.IntN(3)],
		Recheck:         []time.Duration{1, time.Hour}[st.random.IntN(2)],
		WriteTimeout:    []time.Duration{200 * time.Millisecond, time.Minute}[st.random.IntN(2)],
		StreamOpened: func(string) func() {
			p.streams.Lock()
			defer p.streams.Unlock()
			p.streams.opened++
			return func() {
				p.streams.Lock()
				defer p.streams.Unlock()
				p.streams.closed++
			}
		},
	}
	var err error
	p.api, err = New(options)
	must(st.T, err)
	p.plain, p.crypted = httptest.NewUnstartedServer(p.api), httptest.NewUnstartedServer(p.api)
	p.plain.Listener, p.crypted.Listener = narrow{p.plain.Listener}, UnderTLS(narrow{p.crypted.Listener})
	p.crypted.EnableHTTP2 = true
	for _, server := range []*httptest.Server{p.plain, p.crypted} {
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that nobody waits for
	}
	p.plain.Start()
	p.crypted.StartTLS()
	p.trust = &tls.Config{RootCAs: p.crypted.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.current = p
	st.restarts++
	st.grown.Broadcast()
}

// stop drains the server; clients may still try to reach it.
func (st *story) stop() {
	st.mu.Lock()
	p := st.current
	st.current = nil
	st.grown.Broadcast()
	st.mu.Unlock()
	if p == nil {
		return
	}
	p.api.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.api.Wait(ctx); err != nil {
		st.Errorf("a drained server does not come to its end: %v", err)
	}
	p.crypted.Client().CloseIdleConnections()
	p.plain.CloseClientConnections()
	p.crypted.CloseClientConnections()
	p.plain.Close()
	p.crypted.Close()
	p.streams.Lock()
	defer p.streams.Unlock()
	if p.streams.opened != p.streams.closed {
		st.Errorf("%d streams were opened and %d closed", p.streams.opened, p.streams.closed)
	}
}

// has says how many events there are.
func (st *story) has(events int, over bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.events, st.over = events, over
	st.grown.Broadcast()
}

// pause returns when there are so many more events, or no more to come. One who
// is stubborn does not wake up for a server that goes.
func (st *story) pause(more int, stubborn bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.paused++
	defer func() { st.paused-- }()
	st.grown.Broadcast()
	here := st.current
	for until := st.events + more; st.events < until && !st.over && (stubborn || st.current == here); {
		st.grown.Wait()
	}
}

// delivered returns when somebody has the event, or all stand still.
func (st *story) delivered(sequence int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.seen[sequence] == "" && st.paused < st.clients {
		st.grown.Wait()
	}
}

// saw notes an event, which must be the same to everybody.
func (st *story) saw(sequence int64, data string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if before, there := st.seen[sequence]; there && before != data {
		st.Errorf("event %d is\n%.200s, and was\n%.200s", sequence, data, before)
	}
	st.seen[sequence] = data
	st.grown.Broadcast()
}

// follow reads the stream until its end, by one connection after the other.
func (st *story) follow(random *rand.Rand) {
	last, next, ended := "", int64(1), false
	for tries := 0; ; tries++ {
		if tries > 20_000 {
			st.Errorf("a client does not get beyond event %d", next)
			return
		}
		l, err := st.link(random, last)
		if errors.Is(err, errNoContent) {
			if !ended {
				st.Error("nothing more is to come, and the end has not")
			}
			return
		}
		if err != nil {
			continue // the server is being replaced
		}
		leave := 1 + random.IntN(150) // events after which to go
		for ; ; leave-- {
			if leave == 0 {
				break
			}
			switch random.IntN(60) {
			case 0:
				st.pause(1+random.IntN(60), random.IntN(20) == 0)
			case 1:
				l.ping(random.IntN(30))
			}
			id, data, err := l.next()
			if errors.Is(err, io.EOF) {
				if !ended {
					st.Errorf("the stream ends in good form before event %d", next)
				}
				l.close()
				return
			}
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
					st.Errorf("after event %d nothing comes", next-1)
				}
				break
			}
			cursor, err := taskbridge.ParseCursor(id)
			switch {
			case err != nil:
				st.Errorf("event id %q", id)
			case ended && id == last && l.socket: // once more, for clients that end on nothing else
			case ended, cursor.Sequence != next:
				st.Errorf("event %s, want number %d; ended: %t", id, next, ended)
				l.close()
				return
			default:
				next++
			}
			last = id
			st.saw(cursor.Sequence, data)
			ended = strings.HasPrefix(data, `{"type":"TASK_COMPLETED"`)
		}
		l.close()
	}
}

// link is one connection. The error of next is io.EOF where the server says that
// the task has ended.
type link struct {
	socket bool
	next   func() (id, data string, err error)
	ping   func(times int)
	close  func()
}

var errNoContent = errors.New("204")

// link opens one by whichever transport.
func (st *story) link(random *rand.Rand, last string) (*link, error) {
	st.mu.Lock()
	for st.current == nil {
		st.grown.Wait()
	}
	p := st.current
	st.connections++
	st.mu.Unlock()
	path := "/api/v1/tasks/" + st.task + "/events/stream?gap=error&lastEventId=" + last
	kind := random.IntN(5)
	if kind == 4 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.crypted.URL+path, nil)
		must(st.T, err)
		response, err := p.crypted.Client().Do(r)
		if err != nil {
			cancel()
			return nil, err
		}
		return st.events2(response, func() {
			_ = response.Body.Close()
			cancel()
		})
	}
	server := []*httptest.Server{p.plain, p.crypted}[kind%2]
	tcp, err := (&net.Dialer{Control: smallSegments}).Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	must(st.T, tcp.(*net.TCPConn).SetReadBuffer([]int{4 << 10, 32 << 10, 64 << 10, 64 << 10}[random.IntN(4)]))
	must(st.T, tcp.SetDeadline(time.Now().Add(2*time.Minute)))
	conn := tcp
	if server == p.crypted {
		conn = tls.Client(tcp, p.trust)
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	if kind >= 2 {
		request = upgradeRequest + subscribeText(st.task, last)
	}
	in := bufio.NewReader(conn)
	_, err = io.WriteString(conn, request)
	var response *http.Response
	if err == nil {
		response, err = http.ReadResponse(in, nil)
	}
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	goAway := func() { _ = tcp.Close() }
	if kind < 2 {
		return st.events2(response, goAway)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		goAway()
		return nil, errors.New(response.Status)
	}
	return st.frames(&raw{st.T, nil, in}, conn, goAway), nil
}

// events2 reads server-sent events.
func (st *story) events2(response *http.Response, goAway func()) (*link, error) {
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		goAway()
		return nil, errNoContent
	default:
		if response.StatusCode != http.StatusServiceUnavailable {
			st.Errorf("a stream is answered %s", response.Status)
		}
		goAway()
		return nil, errors.New(response.Status)
	}
	lines := bufio.NewReader(response.Body)
	return &link{
		close: goAway,
		ping:  func(int) {},
		next: func() (id, data string, err error) {
			for {
				line, err := lines.ReadString('\n')
				switch {
				case err != nil && line != "" && errors.Is(err, io.EOF):
					return "", "", fmt.Errorf("ended in the midst of %.200q", line)
				case err != nil:
					return "", "", err
				}
				if text, ok := strings.CutPrefix(line, "id: "); ok {
					id = strings.TrimSuffix(text, "\n")
				} else if text, ok := strings.CutPrefix(line, "data: "); ok {
					data = strings.TrimSuffix(text, "\n")
				} else if line == "\n" && id != "" {
					return id, data, nil
				} else if line != "\n" && line != ": ping\n" {
					st.Errorf("line %.200q", line)
				}
				if line == "\n" && data != "" && !strings.HasPrefix(data, `{"type":"HEARTBEAT",`) {
					st.Errorf("data without an id: %.200q", data)
				}
			}
		},
	}, nil
}

// frames reads a WebSocket.
func (st *story) frames(r *raw, conn net.Conn, goAway func()) *link {
	say := func(opcode byte, payload []byte) {
		_, _ = conn.Write(clientFrameOf(opcode, payload)) // reading says what is wrong
	}
	return &link{
		socket: true,
		close:  goAway,
		ping: func(times int) {
			for range times {
				say(opPing, []byte("ping"))
			}
		},
		next: func() (id, data string, err error) {
			for {
				opcode, payload, err := r.frame()
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						err = errors.New("cut: " + err.Error()) // and not io.EOF
					}
					return "", "", err
				}
				switch opcode {
				case opPing:
					say(opPing+1, payload)
				case opPing + 1:
					if string(payload) != "ping" {
						st.Errorf("pong %q", payload)
					}
				case opClose:
					say(opClose, payload[:2])
					return "", "", st.ended(binary.BigEndian.Uint16(payload))
				case opText:
					var frame struct{ Type, EventID string }
					if json.Unmarshal(payload, &frame) != nil {
						st.Errorf("frame %.200q", payload)
					}
					if frame.EventID != "" {
						return frame.EventID, string(payload), nil
					}
					if !slices.Contains([]string{"SUBSCRIPTION_CONFIRMED", "HEARTBEAT"}, frame.Type) {
						st.Errorf("frame %.200q", payload)
					}
				default:
					st.Errorf("frame %x %.200q", opcode, payload)
				}
			}
		},
	}
}

// ended is the error for a close code.
func (st *story) ended(code uint16) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.codes == nil {
		st.codes = map[uint16]int{}
	}
	st.codes[code]++
	switch code {
	case 1000:
		return io.EOF
	case 1001, 1013:
	default:
		st.Errorf("closed with %d", code)
	}
	return fmt.Errorf("closed with %d", code)
}

// grudging has the system take a part, or nothing, of what is to be written at
// once, now and then.
var grudging atomic.Bool
