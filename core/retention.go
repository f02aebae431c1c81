package taskbridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// RetentionOptions says for how long tasks are kept after their end. A negative
// time means for good.
type RetentionOptions struct {
	// Keep is for all task types that ByType does not name; default 30 days.
	Keep time.Duration
	// ByType is for single task types; 0 means Keep.
	ByType map[string]time.Duration
	// Step is how many events are deleted at once; default 500.
	Step int
}

// retention retires tasks whose time is over and deletes what they leave.
type retention struct {
	keep     time.Duration
	byType   map[string]time.Duration
	shortest time.Duration // of all that are not for good
	forever  bool          // all are for good
	step     int
}

func newRetention(opts RetentionOptions) (retention, error) {
	if opts.Step < 0 {
		return retention{}, argumentErrorf("RetentionOptions.Step", "must not be negative")
	}
	r := retention{
		keep:    cmp.Or(opts.Keep, 30*24*time.Hour),
		byType:  maps.Clone(opts.ByType),
		step:    cmp.Or(opts.Step, 500),
		forever: true,
	}
	consider := func(keep time.Duration) {
		if keep >= 0 && (r.forever || keep < r.shortest) {
			r.shortest, r.forever = keep, false
		}
	}
	consider(r.keep)
	for taskType, keep := range r.byType {
		if keep == 0 {
			r.byType[taskType] = r.keep
		}
		consider(r.byType[taskType])
	}
	return r, nil
}

func (r retention) of(taskType string) time.Duration {
	if keep, ok := r.byType[taskType]; ok {
		return keep
	}
	return r.keep
}

// RetireOnce retires tasks whose time is over and deletes what retired tasks
// left, for at most budget and in small steps, so that writers are not held up.
// It reports whether there is more to do at once.
//
// A retired task is gone for its readers and its idempotency key is free in one
// step; the events follow.
func (r *Reconciler) RetireOnce(ctx context.Context, budget time.Duration) (more bool, err error) {
	end := r.clock.Now().Add(budget)
	var failed error
	if !r.retention.forever {
		// Rows carry the time of their end; what the shortest retention leaves
		// alone nobody has to look at.
		ids, err := r.journal.tasks.DueTasks(ctx, DueRetention, r.journal.now().Add(-r.retention.shortest), r.opts.Batch)
		if err != nil {
			return false, fmt.Errorf("find tasks to retire: %w", err)
		}
		more = len(ids) == r.opts.Batch
		failed = r.handle(ctx, ids, r.retire)
	}
	tombstones, err := r.journal.tasks.DueTasks(ctx, DueDeletion, r.journal.now(), r.opts.Batch)
	if err != nil {
		return false, errors.Join(failed, fmt.Errorf("find retired tasks: %w", err))
	}
	more = more || len(tombstones) == r.opts.Batch
	failed = errors.Join(failed, r.handle(ctx, tombstones, func(ctx context.Context, taskID string) error {
		for {
			if r.clock.Now().After(end) {
				return nil // the tombstone stays due
			}
			left, err := r.journal.events.DeleteEvents(ctx, taskID, r.retention.step)
			if err != nil {
				return err
			}
			if !left {
				return r.journal.tasks.DeleteTask(ctx, taskID)
			}
		}
	}))
	return more || r.clock.Now().After(end), failed
}

// retire makes one task disappear if its time is over.
func (r *Reconciler) retire(ctx context.Context, taskID string) error {
	row, err := r.journal.load(ctx, taskID)
	if errors.Is(err, ErrTaskNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now := r.journal.now()
	keep := r.retention.of(row.Type)
	until := row.FinishedAt.Add(keep)
	if row.Status.Terminal() && keep >= 0 && !until.After(now) {
		err := r.journal.tasks.RetireTask(ctx, row, now)
		if errors.Is(err, ErrRevisionConflict) || errors.Is(err, ErrTaskNotFound) {
			return nil // it is looked at again
		}
		return err
	}
	_, err = r.journal.change(ctx, row, func(row Task) (Task, bool) {
		row.Due.Retention = until.Add(-r.retention.shortest)
		if keep < 0 || !row.Status.Terminal() {
			row.Due.Retention = time.Time{}
		}
		return row, true
	})
	return err
}
