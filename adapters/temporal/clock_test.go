//go:build linux

package temporaladapter

import (
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// aside is a clock that is wrong by so much.
type aside struct {
	taskbridge.SystemClock
	by time.Duration
}

func (c aside) Now() time.Time { return c.SystemClock.Now().Add(c.by) }

// sweepClock lets a sweep look when the test says so. Everything else has the time of
// the system.
type sweepClock struct {
	taskbridge.SystemClock
	interval time.Duration
	timers   chan *sweepTimer
}

type sweepTimer struct{ c chan time.Time }

func (t *sweepTimer) C() <-chan time.Time { return t.c }
func (t *sweepTimer) Stop() bool          { return true }

func newSweepClock(interval time.Duration) *sweepClock {
	return &sweepClock{interval: interval, timers: make(chan *sweepTimer, 1)}
}

func (c *sweepClock) NewTimer(d time.Duration) taskbridge.Timer {
	if d != c.interval {
		return c.SystemClock.NewTimer(d)
	}
	timer := &sweepTimer{make(chan time.Time, 1)}
	c.timers <- timer
	return timer
}

// sweeps lets so many sweep intervals pass, and returns when the looks are done.
func (c *sweepClock) sweeps(t *testing.T, intervals int) {
	t.Helper()
	for range intervals {
		timer := receive(t, "the sweep waits for its next look", c.timers)
		timer.c <- c.Now()
	}
	c.timers <- receive(t, "the last look is done", c.timers)
}
