package memory_test

import (
	"context"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// appendMessages appends messages with the ordinals from to to, of one producer
// and of the attempt that has the ordinal's number.
func appendMessages(t *testing.T, events *memory.Events, from, to int64) {
	t.Helper()
	for ordinal := from; ordinal <= to; ordinal++ {
		if _, err := events.AppendEvent(t.Context(), message(ordinal)); err != nil {
			t.Fatalf("append of ordinal %d: %v", ordinal, err)
		}
	}
}

func message(ordinal int64) taskbridge.EventAppend {
	e := taskbridge.EventAppend{
		TaskID:    "task",
		Type:      taskbridge.EventMessage,
		CreatedAt: time.Unix(ordinal, 0).UTC(),
		Attempt:   ordinal,
		Payload:   []byte(`{"message":"m"}`),
		Producer:  taskbridge.Producer{Name: taskbridge.ControlProducer, Epoch: 1},
		Ordinal:   ordinal,
	}
	e.Tag = taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload)
	return e
}

func state(t *testing.T, events *memory.Events) taskbridge.StreamState {
	t.Helper()
	s, err := events.StreamState(context.Background(), "task")
	if err != nil {
		t.Fatalf("StreamState: %v", err)
	}
	return s
}

func TestATruncatedStreamIsWhatItWasBeforeTheLostEvents(t *testing.T) {
	events := memory.NewEvents()
	appendMessages(t, events, 1, 3)
	before := state(t, events)
	appendMessages(t, events, 4, 6)
	events.Truncate("task", 3)
	if after := state(t, events); after != before {
		t.Fatalf("state is %+v, was %+v", after, before)
	}
	// The lost ones are no duplicates any more, the kept ones are.
	if r, err := events.AppendEvent(t.Context(), message(3)); err != nil || !r.Duplicate || r.Sequence != 3 {
		t.Fatalf("append of what was kept: %+v, %v", r, err)
	}
	if r, err := events.AppendEvent(t.Context(), message(5)); err != nil || r.Duplicate || r.Sequence != 4 {
		t.Fatalf("append of what was lost: %+v, %v", r, err)
	}
	events.Truncate("task", 0)
	if after := state(t, events); after != (taskbridge.StreamState{}) {
		t.Fatalf("state of a stream that was lost is %+v", after)
	}
}

func TestATrimmedStreamGoesOnAsIfItWereWhole(t *testing.T) {
	events := memory.NewEvents()
	appendMessages(t, events, 1, 5)
	events.Trim("task", 4)
	if s := state(t, events); s.First != 4 || s.Last != 5 || s.FirstTag != message(4).Tag || s.Controls != 5 {
		t.Fatalf("state is %+v", s)
	}
	got, err := events.ReadEvents(t.Context(), "task", 0, 10)
	if err != nil || len(got) != 2 || got[0].Sequence != 4 || got[1].Sequence != 5 {
		t.Fatalf("read %+v, %v", got, err)
	}
	if got, err = events.ReadEvents(t.Context(), "task", 4, 10); err != nil || len(got) != 1 || got[0].Sequence != 5 {
		t.Fatalf("read after 4: %+v, %v", got, err)
	}
	appendMessages(t, events, 6, 6)
	events.Truncate("task", 5)
	if s := state(t, events); s.First != 4 || s.Last != 5 || s.Controls != 5 || s.Attempt != 5 {
		t.Fatalf("state after a lost tail is %+v", s)
	}
	events.Trim("task", 100)
	if s := state(t, events); s.First != 5 || s.Last != 5 {
		t.Fatalf("state after trimming beyond the end is %+v", s)
	}
}
