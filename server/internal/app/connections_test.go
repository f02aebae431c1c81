package app

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAListenerGivesAConnectionsPlaceBackOnceAndHidesNothing(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimitListener(inner, 2)
	accept := func() *limitedConn {
		t.Helper()
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*limitedConn)
	}
	first, second := accept(), accept()
	if err := first.SetWriteBuffer(64 << 10); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	// It is the connection's own buffer: one that is closed has none.
	if err := first.SetWriteBuffer(64 << 10); err == nil {
		t.Error("the size of the buffer got nowhere")
	}
	if raw, err := second.SyscallConn(); err != nil || raw.Control(func(uintptr) {}) != nil {
		t.Errorf("what lies below cannot be reached: %v", err)
	}
	third := accept()
	if n := len(l.places); n != 2 {
		t.Errorf("%d places are taken", n)
	}
	waiting := make(chan error)
	go func() {
		_, err := l.Accept()
		waiting <- err
	}()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("whoever waits for a place when the listener is closed gets %v", err)
	}
	for _, conn := range []net.Conn{second, third} {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(l.places); n != 0 {
		t.Errorf("%d places are taken in the end", n)
	}
}

func TestConnectionsOverTheLimitWaitUntilThereIsRoom(t *testing.T) {
	s := startServer(t, load(t, "--store", "memory", "--http-max-connections", "3"), openStore)
	transport := &http.Transport{}
	s.client = &http.Client{Transport: transport}
	task, _ := s.demo(nil, "k", 20)
	// Two streams, and the connection by which the test asks.
	stream, _ := s.follow("sse", task, nil, "")
	socket, _ := s.follow("websocket", task, nil, "")
	s.request("GET", "/health", "", http.StatusOK)

	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && response.StatusCode != http.StatusOK {
			err = errors.New(response.Status)
		}
		answer <- err
	}()
	for range 10 {
		stream.until(stream.seen() + 1)
		socket.until(socket.seen() + 1)
		s.request("GET", "/api/v1/tasks/"+task+"/events?maxEvents=1", "", http.StatusOK)
	}
	select {
	case err := <-answer:
		t.Fatalf("a connection over the limit was served: %v", err)
	default:
	}
	stream.stop()
	if err := <-answer; err != nil {
		t.Errorf("with room for it: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	// Whatever way connections end, their places come back.
	for range 3 {
		for _, by := range []string{"sse", "websocket"} {
			f, status := s.follow(by, task, nil, "")
			if f == nil {
				t.Fatalf("%s: %d", by, status)
			}
			f.until(3)
			f.stop()
		}
		transport.CloseIdleConnections()
	}
	socket.until(socket.seen() + 1)
	socket.stop()
	transport.CloseIdleConnections()

	// A shutdown does not wait for whoever still waits.
	var open []net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	for _, conn := range open {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
