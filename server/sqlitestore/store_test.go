package sqlitestore_test

import (
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// testStore knows its folder.
type testStore struct {
	*sqlitestore.Store
	dir string
}

func open(t *testing.T, opts sqlitestore.Options) *testStore {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &testStore{s, opts.Dir}
}

func harness(clock taskbridge.Clock) conformance.Harness[*testStore] {
	return conformance.Harness[*testStore]{
		New: func(t *testing.T) *testStore {
			return open(t, sqlitestore.Options{Dir: t.TempDir(), Clock: clock})
		},
		Reopen: func(t *testing.T, s *testStore) *testStore {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return open(t, sqlitestore.Options{Dir: s.dir, Clock: clock})
		},
	}
}

func TestTheStoreIsATaskRegistry(t *testing.T) { conformance.RunTaskRegistry(t, harness(nil)) }

func TestTheStoreIsAnEventStore(t *testing.T) { conformance.RunEventStore(t, harness(nil)) }

func TestTheStoreIsAnAtomicStore(t *testing.T) { conformance.RunAtomicStore(t, harness(nil)) }

func TestTheStoreIsALeaser(t *testing.T) {
	clock := &setClock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	conformance.RunLeaser(t, conformance.LeaserHarness[*testStore]{Harness: harness(clock), Advance: clock.advance})
}

// setClock is a clock that only the test moves. The store waits for no timer.
type setClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *setClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *setClock) NewTimer(time.Duration) taskbridge.Timer { panic("the store waits for no timer") }

func (c *setClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
