package taskbridge_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestASubscriberSeesWhatWasAndWhatComes(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	h.progress(run, 5)
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	go func() {
		h.progress(run, 5)
		h.complete(run)
	}()
	frames, err := follow(t.Context(), sub)
	h.must(err)
	wantFrames(t, frames, h.events(id))
	if last := frames[len(frames)-1]; !last.Terminal {
		t.Errorf("the last frame is not terminal: %s", last.Envelope)
	}
	if _, err := sub.Next(t.Context(), time.Minute); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want io.EOF", err)
	}
}

func TestAnyEventIsAPlaceToResumeFrom(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	h.progress(run, 20)
	h.complete(run)
	events := h.events(id)
	for i, e := range events {
		sub := h.subscribe(id, cursorOf(t, e))
		if sub.AtEnd() != (i == len(events)-1) {
			t.Errorf("at the end after event %d: %v", i, sub.AtEnd())
		}
		if final, ok := sub.Final(); ok != sub.AtEnd() || ok && final.EventID != e.ID() {
			t.Errorf("the final event after event %d: %s, %v", i, final.EventID, ok)
		}
		frames, err := follow(t.Context(), sub)
		h.must(err)
		wantFrames(t, frames, events[i+1:])
		sub.Close()
	}
}

func TestNextReturnsNothingWhenIdleHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		sub := h.subscribe(id, taskbridge.Cursor{})
		defer sub.Close()
		begin := time.Now()
		frames, err := sub.Next(t.Context(), 15*time.Second)
		if len(frames) > 0 || err != nil || time.Since(begin) != 15*time.Second {
			t.Errorf("%d frames, %v after %s", len(frames), err, time.Since(begin))
		}
	})
}

func TestACursorThatTheStreamDoesNotHaveIsToldOneWayOrTheOther(t *testing.T) {
	stores := atomicStores()
	events := stores.Events.(*memory.Store).Events
	h := newHost(t, stores)
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	h.progress(run, 9)
	all := h.events(id)
	lost, trimmed := cursorOf(t, all[8]), cursorOf(t, all[1])
	events.Truncate(id, 6)
	events.Trim(id, 4)
	for name, cursor := range map[string]taskbridge.Cursor{
		"lost tail":          lost,
		"trimmed head":       trimmed,
		"another history":    {Sequence: all[4].Sequence, Tag: all[5].Tag},
		"beyond the last":    {Sequence: 1_000_000, Tag: "00000000"},
		"last of all cursor": {Sequence: 1<<63 - 2, Tag: "ffffffff"},
	} {
		_, err := h.Subscription.Subscribe(t.Context(), me, taskbridge.SubscribeRequest{TaskID: id, After: cursor, GapError: true})
		var gap *taskbridge.GapError
		if !errors.As(err, &gap) || gap.FirstEventID != all[3].ID() || gap.LastEventID != all[5].ID() {
			t.Errorf("%s: %v, want a gap with %s to %s", name, err, all[3].ID(), all[5].ID())
		}
		sub, err := h.Subscription.Subscribe(t.Context(), me, taskbridge.SubscribeRequest{TaskID: id, After: cursor})
		h.must(err)
		warning, err := sub.Next(t.Context(), time.Minute)
		h.must(err)
		if len(warning) != 1 || warning[0].EventID != "0-0" {
			t.Errorf("%s: %d frames begin with %q, want the warning 0-0", name, len(warning), warning[0].EventID)
		}
		frames, err := sub.Next(t.Context(), time.Minute)
		h.must(err)
		wantFrames(t, frames, all[3:6])
		sub.Close()
	}
}

