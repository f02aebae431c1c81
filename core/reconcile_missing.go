package taskbridge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// missingTypes are the task types without an executor of which there were open
// tasks lately. Safe for concurrent use.
type missingTypes struct {
	mu   sync.Mutex
	seen map[string]time.Time // when a task of the type was looked at last
}

// note remembers the type; first says that it was not there.
func (m *missingTypes) note(taskType string, now time.Time) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seen = make(map[string]time.Time)
	}
	_, known := m.seen[taskType]
	m.seen[taskType] = now
	return !known
}

// since returns those of which a task was looked at since then, sorted, and
// forgets the others.
func (m *missingTypes) since(then time.Time) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.seen, func(_ string, at time.Time) bool { return at.Before(then) })
	return slices.Sorted(maps.Keys(m.seen))
}

// MissingExecutors returns the task types, sorted, that have no executor and, as
// this reconciler found lately, tasks that were handed to one and have not ended.
// Of several reconcilers only the one that acts knows. It is for a host that
// tells its operator: with the type in the configuration again, or once
// SubmissionOptions.MissingExecutorLimit is over, the tasks go on or end.
func (r *Reconciler) MissingExecutors() []string {
	// Each of the tasks is looked at once in a Silence, when nothing else delays it.
	return r.missing.since(r.journal.now().Add(-3*r.submission.Silence - r.opts.Interval))
}

// executorMissing reports whether the task was handed to an executor that its
// type does not have any more.
func (r *Reconciler) executorMissing(row Task) bool {
	if row.Submission.State != SubmissionRecorded {
		return false // the limits of a submission end it
	}
	_, err := r.executors.Executor(row.Type)
	return err != nil
}

// awaitExecutor waits for the executor of such a task, since the type may come
// back with the next start of a server, and not for ever. A worker elsewhere can
// report without it: what is heard of the work counts for as much.
func (r *Reconciler) awaitExecutor(ctx context.Context, row Task) error {
	now := r.journal.now()
	if r.missing.note(row.Type, now) {
		r.logger.Error("open tasks are of a type that has no executor: configure it again, or they will be given up",
			"taskType", row.Type, "after", r.submission.MissingExecutorLimit)
	}
	row, err := r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() || !row.Submission.ExecutorMissingSince.IsZero() {
			return row, false
		}
		row.Submission.ExecutorMissingSince = now
		return row, true
	})
	if err != nil || row.Status.Terminal() {
		return err
	}
	since, limit := row.Submission.ExecutorMissingSince, r.submission.MissingExecutorLimit
	var outcome Outcome
	if requested := row.Cancellation.RequestedAt; !requested.IsZero() {
		if requested.After(since) {
			since = requested
		}
		limit = r.submission.UnknownLimit
		outcome = Outcome{Status: StatusCancelled, Message: "the task's type has no executor any more that could be told; its work may go on unseen"}
	} else {
		state, err := r.journal.events.StreamState(ctx, row.ID)
		if err != nil {
			return fmt.Errorf("read stream state: %w", err)
		}
		if state.LastAt.After(since) {
			since = state.LastAt
		}
		outcome = lost(fmt.Sprintf("the task's type has had no executor, and nothing was heard of its work, for %s", limit))
	}
	if limit < 0 {
		return r.postpone(ctx, row, r.submission.Silence)
	}
	if end := since.Add(limit); now.Before(end) {
		return r.postpone(ctx, row, min(r.submission.Silence, end.Sub(now)))
	}
	return r.giveUp(ctx, row, outcome)
}

// executorFound notes that the task's type has an executor again.
func (r *Reconciler) executorFound(ctx context.Context, row Task) (Task, error) {
	return r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() || row.Submission.ExecutorMissingSince.IsZero() {
			return row, false
		}
		row.Submission.ExecutorMissingSince = time.Time{}
		return row, true
	})
}
