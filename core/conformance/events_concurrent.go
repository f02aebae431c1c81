package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var concurrencyChecks = []check[eventsHarness]{
	{"64 goroutines appending to one stream make it dense, each event once", concurrentAppends},
	{"appends that each goroutine sends twice, in order, are there once", concurrentRepeats},
	{"of 64 concurrent ends one is accepted and nothing follows it", concurrentEnds},
	{"of 64 concurrent appends for the last place one gets it", concurrentLastPlace},
	{"64 goroutines that append to streams of their own do so densely", concurrentStreams},
	{"readers who follow by wake-ups see every event once and in order", concurrentReaders},
}

const appenders = 64

func concurrentAppends(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	const each = 10
	var errs [appenders]error
	var got [appenders][]int64
	together(appenders, func(i int) {
		for n := range each {
			e := message(id, "source", 1, int64(i*each+n+1))
			e.Ordinal = 0
			result, err := events.AppendEvent(ctx, e)
			errs[i] = errors.Join(errs[i], err)
			got[i] = append(got[i], result.Sequence)
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	all := readAll(ctx, t, events, id)
	if len(all) != appenders*each {
		t.Fatalf("the stream has %d events, want %d", len(all), appenders*each)
	}
	for i := range got {
		for n, sequence := range got[i] {
			if sequence < 1 || sequence > int64(len(all)) || n > 0 && sequence <= got[i][n-1] {
				t.Fatalf("goroutine %d was given the sequence numbers %v", i, got[i])
			}
			same(t, "the event that was given the number", stored(message(id, "source", 1, int64(i*each+n+1)), sequence), all[sequence-1])
		}
	}
}

func concurrentRepeats(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	// Two goroutines a producer, both with the same reports: as a retry that
	// overtakes its first try.
	const each = 10
	var errs [2 * taskbridge.MaxProducers]error
	var fresh [2 * taskbridge.MaxProducers]int
	together(2*taskbridge.MaxProducers, func(i int) {
		for n := int64(1); n <= each; n++ {
			result, err := events.AppendEvent(ctx, message(id, fmt.Sprintf("source-%d", i/2), 1, n))
			errs[i] = errors.Join(errs[i], err)
			if !result.Duplicate {
				fresh[i]++
			}
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	last := make(map[string]int64)
	counts := make(map[string]int)
	for _, e := range readAll(ctx, t, events, id) {
		for p := range taskbridge.MaxProducers {
			name := fmt.Sprintf("source-%d", p)
			if next := message(id, name, 1, last[name]+1); string(next.Payload) == string(e.Payload) {
				last[name]++
				counts[name]++
			}
		}
	}
	for p := range taskbridge.MaxProducers {
		name := fmt.Sprintf("source-%d", p)
		if counts[name] != each || fresh[2*p]+fresh[2*p+1] != each {
			t.Errorf("%s: %d events in order, %d told as new; want %d", name, counts[name], fresh[2*p]+fresh[2*p+1], each)
		}
	}
	if n := streamState(ctx, t, events, id).Last; n != taskbridge.MaxProducers*each {
		t.Errorf("the stream has %d events, want %d", n, taskbridge.MaxProducers*each)
	}
}

// race lets all append one event each and returns who was accepted; everybody
// else must have been refused with want.
func race(ctx context.Context, t *testing.T, events eventStore, want error, event func(i int) taskbridge.EventAppend) (winner int) {
	t.Helper()
	var errs [appenders]error
	together(appenders, func(i int) { _, errs[i] = events.AppendEvent(ctx, event(i)) })
	winner = -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("%d and %d were both accepted", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, want):
			t.Fatalf("goroutine %d: %v, want %v", i, err, want)
		}
	}
	if winner < 0 {
		t.Fatal("none was accepted")
	}
	return winner
}

func concurrentEnds(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	for range 10 {
		id := newID()
		appendNew(ctx, t, events, message(id, "source", 1, 1))
		end := func(i int) taskbridge.EventAppend {
			e := control(id, []taskbridge.EventType{taskbridge.EventCompleted, taskbridge.EventFailed, taskbridge.EventCancelled}[i%3], int64(i+1))
			e.Producer.Name, e.Ordinal = "source", 0
			return e
		}
		winner := race(ctx, t, events, taskbridge.ErrTaskFinished, end)
		all := readAll(ctx, t, events, id)
		if len(all) != 2 {
			t.Fatalf("the stream has %d events, want 2", len(all))
		}
		same(t, "the terminal event", stored(end(winner), 2), all[1])
	}
}

func concurrentLastPlace(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	for range 10 {
		id := newID()
		appendNew(ctx, t, events, message(id, "source", 1, 1))
		race(ctx, t, events, taskbridge.ErrStreamFull, func(i int) taskbridge.EventAppend {
			e := message(id, "source", 1, int64(i+2))
			e.Ordinal, e.MaxSequence = 0, 2
			return e
		})
		if n := len(readAll(ctx, t, events, id)); n != 2 {
			t.Fatalf("the stream has %d events, want 2", n)
		}
	}
}

func concurrentStreams(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	const each = 20
	var ids [appenders]string
	for i := range ids {
		ids[i] = newID()
	}
	var errs [appenders]error
	together(appenders, func(i int) {
		for n := int64(1); n <= each && errs[i] == nil; n++ {
			result, err := events.AppendEvent(ctx, message(ids[i], "source", 1, n))
			if errs[i] = err; err == nil && result != (taskbridge.AppendResult{Sequence: n}) {
				errs[i] = fmt.Errorf("append %d: %+v", n, result)
			}
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		for i, e := range readAll(ctx, t, events, id) {
			same(t, "the event", stored(message(id, "source", 1, int64(i+1)), int64(i+1)), e)
		}
	}
}

func concurrentReaders(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	id := newID()
	const writers, each, readers = 4, 50, 8
	read := make(chan error, readers)
	for range readers {
		wake, woken := signal()
		stop, err := events.WatchEvents(ctx, id, wake)
		if err != nil {
			t.Fatalf("WatchEvents: %v", err)
		}
		go func() {
			defer stop()
			read <- follow(ctx, events, id, woken, writers*each)
		}()
	}
	var errs [writers]error
	together(writers, func(i int) {
		for n := int64(1); n <= each; n++ {
			_, err := events.AppendEvent(ctx, message(id, fmt.Sprintf("source-%d", i), 1, n))
			errs[i] = errors.Join(errs[i], err)
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Error(err)
	}
	for range readers {
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
}

// follow reads a stream until it has seen n events, waiting for a wake-up where
// there is nothing more.
func follow(ctx context.Context, events eventStore, taskID string, woken <-chan struct{}, n int64) error {
	for last := int64(0); last < n; {
		page, err := events.ReadEvents(ctx, taskID, last, 7)
		if err != nil {
			return fmt.Errorf("ReadEvents after %d: %w", last, err)
		}
		for _, e := range page {
			if last++; e.Sequence != last {
				return fmt.Errorf("event %d came where %d was to come", e.Sequence, last)
			}
		}
		if len(page) > 0 || last == n {
			continue
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for a wake-up after event %d of %d: %w", last, n, ctx.Err())
		}
	}
	return nil
}
