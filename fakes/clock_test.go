package fakes_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskbridge/taskbridge/fakes"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestTimersFireInTheOrderOfTheirTimesEachWithItsOwn(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	late := clock.NewTimer(3 * time.Second)
	early := clock.NewTimer(time.Second)
	never := clock.NewTimer(time.Minute)
	clock.Advance(3 * time.Second)
	for _, want := range []struct {
		c  <-chan time.Time
		at time.Time
	}{{early.C(), epoch.Add(time.Second)}, {late.C(), epoch.Add(3 * time.Second)}} {
		select {
		case at := <-want.c:
			if !at.Equal(want.at) {
				t.Errorf("fired with %s, want %s", at, want.at)
			}
		default:
			t.Errorf("the timer of %s has not fired", want.at)
		}
	}
	select {
	case <-never.C():
		t.Error("a timer fired before its time")
	default:
	}
	if got := clock.Pending(); got != 1 {
		t.Errorf("%d timers are pending, want 1", got)
	}
	if !clock.Now().Equal(epoch.Add(3 * time.Second)) {
		t.Errorf("the clock shows %s", clock.Now())
	}
}

func TestATimerThatIsDueAlreadyFiresAtOnceAndIsNeverPending(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	for _, d := range []time.Duration{0, -time.Second} {
		timer := clock.NewTimer(d)
		select {
		case <-timer.C():
		default:
			t.Errorf("a timer of %s has not fired", d)
		}
		if timer.Stop() {
			t.Errorf("Stop says that it kept a timer of %s from firing", d)
		}
	}
	if clock.Pending() != 0 {
		t.Error("a fired timer is pending")
	}
}

func TestAStoppedTimerDoesNotFire(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	var timers []interface {
		C() <-chan time.Time
		Stop() bool
	}
	for range 4 { // all of one time: Stop must find its own
		timers = append(timers, clock.NewTimer(time.Second))
	}
	if !timers[2].Stop() || timers[2].Stop() {
		t.Error("Stop must report true once, then false")
	}
	clock.Advance(time.Second)
	for i, timer := range timers {
		fired := false
		select {
		case <-timer.C():
			fired = true
		default:
		}
		if fired != (i != 2) {
			t.Errorf("timer %d: fired is %v", i, fired)
		}
	}
}

func TestAdvanceToNextMovesToTheEarliestTimerAndNoFurther(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	if clock.AdvanceToNext() {
		t.Error("moved without a timer")
	}
	clock.NewTimer(2 * time.Second)
	clock.NewTimer(time.Second)
	if !clock.AdvanceToNext() || !clock.Now().Equal(epoch.Add(time.Second)) || clock.Pending() != 1 {
		t.Errorf("the clock shows %s with %d pending", clock.Now(), clock.Pending())
	}
}

func TestBlockUntilWaitsForTheCodeUnderTest(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	var at []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 5 {
			<-clock.NewTimer(time.Second).C()
			at = append(at, clock.Now().Sub(epoch))
		}
	})
	for range 5 {
		if err := clock.BlockUntil(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Second)
	}
	wg.Wait()
	if want := []time.Duration{1e9, 2e9, 3e9, 4e9, 5e9}; !slices.Equal(at, want) {
		t.Errorf("woke at %v, want %v", at, want)
	}
}

func TestBlockUntilDueLooksPastTimersThatRunLonger(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	clock.NewTimer(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := clock.BlockUntilDue(ctx, 1, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("with a timer of a minute only: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { <-clock.NewTimer(time.Second).C() })
	if err := clock.BlockUntilDue(t.Context(), 1, time.Second); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	wg.Wait()
}

func TestBlockUntilDueCountsFromWhereTheClockIsMovedTo(t *testing.T) {
	for name, then := range map[string]func(clock *fakes.ManualClock){
		"a timer is made later":   func(clock *fakes.ManualClock) { clock.Advance(time.Hour); clock.NewTimer(time.Second) },
		"a timer has come nearer": func(clock *fakes.ManualClock) { clock.NewTimer(time.Minute); clock.Advance(59 * time.Second) },
		"a timer behind one fired": func(clock *fakes.ManualClock) {
			clock.NewTimer(5 * time.Second)
			clock.AdvanceToNext()
			clock.NewTimer(0)
			clock.NewTimer(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := fakes.NewManualClock(epoch)
				returned := false
				go func() {
					if err := clock.BlockUntilDue(t.Context(), 1, time.Second); err != nil {
						t.Error(err)
					}
					returned = true
				}()
				synctest.Wait()
				if returned {
					t.Error("returned with no timer pending")
				}
				then(clock)
				synctest.Wait()
				if !returned {
					t.Error("still waits")
				}
			})
		})
	}
}

func TestBlockUntilGivesUpWithItsContext(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := clock.BlockUntil(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	clock.NewTimer(time.Second) // nobody waits any more
}

func TestAClockDoesNotGoBack(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a negative step was taken")
		}
	}()
	fakes.NewManualClock(epoch).Advance(-1)
}
