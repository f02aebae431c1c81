package taskbridge_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// messages appends that many of the largest messages.
func (h *host) messages(run taskbridge.Run, n int) {
	h.t.Helper()
	text := strings.Repeat("x", 32_000)
	for range n {
		h.must(run.Message(h.t.Context(), taskbridge.Message{Text: text}))
	}
}

// inUse is how much memory is held.
func inUse() int {
	runtime.GC()
	runtime.GC() // what pools have let go
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

func TestReadersOfLargeEventsWhoStandStillHoldLittleEach(t *testing.T) {
	const readers, events = 40, 600
	for name, replay := range map[string]int{"pages are kept": 0, "pages are too large to be kept": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Subscription.ReplayBytes = replay })
			id := h.create("a")
			run := h.start(id, "c")
			h.messages(run, events)
			h.complete(run)
			want := h.events(id)
			type place struct {
				sub  *taskbridge.Subscription
				held []taskbridge.Frame
			}
			before := inUse()
			var places []*place
			for i := range readers {
				p := &place{sub: h.subscribe(id, taskbridge.Cursor{})}
				defer p.sub.Close()
				for p.held == nil || p.held[0].Sequence < int64(i*events/readers) { // each stands elsewhere
					frames, err := p.sub.Next(t.Context(), 0)
					h.must(err)
					if len(frames) == 0 {
						t.Fatal("nothing is there")
					}
					p.held = frames
				}
				places = append(places, p)
			}
			// What is kept for all, and for each what it was given at once with
			// the pieces that this is of.
			limit := 33<<20 + readers*(1<<20)
			if held := inUse() - before; held > limit {
				t.Errorf("%d readers hold %d MiB, not %d", readers, held>>20, limit>>20)
			}
			for _, p := range places {
				for next := p.held[len(p.held)-1].Sequence; ; {
					frames, err := p.sub.Next(t.Context(), 0)
					if errors.Is(err, io.EOF) {
						if next != int64(len(want)) {
							t.Errorf("the end comes after event %d of %d", next, len(want))
						}
						break
					}
					h.must(err)
					for _, frame := range frames {
						if next++; frame.Sequence != next {
							t.Fatalf("event %d, want %d", frame.Sequence, next)
						}
					}
				}
				p.held = nil
			}
		})
	}
}

func TestTheRecentEventsOfAStreamAreBoundedInBytesWhateverCameBefore(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Subscription.RingBytes = 256 << 10 })
	id := h.create("a")
	run := h.start(id, "c")
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	w := watch(sub)
	follow := func(last int) {
		for len(w.frames) == 0 || w.frames[len(w.frames)-1].Sequence < int64(last) {
			h.must(w.look(t))
			if n := len(w.frames); n > 0 {
				w.frames = w.frames[n-1:]
			}
			if len(w.frames) == 0 || w.frames[0].Sequence < int64(last) {
				<-w.changed
			}
		}
		w.frames = []taskbridge.Frame{{Sequence: int64(last)}}
	}
	h.progress(run, 3000) // small ones: a long array
	follow(3001)
	before := inUse()
	for i := range 400 {
		h.messages(run, 1)
		follow(3002 + i)
		if i%20 > 0 {
			continue
		}
		stored := 0
		for _, e := range h.events(id)[3001:] {
			stored += len(e.Payload)
		}
		if grown := inUse() - before; grown > stored+2<<20 {
			t.Fatalf("grown by %d KiB, of which the store has %d", grown>>10, stored>>10)
		}
	}
}

// countingEvents counts the events that are read.
type countingEvents struct {
	taskbridge.EventStore
	read atomic.Int64
}

// ReadEvents counts.
func (c *countingEvents) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	events, err := c.EventStore.ReadEvents(ctx, taskID, after, limit)
	c.read.Add(int64(len(events)))
	return events, err
}

func TestAReplayOfLargeEventsReadsEachAFewTimesAtMost(t *testing.T) {
	const events = 600 // the last page is not full, and may still grow
	for name, replay := range map[string]int{"pages are kept": 0, "pages are too large to be kept": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			stores := atomicStores()
			counting := &countingEvents{EventStore: stores.Events}
			stores.Events = counting
			h := newHost(t, stores, func(o *taskbridge.Options) { o.Subscription.ReplayBytes = replay })
			id := h.create("a")
			h.messages(h.start(id, "c"), events)
			sub := h.subscribe(id, taskbridge.Cursor{})
			defer sub.Close()
			counting.read.Store(0)
			for got := 0; got < events; {
				frames, err := sub.Next(t.Context(), 0)
				h.must(err)
				if len(frames) == 0 {
					t.Fatalf("%d events", got)
				}
				got += len(frames)
			}
			if read := counting.read.Load(); read > 5*events {
				t.Errorf("%d events are read to deliver %d", read, events)
			}
		})
	}
}
