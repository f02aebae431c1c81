package client

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// watchdog ends a context when what it waits for does not come in time.
type watchdog struct {
	clock   taskbridge.Clock
	begun   time.Time
	pace    time.Duration // it looks this often at least, and so is never late
	due     atomic.Int64  // when it ends the context, counted from begun; 0: not now
	limit   atomic.Int64  // what it was armed with last
	cancel  context.CancelCauseFunc
	stopped chan struct{}
	done    chan struct{}
}

// silenceError is the cause that a watchdog ends a context with.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string { return fmt.Sprintf("nothing came for %s", e.limit) }

// watch returns a context that a watchdog may end, which is armed with none of
// its limits yet; shortest is the shortest. The caller calls stop.
func (c *Client) watch(ctx context.Context, shortest time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{
		clock: c.clock, begun: c.clock.Now(), pace: shortest, cancel: cancel,
		stopped: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run()
	return ctx, w
}

func (w *watchdog) arm(limit time.Duration) {
	w.limit.Store(int64(limit))
	w.due.Store(int64(w.clock.Now().Add(limit).Sub(w.begun)))
}

func (w *watchdog) disarm() { w.due.Store(0) }

// stop ends the context and waits for the watchdog's own end.
func (w *watchdog) stop() {
	w.cancel(context.Canceled)
	close(w.stopped)
	<-w.done
}

func (w *watchdog) run() {
	defer close(w.done)
	for {
		wait := w.pace
		if due := time.Duration(w.due.Load()); due != 0 {
			left := w.begun.Add(due).Sub(w.clock.Now())
			if left <= 0 {
				w.cancel(&silenceError{time.Duration(w.limit.Load())})
				return
			}
			wait = min(wait, left)
		}
		timer := w.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-w.stopped:
			timer.Stop()
			return
		}
	}
}

// watchedBody arms the watchdog while somebody reads and at no other time: a
// reader that is slow is not a server that is silent.
type watchedBody struct {
	body    io.Reader
	dog     *watchdog
	silence time.Duration
	alive   bool // something has come; until then the limit of the beginning holds
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.alive {
		b.dog.arm(b.silence)
	}
	n, err := b.body.Read(p)
	if n > 0 {
		b.alive = true
		b.dog.disarm()
	}
	return n, err
}
