package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

// bubble is a server over connections in memory, for tests in which time passes.
type bubble struct {
	*testing.T
	api       *API
	lifecycle *taskbridge.LocalLifecycle
	bridge    *taskbridge.Bridge
	listener  *memoryListener
	served    chan error
}

// memoryListener accepts what dial makes.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	close(l.closed)
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs a test against the server. Its time-outs are those of a user's.
func inBubble(t *testing.T, test func(*bubble), adjust ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(memory.Options{})
		stores := taskbridge.Stores{Tasks: store, Events: store}
		router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{scripted: fakes.NewScriptedExecutor()})
		must(t, err)
		b := &bubble{T: t, listener: &memoryListener{make(chan net.Conn), make(chan struct{})}, served: make(chan error, 1)}
		b.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
		must(t, err)
		b.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
		must(t, err)
		options := Options{Bridge: b.bridge, Authenticator: Anyone(localUser("local"))}
		for _, change := range adjust {
			change(&options)
		}
		b.api, err = New(options)
		must(t, err)
		server := &http.Server{Handler: b.api, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { b.served <- server.Serve(b.listener) }()
		test(b)
		b.api.Drain()
		must(t, b.api.Wait(t.Context()))
		must(t, server.Close())
		if err := <-b.served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		b.bridge.Subscription.Close()
	})
}

// task makes one that has completed, or has not begun.
func (b *bubble) task(completed bool) (id, last string) {
	b.Helper()
	created, err := b.bridge.Creation.CreateTask(b.Context(), localUser("local"), taskbridge.CreateTaskRequest{ClientRequestID: newKey(), TaskType: scripted})
	must(b.T, err)
	id = created.Task.ID
	if completed {
		run, err := b.lifecycle.Start(b.Context(), id, taskbridge.Claim{ID: "claim"})
		must(b.T, err)
		must(b.T, run.Complete(b.Context(), taskbridge.Completion{}))
		must(b.T, run.Close())
	}
	page, err := b.bridge.Polling.PollEvents(b.Context(), localUser("local"), taskbridge.PollRequest{TaskID: id, MaxEvents: 100})
	must(b.T, err)
	return id, page.Next.String()
}

// open returns a connection, and what is read from it.
func (b *bubble) open() (net.Conn, *raw) {
	client := b.dial()
	return client, &raw{b.T, nil, bufio.NewReader(client)}
}

func (b *bubble) send(conn net.Conn, text string) {
	b.Helper()
	_, err := io.WriteString(conn, text)
	must(b.T, err)
}

// pass lets more time pass than a write may take.
func pass() { <-time.After(40 * time.Second) }

func TestAConnectionIsUsedAgainAfterTheWriteTimeout(t *testing.T) {
	inBubble(t, func(b *bubble) {
		task, last := b.task(true)
		for _, request := range []string{
			"GET /api/v1/tasks/" + task + "/events/stream?lastEventId=" + last + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
			upgradeRequest,
		} {
			conn, r := b.open()
			b.send(conn, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
			response, err := http.ReadResponse(r.in, nil)
			must(b.T, err)
			_, err = io.Copy(io.Discard, response.Body)
			must(b.T, err)
			must(b.T, response.Body.Close())
			pass() // the deadline of the first answer
			b.send(conn, request)
			if response, err = http.ReadResponse(r.in, nil); err != nil || response.StatusCode >= 300 {
				b.Errorf("%q: %+v, %v", request, response, err)
			} else {
				must(b.T, response.Body.Close())
			}
			must(b.T, conn.Close())
		}
	})
}

func TestASocketThatWasIdleForLongerThanTheWriteTimeoutAnswersPingsAndIsClosedInGoodForm(t *testing.T) {
	inBubble(t, func(b *bubble) {
		task, _ := b.task(false)
		conn, r := b.open()
		b.send(conn, upgradeRequest+subscribeText(task, ""))
		r.head(http.StatusSwitchingProtocols)
		frames := make(chan string, 100)
		go func() {
			defer close(frames)
			for {
				opcode, payload, err := r.frame()
				if err != nil {
					return
				}
				if opcode == opText || opcode == opPing {
					continue // heartbeats
				}
				frames <- fmt.Sprintf("%x %q", opcode, payload[:min(2, len(payload))])
			}
		}()
		for range 2 {
			pass() // the deadline of what was written last
			b.send(conn, string(clientFrameOf(opPing, nil)))
			if got := <-frames; got != `a ""` {
				b.Errorf("a ping is answered by %s", got)
			}
		}
		pass()
		b.api.Drain()
		if got := <-frames; got != `8 "\x03\xe9"` {
			b.Errorf("closed by %s", got)
		}
		must(b.T, conn.Close())
		for range frames { // until its reader has ended
		}
	})
}