func TestASubscriberOfAHistoryThatIsReplacedIsCut(t *testing.T) {
	stores := atomicStores()
	h := newHost(t, stores)
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	h.progress(run, 5)
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	if _, err := sub.Next(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	stores.Events.(*memory.Store).Events.Truncate(id, 3)
	run2 := h.start(id, "d") // writes another history at the same place
	defer run2.Close()
	h.progress(run2, 5)
	_, err := follow(t.Context(), sub)
	if !errors.Is(err, taskbridge.ErrEventGap) {
		t.Errorf("%v, want ErrEventGap", err)
	}
	again := h.subscribe(id, taskbridge.Cursor{})
	defer again.Close()
	frames, err := again.Next(t.Context(), time.Minute)
	h.must(err)
	wantFrames(t, frames, h.events(id))
}

func TestASlowReaderBehindTheRingReadsTheStore(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Subscription.RingBytes = 2000 })
	id := h.create("a")
	run := h.start(id, "c")
	slow, quick := h.subscribe(id, taskbridge.Cursor{}), h.subscribe(id, taskbridge.Cursor{})
	defer slow.Close()
	defer quick.Close()
	done := make(chan error, 1)
	var live []taskbridge.Frame
	go func() {
		var err error
		live, err = follow(t.Context(), quick)
		done <- err
	}()
	h.progress(run, 3000)
	h.complete(run)
	h.must(<-done)
	wantFrames(t, live, h.events(id))
	frames, err := follow(t.Context(), slow)
	h.must(err)
	wantFrames(t, frames, h.events(id))
}

// deafEvents never wakes anybody.
type deafEvents struct{ taskbridge.EventStore }

func (deafEvents) WatchEvents(context.Context, string, func()) (func(), error) {
	return func() {}, nil
}

func TestALostWakeUpIsMadeUpForByTheBackstop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := taskbridge.Stores{Tasks: memory.NewTasks(), Events: deafEvents{memory.NewEvents()}}
		h := newHost(t, stores)
		id := h.create("a")
		sub := h.subscribe(id, taskbridge.Cursor{})
		defer sub.Close()
		run := h.start(id, "c")
		h.progress(run, 3)
		h.complete(run)
		begin := time.Now()
		for {
			frames, err := sub.Next(t.Context(), 10*time.Second)
			h.must(err)
			if len(frames) > 0 {
				wantFrames(t, frames, h.events(id))
				break
			}
		}
		if waited := time.Since(begin); waited > 40*time.Second {
			t.Errorf("the events came after %s", waited)
		}
	})
}

func TestAReaderWhoseReplayIsAheadOfTheTailIsToldTheEndOnce(t *testing.T) {
	h := newHost(t, taskbridge.Stores{Tasks: memory.NewTasks(), Events: deafEvents{memory.NewEvents()}})
	id := h.create("a")
	run := h.start(id, "c")
	h.progress(run, 3)
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	h.complete(run) // which the tail does not hear of
	frames, err := sub.Next(t.Context(), 0)
	h.must(err)
	wantFrames(t, frames, h.events(id))
	for range 2 {
		if frames, err := sub.Next(t.Context(), 0); len(frames) != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the terminal event: %v, %v", frames, err)
		}
	}
	if frames, ok := sub.Ready(); ok {
		t.Errorf("more is ready: %v", frames)
	}
}

// faultyReads fails the reads of a stream while broken.
type faultyReads struct {
	taskbridge.EventStore
	mu     sync.Mutex
	broken bool
	failed int
}

func (f *faultyReads) faults() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *faultyReads) set(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

func (f *faultyReads) ReadEvents(ctx context.Context, id string, after int64, limit int) ([]taskbridge.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		f.failed++
		return nil, errors.New("disk fault")
	}
	return f.EventStore.ReadEvents(ctx, id, after, limit)
}

func TestALiveSubscriptionOutlastsAFaultOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := &faultyReads{EventStore: memory.NewEvents()}
		h := newHost(t, taskbridge.Stores{Tasks: memory.NewTasks(), Events: events})
		id := h.create("a")
		run := h.start(id, "c")
		sub := h.subscribe(id, taskbridge.Cursor{})
		defer sub.Close()
		_, err := sub.Next(t.Context(), time.Minute)
		h.must(err)
		events.set(true)
		h.progress(run, 3)
		if frames, err := sub.Next(t.Context(), time.Minute); len(frames) > 0 || err != nil {
			t.Fatalf("while the store is away: %d frames, %v", len(frames), err)
		}
		events.set(false)
		h.complete(run)
		frames, err := follow(t.Context(), sub)
		h.must(err)
		wantFrames(t, frames, h.events(id)[1:])
	})
}

