package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var eventObligationChecks = []check[eventsHarness]{
	{"a call whose context has ended has no effect", eventsCancelled},
	{"after closing every method is ErrClosed, and a stop still works", eventsClosed},
	{"an event that a call has returned is there, though the store is closed in the midst of calls", eventsClosedInTheMidst},
	{"another server sees an event as soon as the call that wrote it has returned", eventsPeer},
}

func eventCalls(events eventStore, taskID string) []call {
	return []call{
		{"AppendEvent", func(ctx context.Context) error {
			_, err := events.AppendEvent(ctx, message(taskID, "source", 1, 2))
			return err
		}},
		{"AppendEvent of a repetition", func(ctx context.Context) error {
			_, err := events.AppendEvent(ctx, message(taskID, "source", 1, 1))
			return err
		}},
		{"ReadEvents", func(ctx context.Context) error { _, err := events.ReadEvents(ctx, taskID, 0, 5); return err }},
		{"StreamState", func(ctx context.Context) error { _, err := events.StreamState(ctx, taskID); return err }},
		{"DeleteEvents", func(ctx context.Context) error { _, err := events.DeleteEvents(ctx, taskID, 5); return err }},
		{"WatchEvents", func(ctx context.Context) error {
			stop, err := events.WatchEvents(ctx, taskID, func() {})
			if err == nil {
				stop()
			}
			return err
		}},
	}
}

func eventsCancelled(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	appendNew(ctx, t, events, message(id, "source", 1, 1))
	before := streamState(ctx, t, events, id)
	refused(cancelled(), t, context.Canceled, eventCalls(events, id))
	same(t, "the state after the refused calls", before, streamState(ctx, t, events, id))
	appendNew(ctx, t, events, message(id, "source", 1, 2))
}

func eventsClosed(t *testing.T, h eventsHarness) {
	if h.Close == nil {
		missing(t, "Close")
		return
	}
	ctx, events := deadline(t), h.New(t)
	id := newID()
	appendNew(ctx, t, events, message(id, "source", 1, 1))
	stop, err := events.WatchEvents(ctx, id, func() {})
	if err != nil {
		t.Fatalf("WatchEvents: %v", err)
	}
	if err := h.Close(events); err != nil {
		t.Fatalf("Close: %v", err)
	}
	refused(ctx, t, taskbridge.ErrClosed, eventCalls(events, id))
	stop()
	if err := h.Close(events); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func eventsClosedInTheMidst(t *testing.T, h eventsHarness) {
	if h.Close == nil || h.Reopen == nil {
		missing(t, "Close and Reopen")
		return
	}
	ctx, events := deadline(t), h.New(t)
	const writers = 8
	var (
		ids     [writers]string
		written [writers]int64 // appends that returned nil
		mu      sync.Mutex
		total   int
		enough  = make(chan struct{})
		wg      sync.WaitGroup
	)
	for w := range writers {
		ids[w] = newID()
		wg.Go(func() {
			for n := int64(1); ctx.Err() == nil; {
				_, err := events.AppendEvent(ctx, message(ids[w], "source", 1, n))
				if errors.Is(err, taskbridge.ErrClosed) {
					return
				}
				if err != nil {
					continue // the outcome is unknown: the same once more
				}
				written[w] = n
				n++
				mu.Lock()
				if total++; total == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	await(ctx, t, "two hundred events", enough)
	reopened := h.Reopen(t, events)
	wg.Wait()
	if ctx.Err() != nil {
		t.Fatal("the closed store did not answer ErrClosed")
	}
	for w, id := range ids {
		all := readAll(ctx, t, reopened, id)
		if n := int64(len(all)); n < written[w] || n > written[w]+1 {
			t.Errorf("stream %d has %d events, and %d appends had returned", w, n, written[w])
		}
		for i, e := range all {
			same(t, fmt.Sprintf("event %d", i+1), stored(message(id, "source", 1, int64(i+1)), int64(i+1)), e)
		}
	}
}

func eventsPeer(t *testing.T, h eventsHarness) {
	if h.Peer == nil {
		missing(t, "Peer")
		return
	}
	ctx, events := deadline(t), h.New(t)
	stores := []eventStore{events, h.Peer(t, events)}
	p := &pair{taskID: newID()}
	for n := int64(1); n <= 20; n++ {
		p.events = stores[n%2]
		p.append(ctx, t, message("", "source", 1, n))
		p.events = stores[(n+1)%2]
		p.append(ctx, t, message("", "source", 1, n)) // a duplicate there
		p.agree(ctx, t)
	}
	// Both append to one stream at once.
	id := newID()
	var errs [appenders]error
	together(appenders, func(i int) {
		e := message(id, "source", 1, int64(i+1))
		e.Ordinal = 0
		_, errs[i] = stores[i%2].AppendEvent(ctx, e)
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if n := len(readAll(ctx, t, events, id)); n != appenders {
		t.Errorf("the stream has %d events, want %d", n, appenders)
	}
}
