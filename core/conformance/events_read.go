package conformance

import (
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var readChecks = []check[eventsHarness]{
	{"a read returns what is above after, in order, up to the limit", readWindows},
	{"a stream without events reads as none", readEmpty},
	{"reading page by page while events come leaves none out", readWhileGrowing},
}

var stateChecks = []check[eventsHarness]{
	{"the state is zero without events", stateEmpty},
	{"the state follows every append", stateFollows},
	{"a stream goes on after a reopening with all that its rules need", stateReopened},
}

func readWindows(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	const n = 12
	var all []taskbridge.Event
	for ordinal := int64(1); ordinal <= n; ordinal++ {
		all = append(all, appendNew(ctx, t, events, message(id, "source", 1, ordinal)))
		// Another stream's events lie between.
		appendNew(ctx, t, events, message(id+"x", "source", 1, ordinal))
	}
	for after := int64(0); after <= n+2; after++ {
		for _, limit := range []int{1, 2, 5, n - 1, n, n + 1, 100_000} {
			from := min(after, n)
			want := all[from:min(from+int64(limit), n)]
			got, err := events.ReadEvents(ctx, id, after, limit)
			if err != nil || len(got) != len(want) {
				t.Fatalf("ReadEvents(after %d, limit %d): %d events, %v; want %d", after, limit, len(got), err, len(want))
			}
			for i := range want {
				same(t, fmt.Sprintf("event %d of ReadEvents(after %d, limit %d)", i, after, limit), want[i], got[i])
			}
		}
	}
	got, err := events.ReadEvents(ctx, id, 1<<62, 10)
	if err != nil || len(got) != 0 {
		t.Errorf("ReadEvents far behind the end: %d events, %v; want none", len(got), err)
	}
}

func readEmpty(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	for _, after := range []int64{0, 1, 1000} {
		if got, err := events.ReadEvents(ctx, newID(), after, 10); err != nil || len(got) != 0 {
			t.Errorf("ReadEvents(after %d): %d events, %v; want none", after, len(got), err)
		}
	}
}

func readWhileGrowing(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	after, next := int64(0), int64(1)
	for round := range 40 {
		for range round % 4 {
			appendNew(ctx, t, events, message(id, "source", 1, next))
			next++
		}
		page, err := events.ReadEvents(ctx, id, after, 1+round%3)
		if err != nil {
			t.Fatalf("ReadEvents: %v", err)
		}
		if len(page) == 0 && after < next-1 {
			t.Fatalf("nothing was read after %d of %d", after, next-1)
		}
		for _, e := range page {
			after++
			same(t, "the event", stored(message(id, "source", 1, after), after), e)
		}
	}
}

func stateEmpty(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	appendNew(ctx, t, events, message(id+"x", "source", 1, 1))
	same(t, "the state", taskbridge.StreamState{}, streamState(ctx, t, events, id))
	// Reading and watching leave nothing behind.
	if _, err := events.ReadEvents(ctx, id, 0, 1); err != nil {
		t.Fatalf("ReadEvents: %v", err)
	}
	stop, err := events.WatchEvents(ctx, id, func() {})
	if err != nil {
		t.Fatalf("WatchEvents: %v", err)
	}
	stop()
	same(t, "the state after reading and watching", taskbridge.StreamState{}, streamState(ctx, t, events, id))
}

func stateFollows(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	step := func(e taskbridge.EventAppend, attempt int64, want taskbridge.StreamState) {
		t.Helper()
		e.Attempt = attempt
		e = tagged(e)
		appendNew(ctx, t, events, e)
		want.First, want.LastTag, want.LastAt = 1, e.Tag, e.CreatedAt
		want.FirstTag = streamState(ctx, t, events, id).FirstTag
		same(t, fmt.Sprintf("the state after event %d", want.Last), want, streamState(ctx, t, events, id))
	}
	started := control(id, taskbridge.EventStarted, 1)
	started.Attempt = 1
	step(started, 1, taskbridge.StreamState{Last: 1, Attempt: 1, Controls: 1})
	if got, want := streamState(ctx, t, events, id).FirstTag, tagged(started).Tag; got != want {
		t.Fatalf("the first tag is %q, want %q", got, want)
	}
	step(message(id, "source", 1, 1), 1, taskbridge.StreamState{Last: 2, Attempt: 1, Controls: 1})
	step(message(id, "source", 1, 7), 0, taskbridge.StreamState{Last: 3, Attempt: 1, Controls: 1})
	step(control(id, taskbridge.EventMessage, 2), 2, taskbridge.StreamState{Last: 4, Attempt: 2, Controls: 2})
	step(message(id, "source", 2, 1), 5, taskbridge.StreamState{Last: 5, Attempt: 5, Controls: 2})
	step(control(id, taskbridge.EventSuspended, 9), 0, taskbridge.StreamState{Last: 6, Attempt: 5, Controls: 9})
	step(control(id, taskbridge.EventFailed, 10), 0, taskbridge.StreamState{Last: 7, Attempt: 5, Controls: 10, Ended: true})
}

func stateReopened(t *testing.T, h eventsHarness) {
	if h.Reopen == nil {
		missing(t, "Reopen")
		return
	}
	ctx, events := deadline(t), h.New(t)
	p := &pair{events: events, taskID: newID()}
	reopen := func() {
		p.events = h.Reopen(t, p.events)
		p.agree(ctx, t)
	}
	e := message("", "source", 3, 5)
	e.Attempt = 4
	p.append(ctx, t, e)
	p.append(ctx, t, control("", taskbridge.EventStarted, 2))
	reopen()
	p.append(ctx, t, e)                                       // a duplicate
	p.append(ctx, t, message("", "source", 3, 4))             // an older one
	p.append(ctx, t, message("", "source", 2, 9))             // a stale epoch
	p.append(ctx, t, control("", taskbridge.EventStarted, 2)) // a duplicate
	p.append(ctx, t, func() taskbridge.EventAppend {          // a stale attempt
		e := message("", "source", 3, 6)
		e.Attempt = 3
		return e
	}())
	for i := range taskbridge.MaxProducers {
		p.append(ctx, t, message("", fmt.Sprintf("filler-%d", i), 1, 1))
	}
	reopen()
	p.append(ctx, t, message("", "one too many", 1, 1))
	p.append(ctx, t, message("", "source", 3, 6))
	p.append(ctx, t, control("", taskbridge.EventCompleted, 3))
	reopen()
	p.append(ctx, t, message("", "source", 3, 7))               // after the end
	p.append(ctx, t, control("", taskbridge.EventCompleted, 3)) // a duplicate
	p.agree(ctx, t)
}
