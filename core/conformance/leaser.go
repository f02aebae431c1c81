package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// LeaserHarness makes leasers of the type L. Only New is required.
type LeaserHarness[L any] struct {
	Harness[L]
	// Advance lets time pass for every leaser that New has made: a fake clock is
	// set forward, a real one waited for. nil: the ends of leases are not checked.
	Advance func(d time.Duration)
	// Unit is the length of the leases that the suite takes; default 1 min. By a
	// real clock it must be long enough for a few calls, however slow the machine.
	Unit time.Duration
}

type leaserHarness = LeaserHarness[taskbridge.Leaser]

// RunLeaser checks every obligation of [taskbridge.Leaser], except that leases
// need not outlive a reopening.
func RunLeaser[L taskbridge.Leaser](t *testing.T, h LeaserHarness[L]) {
	if h.Unit == 0 {
		h.Unit = time.Minute
	}
	runChecks(t, leaserHarness{
		Harness: through(t, h.Harness, func(l L) taskbridge.Leaser { return l }),
		Advance: h.Advance,
		Unit:    h.Unit,
	}, leaserChecks)
}

var leaserChecks = []check[leaserHarness]{
	{"a free lease is given, a held one is not given to another", leaseHeld},
	{"the holder of a lease renews it", leaseRenewed},
	{"a lease that is not renewed ends and is given to another", leaseEnds},
	{"a released lease is free at once", leaseReleased},
	{"only its holder releases a lease", leaseForeignRelease},
	{"leases of different names do not touch each other", leaseNames},
	{"of 64 concurrent holders one gets a lease", leaseRace},
	{"a call whose context has ended has no effect", leaserCancelled},
	{"after closing every method is ErrClosed", leaserClosed},
	{"another server sees the lease", leaserPeer},
}

// leases is a leaser with the checks' deadline.
type leases struct {
	taskbridge.Leaser
	ctx  context.Context
	t    *testing.T
	unit time.Duration
}

func open(t *testing.T, h leaserHarness) leases {
	t.Helper()
	return leases{h.New(t), deadline(t), t, h.Unit}
}

// acquire asks for the lease for one unit and fails unless the answer is want.
func (l leases) acquire(name, holder string, want bool) {
	l.t.Helper()
	got, err := l.AcquireLease(l.ctx, name, holder, l.unit)
	if err != nil || got != want {
		l.t.Fatalf("AcquireLease(%q, %q) = %v, %v; want %v", name, holder, got, err, want)
	}
}

func (l leases) release(name, holder string) {
	l.t.Helper()
	if err := l.ReleaseLease(l.ctx, name, holder); err != nil {
		l.t.Fatalf("ReleaseLease(%q, %q): %v", name, holder, err)
	}
}

func (l leases) holder(name, want string) {
	l.t.Helper()
	got, err := l.LeaseHolder(l.ctx, name)
	if err != nil || got != want {
		l.t.Fatalf("LeaseHolder(%q) = %q, %v; want %q", name, got, err, want)
	}
}

func leaseHeld(t *testing.T, h leaserHarness) {
	l := open(t, h)
	l.holder("lease", "")
	l.acquire("lease", "ada", true)
	l.holder("lease", "ada")
	for range 3 {
		l.acquire("lease", "bob", false)
		l.holder("lease", "ada")
	}
}

func leaseRenewed(t *testing.T, h leaserHarness) {
	l := open(t, h)
	l.acquire("lease", "ada", true)
	l.acquire("lease", "ada", true)
	if h.Advance == nil {
		missing(t, "Advance")
		return
	}
	for range 4 { // well beyond the first lease's end
		h.Advance(l.unit / 2)
		l.acquire("lease", "bob", false)
		l.acquire("lease", "ada", true)
	}
	l.holder("lease", "ada")
	// A refused wish has not renewed anything.
	h.Advance(l.unit + l.unit/10)
	l.holder("lease", "")
}

