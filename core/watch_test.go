package taskbridge_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// watcher reads a subscription without ever waiting in it.
type watcher struct {
	sub     *taskbridge.Subscription
	changed chan struct{}
	frames  []taskbridge.Frame
}

func watch(sub *taskbridge.Subscription) *watcher {
	w := &watcher{sub: sub, changed: make(chan struct{}, 1)}
	sub.Watch(func() {
		select {
		case w.changed <- struct{}{}:
		default: // it will look anyway
		}
	})
	return w
}

// look takes what there is. Error: the subscription's end.
func (w *watcher) look(t *testing.T) error {
	for {
		frames, ok := w.sub.Ready()
		if !ok {
			var err error
			if frames, err = w.sub.Next(t.Context(), 0); err != nil {
				return err
			}
		}
		if len(frames) == 0 {
			return nil
		}
		w.frames = append(w.frames, frames...)
	}
}

// follow takes everything until the subscription ends.
func (w *watcher) follow(t *testing.T) error {
	for {
		if err := w.look(t); err != nil {
			return err
		}
		select {
		case <-w.changed:
		case <-t.Context().Done():
			return t.Context().Err()
		}
	}
}

func TestAWatcherIsToldOfEverythingThatComes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // several goroutines tell
	const subscribers = 1500
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Subscription.RingBytes = 5000 })
	id := h.create("a")
	run := h.start(id, "c")
	watchers := make([]*watcher, subscribers)
	var work sync.WaitGroup
	for i := range watchers {
		w := watch(h.subscribe(id, taskbridge.Cursor{}))
		watchers[i] = w
		work.Go(func() {
			defer w.sub.Close()
			if err := w.follow(t); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
	h.progress(run, 100)
	h.complete(run)
	work.Wait()
	events := h.events(id)
	for _, w := range watchers {
		wantFrames(t, w.frames, events)
	}
}

func TestWatchersThatCloseLeaveTheOthersWatching(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	const subscribers = 30
	watchers := make([]*watcher, subscribers)
	for i := range watchers {
		watchers[i] = watch(h.subscribe(id, taskbridge.Cursor{}))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for want := 1; len(watchers) > 0; want++ { // the first event is the start
		for _, w := range watchers {
			for len(w.frames) < want {
				h.must(w.look(t))
				if len(w.frames) < want {
					<-w.changed
				}
			}
		}
		out := random.IntN(len(watchers))
		watchers[out].sub.Close()
		watchers = slices.Delete(watchers, out, out+1)
		h.progress(run, 1)
	}
}

func TestClosingTheServiceTellsWatchers(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	w := watch(h.subscribe(id, taskbridge.Cursor{}))
	defer w.sub.Close()
	h.must(w.look(t))
	h.Subscription.Close()
	<-w.changed
	if frames, ok := w.sub.Ready(); ok {
		t.Errorf("%d frames are ready after the end", len(frames))
	}
	if _, err := w.sub.Next(t.Context(), time.Minute); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

func TestNextWithoutIdleDoesNotWait(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	if frames, err := sub.Next(t.Context(), 0); len(frames) > 0 || err != nil {
		t.Errorf("%d frames, %v", len(frames), err)
	}
	run := h.start(id, "c")
	h.complete(run)
	if frames, err := follow(t.Context(), sub); err != nil || len(frames) != 2 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
}
