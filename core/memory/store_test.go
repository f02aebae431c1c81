package memory_test

import (
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestStoreConforms(t *testing.T) {
	h := conformance.Harness[*memory.Store]{
		New: func(t *testing.T) *memory.Store {
			store := memory.NewStore(memory.Options{})
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			return store
		},
		Reopen: func(t *testing.T, store *memory.Store) *memory.Store {
			t.Helper()
			next, err := store.Reopened()
			if err != nil {
				t.Fatalf("reopen: %v", err)
			}
			return next
		},
		// Whoever shares the data shares the store.
		Peer: func(_ *testing.T, store *memory.Store) *memory.Store { return store },
	}
	t.Run("registry", func(t *testing.T) { conformance.RunTaskRegistry(t, h) })
	t.Run("events", func(t *testing.T) { conformance.RunEventStore(t, h) })
	t.Run("atomic", func(t *testing.T) { conformance.RunAtomicStore(t, h) })
	clock := new(manualClock)
	t.Run("leaser", func(t *testing.T) {
		conformance.RunLeaser(t, conformance.LeaserHarness[*memory.Store]{
			Harness: conformance.Harness[*memory.Store]{New: func(*testing.T) *memory.Store {
				return memory.NewStore(memory.Options{Clock: clock})
			}},
			Advance: clock.advance,
		})
	})
}

func TestTasksConform(t *testing.T) {
	conformance.RunTaskRegistry(t, conformance.Harness[*memory.Tasks]{
		New: func(*testing.T) *memory.Tasks { return memory.NewTasks() },
	})
}

func TestEventsConform(t *testing.T) {
	conformance.RunEventStore(t, conformance.Harness[*memory.Events]{
		New: func(*testing.T) *memory.Events { return memory.NewEvents() },
	})
}

func TestLeaserConforms(t *testing.T) {
	clock := new(manualClock)
	conformance.RunLeaser(t, conformance.LeaserHarness[*memory.Leaser]{
		Harness: conformance.Harness[*memory.Leaser]{
			New: func(*testing.T) *memory.Leaser { return memory.NewLeaser(clock) },
		},
		Advance: clock.advance,
	})
}

// manualClock stands until it is told to advance. Its timers are those of the
// system: leases need none.
type manualClock struct {
	taskbridge.SystemClock
	mu  sync.Mutex
	now time.Time
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
