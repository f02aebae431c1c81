package taskbridge_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// recordingObserver notes what begins and that it ends.
type recordingObserver struct {
	mu    sync.Mutex
	begun map[string]int
	ended map[string]int
}

func (o *recordingObserver) Begin(ctx context.Context, op taskbridge.Operation) (context.Context, func(error)) {
	key := fmt.Sprint(op.Kind, " ", op.Event)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun[key]++
	return ctx, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ended[fmt.Sprint(key, " ", err)]++
	}
}

func TestAnObserverIsToldOfEveryOperationOnce(t *testing.T) {
	observer := &recordingObserver{begun: map[string]int{}, ended: map[string]int{}}
	stores := atomicStores()
	h := newHost(t, stores, func(o *taskbridge.Options) { o.Observer = observer })
	var err error
	h.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Observer: observer})
	h.must(err)
	id := h.create("a")
	h.create("a")
	run := h.start(id, "c")
	_, _, err = h.Cancellation.CancelTask(t.Context(), me, id, "")
	h.must(err)
	h.progress(run, 3)
	h.complete(run)
	var got []string
	observer.mu.Lock()
	defer observer.mu.Unlock()
	for key, n := range observer.ended {
		got = append(got, fmt.Sprint(n, " ", key))
	}
	slices.Sort(got)
	want := []string{
		"1 cancel  <nil>", "1 end TASK_COMPLETED <nil>", "1 end TASK_COMPLETED task row has changed since it was read",
		"1 start  <nil>", "1 submit  <nil>", "2 create  <nil>", "3 append TASK_PROGRESS <nil>",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for key, n := range observer.begun {
		ended := 0
		for k, m := range observer.ended {
			if len(k) > len(key) && k[:len(key)+1] == key+" " {
				ended += m
			}
		}
		if ended != n {
			t.Errorf("%s: %d begun, %d ended", key, n, ended)
		}
	}
}
