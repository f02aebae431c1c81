package taskbridge

import "time"

// Clock tells the time and waits. Options that leave it nil use [SystemClock].
// Implementations are safe for concurrent use.
type Clock interface {
	// Now returns the present time.
	Now() time.Time
	// NewTimer returns a timer that fires once, after at least d.
	NewTimer(d time.Duration) Timer
}

// Timer is one pending wake-up of a [Clock].
type Timer interface {
	// C receives the time once when the timer fires.
	C() <-chan time.Time
	// Stop keeps the timer from firing; it reports whether it did.
	Stop() bool
}

// SystemClock is the clock of package time. Inside a testing/synctest bubble it
// follows the bubble's time.
type SystemClock struct{}

// Now returns time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// NewTimer returns a timer of package time.
func (SystemClock) NewTimer(d time.Duration) Timer { return systemTimer{time.NewTimer(d)} }

type systemTimer struct{ t *time.Timer }

func (t systemTimer) C() <-chan time.Time { return t.t.C }
func (t systemTimer) Stop() bool          { return t.t.Stop() }

func clockOrSystem(c Clock) Clock {
	if c == nil {
		return SystemClock{}
	}
	return c
}

// timestamp cuts t to what rows, events and the wire keep: UTC, microseconds.
func timestamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
