package conformance

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Harness makes stores of the type S for a suite. Only New is required.
type Harness[S any] struct {
	// New opens an empty store. It belongs to the test t, with whose end the
	// harness closes it (t.Cleanup).
	New func(t *testing.T) S
	// Close closes a store; nil: its own Close method, where it has one. The
	// store may be closed again by the cleanup.
	Close func(store S) error
	// Reopen closes a store and opens another one on the same data: what was
	// durable must be there. nil: the data does not outlive the store.
	Reopen func(t *testing.T, store S) S
	// Peer opens a second store on the same data beside the first, as another
	// server would. nil: the data has one owner at a time.
	Peer func(t *testing.T, store S) S
}

// through returns the harness of the same stores, seen as the contract I.
func through[S, I any](t *testing.T, h Harness[S], contract func(S) I) Harness[I] {
	t.Helper()
	if h.New == nil {
		t.Fatal("Harness.New must not be nil")
	}
	own := func(i I) S { return any(i).(S) }
	seen := Harness[I]{New: func(t *testing.T) I { return contract(h.New(t)) }}
	if h.Close != nil {
		seen.Close = func(i I) error { return h.Close(own(i)) }
	} else if _, ok := any(*new(S)).(io.Closer); ok {
		seen.Close = func(i I) error { return any(i).(io.Closer).Close() }
	}
	if h.Reopen != nil {
		seen.Reopen = func(t *testing.T, i I) I { return contract(h.Reopen(t, own(i))) }
	}
	if h.Peer != nil {
		seen.Peer = func(t *testing.T, i I) I { return contract(h.Peer(t, own(i))) }
	}
	return seen
}

// check is one obligation of a contract: its name is the sentence that it proves.
type check[H any] struct {
	name string
	run  func(t *testing.T, h H)
}

func runChecks[H any](t *testing.T, h H, checks ...[]check[H]) {
	t.Helper()
	for _, area := range checks {
		for _, c := range area {
			t.Run(c.name, func(t *testing.T) { c.run(t, h) })
		}
	}
}

// missing logs that the harness does not offer what a check needs.
func missing(t *testing.T, capability string) {
	t.Helper()
	t.Logf("capability missing: %s; not checked: %s", capability, t.Name())
}

// patience bounds how long one check may wait: far longer than anything takes.
const patience = 2 * time.Minute

// deadline returns the context of one check.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// cancelled returns a context that has ended already.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// await waits for the channel, whatever it is about to say.
func await[T any](ctx context.Context, t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("waited in vain for %s: %v", what, context.Cause(ctx))
		panic("unreachable")
	}
}

// together runs f in n goroutines that begin at the same moment, and waits for
// all of them. f must not call t.FailNow.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

// signal returns a wake function and the channel that it fills: calls coalesce.
func signal() (wake func(), woken <-chan struct{}) {
	c := make(chan struct{}, 1)
	return func() {
		select {
		case c <- struct{}{}:
		default:
		}
	}, c
}

// instant is the moment that the suites' times are counted from. It has no
// digits below the microsecond, which is what rows and events keep.
var instant = time.Date(2031, time.March, 5, 7, 9, 11, 13_000, time.UTC)

// at returns instant plus some microseconds.
func at(micros int64) time.Time { return instant.Add(time.Duration(micros) * time.Microsecond) }

// newID makes a task id for tests that need no row.
func newID() string { return taskbridge.NewTaskID("owner", "stream") }
