package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

func TestOpenStreamsReturnToZeroOnEveryWayOut(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	transports := []telemetry.Transport{telemetry.TransportSSE, telemetry.TransportWebSocket, telemetry.TransportLongPoll}
	ways := map[string]func(inside func()){
		"returning": func(inside func()) { inside() },
		"cut": func(inside func()) {
			defer func() { _ = recover() }()
			inside()
			panic(http.ErrAbortHandler)
		},
		"a fault": func(inside func()) {
			defer func() { _ = recover() }()
			inside()
			panic("fault")
		},
	}
	for _, transport := range transports {
		for name, way := range ways {
			way(func() {
				closed := tel.Open(transport)
				defer closed()
				expect(t, tel, 1, "taskbridge_streams_open", "transport", string(transport))
			})
			if got := sample(t, tel, "taskbridge_streams_open", "transport", string(transport)); got != 0 {
				t.Errorf("%s, %s: %v are open still", transport, name, got)
			}
		}
		expect(t, tel, float64(len(ways)), "taskbridge_stream_duration_seconds", "transport", string(transport))
	}
}

func TestAStreamThatIsClosedTwiceIsCountedOnce(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	stays := tel.Open(telemetry.TransportSSE)
	closed := tel.Open(telemetry.TransportSSE)
	var closers sync.WaitGroup
	for range 8 {
		closers.Go(closed)
	}
	closers.Wait()
	expect(t, tel, 1, "taskbridge_streams_open", "transport", "sse")
	expect(t, tel, 1, "taskbridge_stream_duration_seconds", "transport", "sse")
	stays()
	expect(t, tel, 0, "taskbridge_streams_open", "transport", "sse")
}

func TestDeliveriesAreCountedByTransport(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	tel.Delivered(telemetry.TransportSSE, 3, 1000)
	tel.Delivered(telemetry.TransportSSE, 0, 8) // a ping
	tel.SlowReaderCut(telemetry.TransportWebSocket)
	expect(t, tel, 3, "taskbridge_delivered_frames_total", "transport", "sse")
	expect(t, tel, 1008, "taskbridge_delivered_bytes_total", "transport", "sse")
	expect(t, tel, 0, "taskbridge_delivered_bytes_total", "transport", "websocket")
	expect(t, tel, 1, "taskbridge_slow_readers_cut_total", "transport", "websocket")
}

func TestATransportWithoutTelemetryWorksAllTheSame(t *testing.T) {
	var none *telemetry.Telemetry
	none.Open(telemetry.TransportSSE)()
	none.Delivered(telemetry.TransportSSE, 1, 1)
	none.SlowReaderCut(telemetry.TransportSSE)
	none.AuthenticationFailed(telemetry.AuthJWT)
	none.RateLimited(telemetry.LimitRate)
	next := http.NewServeMux()
	if none.Middleware(next) != http.Handler(next) {
		t.Error("without telemetry there is something in between")
	}
	sent := httptest.NewRequest(http.MethodGet, "/x", nil)
	r, request := none.BeginRequest(sent)
	telemetry.SetRoute(r.Context(), "/x")
	telemetry.SetStreaming(r.Context(), http.StatusOK)
	request.End(http.StatusOK)
	if r != sent {
		t.Error("the request is another")
	}
}
