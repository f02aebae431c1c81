package httpapi

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// longStream is a lifecycle that lets a stream have as many events as a test likes.
func (f *fixture) longStream(taskID string) taskbridge.Run {
	f.Helper()
	var err error
	f.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: f.store, Events: f.store}, Limits: taskbridge.Limits{StreamEvents: 1 << 24},
	})
	must(f.T, err)
	return f.start(taskID)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what sync.Pool has let go
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

func TestSubscribersThatStopReadingCostNobodyAnythingAndResume(t *testing.T) {
	stopReading(t, 50, 20_000)
}

// stopReading has subscribers of both kinds that read nothing while events pass.
// Healthy ones get everything, memory stays bounded, and those that stopped are
// told to come back, which they do without a gap.
func stopReading(t *testing.T, slow, events int) {
	var g *gauge
	f := serve(t, func(o *Options) {
		o.WriteTimeout = 2 * time.Second
		g = newGauge(o)
	})
	task := f.create()
	run := f.longStream(task)
	stopped := make([]*raw, slow)
	for i := range stopped {
		stopped[i] = f.rawConn(0)
		must(t, stopped[i].conn.SetDeadline(time.Now().Add(10*time.Minute)))
		if i%2 == 0 {
			stopped[i].send("%s%s", upgradeRequest, subscribeText(task, ""))
		} else {
			stopped[i].send("GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", task)
		}
		receive(t, g.opened)
	}
	healthy, socket := f.open(task, ""), f.connect()
	socket.subscribe(task, "")
	socket.confirmed(task, nil)
	var readers sync.WaitGroup
	readers.Go(func() { sequences(t, events+2, func() (string, error) { return healthy.eventID() }) })
	readers.Go(func() { sequences(t, events+2, func() (string, error) { return socket.eventID() }) })

	filled := 0
	text := strings.Repeat("x", 200)
	report := func(upTo int) {
		for ; filled < upTo; filled++ {
			must(t, run.Message(t.Context(), taskbridge.Message{Text: text}))
		}
	}
	report(events / 10)
	before := heapInUse()
	stored := uint64(events-filled) * 700 // what the store in memory keeps of an event, and more
	// Each of them is given up: it stands still for longer than the write timeout.
	for given := 0; given < slow; {
		if filled < events {
			report(filled + 100)
		}
		select {
		case <-g.closed:
			given++
		default:
			if filled >= events {
				receive(t, g.closed)
				given++
			}
		}
	}
	last := make([]string, min(slow, 10)) // the others are of the same kinds
	for i := range last {
		last[i] = stopped[i].lastEvent(i%2 == 0)
	}
	report(events)
	after := heapInUse()
	// The ring (256 KiB), the pages of replays (32 MiB) and for each that stands
	// still one piece that is being written and the page that it is of.
	limit := stored + 64<<20 + uint64(slow)*128<<10
	t.Logf("%d that do not read, %d events: %d MiB before, %d MiB after, limit of the growth %d MiB",
		slow, events, before>>20, after>>20, limit>>20)
	if after > before+limit {
		t.Errorf("memory has grown from %d MiB to %d MiB", before>>20, after>>20)
	}
	f.complete(run, "1")
	readers.Wait()
	for i, last := range last {
		if i%2 == 0 {
			again := f.connect()
			again.subscribe(task, last)
			again.confirmed(task, last)
			resumed(t, last, events+2, again.eventID)
		} else {
			resumed(t, last, events+2, f.open(task, "?lastEventId="+last).eventID)
		}
	}
}

// eventID returns the next event's id.
func (s *sse) eventID() (string, error) {
	for {
		m, err := s.next()
		if err != nil || m.id != "" {
			return m.id, err
		}
	}
}

func (s *socket) eventID() (string, error) {
	for {
		frame, err := s.next()
		if err != nil {
			return "", err
		}
		if id, ok := frame["eventId"].(string); ok {
			return id, nil
		}
	}
}

// sequences checks that the next events are the stream's, from the first to the last.
func sequences(t *testing.T, last int, next func() (string, error)) {
	from(t, 1, last, next)
}

func from(t *testing.T, first, last int, next func() (string, error)) {
	for want := first; want <= last; want++ {
		id, err := next()
		if err != nil {
			t.Errorf("waiting for event %d: %v", want, err)
			return
		}
		if cursor, err := taskbridge.ParseCursor(id); err != nil || cursor.Sequence != int64(want) {
			t.Errorf("event %s, want number %d", id, want)
			return
		}
	}
}

func resumed(t *testing.T, after string, last int, next func() (string, error)) {
	t.Helper()
	cursor, err := taskbridge.ParseCursor(after)
	must(t, err)
	from(t, int(cursor.Sequence)+1, last, next)
}

// lastEvent reads what has come for a client that stood still, checks that it is
// the stream's beginning without a gap, and returns the last whole event's id.
func (r *raw) lastEvent(overSocket bool) (last string) {
	r.t.Helper()
	next := int64(1)
	take := func(id string) {
		cursor, err := taskbridge.ParseCursor(id)
		if err != nil || cursor.Sequence != next {
			r.t.Fatalf("event %q, want number %d", id, next)
		}
		last = id
		next++
	}
	if overSocket {
		r.head(http.StatusSwitchingProtocols)
		for {
			opcode, payload, err := r.frame()
			must(r.t, err)
			var frame struct{ EventID string }
			switch {
			case opcode == opClose:
				if code := binary.BigEndian.Uint16(payload); code != 1013 {
					r.t.Errorf("closed with %d, want 1013", code)
				}
				return last
			case json.Unmarshal(payload, &frame) != nil:
				r.t.Fatalf("frame %x %q", opcode, payload)
			case frame.EventID != "":
				take(frame.EventID)
			}
		}
	}
	response, err := http.ReadResponse(r.in, nil)
	must(r.t, err)
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	id := ""
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return last // cut, as it should be
		}
		must(r.t, err)
		if value, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSpace(value)
		} else if line == "\n" && id != "" {
			take(id)
			id = ""
		}
	}
}
