//go:build linux

package process

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Durations that heldClock holds.
const (
	graceHeld   = 1001 * time.Hour
	timeoutHeld = 1002 * time.Hour
)

// heldClock is the system's, but for timers of more than a thousand hours:
// those fire when the test says so.
type heldClock struct {
	taskbridge.SystemClock
	held map[time.Duration]chan time.Time
}

func newHeldClock() *heldClock {
	return &heldClock{held: map[time.Duration]chan time.Time{
		graceHeld:   make(chan time.Time),
		timeoutHeld: make(chan time.Time),
	}}
}

func (c *heldClock) NewTimer(d time.Duration) taskbridge.Timer {
	if ch, ok := c.held[d]; ok {
		return heldTimer(ch)
	}
	return c.SystemClock.NewTimer(d)
}

// fire ends one timer of the duration, once somebody waits for it.
func (c *heldClock) fire(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case c.held[d] <- time.Now():
	case <-time.After(patience):
		t.Fatalf("nobody waits for a timer of %s", d)
	}
}

type heldTimer chan time.Time

func (t heldTimer) C() <-chan time.Time { return t }
func (t heldTimer) Stop() bool          { return true }

// hookLifecycle lets a test come between the executor and the lifecycle.
type hookLifecycle struct {
	taskbridge.TaskLifecycle
	start   func(ctx context.Context, taskID string) error // before a Start
	started func(taskID string)                            // behind a Start that succeeded
	settle  func(ctx context.Context, taskID string) error // before a Settle
	report  func(ctx context.Context) error                // before a Progress or Message
	end     func(ctx context.Context) error                // before a Complete

	starts, running, most atomic.Int64
}

func (l *hookLifecycle) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	l.starts.Add(1)
	if l.start != nil {
		if err := l.start(ctx, taskID); err != nil {
			return nil, err
		}
	}
	run, err := l.TaskLifecycle.Start(ctx, taskID, claim)
	if err != nil {
		return nil, err
	}
	if l.started != nil {
		l.started(taskID)
	}
	running := l.running.Add(1)
	for most := l.most.Load(); running > most && !l.most.CompareAndSwap(most, running); {
		most = l.most.Load()
	}
	return &hookRun{Run: run, lifecycle: l}, nil
}

func (l *hookLifecycle) Settle(ctx context.Context, taskID string, outcome taskbridge.Outcome) error {
	if l.settle != nil {
		if err := l.settle(ctx, taskID); err != nil {
			return err
		}
	}
	return l.TaskLifecycle.Settle(ctx, taskID, outcome)
}

type hookRun struct {
	taskbridge.Run
	lifecycle *hookLifecycle
	closed    sync.Once
}

func (r *hookRun) between(ctx context.Context, report func() error) error {
	if r.lifecycle.report != nil {
		if err := r.lifecycle.report(ctx); err != nil {
			return err
		}
	}
	return report()
}

func (r *hookRun) Complete(ctx context.Context, completion taskbridge.Completion) error {
	if r.lifecycle.end != nil {
		if err := r.lifecycle.end(ctx); err != nil {
			return err
		}
	}
	return r.Run.Complete(ctx, completion)
}

func (r *hookRun) Progress(ctx context.Context, progress taskbridge.Progress) error {
	return r.between(ctx, func() error { return r.Run.Progress(ctx, progress) })
}

func (r *hookRun) Message(ctx context.Context, message taskbridge.Message) error {
	return r.between(ctx, func() error { return r.Run.Message(ctx, message) })
}

func (r *hookRun) Close() error {
	r.closed.Do(func() { r.lifecycle.running.Add(-1) })
	return r.Run.Close()
}
