package taskbridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// localRun is one attempt over the stores of this process. Reports are made one
// at a time, by whoever has the turn; what others look at is under mu.
type localRun struct {
	lifecycle *LocalLifecycle
	producer  Producer
	task      Task // as it was at the start

	life    context.Context // ends with the run
	wakes   chan struct{}   // capacity 1
	cancel  chan struct{}
	workers sync.WaitGroup // the watcher, which lives as long as the run, and delayed recordings

	mu         sync.Mutex
	endLife    context.CancelFunc
	reason     string
	err        error
	flushTimer bool // a delayed recording is under way

	turn chan struct{} // capacity 1: full while somebody reports
	// The rest belongs to whoever has the turn.
	row     Task  // as last seen here; may be behind
	ordinal int64 // the last one used
	// unsure is a report whose append had no known outcome. Made again at once,
	// it goes out under the same ordinal and so is not doubled.
	unsure *EventAppend
	tokens tokenBuffer
}

func newRun(l *LocalLifecycle) *localRun {
	life, endLife := context.WithCancel(context.Background())
	return &localRun{
		lifecycle: l,
		life:      life,
		endLife:   endLife,
		wakes:     make(chan struct{}, 1),
		cancel:    make(chan struct{}),
		turn:      make(chan struct{}, 1),
	}
}

// wake is called by the registry: it does not block.
func (r *localRun) wake() {
	select {
	case r.wakes <- struct{}{}:
	default:
	}
}

func (r *localRun) begin(row Task, claim Claim, stopWatch func()) {
	r.producer = claim.openedBy(row)
	r.task = row
	r.row = row
	r.observe(row)
	r.workers.Go(func() {
		defer stopWatch()
		r.watch()
	})
}

// watch learns of cancellation and of the task's end until the run is over.
func (r *localRun) watch() {
	for {
		timer := r.lifecycle.clock.NewTimer(r.lifecycle.backstop)
		select {
		case <-r.life.Done():
			timer.Stop()
			return
		case <-r.wakes:
			timer.Stop()
		case <-timer.C():
		}
		if row, err := r.lifecycle.journal.tasks.GetTask(r.life, r.task.ID); err == nil {
			r.observe(row)
		} // else the backstop reads again
	}
}

// observe takes notice of a row that was read.
func (r *localRun) observe(row Task) {
	r.mu.Lock()
	if r.reason == "" && !row.Cancellation.RequestedAt.IsZero() {
		r.reason = row.Cancellation.Reason
		close(r.cancel)
	}
	r.mu.Unlock()
	if err := attemptOver(row, r.task.Attempt); err != nil {
		r.over(err)
	}
}

// over ends the run's life, for the first reason given.
func (r *localRun) over(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.endLife()
	}
}

func (r *localRun) takeTurn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *localRun) giveTurn() { <-r.turn }

func (r *localRun) Task() Task                       { return r.task }
func (r *localRun) Attempt() int64                   { return r.task.Attempt }
func (r *localRun) CancelRequested() <-chan struct{} { return r.cancel }
func (r *localRun) Done() <-chan struct{}            { return r.life.Done() }

func (r *localRun) CancelReason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

func (r *localRun) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *localRun) Progress(ctx context.Context, progress Progress) error {
	payload, err := progress.payload()
	if err != nil {
		return err
	}
	return r.report(ctx, EventProgress, payload)
}

func (r *localRun) Message(ctx context.Context, message Message) error {
	payload, err := message.payload()
	if err != nil {
		return err
	}
	return r.report(ctx, EventMessage, payload)
}

// report records one event, after the tokens before it.
func (r *localRun) report(ctx context.Context, t EventType, payload json.RawMessage) error {
	if err := checkSize("payload", payload, r.lifecycle.limits.EventPayload); err != nil {
		return err
	}
	if err := r.takeTurn(ctx); err != nil {
		return err
	}
	defer r.giveTurn()
	if err := r.ready(ctx); err != nil {
		return err
	}
	if u := r.unsure; u != nil && u.Type == t && bytes.Equal(u.Payload, payload) {
		return r.append(ctx, *u)
	}
	return r.append(ctx, r.nextEvent(t, payload))
}

// ready makes the stream complete up to the next report.
func (r *localRun) ready(ctx context.Context) error {
	if err := r.Err(); err != nil {
		return err
	}
	if !r.row.Due.Stream.IsZero() {
		row, err := r.lifecycle.journal.load(ctx, r.task.ID)
		if err != nil {
			return err
		}
		r.row = row
	}
	return r.flush(ctx, true)
}

