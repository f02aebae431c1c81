package taskbridge_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// shakyLeaser can be cut off.
type shakyLeaser struct {
	taskbridge.Leaser
	mu   sync.Mutex
	cut  bool
	hang bool // while cut off: calls wait for their context
}

func (l *shakyLeaser) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

func (l *shakyLeaser) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut && l.hang {
		<-ctx.Done()
	}
	if cut {
		return false, errors.New("cut off")
	}
	return l.Leaser.AcquireLease(ctx, name, holder, ttl)
}

func TestAnInstanceKeepsItsLeaseThroughShortFaultsAndKnowsWhenItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaser := &shakyLeaser{Leaser: memory.NewLeaser(nil)}
		instance, err := taskbridge.StartInstance(t.Context(), leaser, taskbridge.InstanceOptions{ID: "i"})
		if err != nil {
			t.Fatal(err)
		}
		holder := func() string {
			h, err := leaser.LeaseHolder(t.Context(), "instance/i")
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		<-time.After(time.Hour)
		leaser.set(true)
		<-time.After(9 * time.Second)
		leaser.set(false)
		<-time.After(time.Hour)
		select {
		case <-instance.Lost():
			t.Fatal("lost after a fault shorter than the lease")
		default:
		}
		if holder() != "i" {
			t.Fatalf("held by %q", holder())
		}
		leaser.set(true)
		begin := time.Now()
		<-instance.Lost()
		if waited := time.Since(begin); waited > 20*time.Second {
			t.Errorf("noticed after %s", waited)
		}
		if err := instance.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if holder() != "" {
			t.Errorf("still held by %q", holder())
		}
	})
}

func TestALostLeaseIsKnownWhenOthersMayKnowIt(t *testing.T) {
	for name, hang := range map[string]bool{"refused": false, "no answer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leaser := &shakyLeaser{Leaser: memory.NewLeaser(nil), hang: hang}
				instance, err := taskbridge.StartInstance(t.Context(), leaser, taskbridge.InstanceOptions{ID: "i", TTL: 15 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				leaser.set(true)
				begin := time.Now()
				<-instance.Lost()
				if after := time.Since(begin); after < 15*time.Second || after > 16*time.Second {
					t.Errorf("known after %s", after)
				}
				if err := instance.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestASecondProcessCannotTakeAnInstancesPlace(t *testing.T) {
	leaser := memory.NewLeaser(nil)
	if held, err := leaser.AcquireLease(t.Context(), "instance/i", "somebody else", time.Minute); !held || err != nil {
		t.Fatal(held, err)
	}
	if _, err := taskbridge.StartInstance(t.Context(), leaser, taskbridge.InstanceOptions{ID: "i"}); err == nil {
		t.Error("the lease was taken twice")
	}
}

func TestOneReconcilerActsAndTheOtherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := atomicStores()
		leaser := memory.NewLeaser(nil)
		with := func(holder string) func(*taskbridge.Options) {
			return func(o *taskbridge.Options) {
				o.Leaser, o.Reconciliation.Holder = leaser, holder
			}
		}
		first, second := newHost(t, stores, with("first")), newHost(t, stores, with("second"))
		holder := func() string {
			h, err := leaser.LeaseHolder(t.Context(), "reconciler")
			first.must(err)
			return h
		}
		run := func(h *host) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); h.Reconciler.Run(ctx) }()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		stopFirst := run(first)
		stopSecond := run(second)
		<-time.After(time.Minute)
		if holder() != "first" {
			t.Errorf("held by %q", holder())
		}
		stopFirst()
		<-time.After(2 * time.Second)
		if holder() != "second" {
			t.Errorf("held by %q after the first has stopped", holder())
		}
		stopSecond()
	})
}
