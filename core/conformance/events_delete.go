package conformance

import (
	"errors"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var deleteChecks = []check[eventsHarness]{
	{"events are deleted in bounded steps, oldest first, until the stream is forgotten", deleteInSteps},
	{"deleting one stream leaves the others alone", deleteOne},
	{"a stream that is being deleted reads like one whose head is gone", deleteReads},
}

func deleteInSteps(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	const task = "000-a"
	for i := int64(1); i <= 10; i++ {
		appendNew(ctx, t, events, message(task, "p", 1, i))
	}
	for step, want := range []int64{4, 7, 10, 0} {
		more, err := events.DeleteEvents(ctx, task, 3)
		if err != nil {
			t.Fatal(err)
		}
		state, err := events.StreamState(ctx, task)
		if err != nil {
			t.Fatal(err)
		}
		if more != (want > 0) || state.First != want {
			t.Fatalf("after step %d: more %v, the first is %d, want %d", step, more, state.First, want)
		}
	}
	more, err := events.DeleteEvents(ctx, task, 1)
	if more || err != nil {
		t.Errorf("of a stream that is not there: %v, %v", more, err)
	}
	state, err := events.StreamState(ctx, task)
	if err != nil || state != (taskbridge.StreamState{}) {
		t.Errorf("the forgotten stream: %+v, %v", state, err)
	}
}

func deleteOne(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	for i := int64(1); i <= 5; i++ {
		for _, task := range []string{"000-a", "000-b", "000-c"} {
			appendNew(ctx, t, events, message(task, "p", 1, i))
		}
	}
	if more, err := events.DeleteEvents(ctx, "000-b", 5); more || err != nil {
		t.Fatalf("%v, %v", more, err)
	}
	for task, want := range map[string]int{"000-a": 5, "000-b": 0, "000-c": 5} {
		got, err := events.ReadEvents(ctx, task, 0, 100)
		if err != nil || len(got) != want {
			t.Errorf("%s has %d events, want %d: %v", task, len(got), want, err)
		}
	}
	if _, err := events.DeleteEvents(cancelled(), "000-a", 5); err == nil {
		t.Error("DeleteEvents under a cancelled context succeeded")
	}
}

func deleteReads(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	var all []taskbridge.Event
	for i := int64(1); i <= 6; i++ {
		all = append(all, appendNew(ctx, t, events, message(id, "source", 1, i)))
	}
	all = append(all, appendNew(ctx, t, events, control(id, taskbridge.EventCompleted, 1)))
	if more, err := events.DeleteEvents(ctx, id, 4); err != nil || !more {
		t.Fatalf("DeleteEvents: more %v, %v", more, err)
	}
	for _, after := range []int64{0, 3, 4, 6} {
		want := all[max(after, 4):]
		got, err := events.ReadEvents(ctx, id, after, 100)
		if err != nil || len(got) != len(want) {
			t.Fatalf("ReadEvents after %d: %d events, %v; want %d", after, len(got), err, len(want))
		}
		for i := range want {
			same(t, "the event", want[i], got[i])
		}
	}
	same(t, "the state", taskbridge.StreamState{
		First: 5, FirstTag: all[4].Tag, Last: 7, LastTag: all[6].Tag, LastAt: all[6].CreatedAt, Ended: true, Controls: 1,
	}, streamState(ctx, t, events, id))
	// The rules still hold: nothing follows the end, and a repetition is one.
	if _, err := events.AppendEvent(ctx, message(id, "source", 1, 7)); !errors.Is(err, taskbridge.ErrTaskFinished) {
		t.Errorf("AppendEvent: %v, want ErrTaskFinished", err)
	}
	if result, err := events.AppendEvent(ctx, message(id, "source", 1, 6)); err != nil || !result.Duplicate {
		t.Errorf("AppendEvent of a repetition: %+v, %v; want a duplicate", result, err)
	}
}
