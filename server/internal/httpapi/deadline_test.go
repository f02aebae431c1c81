package httpapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// over2 is a client that speaks HTTP/2 with the server.
func (b *bubble) over2() *http.Client {
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return b.dial(), nil },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}

// dial makes a connection to the server.
func (b *bubble) dial() net.Conn {
	client, server := net.Pipe()
	b.listener.conns <- server
	return client
}

func TestOverHTTP2APollMayWaitForLongerThanAWriteMayTake(t *testing.T) {
	inBubble(t, func(b *bubble) {
		task, _ := b.task(false)
		client := b.over2()
		defer client.CloseIdleConnections()
		began := time.Now()
		response, err := client.Get("http://localhost/api/v1/tasks/" + task + "/events?waitTimeoutMs=60000")
		must(b.T, err)
		body, err := io.ReadAll(response.Body)
		must(b.T, err)
		must(b.T, response.Body.Close())
		if response.ProtoMajor != 2 || response.StatusCode != http.StatusOK || time.Since(began) < time.Minute {
			b.Errorf("%s %s after %s: %s", response.Proto, response.Status, time.Since(began), body)
		}
	})
}

func TestOverHTTP2AStreamMayBeIdleForLongerThanAWriteMayTake(t *testing.T) {
	inBubble(t, func(b *bubble) {
		task, _ := b.task(false)
		client := b.over2()
		defer client.CloseIdleConnections()
		response, err := client.Get("http://localhost/api/v1/tasks/" + task + "/events/stream")
		must(b.T, err)
		s := newSSE(b.T, response)
		s.ping()
		pass()
		run, err := b.lifecycle.Start(b.Context(), task, taskbridge.Claim{ID: "claim"})
		must(b.T, err)
		s.wantEvent(task, "TASK_STARTED")
		pass()
		must(b.T, run.Complete(b.Context(), taskbridge.Completion{}))
		must(b.T, run.Close())
		s.wantEvent(task, "TASK_COMPLETED")
		s.end()
	}, func(o *Options) { o.Heartbeat = time.Hour })
}

func TestAClientWithAThinLineGetsALargeAnswer(t *testing.T) {
	inBubble(t, func(b *bubble) {
		task, _ := b.task(false)
		run, err := b.lifecycle.Start(b.Context(), task, taskbridge.Claim{ID: "claim"})
		must(b.T, err)
		const events = 100
		for range events {
			must(b.T, run.Message(b.Context(), taskbridge.Message{Text: strings.Repeat("x", 30<<10)}))
		}
		must(b.T, run.Close())
		conn := b.dial()
		began := time.Now()
		b.send(conn, fmt.Sprintf("GET /api/v1/tasks/%s/events?maxEvents=500 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", task))
		// A piece, a pause: the whole takes longer than one write may.
		total := 0
		for piece := make([]byte, writePiece); ; {
			n, err := io.ReadFull(conn, piece)
			total += n
			if err != nil {
				break
			}
			<-time.After(10 * time.Second)
		}
		if took := time.Since(began); total < events*30<<10 || took < 5*time.Minute {
			b.Errorf("%d bytes in %s", total, took)
		}
		must(b.T, conn.Close())
	})
}
