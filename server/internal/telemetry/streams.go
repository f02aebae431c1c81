package telemetry

import (
	"sync/atomic"
	"time"
)

// Transport is a way in which events reach a client live.
type Transport string

// The transports.
const (
	TransportSSE       Transport = "sse"
	TransportWebSocket Transport = "websocket"
	TransportLongPoll  Transport = "longpoll"
)

var transports = [...]Transport{TransportSSE, TransportWebSocket, TransportLongPoll, other}

func (t *Telemetry) stream(transport Transport) *streamMetrics {
	return &t.metrics.streams[indexOf(transports[:], transport)]
}

// Open counts a client that is being served live until the function that it
// returns is called. That may happen more than once, at the same time too; only
// the first call counts. Defer it where Open is called, and no way out of the
// stream, a panic included, can leave the client counted.
func (t *Telemetry) Open(transport Transport) (closed func()) {
	if t == nil {
		return func() {}
	}
	s, opened := t.stream(transport), time.Now()
	var done atomic.Bool
	s.open.Inc()
	return func() {
		if !done.Swap(true) {
			s.open.Dec()
			s.lifetimes.Observe(time.Since(opened).Seconds())
		}
	}
}

// Delivered counts events that have been written to a client, and the bytes that
// they took with all that the transport put round them.
func (t *Telemetry) Delivered(transport Transport, frames, bytes int) {
	if t == nil {
		return
	}
	s := t.stream(transport)
	s.frames.Add(float64(frames))
	s.bytes.Add(float64(bytes))
}

// SlowReaderCut counts a client that was cut because it did not keep up.
func (t *Telemetry) SlowReaderCut(transport Transport) {
	if t != nil {
		t.stream(transport).slow.Inc()
	}
}
