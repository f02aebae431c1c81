package taskbridge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ReconciliationOptions tunes the [Reconciler]. Zero fields mean the defaults.
type ReconciliationOptions struct {
	// Interval is the time between two rounds; default 1 s.
	Interval time.Duration
	// Batch is how many rows of a kind one round looks at; default 200.
	Batch int
	// Concurrency is how many tasks are handled at once; default 8.
	Concurrency int
	// Holder is this server's name in the reconciler's lease; default random.
	Holder string
	// LeaseTTL is the length of the reconciler's lease; default 15 s.
	LeaseTTL time.Duration
}

// Reconciler finishes what crashes and silent runtimes leave undone: it submits
// what is owed, repeats cancellations, completes streams, asks about tasks that
// have been silent, and settles what its runtime lost. Several may run over one
// store; a lease keeps all but one idle (but for tasks that run in their own
// process), and without it they do no harm.
type Reconciler struct {
	*base
	leaser    Leaser
	opts      ReconciliationOptions
	retention retention
	missing   missingTypes
}

// reconcilerLease is the name of the lease that the acting reconciler holds.
const reconcilerLease = "reconciler"

func newReconciler(b *base, leaser Leaser, opts ReconciliationOptions, keep RetentionOptions) (*Reconciler, error) {
	if opts.Interval < 0 || opts.Batch < 0 || opts.Concurrency < 0 || opts.LeaseTTL < 0 {
		return nil, argumentErrorf("ReconciliationOptions", "must not be negative")
	}
	opts.Interval = cmp.Or(opts.Interval, time.Second)
	opts.Batch = cmp.Or(opts.Batch, 200)
	opts.Concurrency = cmp.Or(opts.Concurrency, 8)
	opts.LeaseTTL = cmp.Or(opts.LeaseTTL, 15*time.Second)
	opts.Holder = cmp.Or(opts.Holder, rand.Text())
	retention, err := newRetention(keep)
	return &Reconciler{base: b, leaser: leaser, opts: opts, retention: retention}, err
}

// Run reconciles until ctx ends, beginning with [Reconciler.Recover] each time
// it takes the lease over. Faults are logged and the next round tries again.
func (r *Reconciler) Run(ctx context.Context) {
	recovered := false
	var minded time.Time
	for {
		held, err := r.acting(ctx)
		switch {
		case err != nil:
		case !held:
			recovered = false
			if now := r.clock.Now(); now.Sub(minded) >= r.submission.Silence {
				minded = now
				err = r.mindOwn(ctx)
			}
		default:
			// What cannot be done for one task holds up nothing of the others'.
			if !recovered {
				err = r.Recover(ctx)
				recovered = err == nil
			}
			err = errors.Join(err, r.RunOnce(ctx))
			// Half of the time at most, however much there is to delete.
			_, retireErr := r.RetireOnce(ctx, r.opts.Interval/2)
			err = errors.Join(err, retireErr)
		}
		if err != nil && ctx.Err() == nil {
			r.logger.Error("reconciliation failed, trying again", "error", err)
		}
		timer := r.clock.NewTimer(r.opts.Interval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			r.resign(context.WithoutCancel(ctx))
			return
		}
	}
}

// acting reports whether this reconciler is the one that acts.
func (r *Reconciler) acting(ctx context.Context) (bool, error) {
	if r.leaser == nil {
		return true, nil
	}
	return r.leaser.AcquireLease(ctx, reconcilerLease, r.opts.Holder, r.opts.LeaseTTL)
}

// resign lets another reconciler take over without waiting for the lease to end.
func (r *Reconciler) resign(ctx context.Context) {
	if r.leaser == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.LeaseTTL)
	defer cancel()
	if err := r.leaser.ReleaseLease(ctx, reconcilerLease, r.opts.Holder); err != nil && !errors.Is(err, ErrClosed) {
		r.logger.Warn("reconciler's lease not given back", "error", err)
	}
}

// RunOnce does one round now, whoever holds the lease, and returns once all
// that it found due has been looked at. Tasks that could not be handled are in
// the error and stay due.
func (r *Reconciler) RunOnce(ctx context.Context) error {
	now := r.journal.now()
	seen := make(map[string]bool)
	var due []string
	for _, kind := range []DueKind{DueStream, DueSubmission, DueCancellation, DueInspection} {
		ids, err := r.journal.tasks.DueTasks(ctx, kind, now, r.opts.Batch)
		if err != nil {
			return fmt.Errorf("find due tasks: %w", err)
		}
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				due = append(due, id)
			}
		}
	}
	return r.handle(ctx, due, r.look)
}

