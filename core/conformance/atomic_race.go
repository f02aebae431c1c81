package conformance

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var atomicRaceChecks = []check[atomicHarness]{
	{"no reader finds the row ahead of its stream or behind it", atomicNeverHalf},
	{"under contention every step counts once, in row and stream", atomicContention},
	{"of racing ends one wins, and row and stream agree on it", atomicRacingEnds},
}

func atomicNeverHalf(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := create(ctx, t, store, newTask("owner", "key"))
	const steps, readers = 200, 4
	var done atomic.Bool
	seen := make(chan error, readers)
	for range readers {
		go func() {
			seen <- func() error {
				for !done.Load() {
					// What is read later is never behind what was read before.
					state, err := store.StreamState(ctx, row.ID)
					if err != nil {
						return err
					}
					got, err := store.GetTask(ctx, row.ID)
					if err != nil {
						return err
					}
					after, err := store.StreamState(ctx, row.ID)
					if err != nil {
						return err
					}
					if state.Controls > got.Controls || got.Controls > after.Controls {
						return fmt.Errorf("the row counts %d control events, the stream before it %d, after it %d", got.Controls, state.Controls, after.Controls)
					}
				}
				return nil
			}()
		}()
	}
	next := row
	var err error
	for n := int64(1); n <= steps && err == nil; n++ {
		next.Controls = n
		next, err = store.UpdateTaskAndAppend(ctx, next, []taskbridge.EventAppend{control(row.ID, taskbridge.EventMessage, n)})
	}
	done.Store(true)
	if err != nil {
		t.Errorf("UpdateTaskAndAppend: %v", err)
	}
	for range readers {
		if err := <-seen; err != nil {
			t.Error(err)
		}
	}
}

func atomicContention(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	id := create(ctx, t, store, newTask("owner", "key")).ID
	const callers, each = 16, 10
	var errs [callers]error
	together(callers, func(i int) {
		for done := 0; done < each && errs[i] == nil; {
			row, err := store.GetTask(ctx, id)
			if err == nil {
				row.Controls++
				_, err = store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{control(id, taskbridge.EventMessage, row.Controls)})
			}
			switch {
			case err == nil:
				done++
			case !errors.Is(err, taskbridge.ErrRevisionConflict):
				errs[i] = err
			}
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	got := see(ctx, t, store, id)
	if got.Row.Controls != callers*each || got.State.Controls != callers*each || len(got.Events) != callers*each {
		t.Errorf("the row counts %d control events, the stream %d of %d events; want %d", got.Row.Controls, got.State.Controls, len(got.Events), callers*each)
	}
}

func atomicRacingEnds(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	ends := []taskbridge.EventType{taskbridge.EventCompleted, taskbridge.EventFailed, taskbridge.EventCancelled}
	for round := range 20 {
		row := create(ctx, t, store, newTask("owner", fmt.Sprintf("key-%d", round)))
		row.Status, row.Controls = taskbridge.StatusRunning, 1
		row, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{control(row.ID, taskbridge.EventStarted, 1)})
		if err != nil {
			t.Fatalf("UpdateTaskAndAppend: %v", err)
		}
		var errs [12]error
		together(len(errs), func(i int) {
			end := control(row.ID, ends[i%len(ends)], 2)
			next := row
			next.Status, next.Terminal, next.Controls = end.Type.Status(), end.Payload, 2
			_, errs[i] = store.UpdateTaskAndAppend(ctx, next, []taskbridge.EventAppend{end})
		})
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, taskbridge.ErrRevisionConflict) {
				t.Fatalf("end %d: %v, want ErrRevisionConflict", i, err)
			}
		}
		got := see(ctx, t, store, row.ID)
		if won != 1 || len(got.Events) != 2 || got.Events[1].Type.Status() != got.Row.Status {
			t.Fatalf("%d ends won; the row is %s, the stream %+v", won, got.Row.Status, got.Events)
		}
	}
}
