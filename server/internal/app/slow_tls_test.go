package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestOverTLSASocketThatIsTooSlowIsClosedWithItsCode(t *testing.T) {
	args, client := secure(t, 1)
	w := openWorkshop(t, openStore, append(args, "--http-write-timeout=300ms")...)
	w.client = client
	m := w.submit()
	attempt := w.begin(m, "claim")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	narrow := client.Transport.(ofVersion).Clone()
	narrow.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
		}
		return conn, err
	}
	conn, _, err := websocket.Dial(ctx, w.url+"/api/v1/tasks/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: narrow}, HTTPHeader: bearer(w.ring.keys["client"]),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }() // it is closed already, unless the test has failed
	conn.SetReadLimit(-1)
	if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"action":"subscribe","taskId":%q}`, m.Data.TaskID)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(ctx); err != nil { // it has subscribed, and does not read on
		t.Fatal(err)
	}
	message := `{"type":"message","message":"` + strings.Repeat("x", 1000) + `"}`
	reports := `{"firstOrdinal":1,"reports":[` + strings.Repeat(message+",", 999) + message + `]}`
	if got := w.ask("POST", m.Data.TaskID, "reports", attempt, reports); got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	w.untilMetric(`taskbridge_slow_readers_cut_total{transport="websocket"} 1`)
	for err == nil {
		_, _, err = conn.Read(ctx)
	}
	if code := websocket.CloseStatus(err); code != websocket.StatusTryAgainLater {
		t.Errorf("closed by %v", err)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}