func TestAStreamThatCannotBeReadIsLeftAloneOnceNobodySubscribes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := &faultyReads{EventStore: memory.NewEvents()}
		h := newHost(t, taskbridge.Stores{Tasks: memory.NewTasks(), Events: events})
		defer h.Subscription.Close()
		id := h.create("a")
		run := h.start(id, "c")
		defer run.Close()
		sub := h.subscribe(id, taskbridge.Cursor{})
		events.set(true)
		h.progress(run, 1)
		<-time.After(time.Minute)
		sub.Close()
		<-time.After(10 * time.Second)
		before := events.faults()
		<-time.After(time.Hour)
		if after := events.faults(); before == 0 || after != before {
			t.Errorf("read %d times, and %d an hour later", before, after)
		}
	})
}

func TestAStreamThatLostItsEndIsCompletedFromTheRow(t *testing.T) {
	for name, lose := range map[string]int64{"the end": 3, "everything": 0} {
		t.Run(name, func(t *testing.T) {
			events := memory.NewEvents()
			h := newHost(t, taskbridge.Stores{Tasks: memory.NewTasks(), Events: events})
			id := h.create("a")
			run := h.start(id, "c")
			h.progress(run, 3)
			h.complete(run)
			events.Truncate(id, lose)
			sub := h.subscribe(id, taskbridge.Cursor{})
			defer sub.Close()
			frames, err := follow(t.Context(), sub)
			h.must(err)
			if n := len(frames); n < 2 || !frames[n-1].Terminal {
				t.Fatalf("%d frames, the last is not the end", n)
			}
			wantFrames(t, frames, h.events(id))
		})
	}
}

func TestClosingTheServiceEndsEverySubscription(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	sub := h.subscribe(id, taskbridge.Cursor{})
	defer sub.Close()
	h.Subscription.Close()
	if _, err := sub.Next(t.Context(), time.Minute); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if _, err := h.Subscription.Subscribe(t.Context(), me, taskbridge.SubscribeRequest{TaskID: id}); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// The property that all of live delivery stands on: whoever subscribes, wherever
// and whenever, however small the ring, gets exactly the rest of the stream.
func TestSubscribingAtAnyMomentGivesExactlyTheRest(t *testing.T) {
	const tasks, subscribers, steps = 8, 40, 300
	for _, stores := range []taskbridge.Stores{atomicStores(), {Tasks: memory.NewTasks(), Events: memory.NewEvents()}} {
		h := newHost(t, stores, func(o *taskbridge.Options) { o.Subscription.RingBytes = 5000 })
		var work sync.WaitGroup
		for k := range tasks {
			id := h.create(string(rune('a' + k)))
			run := h.start(id, "c")
			work.Go(func() {
				for i := range steps {
					if err := run.Progress(t.Context(), taskbridge.Progress{Percent: float64(i % 100)}); err != nil {
						t.Error(err)
					}
				}
				if err := run.Complete(t.Context(), taskbridge.Completion{}); err != nil {
					t.Error(err)
				}
			})
			for s := range subscribers {
				random := rand.New(rand.NewPCG(uint64(k), uint64(s)))
				work.Go(func() { followWithCuts(t, h, id, random) })
			}
		}
		work.Wait()
		if t.Failed() {
			return
		}
	}
}

// followWithCuts follows a stream to its end, closing and resuming at random.
func followWithCuts(t *testing.T, h *host, id string, random *rand.Rand) {
	var cursor taskbridge.Cursor
	next := int64(1)
	for {
		sub, err := h.Subscription.Subscribe(t.Context(), me, taskbridge.SubscribeRequest{TaskID: id, After: cursor, GapError: true})
		if err != nil {
			t.Error(err)
			return
		}
		for range 1 + random.IntN(20) {
			frames, err := sub.Next(t.Context(), time.Minute)
			for _, f := range frames {
				if f.Sequence != next {
					t.Errorf("sequence %d after %d", f.Sequence, next-1)
				}
				next = f.Sequence + 1
				cursor, _ = taskbridge.ParseCursor(f.EventID)
			}
			if errors.Is(err, io.EOF) {
				sub.Close()
				if next != 303 { // started, 300 steps, completed
					t.Errorf("the stream ended before %d", next)
				}
				return
			}
			if err != nil {
				t.Error(err)
				sub.Close()
				return
			}
		}
		sub.Close()
	}
}
