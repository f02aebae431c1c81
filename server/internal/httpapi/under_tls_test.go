package httpapi

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// serveTLS serves the API over TLS as well and returns what connects to it, with little
// room for what it does not read.
func (f *fixture) serveTLS(version uint16) (dial func() *tls.Conn) {
	f.Helper()
	server := httptest.NewUnstartedServer(f.api)
	server.Listener = UnderTLS(server.Listener)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: version}
	server.StartTLS()
	f.Cleanup(func() {
		f.api.Drain()
		server.Client().CloseIdleConnections()
		server.Close()
	})
	trust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
	return func() *tls.Conn {
		f.Helper()
		tcp, err := net.Dial("tcp", server.Listener.Addr().String())
		must(f.T, err)
		f.Cleanup(func() { _ = tcp.Close() })
		must(f.T, tcp.(*net.TCPConn).SetReadBuffer(32<<10))
		must(f.T, tcp.SetDeadline(time.Now().Add(2*time.Minute)))
		return tls.Client(tcp, trust)
	}
}

func TestOverTLSASlowSocketIsToldSoToo(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			var g *gauge
			f := serve(t, func(o *Options) {
				o.WriteTimeout = 300 * time.Millisecond
				g = newGauge(o)
			})
			dial := f.serveTLS(version)
			task := f.create()
			run := f.longStream(task)
			conn := dial()
			_, err := io.WriteString(conn, upgradeRequest+subscribeText(task, ""))
			must(t, err)
			receive(t, g.opened)
			text := strings.Repeat("x", 1000)
			for range 1000 { // more than goes out
				must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
			}
			receive(t, g.closed)
			// Reads all that has come, event by event, and checks the code of the close.
			if last := (&raw{t, nil, bufio.NewReader(conn)}).lastEvent(true); last == "" {
				t.Error("not one event has come")
			}
		})
	}
}

func TestOverTLSASocketThatStandsStillIsAlsoToldOfAShutdown(t *testing.T) {
	var g *gauge
	f := serve(t, func(o *Options) { g = newGauge(o) })
	dial := f.serveTLS(tls.VersionTLS13)
	task := f.create()
	run := f.longStream(task)
	conn := dial()
	_, err := io.WriteString(conn, upgradeRequest+subscribeText(task, ""))
	must(t, err)
	receive(t, g.opened)
	text := strings.Repeat("x", 1000)
	for range 1000 { // more than goes out
		must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
	}
	f.api.Drain()
	receive(t, g.closed)
	r := &raw{t, nil, bufio.NewReader(conn)}
	r.head(http.StatusSwitchingProtocols)
	for {
		opcode, payload, err := r.frame()
		must(t, err)
		if opcode == opClose {
			if code := int(payload[0])<<8 | int(payload[1]); code != 1001 {
				t.Errorf("closed with %d", code)
			}
			return
		}
	}
}