func leaseEnds(t *testing.T, h leaserHarness) {
	if h.Advance == nil {
		missing(t, "Advance")
		return
	}
	l := open(t, h)
	l.acquire("lease", "ada", true)
	h.Advance(l.unit + l.unit/10)
	l.holder("lease", "")
	l.acquire("lease", "bob", true)
	l.holder("lease", "bob")
	// Who held it before is a stranger now.
	l.acquire("lease", "ada", false)
	l.release("lease", "ada")
	l.holder("lease", "bob")
	// An ended lease is given to its last holder too.
	h.Advance(l.unit + l.unit/10)
	l.acquire("lease", "bob", true)
	l.holder("lease", "bob")
}

func leaseReleased(t *testing.T, h leaserHarness) {
	l := open(t, h)
	l.release("lease", "ada") // of nobody
	l.acquire("lease", "ada", true)
	l.release("lease", "ada")
	l.holder("lease", "")
	l.release("lease", "ada")
	l.acquire("lease", "bob", true)
	l.holder("lease", "bob")
}

func leaseForeignRelease(t *testing.T, h leaserHarness) {
	l := open(t, h)
	l.acquire("lease", "ada", true)
	l.release("lease", "bob")
	l.release("lease", "")
	l.holder("lease", "ada")
	l.acquire("lease", "bob", false)
}

func leaseNames(t *testing.T, h leaserHarness) {
	l := open(t, h)
	names := oddNames()
	for i, name := range names {
		l.acquire(name, fmt.Sprintf("holder-%d", i), true)
	}
	for i, name := range names {
		l.holder(name, fmt.Sprintf("holder-%d", i))
		l.acquire("lease", name, true)
		l.holder("lease", name)
		l.release("lease", name)
	}
	l.release(names[0], "holder-0")
	l.holder(names[0], "")
	l.holder(names[1], "holder-1")
}

func leaseRace(t *testing.T, h leaserHarness) {
	l := open(t, h)
	for round := range 10 {
		name := fmt.Sprintf("lease-%d", round)
		var got [64]bool
		var errs [64]error
		together(len(got), func(i int) {
			got[i], errs[i] = l.AcquireLease(l.ctx, name, fmt.Sprintf("holder-%d", i), l.unit)
		})
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		winner := -1
		for i := range got {
			if got[i] && winner >= 0 {
				t.Fatalf("holders %d and %d both have the lease", winner, i)
			} else if got[i] {
				winner = i
			}
		}
		if winner < 0 {
			t.Fatal("nobody has the lease")
		}
		l.holder(name, fmt.Sprintf("holder-%d", winner))
	}
}

func (l leases) calls() []call {
	return []call{
		{"AcquireLease", func(ctx context.Context) error {
			_, err := l.AcquireLease(ctx, "free", "ada", l.unit)
			return err
		}},
		{"ReleaseLease", func(ctx context.Context) error { return l.ReleaseLease(ctx, "lease", "ada") }},
		{"LeaseHolder", func(ctx context.Context) error { _, err := l.LeaseHolder(ctx, "lease"); return err }},
	}
}

func leaserCancelled(t *testing.T, h leaserHarness) {
	l := open(t, h)
	l.acquire("lease", "ada", true)
	refused(cancelled(), t, context.Canceled, l.calls())
	l.holder("free", "")
	l.holder("lease", "ada")
}

func leaserClosed(t *testing.T, h leaserHarness) {
	if h.Close == nil {
		missing(t, "Close")
		return
	}
	l := open(t, h)
	l.acquire("lease", "ada", true)
	if err := h.Close(l.Leaser); err != nil {
		t.Fatalf("Close: %v", err)
	}
	refused(l.ctx, t, taskbridge.ErrClosed, l.calls())
}

func leaserPeer(t *testing.T, h leaserHarness) {
	if h.Peer == nil {
		missing(t, "Peer")
		return
	}
	l := open(t, h)
	peer := l
	peer.Leaser = h.Peer(t, l.Leaser)
	l.acquire("lease", "ada", true)
	peer.holder("lease", "ada")
	peer.acquire("lease", "bob", false)
	peer.acquire("lease", "ada", true)
	peer.release("lease", "ada")
	l.holder("lease", "")
}