// nextEvent makes an event under the next ordinal. An unsure one before it is
// given up: arriving late it would be out of order, and the store drops it.
func (r *localRun) nextEvent(t EventType, payload json.RawMessage) EventAppend {
	r.unsure = nil
	r.ordinal++
	return r.lifecycle.report(r.task.ID, r.task.Attempt, r.producer, r.ordinal, t, payload)
}

func (r *localRun) append(ctx context.Context, event EventAppend) error {
	_, err := r.lifecycle.append(ctx, r.task, event)
	r.unsure = nil
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrStaleAttempt), errors.Is(err, ErrStaleProducer), errors.Is(err, ErrTaskFinished):
		r.over(err)
	case !outcomeKnown(err):
		r.unsure = &event
	}
	return err
}

// outcomeKnown reports whether the error says that nothing was changed.
func outcomeKnown(err error) bool {
	for _, known := range []error{
		ErrTaskNotFound, ErrRevisionConflict, ErrIllegalTransition, ErrTaskFinished, ErrNotRunnable,
		ErrStaleAttempt, ErrStaleProducer, ErrOrdinalReused, ErrStreamFull, ErrPayloadTooLarge, ErrInvalidArgument, ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func (r *localRun) Suspend(ctx context.Context, suspension Suspension) error {
	if err := r.takeTurn(ctx); err != nil {
		return err
	}
	defer r.giveTurn()
	// Control events have room in a full stream; the tokens before are lost then.
	if err := r.ready(ctx); err != nil && !errors.Is(err, ErrStreamFull) {
		return err
	}
	row, err := r.lifecycle.suspend(ctx, r.row, r.task.Attempt, suspension)
	r.row = row
	if errors.Is(err, ErrStaleAttempt) || errors.Is(err, ErrTaskFinished) {
		r.over(err)
	}
	return err
}

func (r *localRun) Complete(ctx context.Context, completion Completion) error {
	return r.end(ctx, Outcome{Status: StatusCompleted, Completion: completion})
}

func (r *localRun) Fail(ctx context.Context, failure Failure) error {
	return r.end(ctx, Outcome{Status: StatusFailed, Failure: failure})
}

func (r *localRun) Cancelled(ctx context.Context, message string) error {
	return r.end(ctx, Outcome{Status: StatusCancelled, Message: message})
}

// end records the outcome, repeating itself on faults of the store.
func (r *localRun) end(ctx context.Context, outcome Outcome) error {
	payload, err := outcome.payload(r.lifecycle.limits.TerminalPayload)
	if err != nil {
		return err
	}
	if err := r.takeTurn(ctx); err != nil {
		return err
	}
	defer r.giveTurn()
	if err := r.Err(); err != nil && !errors.Is(err, ErrTaskFinished) {
		return err
	}
	const first, most = 50 * time.Millisecond, 2 * time.Second
	for pause := first; ; pause = min(2*pause, most) {
		err := r.tryEnd(ctx, outcome.Status, payload)
		if err == nil || outcomeKnown(err) {
			if err == nil {
				r.over(ErrTaskFinished)
				r.workers.Wait()
			}
			return err
		}
		r.lifecycle.logger.Warn("end of task not recorded yet", "taskId", r.task.ID, "error", err)
		timer := r.lifecycle.clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
		// What is known of the row may be what made it fail.
		if row, err := r.lifecycle.journal.load(ctx, r.task.ID); err == nil {
			r.row = row
		}
	}
}

func (r *localRun) tryEnd(ctx context.Context, status TaskStatus, payload func(Task) []byte) error {
	if r.Err() == nil {
		// Tokens that the store refuses do not keep the end from being recorded.
		if err := r.flush(ctx, true); err != nil && (!outcomeKnown(err) || r.Err() != nil) {
			return err
		}
	}
	row, err := r.lifecycle.end(ctx, r.row, r.task.Attempt, status, payload)
	r.row = row
	if errors.Is(err, ErrStaleAttempt) || errors.Is(err, ErrTaskFinished) {
		r.over(err)
	}
	return err
}

func (r *localRun) Close() error {
	r.turn <- struct{}{}
	defer r.giveTurn()
	var err error
	if r.Err() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		err = r.flush(ctx, true)
		cancel()
	}
	r.over(ErrClosed)
	r.workers.Wait()
	return err
}

// closeTimeout bounds the recording of tokens when a run is closed.
const closeTimeout = 10 * time.Second
