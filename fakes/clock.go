package fakes

import (
	"context"
	"slices"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// ManualClock is a [taskbridge.Clock] that stands still until it is moved. Safe
// for concurrent use.
//
// Code that was woken by a timer and then asks for the time sees where the
// clock has been moved to, which may be past the timer. A test that wants each
// wake-up at its own time moves no further than the next timer:
//
//	for range ticks {
//		clock.BlockUntilDue(ctx, 1, time.Second)
//		clock.Advance(time.Second)
//	}
type ManualClock struct {
	mu      sync.Mutex
	now     time.Time
	created uint64
	timers  []*manualTimer // pending, in the order in which they fire
	waiters []clockWaiter
}

// clockWaiter waits for n pending timers, due within a time from now unless that
// is anyTime.
type clockWaiter struct {
	n      int
	within time.Duration
	ready  chan struct{}
}

const anyTime = time.Duration(-1)

// NewManualClock makes a clock that shows start.
func NewManualClock(start time.Time) *ManualClock { return &ManualClock{now: start} }

// Now returns where the clock has been moved to.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// NewTimer returns a timer that fires once the clock has been moved by d. One
// that is due already fires at once and is never pending.
func (c *ManualClock) NewTimer(d time.Duration) taskbridge.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.created++
	t := &manualTimer{clock: c, due: c.now.Add(d), number: c.created, fired: make(chan time.Time, 1)}
	if d <= 0 {
		t.fired <- c.now
		return t
	}
	place, _ := slices.BinarySearchFunc(c.timers, t, (*manualTimer).compare)
	c.timers = slices.Insert(c.timers, place, t)
	c.wakeWaiters()
	return t
}

// wakeWaiters is called with the mutex held, after a timer was added or the
// clock moved.
func (c *ManualClock) wakeWaiters() {
	c.waiters = slices.DeleteFunc(c.waiters, func(w clockWaiter) bool {
		if !c.satisfies(w) {
			return false
		}
		close(w.ready)
		return true
	})
}

// Advance moves the clock by d and fires the timers that fall due on the way,
// the earliest first and those of one time in the order of their making. Each
// gets its own due time. Timers made by the code that wakes count from the
// clock's new time. It panics if d is negative.
func (c *ManualClock) Advance(d time.Duration) {
	if d < 0 {
		panic("fakes: a clock does not go back")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moveTo(c.now.Add(d))
}

// AdvanceToNext moves the clock to the earliest pending timer and fires all
// that fall due then. It reports false, and does nothing, when none is pending.
func (c *ManualClock) AdvanceToNext() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 {
		return false
	}
	c.moveTo(c.timers[0].due)
	return true
}

func (c *ManualClock) moveTo(target time.Time) {
	due := 0
	for due < len(c.timers) && !c.timers[due].due.After(target) {
		t := c.timers[due]
		c.now = t.due
		t.fired <- t.due
		due++
	}
	c.timers = slices.Delete(c.timers, 0, due)
	c.now = target
	c.wakeWaiters()
}

// BlockUntil waits until at least n timers are pending, whoever made them. The
// error is ctx's.
func (c *ManualClock) BlockUntil(ctx context.Context, n int) error {
	return c.block(ctx, n, anyTime)
}

// BlockUntilDue waits until at least n timers are pending that fall due within
// d (0 or more) of the time that the clock then shows: until n parts of the code under test have come to that wait,
// whatever other timers run longer beside them. The error is ctx's.
func (c *ManualClock) BlockUntilDue(ctx context.Context, n int, d time.Duration) error {
	return c.block(ctx, n, d)
}

func (c *ManualClock) block(ctx context.Context, n int, within time.Duration) error {
	c.mu.Lock()
	w := clockWaiter{n, within, make(chan struct{})}
	if c.satisfies(w) {
		c.mu.Unlock()
		return nil
	}
	c.waiters = append(c.waiters, w)
	c.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(other clockWaiter) bool { return other.ready == w.ready })
	return ctx.Err()
}

func (c *ManualClock) satisfies(w clockWaiter) bool {
	switch {
	case w.n <= 0:
		return true
	case len(c.timers) < w.n:
		return false
	}
	return w.within == anyTime || !c.timers[w.n-1].due.After(c.now.Add(w.within))
}

// Pending returns how many timers have neither fired nor been stopped.
func (c *ManualClock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

type manualTimer struct {
	clock  *ManualClock
	due    time.Time
	number uint64
	fired  chan time.Time
}

func (t *manualTimer) compare(other *manualTimer) int {
	if order := t.due.Compare(other.due); order != 0 {
		return order
	}
	switch {
	case t.number < other.number:
		return -1
	case t.number > other.number:
		return 1
	}
	return 0
}

func (t *manualTimer) C() <-chan time.Time { return t.fired }

func (t *manualTimer) Stop() bool {
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	place, pending := slices.BinarySearchFunc(c.timers, t, (*manualTimer).compare)
	if pending {
		c.timers = slices.Delete(c.timers, place, place+1)
	}
	return pending
}