// Recover looks at every task that has not ended and runs in some instance's
// process: what a dead one left is settled or submitted again at once, not only
// when it has been silent for long. It is called after a restart. Tasks that
// could not be handled are in the error, and keep nothing from the others.
func (r *Reconciler) Recover(ctx context.Context) error {
	return r.lookAtOpen(ctx, nil, r.orphaned)
}

// mindOwn looks at the open tasks that run in this process while another
// reconciler acts: that one leaves them to us for as long as our instance lives.
func (r *Reconciler) mindOwn(ctx context.Context) error {
	var types []string
	for _, taskType := range r.executors.Types() {
		if r.localInstance(Task{Type: taskType}) != "" {
			types = append(types, taskType)
		}
	}
	if types == nil {
		return nil
	}
	return r.lookAtOpen(ctx, types, func(_ context.Context, row Task) (bool, error) {
		return row.Instance != "" && row.Instance == r.localInstance(row), nil
	})
}

// lookAtOpen looks at the tasks of the types (nil: of all) that have not ended
// and are wanted.
func (r *Reconciler) lookAtOpen(ctx context.Context, types []string, wanted func(context.Context, Task) (bool, error)) error {
	query := TaskQuery{AnyOwner: true, Statuses: []TaskStatus{StatusAccepted, StatusRunning}, Types: types, Limit: r.opts.Batch}
	var failed error
	for {
		rows, err := r.journal.tasks.ListTasks(ctx, query)
		if err != nil {
			return errors.Join(failed, fmt.Errorf("list open tasks: %w", err))
		}
		var ids []string
		for _, row := range rows {
			want, err := wanted(ctx, row)
			if err != nil {
				return errors.Join(failed, err)
			}
			if want {
				ids = append(ids, row.ID)
			}
		}
		failed = errors.Join(failed, r.handle(ctx, ids, r.look))
		if len(rows) < query.Limit || ctx.Err() != nil {
			return failed
		}
		last := rows[len(rows)-1]
		query.After = ListCursor{last.CreatedAt, last.ID}
	}
}

