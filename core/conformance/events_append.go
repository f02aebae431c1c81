package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var appendChecks = []check[eventsHarness]{
	{"sequence numbers are dense from 1 in each stream by itself", appendIsDense},
	{"an event comes back with everything it was appended with", appendFields},
	{"events are values: nothing that is passed in or handed out is shared", appendedAreValues},
	{"payloads up to the terminal limit come back", appendLarge},
	{"odd text in payloads and producer names comes back and is kept apart", appendOddText},
	{"a stream needs no row and task ids may look alike", appendLikeIDs},
}

func appendIsDense(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	streams := []string{newID(), newID(), newID()}
	for n := int64(1); n <= 30; n++ {
		for i, id := range streams[:1+n%3] {
			want := streamState(ctx, t, events, id).Last + 1
			if e := appendNew(ctx, t, events, message(id, fmt.Sprintf("source-%d", i), 1, n)); e.Sequence != want {
				t.Fatalf("the event after %d has the sequence number %d", want-1, e.Sequence)
			}
		}
	}
	for i, id := range streams {
		if n := len(readAll(ctx, t, events, id)); n != []int{30, 20, 10}[i] {
			t.Errorf("stream %d has %d events, want %d", i, n, []int{30, 20, 10}[i])
		}
	}
}

func appendFields(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	types := []taskbridge.EventType{taskbridge.EventStarted, taskbridge.EventProgress, taskbridge.EventMessage,
		taskbridge.EventSuspended, taskbridge.EventActionAccepted, taskbridge.EventCompleted}
	var want []taskbridge.Event
	for i, eventType := range types {
		e := message(id, "source", 1, int64(i+1))
		e.Type, e.Attempt = eventType, int64(i)
		e.CreatedAt = at(int64(i) * 100_001) // back and forth: the order is that of the appends
		if i%2 == 1 {
			e.CreatedAt = at(int64(-i))
		}
		want = append(want, appendNew(ctx, t, events, tagged(e)))
	}
	check := func(when string) {
		t.Helper()
		got := readAll(ctx, t, events, id)
		if len(got) != len(want) {
			t.Fatalf("%s there are %d events, want %d", when, len(got), len(want))
		}
		for i := range want {
			same(t, fmt.Sprintf("event %d %s", i+1, when), want[i], got[i])
		}
	}
	check("as appended")
	if h.Reopen != nil {
		events = h.Reopen(t, events)
		check("after a reopening")
	}
}

func appendedAreValues(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	passed := message(id, "source", 1, 1)
	want := stored(passed, 1)
	want.Payload = slices.Clone(want.Payload)
	appendNew(ctx, t, events, passed)
	scribbleBytes(passed.Payload)
	got := readAll(ctx, t, events, id)
	same(t, "the event after the caller wrote into what was passed", want, got[0])
	got[0] = taskbridge.Event{Sequence: 99}
	same(t, "the event after the caller wrote over what was read", want, readAll(ctx, t, events, id)[0])
}

func appendLarge(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	limits := taskbridge.DefaultLimits()
	var want []taskbridge.Event
	for i := range 20 {
		e := message(id, "source", 1, int64(i+1))
		e.Payload = jsonOfSize("message", limits.EventPayload)
		want = append(want, appendNew(ctx, t, events, tagged(e)))
	}
	end := control(id, taskbridge.EventCompleted, 1)
	end.Payload = jsonOfSize("result", limits.TerminalPayload)
	want = append(want, appendNew(ctx, t, events, tagged(end)))
	for i, got := range readAll(ctx, t, events, id) {
		same(t, fmt.Sprintf("event %d", i+1), want[i], got)
	}
}

func appendOddText(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	names := oddNames()
	for len(names) > 0 {
		// As many producers as a stream takes, each twice.
		part := names[:min(len(names), taskbridge.MaxProducers)]
		names = names[len(part):]
		id := newID()
		var want []taskbridge.Event
		for ordinal := int64(1); ordinal <= 2; ordinal++ {
			for _, name := range part {
				want = append(want, appendNew(ctx, t, events, message(id, name, 1, ordinal)))
			}
		}
		for i, got := range readAll(ctx, t, events, id) {
			same(t, fmt.Sprintf("event %d", i+1), want[i], got)
		}
	}
	// JSON as no encoder would write it comes back to the byte.
	id := newID()
	for i, payload := range []string{
		`{"message":"\u0041\/<&>\u2028\ud83d\ude42"}`, `{"message":"雪","level":"info"}`,
		`{"progress":1E+2}`, `{"progress":0.10}`, `{"result":12345678901234567890.123456789}`, `{"result":{"b":1,"a":2,"b":3}}`,
	} {
		e := message(id, "source", 1, int64(i+1))
		e.Payload = []byte(payload)
		want := appendNew(ctx, t, events, tagged(e))
		got, err := events.ReadEvents(ctx, id, want.Sequence-1, 1)
		if err != nil || len(got) != 1 {
			t.Fatalf("ReadEvents: %d events, %v", len(got), err)
		}
		same(t, "the event", want, got[0])
	}
}

func appendLikeIDs(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	like := []string{id, id + "x", id[:4] + strings.ToUpper(id[4:]), id[:len(id)-1], id + ".1", id + "-1", id + "_", id + "@"}
	for i, id := range like {
		for n := range int64(i + 1) {
			appendNew(ctx, t, events, message(id, "source", 1, n+1))
		}
	}
	for i, id := range like {
		if got := readAll(ctx, t, events, id); len(got) != i+1 || got[0].TaskID != id {
			t.Errorf("the stream of %q has %d events, want %d", id, len(got), i+1)
		}
	}
}
