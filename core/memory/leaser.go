package memory

import (
	"context"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var _ taskbridge.Leaser = (*Leaser)(nil)

// Leaser is a [taskbridge.Leaser] in memory: it keeps the parts of one process
// apart, not processes.
type Leaser struct {
	clock taskbridge.Clock

	mu     sync.Mutex
	closed bool
	leases map[string]lease
	// sweepAt is the number of leases at which the ended ones are forgotten.
	sweepAt int
}

type lease struct {
	holder string
	until  time.Time
}

// minSweep is the number of leases below which ended ones are not looked for.
const minSweep = 64

// NewLeaser makes a leaser without leases, by the clock; nil means
// [taskbridge.SystemClock].
func NewLeaser(clock taskbridge.Clock) *Leaser {
	if clock == nil {
		clock = taskbridge.SystemClock{}
	}
	return &Leaser{clock: clock, leases: make(map[string]lease), sweepAt: minSweep}
}

// Close makes every later call return [taskbridge.ErrClosed]. It may be called
// more than once.
func (l *Leaser) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

// ready reports why a call may not go on. The caller holds the lock.
func (l *Leaser) ready(ctx context.Context) error {
	if l.closed {
		return taskbridge.ErrClosed
	}
	return ctx.Err()
}

// AcquireLease implements [taskbridge.Leaser]. An empty name or holder and a ttl
// that is not above zero are refused with [taskbridge.ErrInvalidArgument].
func (l *Leaser) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return false, err
	}
	switch {
	case name == "":
		return false, argumentError("name", "must not be empty")
	case holder == "":
		return false, argumentError("holder", "must not be empty")
	case ttl <= 0:
		return false, argumentError("ttl", "must be above zero")
	}
	now := l.clock.Now()
	if held, ok := l.leases[name]; ok && held.holder != holder && now.Before(held.until) {
		return false, nil
	}
	l.sweep(now)
	l.leases[name] = lease{holder, now.Add(ttl)}
	return true, nil
}

// sweep forgets ended leases once there may be as many of them as of live ones.
func (l *Leaser) sweep(now time.Time) {
	if len(l.leases) < l.sweepAt {
		return
	}
	for name, held := range l.leases {
		if !now.Before(held.until) {
			delete(l.leases, name)
		}
	}
	l.sweepAt = max(minSweep, 2*len(l.leases))
}

// ReleaseLease implements [taskbridge.Leaser].
func (l *Leaser) ReleaseLease(ctx context.Context, name, holder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return err
	}
	if l.leases[name].holder == holder {
		delete(l.leases, name)
	}
	return nil
}

// LeaseHolder implements [taskbridge.Leaser].
func (l *Leaser) LeaseHolder(ctx context.Context, name string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return "", err
	}
	if held := l.leases[name]; l.clock.Now().Before(held.until) {
		return held.holder, nil
	}
	return "", nil
}
