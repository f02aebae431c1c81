package bench

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
)

// retireBudget is for how long a round of retention goes on: half of the time
// between the server's rounds, as there.
const retireBudget = 500 * time.Millisecond

// createEvery is the time between two creates while tasks are retired.
const createEvery = 5 * time.Millisecond

// measureRetention has the reconciler's retention delete the older half of the
// site's tasks while a client creates others.
func measureRetention(ctx context.Context, opts Options, s *site) (r Retention, err error) {
	keep := time.Duration(opts.Tasks/2) * taskEvery
	middle := time.Now().Add(-keep)
	reconciler, err := newRetention(s, keep)
	if err != nil {
		return r, err
	}
	defer reconciler.Subscription.Close()
	r.CreatesPerSec = float64(time.Second / createEvery)
	before, err := s.completed(ctx)
	if err != nil {
		return r, err
	}
	if r.BytesBefore, err = s.bytes(); err != nil {
		return r, err
	}
	without := startCreates(ctx, s)
	timer := time.NewTimer(2 * opts.Duration)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	if r.CreatesWithout, err = without.stop(); err != nil {
		return r, err
	}
	with := startCreates(ctx, s)
	retireErr := r.retire(ctx, opts, reconciler.Reconciler)
	r.CreatesWith, err = with.stop()
	if err := errors.Join(retireErr, err); err != nil {
		return r, err
	}
	if r.Kept, err = s.completed(ctx); err != nil {
		return r, err
	}
	r.Retired = before - r.Kept
	if r.BytesAfter, err = s.bytes(); err != nil {
		return r, err
	}
	return r, s.checkKept(ctx, middle, time.Now().Add(-keep), r.Complete)
}

// retire goes on until nothing is due, or for as long as the options say.
func (r *Retention) retire(ctx context.Context, opts Options, reconciler *taskbridge.Reconciler) (err error) {
	begin := time.Now()
	told := begin
	for more := true; more && err == nil && time.Since(begin) < opts.RetireFor; {
		more, err = reconciler.RetireOnce(ctx, retireBudget)
		r.Complete = !more
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			opts.Progress("growth: retention for %.0f s", time.Since(begin).Seconds())
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	return err
}

// checkKept checks that tasks are whole which were not due when retention ended,
// and if nothing was left to be done, that those are gone which were due when it
// began: that is, that had ended by then.
func (s *site) checkKept(ctx context.Context, dueAtFirst, dueAtLast time.Time, complete bool) error {
	for _, place := range s.places[:1000] {
		// The places have the time of the creation; a minute is enough for the end.
		kept, retired := place.CreatedAt.After(dueAtLast), complete && place.CreatedAt.Before(dueAtFirst.Add(-time.Minute))
		_, err := s.store.GetTask(ctx, place.TaskID)
		var events []taskbridge.Event
		if err == nil {
			events, err = s.store.ReadEvents(ctx, place.TaskID, 0, 2*bulk.EventsPerTask)
		}
		switch {
		case kept && err != nil:
			return fmt.Errorf("a task that is to be kept: %w", err)
		case kept && (len(events) != bulk.EventsPerTask || events[len(events)-1].Type != taskbridge.EventCompleted):
			return fmt.Errorf("the task %s that is to be kept has %d events", place.TaskID, len(events))
		case retired && !errors.Is(err, taskbridge.ErrTaskNotFound):
			return fmt.Errorf("the task %s that is to be gone: %w", place.TaskID, err)
		}
	}
	return nil
}

// newRetention is a bridge over the site's store that keeps tasks for the time.
// Its rounds follow each other at once, and each takes more tasks than one of the
// server's, so that there is no pause between.
func newRetention(s *site, keep time.Duration) (*taskbridge.Bridge, error) {
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"bench": idleExecutor{}})
	if err != nil {
		return nil, err
	}
	return taskbridge.New(taskbridge.Options{
		Stores: taskbridge.Stores{Tasks: s.store, Events: s.store}, Executors: executors,
		Retention:      taskbridge.RetentionOptions{Keep: keep},
		Reconciliation: taskbridge.ReconciliationOptions{Batch: 1000},
	})
}

// completed is how many tasks are there that have completed.
func (s *site) completed(ctx context.Context) (n int, err error) {
	c, err := rawConn(ctx, s.dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, "SELECT count(*) FROM tasks WHERE status = 3", nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return 0, err
	}
	return int(row[0].(int64)), nil
}

// bytes is the size of the database.
func (s *site) bytes() (int64, error) {
	info, err := os.Stat(filepath.Join(s.dir, databaseName))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// steadyCreates is clients that create tasks at a steady rate.
type steadyCreates struct {
	end  chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	taken []time.Duration
	errs  []error
}

// startCreates begins. A create does not wait for the one before, but for a
// client that is free; its time counts from when it was its turn.
func startCreates(ctx context.Context, s *site) *steadyCreates {
	c := &steadyCreates{end: make(chan struct{})}
	idle := make(chan int, len(s.clients))
	for i := range s.clients {
		idle <- i
	}
	c.done.Go(func() {
		ticks := time.NewTicker(createEvery)
		defer ticks.Stop()
		for due := time.Now(); ; due = due.Add(createEvery) {
			for time.Now().Before(due) {
				select {
				case <-ticks.C:
				case <-c.end:
					return
				case <-ctx.Done():
					return
				}
			}
			var client int
			select {
			case client = <-idle:
			case <-c.end:
				return
			}
			c.done.Go(func() {
				err := createOverHTTP(ctx, s, client)
				c.note(time.Since(due), err)
				idle <- client
			})
		}
	})
	return c
}

func (c *steadyCreates) note(taken time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = append(c.taken, taken)
	if err != nil && len(c.errs) < 10 {
		c.errs = append(c.errs, err)
	}
}

func (c *steadyCreates) stop() (Times, error) {
	close(c.end)
	c.done.Wait()
	return timesOf(c.taken), errors.Join(c.errs...)
}