// handle does something to tasks, several at a time.
func (r *Reconciler) handle(ctx context.Context, ids []string, do func(ctx context.Context, taskID string) error) error {
	var (
		work   sync.WaitGroup
		slots  = make(chan struct{}, r.opts.Concurrency)
		mu     sync.Mutex
		failed []error
	)
	for _, id := range ids {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := do(ctx, id); err != nil {
				mu.Lock()
				failed = append(failed, fmt.Errorf("task %s: %w", id, err))
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

// orphaned reports whether the task belongs to an instance that is dead.
func (r *Reconciler) orphaned(ctx context.Context, row Task) (bool, error) {
	if row.Instance == "" || row.Instance == r.localInstance(row) {
		return false, nil
	}
	if r.leaser == nil {
		return true, nil // there is no other server
	}
	holder, err := r.leaser.LeaseHolder(ctx, instanceLease(row.Instance))
	if err != nil {
		return false, fmt.Errorf("look up the lease of instance %s: %w", row.Instance, err)
	}
	return holder == "", nil
}

// localInstance returns the id of this process if tasks of that type run in it.
func (r *Reconciler) localInstance(row Task) string {
	executor, err := r.executors.Executor(row.Type)
	if err != nil {
		return ""
	}
	if bound, ok := executor.(InstanceBound); ok {
		return bound.InstanceID()
	}
	return ""
}

// look decides, from the row alone, what the task is owed, and does it. What
// made it due does not matter.
func (r *Reconciler) look(ctx context.Context, taskID string) error {
	row, err := r.journal.load(ctx, taskID) // completes its stream
	if errors.Is(err, ErrTaskNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if row.Status.Terminal() {
		return nil
	}
	orphan, err := r.orphaned(ctx, row)
	if err != nil {
		return err
	}
	missing := r.executorMissing(row)
	if !missing && !row.Submission.ExecutorMissingSince.IsZero() {
		if row, err = r.executorFound(ctx, row); err != nil || row.Status.Terminal() {
			return err
		}
	}
	canceling := !row.Cancellation.RequestedAt.IsZero()
	switch {
	case orphan && canceling:
		return r.giveUp(ctx, row, Outcome{Status: StatusCancelled})
	case orphan && row.Status == StatusRunning:
		return r.giveUp(ctx, row, lost("the server that ran the task is gone"))
	case orphan:
		return r.submitAgain(ctx, row) // it never started, and now only may here
	case row.Instance != "" && row.Instance != r.localInstance(row):
		return r.postpone(ctx, row, r.submission.Silence) // its instance takes care of it
	case missing:
		return r.awaitExecutor(ctx, row)
	case canceling:
		return r.cancel(ctx, row)
	case row.Submission.State != SubmissionRecorded:
		return r.resubmit(ctx, row)
	}
	return r.inspectSilent(ctx, row)
}

// lost is the outcome of a task whose executor has gone.
func lost(message string) Outcome {
	return Outcome{Status: StatusFailed, Failure: Failure{Code: CodeExecutorLost, Message: message, Retryable: true}}
}

func (r *Reconciler) settle(ctx context.Context, row Task, outcome Outcome) error {
	err := settle(ctx, r.journal, r.limits, row.ID, outcome)
	if errors.Is(err, ErrTaskFinished) {
		return nil
	}
	if err == nil {
		r.logger.Info("task settled", "taskId", row.ID, "status", outcome.Status, "code", outcome.Failure.Code)
	}
	return err
}

// giveUp ends a task because of something that is not there: work, a runtime's
// memory, an instance. That says nothing of a row that has changed since it was
// looked at (the work may have started after all), so such a row is left for
// another look.
func (r *Reconciler) giveUp(ctx context.Context, row Task, outcome Outcome) error {
	payload, err := outcome.payload(r.limits.TerminalPayload)
	if err != nil {
		return err
	}
	revision, same := row.Revision, false
	_, err = r.journal.change(ctx, row, func(row Task) (Task, bool) {
		if same = row.Revision == revision; !same {
			return row, false
		}
		return finished(row, outcome.Status, payload(row), r.journal.now()), true
	})
	if err == nil && same {
		r.logger.Info("task given up", "taskId", row.ID, "status", outcome.Status, "code", outcome.Failure.Code)
	}
	return err
}

// postpone makes whatever is due now due later.
func (r *Reconciler) postpone(ctx context.Context, row Task, by time.Duration) error {
	now := r.journal.now()
	later := now.Add(by)
	_, err := r.journal.change(ctx, row, func(row Task) (Task, bool) {
		moved := false
		for _, due := range []*time.Time{&row.Due.Submission, &row.Due.Cancellation, &row.Due.Inspection} {
			if !due.IsZero() && !due.After(now) {
				*due, moved = later, true
			}
		}
		return row, moved && !row.Status.Terminal()
	})
	return err
}

// notInspected is the answer for an executor that is no [TaskInspector].
const notInspected Knowledge = -1

// inspect asks the executor about the task.
func (r *Reconciler) inspect(ctx context.Context, row Task) Inspection {
	executor, err := r.executors.Executor(row.Type)
	if err != nil {
		r.logger.Warn("task cannot be inspected", "taskId", row.ID, "error", err)
		return Inspection{Knowledge: InspectionUnknown}
	}
	inspector, ok := executor.(TaskInspector)
	if !ok {
		return Inspection{Knowledge: notInspected}
	}
	ctx, cancel := context.WithTimeout(ctx, r.submission.Timeout)
	defer cancel()
	ctx, done := begin(ctx, r.observer, row.operation(OperationInspect))
	inspection, err := inspector.InspectTask(ctx, row)
	done(err)
	if err != nil {
		r.logger.Warn("runtime cannot say what became of the task", "taskId", row.ID, "error", err)
		return Inspection{Knowledge: InspectionUnknown}
	}
	if inspection.Knowledge == InspectionFinished {
		if _, err := inspection.Outcome.payload(r.limits.TerminalPayload); err != nil {
			// An end without an outcome that can be recorded: the task ends all the same.
			r.logger.Error("executor gives an outcome that cannot be recorded", "taskId", row.ID, "error", err)
			return Inspection{Knowledge: InspectionGone}
		}
	}
	return inspection
}
