package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Rows reads rows of tasks. A [taskbridge.TaskRegistry] is one.
type Rows interface {
	GetTask(ctx context.Context, taskID string) (taskbridge.Task, error)
}

// The sweep lists what has closed since it last looked and settles the tasks whose
// end nobody recorded; and it lists what has begun and is open, for work that must
// not run. Each list costs one request for a page of what is new, and each task that
// has not ended two or three more; what is open and not new costs nothing, but in a
// server's first look. What was closed while no server ran is found by the
// inspection of silent tasks.

// listed is a run of a workflow or an activity that a list has.
type listed struct {
	taskID, runID string
}

// sweepState is what the sweep keeps between two looks.
type sweepState struct {
	from  time.Time            // by Temporal's clock: what closed or began later is not known yet; zero before the first look
	clock reckoning            // of Temporal's clock
	done  map[listed]time.Time // dealt with, and when last seen
	stray map[string]bool      // tasks whose work must not run, and whether there is more to be done about it
}

func newSweepState() *sweepState {
	return &sweepState{done: map[listed]time.Time{}, stray: map[string]bool{}}
}

// reckoning tells what Temporal's clock shows at the least, from what it has shown:
// the server's own may be wrong by more than the overlap, and would then hide ends.
type reckoning struct{ shown, at time.Time }

func (r *reckoning) saw(shown, at time.Time) {
	if shown.After(r.now(at)) {
		r.shown, r.at = shown, at
	}
}

// now is the zero time as long as nothing was seen.
func (r *reckoning) now(at time.Time) time.Time {
	if r.shown.IsZero() {
		return time.Time{}
	}
	return r.shown.Add(at.Sub(r.at))
}

// sweep looks again and again until ctx ends.
func (e *Executor) sweep(ctx context.Context) {
	state := newSweepState()
	for {
		timer := e.Clock.NewTimer(e.SweepInterval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if err := e.sweepOnce(ctx, state); err != nil && ctx.Err() == nil {
			e.Logger.Warn("sweep failed, trying again", "error", err)
		}
	}
}

// sweepOnce looks once. The next look begins where this one did, less the overlap,
// unless something could not be listed; what could not be settled is looked at
// again while it is in the overlap, and then by the inspection of silent tasks.
func (e *Executor) sweepOnce(ctx context.Context, state *sweepState) error {
	ctx, cancel := context.WithTimeout(ctx, max(e.SweepInterval, time.Minute))
	defer cancel()
	begun := e.Clock.Now()
	if state.from.IsZero() {
		newest, err := e.newestClose(ctx)
		if err != nil {
			return err
		}
		state.clock.saw(newest, begun)
	}
	from := state.from
	if from.IsZero() && !state.clock.shown.IsZero() {
		from = state.clock.now(begun).Add(-e.SweepOverlap)
	}
	var failures []error
	err := e.listClosed(ctx, from, func(page []execution) {
		failures = append(failures, e.settlePage(ctx, state, page, begun))
	})
	if err == nil {
		// In the first look all that is open.
		err = e.listOpen(ctx, state.from, func(page []execution) {
			failures = append(failures, e.stopPage(ctx, state, page))
		})
	}
	failures = append(failures, e.stopStrays(ctx, state), err)
	if err != nil {
		return errors.Join(failures...)
	}
	// That what is listed is complete up to the overlap: Temporal's clock showed more
	// than this when the lists were made.
	state.from = state.clock.now(begun).Add(-e.SweepOverlap)
	for run, seen := range state.done {
		if seen.Before(begun) {
			delete(state.done, run) // no longer listed
		}
	}
	return errors.Join(failures...)
}

// settlePage settles the tasks of what has closed.
func (e *Executor) settlePage(ctx context.Context, state *sweepState, page []execution, begun time.Time) error {
	var (
		mu       sync.Mutex
		failures []error
		look     []listed
	)
	for _, run := range page {
		state.clock.saw(run.closed, e.Clock.Now())
		if _, done := state.done[run.listed]; done {
			state.done[run.listed] = begun
			continue
		}
		look = append(look, run.listed)
	}
	inSlots(looksAtOnce, look, func(run listed) {
		err := e.settleClosed(ctx, run.taskID)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failures = append(failures, fmt.Errorf("task %s: %w", run.taskID, err))
			return
		}
		state.done[run] = begun
	})
	return errors.Join(failures...)
}

// settleClosed ends a task of which some run has closed, if its latest run has and
// the task has not.
func (e *Executor) settleClosed(ctx context.Context, taskID string) error {
	row, err := e.Rows.GetTask(ctx, taskID)
	if errors.Is(err, taskbridge.ErrTaskNotFound) || err == nil && row.Status.Terminal() {
		return nil
	}
	if err != nil {
		return err
	}
	return e.settleEnded(ctx, row)
}

// settleEnded inspects a task and ends it if its work has ended.
func (e *Executor) settleEnded(ctx context.Context, row taskbridge.Task) error {
	if _, ours := e.Types[row.Type]; !ours {
		return nil
	}
	inspection, err := e.InspectTask(ctx, row)
	if err != nil || inspection.Knowledge != taskbridge.InspectionFinished {
		return err // its latest run goes on
	}
	err = e.Lifecycle.Settle(ctx, row.ID, inspection.Outcome)
	if errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	if err == nil {
		e.Logger.Info("task settled from outside", "taskId", row.ID, "status", inspection.Outcome.Status, "code", inspection.Outcome.Failure.Code)
	}
	return err
}

// stopPage finds work that must not run among what is open.
func (e *Executor) stopPage(ctx context.Context, state *sweepState, page []execution) error {
	var failures []error
	for _, run := range page {
		state.clock.saw(run.started, e.Clock.Now())
		if _, there := state.stray[run.taskID]; there {
			continue
		}
		row, err := e.Rows.GetTask(ctx, run.taskID)
		if err != nil && !errors.Is(err, taskbridge.ErrTaskNotFound) {
			failures = append(failures, fmt.Errorf("task %s: %w", run.taskID, err))
		}
		if _, ours := e.Types[row.Type]; err == nil && ours && stray(row) {
			state.stray[run.taskID] = true
		}
	}
	return errors.Join(failures...)
}

// stopStrays stops what must not run, again while it goes on.
func (e *Executor) stopStrays(ctx context.Context, state *sweepState) error {
	var failures []error
	for taskID, more := range state.stray {
		if !more {
			continue
		}
		done, err := e.stopStray(ctx, taskID)
		if err != nil {
			failures = append(failures, fmt.Errorf("task %s: %w", taskID, err))
		}
		state.stray[taskID] = !done
	}
	return errors.Join(failures...)
}
