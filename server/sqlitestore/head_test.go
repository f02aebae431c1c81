package sqlitestore

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// heads are of streams as they come to be, and at their limits.
func heads() []streamHead {
	var many []producerHead
	for i := range taskbridge.MaxProducers {
		many = append(many, producerHead{
			name: fmt.Sprintf("%d%s", i, strings.Repeat("é", 100)), epoch: math.MaxInt64 - int64(i), ordinal: math.MaxInt64, sequence: int64(i),
		})
	}
	return []streamHead{
		{last: 1, producers: []producerHead{{name: "control", epoch: 1, ordinal: 1, sequence: 1}}},
		{last: 7, attempt: 3, producers: []producerHead{{name: "worker", epoch: 4, ordinal: 2, sequence: 7}, {name: "control", epoch: 1, ordinal: 5, sequence: 2}}},
		{last: 9, ended: true, producers: []producerHead{{name: "", epoch: -5}}},
		{last: maxSequence, attempt: math.MaxInt64, producers: many},
	}
}

func TestAStreamsStateComesBackFromItsLastEvent(t *testing.T) {
	for _, want := range heads() {
		var got streamHead
		if err := got.readState(want.appendState(nil), want.last); err != nil {
			t.Errorf("%+v: %v", want, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("the state is %+v, want %+v", got, want)
		}
	}
}

func FuzzReadState(f *testing.F) {
	for _, h := range heads() {
		f.Add(h.appendState(nil))
	}
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h streamHead
		if h.readState(b, 9) == nil {
			var again streamHead
			if err := again.readState(h.appendState(nil), 9); err != nil || !reflect.DeepEqual(h, again) {
				t.Errorf("the state %x is %+v, then %+v, %v", b, h, again, err)
			}
		}
	})
}

func TestAStreamOfMoreThanTheCacheGoesOnFromTheFile(t *testing.T) {
	s := openTestStore(t, Options{CachedTasks: 1})
	for ordinal := int64(1); ordinal <= 3; ordinal++ {
		for _, id := range []string{"a", "b"} {
			for range 2 { // the second is a duplicate
				result, err := s.AppendEvent(t.Context(), message(id, ordinal))
				if err != nil || result.Sequence != ordinal {
					t.Fatalf("append %d to %s: %+v, %v", ordinal, id, result, err)
				}
			}
		}
	}
}

func TestAStreamThatBeganBeforeItsTaskStaysOne(t *testing.T) {
	s := openTestStore(t, Options{})
	task := newTask("key")
	if _, err := s.AppendEvent(t.Context(), message(task.ID, 1)); err != nil {
		t.Fatal(err)
	}
	row, _, err := s.CreateTask(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(s, func(w *writer) error { w.forget(); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateTaskAndAppend(t.Context(), row, []taskbridge.EventAppend{message(task.ID, 1), message(task.ID, 2)}); err != nil {
		t.Fatal(err)
	}
	if got := sequences(t, s, task.ID); len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Errorf("the stream has %v", got)
	}
	if state, err := s.StreamState(t.Context(), task.ID); err != nil || state.First != 1 || state.Last != 2 {
		t.Errorf("the stream's state is %+v, %v", state, err)
	}
}
