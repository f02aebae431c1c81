package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// watched is one thing that can be watched, a row or a stream, with a way to
// change it.
type watched struct {
	watch func(ctx context.Context, taskID string, wake func()) (stop func(), err error)
	// watchPeer is watch of another store on the same data, nil without one.
	watchPeer func(ctx context.Context, taskID string, wake func()) (stop func(), err error)
	taskID    string
	// change makes the next change, the first of which brings the thing about.
	change func() error
}

type watchCheck struct {
	name string
	run  func(ctx context.Context, t *testing.T, w watched)
}

// watchChecks returns the checks of a contract's watch method.
func watchChecks[H any](subject func(ctx context.Context, t *testing.T, h H) watched) []check[H] {
	var checks []check[H]
	for _, c := range []watchCheck{
		{"a watcher is woken by each change that comes after the one before was seen", watchWakes},
		{"a watcher may come before there is anything to watch", watchEarly},
		{"every watcher of a task is woken", watchMany},
		{"a watcher stays when the context that it came with ends", watchOutlivesContext},
		{"a watcher on another server is woken", watchFromPeer},
		{"wake is never called after stop has returned", watchStops},
		{"stop may be called more than once and by several", watchStopsTwice},
		{"one watcher's stop leaves the others", watchStopsAlone},
	} {
		checks = append(checks, check[H]{c.name, func(t *testing.T, h H) {
			ctx := deadline(t)
			c.run(ctx, t, subject(ctx, t, h))
		}})
	}
	return checks
}

func (w watched) mustChange(t *testing.T) {
	t.Helper()
	if err := w.change(); err != nil {
		t.Fatalf("change of what is watched: %v", err)
	}
}

// start watches and returns the channel that wake fills.
func (w watched) start(ctx context.Context, t *testing.T) (woken <-chan struct{}, stop func()) {
	t.Helper()
	wake, woken := signal()
	stop, err := w.watch(ctx, w.taskID, wake)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	t.Cleanup(stop)
	return woken, stop
}

func watchWakes(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	woken, _ := w.start(ctx, t)
	for range 20 {
		w.mustChange(t)
		await(ctx, t, "the wake-up", woken)
	}
}

func watchEarly(ctx context.Context, t *testing.T, w watched) {
	woken, _ := w.start(ctx, t)
	w.mustChange(t)
	await(ctx, t, "the wake-up", woken)
}

func watchMany(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	var all []<-chan struct{}
	for range 50 {
		woken, _ := w.start(ctx, t)
		all = append(all, woken)
	}
	w.mustChange(t)
	for _, woken := range all {
		await(ctx, t, "the wake-up of every watcher", woken)
	}
}

func watchOutlivesContext(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	short, end := context.WithCancel(ctx)
	woken, _ := w.start(short, t)
	end()
	w.mustChange(t)
	await(ctx, t, "the wake-up after the end of the context", woken)
}

func watchFromPeer(ctx context.Context, t *testing.T, w watched) {
	if w.watchPeer == nil {
		missing(t, "Peer")
		return
	}
	w.watch = w.watchPeer
	watchWakes(ctx, t, w)
}

func watchStops(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	// One goroutine changes all the time while watchers come and go.
	changing, stopChanging := context.WithCancel(ctx)
	changed := make(chan error, 1)
	go func() {
		for changing.Err() == nil {
			if err := w.change(); err != nil {
				changed <- err
				return
			}
		}
		changed <- nil
	}()
	var violations atomic.Int64
	for i := range 200 {
		var stopped atomic.Bool
		wake, woken := signal()
		stop, err := w.watch(ctx, w.taskID, func() {
			if stopped.Load() {
				violations.Add(1)
			}
			wake()
		})
		if err != nil {
			t.Errorf("watch: %v", err)
			break
		}
		// Stop right away, or in the middle of being woken.
		if i%2 == 0 {
			await(ctx, t, "a wake-up", woken)
		}
		stop()
		stopped.Store(true)
	}
	stopChanging()
	if err := await(ctx, t, "the end of the changes", changed); err != nil {
		t.Errorf("change: %v", err)
	}
	if n := violations.Load(); n > 0 {
		t.Errorf("wake was called %d times after stop had returned", n)
	}
}

func watchStopsTwice(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	_, stop := w.start(ctx, t)
	stop()
	together(8, func(int) { stop() })
	w.mustChange(t)
}

func watchStopsAlone(ctx context.Context, t *testing.T, w watched) {
	w.mustChange(t)
	_, stopFirst := w.start(ctx, t)
	woken, _ := w.start(ctx, t)
	_, stopLast := w.start(ctx, t)
	stopFirst()
	stopLast()
	w.mustChange(t)
	await(ctx, t, "the wake-up of the watcher that is left", woken)
}

var taskWatchChecks = watchChecks(func(ctx context.Context, t *testing.T, h registryHarness) watched {
	tasks := h.New(t)
	row := newTask("owner", "key")
	made := false
	w := watched{watch: tasks.WatchTask, taskID: row.ID, change: func() (err error) {
		if !made {
			made = true
			row, _, err = tasks.CreateTask(ctx, row)
			return err
		}
		row.Attempt++
		row, err = tasks.UpdateTask(ctx, row)
		return err
	}}
	if h.Peer != nil {
		w.watchPeer = h.Peer(t, tasks).WatchTask
	}
	return w
})

var eventWatchChecks = watchChecks(func(ctx context.Context, t *testing.T, h eventsHarness) watched {
	events := h.New(t)
	id := newID()
	ordinal := int64(0)
	w := watched{watch: events.WatchEvents, taskID: id, change: func() error {
		ordinal++
		result, err := events.AppendEvent(ctx, message(id, "source", 1, ordinal))
		if err == nil && result.Duplicate {
			err = errors.New("a new ordinal was taken for a duplicate")
		}
		return err
	}}
	if h.Peer != nil {
		w.watchPeer = h.Peer(t, events).WatchEvents
	}
	return w
})
