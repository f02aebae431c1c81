package taskbridge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// LifecycleOptions configures a [LocalLifecycle]. Only Stores is required.
type LifecycleOptions struct {
	Stores Stores
	Limits Limits
	// TokenDelay is how long a token may wait for others; default 50 ms.
	TokenDelay time.Duration
	// Backstop is how often a run reads its row without a wake-up, to learn of
	// a cancellation; default 15 s.
	Backstop time.Duration
	Clock    Clock
	Logger   *slog.Logger // nil: discarded
	Observer Observer     // nil: nobody is told
}

// LocalLifecycle records over the stores of this process.
type LocalLifecycle struct {
	journal    *journal
	limits     Limits
	tokenDelay time.Duration
	backstop   time.Duration
	clock      Clock
	logger     *slog.Logger
	observer   Observer
}

var _ TaskLifecycle = (*LocalLifecycle)(nil)

// NewLocalLifecycle makes a lifecycle over the stores.
func NewLocalLifecycle(opts LifecycleOptions) (*LocalLifecycle, error) {
	if opts.Stores.Tasks == nil || opts.Stores.Events == nil {
		return nil, errors.New("taskbridge: LifecycleOptions.Stores needs a TaskRegistry and an EventStore")
	}
	l := &LocalLifecycle{
		limits:     opts.Limits.withDefaults(),
		tokenDelay: cmp.Or(opts.TokenDelay, 50*time.Millisecond),
		backstop:   cmp.Or(opts.Backstop, 15*time.Second),
		clock:      clockOrSystem(opts.Clock),
		logger:     opts.Logger,
		observer:   opts.Observer,
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	l.journal = newJournal(opts.Stores, l.clock, opts.Observer)
	return l, nil
}

// defaultSilence is when a task that began before its submission was recorded
// is inspected first; the [Reconciler] sets later times.
const defaultSilence = time.Minute

const (
	defaultProducer = "worker"
	noticeProducer  = "notice" // of messages without a claim
)

// Start begins or joins an attempt; see [TaskLifecycle].
func (l *LocalLifecycle) Start(ctx context.Context, taskID string, claim Claim) (Run, error) {
	claim, err := claim.checked()
	if err != nil {
		return nil, err
	}
	run := newRun(l)
	// The watch comes before the row is read: no change of it is missed.
	stop, err := l.journal.tasks.WatchTask(ctx, taskID, run.wake)
	if err != nil {
		return nil, err
	}
	row, err := l.claim(ctx, taskID, claim)
	if err != nil {
		stop()
		return nil, err
	}
	run.begin(row, claim, stop)
	if claim.Epoch > 0 {
		return &numberedRun{run}, nil
	}
	return run, nil
}

// checked returns the claim with its producer, if it may be used.
func (c Claim) checked() (Claim, error) {
	if err := validateName("claim", c.ID, maxNameBytes); err != nil {
		return c, err
	}
	switch {
	case c.Epoch < 0 || c.Epoch > MaxReportOrdinal:
		return c, argumentErrorf("epoch", "must be 1 to %d, or absent", int64(MaxReportOrdinal))
	case c.Epoch > 0 && c.Producer == "":
		return c, argumentErrorf("producer", "must be named where there is an epoch")
	}
	if len(c.Replaces) > MaxPastClaims {
		return c, argumentErrorf("replaces", "must be at most %d", MaxPastClaims)
	}
	for _, replaced := range c.Replaces {
		if err := validateName("replaces", replaced, maxNameBytes); err != nil {
			return c, err
		}
		if replaced == c.ID {
			return c, argumentErrorf("replaces", "must not name the claim itself")
		}
	}
	c.Producer = cmp.Or(c.Producer, defaultProducer)
	return c, validateProducer(c.Producer)
}

// validateProducer checks the name of a producer of reports.
func validateProducer(name string) error {
	if name == ControlProducer || name == noticeProducer || strings.HasPrefix(name, noticeProducer+"-") {
		return argumentErrorf("producer", "must not be %q", name)
	}
	return validateName("producer", name, maxNameBytes)
}

// past returns the claims that may not start again once the claim has, the latest
// last: it comes after what it replaces, and, if it is new, after the row's own.
func (c Claim) past(row Task) []string {
	past := slices.Clip(row.PastClaims)
	for _, replaced := range c.Replaces {
		if replaced != row.Claim && !slices.Contains(past, replaced) {
			past = append(past, replaced)
		}
	}
	if row.Attempt > 0 && row.Claim != c.ID {
		past = append(past, row.Claim)
	}
	return past[max(0, len(past)-MaxPastClaims):]
}

// openedBy is the producer that a start has opened.
func (c Claim) openedBy(row Task) Producer {
	return Producer{c.Producer, cmp.Or(c.Epoch, row.Starts)}
}

// claim moves the row to the attempt that the claim stands for.
func (l *LocalLifecycle) claim(ctx context.Context, taskID string, claim Claim) (Task, error) {
	ctx, done := begin(ctx, l.observer, Operation{Kind: OperationStart, TaskID: taskID})
	row, err := l.tryClaim(ctx, taskID, claim)
	done(err)
	return row, err
}

func (l *LocalLifecycle) tryClaim(ctx context.Context, taskID string, claim Claim) (Task, error) {
	row, err := l.journal.load(ctx, taskID)
	if err != nil {
		return row, err
	}
	var refusal string
	stale := false
	row, err = l.journal.change(ctx, row, func(row Task) (Task, bool) {
		if refusal = l.refuse(row, claim); refusal != "" {
			return row, false
		}
		if stale = slices.Contains(row.PastClaims, claim.ID); stale {
			return row, false
		}
		now := l.journal.now()
		joins := row.Attempt > 0 && row.Claim == claim.ID
		if !joins && !row.Cancellation.RequestedAt.IsZero() {
			refusal = "a cancellation was requested"
			payload := cancelled(row.Cancellation.Reason, "", l.limits.TerminalPayload)
			return finished(row, StatusCancelled, payload, now), true
		}
		known := len(row.PastClaims)
		if row.PastClaims = claim.past(row); joins && claim.Epoch > 0 {
			return row, len(row.PastClaims) > known
		}
		row.Starts++
		if joins {
			return row, true
		}
		row.Attempt++
		row.Claim = claim.ID
		row.AttemptStartedAt = now
		row = submitted(row, now.Add(defaultSilence))
		if row.Status == StatusAccepted {
			return started(row, now), true
		}
		row.Controls++
		row.AttemptControl = row.Controls
		return row, true
	})
	if err == nil && stale {
		err = ErrStaleAttempt
	}
	if err == nil && refusal != "" {
		err = fmt.Errorf("%w: %s", ErrNotRunnable, refusal)
	}
	return row, err
}

// refuse says why the claim may not run the task, "" if it may.
func (l *LocalLifecycle) refuse(row Task, claim Claim) string {
	switch {
	case row.Status.Terminal():
		return "it has ended " + string(row.Status)
	case row.Submission.Barred:
		return "its submission was not recorded in time"
	case row.Instance != claim.Instance:
		return "it belongs to another instance"
	}
	return ""
}

// Settle ends a task from outside; see [TaskLifecycle].
func (l *LocalLifecycle) Settle(ctx context.Context, taskID string, outcome Outcome) error {
	return settle(ctx, l.journal, l.limits, taskID, outcome)
}

func settle(ctx context.Context, j *journal, limits Limits, taskID string, outcome Outcome) error {
	payload, err := outcome.payload(limits.TerminalPayload)
	if err != nil {
		return err
	}
	row, err := j.load(ctx, taskID)
	if err != nil {
		return err
	}
	if outcome.Status == StatusCompleted {
		row, err = j.change(ctx, row, func(row Task) (Task, bool) {
			if row.Status != StatusAccepted {
				return row, false
			}
			now := j.now()
			return started(submitted(row, now), now), true
		})
		if err != nil {
			return err
		}
	}
	_, err = j.end(ctx, row, outcome.Status, payload)
	return err
}

// payload returns what makes the terminal payload from the row at its end.
func (o Outcome) payload(limit int) (func(Task) []byte, error) {
	switch o.Status {
	case StatusCompleted:
		payload, err := o.Completion.payload(limit)
		return func(Task) []byte { return payload }, err
	case StatusFailed:
		payload := o.Failure.payload(limit)
		return func(Task) []byte { return payload }, nil
	case StatusCancelled:
		return func(row Task) []byte {
			return cancelled(row.Cancellation.Reason, o.Message, limit)
		}, nil
	}
	return nil, argumentErrorf("status", "must be terminal")
}

// suspend moves the row to a suspension, reported by the given attempt.
func (l *LocalLifecycle) suspend(ctx context.Context, row Task, attempt int64, suspension Suspension) (Task, error) {
	payload, err := suspension.payload(l.limits.EventPayload)
	if err != nil {
		return row, err
	}
	// What the row keeps is what was checked: in canonical form, and nobody else's
	// memory.
	suspension = Suspension{}
	if err := json.Unmarshal(payload, &suspension); err != nil {
		return row, fmt.Errorf("decode suspension of task %s: %w", row.ID, err)
	}
	var refusal error
	row, err = l.journal.change(ctx, row, func(row Task) (Task, bool) {
		refusal = attemptOver(row, attempt)
		if refusal != nil {
			return row, false
		}
		if slices.Contains(row.SuspendIDs, suspension.SuspendID) {
			refusal = l.suspendedAs(row, suspension.SuspendID, payload)
			return row, false
		}
		if len(row.SuspendIDs) >= l.limits.Suspensions {
			refusal = fmt.Errorf("%w: the task has suspended %d times", ErrStreamFull, len(row.SuspendIDs))
			return row, false
		}
		s := suspension
		row.Suspension = &s
		row.SuspendIDs = append(slices.Clip(row.SuspendIDs), suspension.SuspendID)
		row.Controls++
		row.SuspendControl = row.Controls
		return row, true
	})
	if err == nil {
		err = refusal
	}
	if err == nil && !row.Due.Stream.IsZero() {
		row, err = l.journal.repair(ctx, row)
	}
	return row, err
}

// suspendedAs says why a suspension, whose id the row has, is not the row's
// latest; nil if it is.
func (l *LocalLifecycle) suspendedAs(row Task, suspendID string, payload []byte) error {
	if row.Suspension == nil || row.Suspension.SuspendID != suspendID {
		return argumentErrorf("suspendId", "was used earlier in the task")
	}
	if same, err := row.Suspension.payload(l.limits.EventPayload); err != nil || !bytes.Equal(same, payload) {
		return argumentErrorf("suspendId", "was used with another content")
	}
	return nil
}

// end ends the task by the given attempt. The same end recorded earlier is
// success.
func (l *LocalLifecycle) end(ctx context.Context, row Task, attempt int64, status TaskStatus, payload func(Task) []byte) (Task, error) {
	var refusal error
	row, err := l.journal.change(ctx, row, func(row Task) (Task, bool) {
		refusal = attemptOver(row, attempt)
		if refusal == nil {
			return finished(row, status, payload(row), l.journal.now()), true
		}
		if row.Attempt == attempt && row.Status == status && bytes.Equal(row.Terminal, payload(row)) {
			refusal = nil // this very end, recorded earlier
		}
		return row, false
	})
	if err == nil && refusal == nil && !row.Due.Stream.IsZero() {
		row, err = l.journal.repair(ctx, row)
	}
	if err == nil {
		err = refusal
	}
	return row, err
}

// report makes the append of one report of an attempt.
func (l *LocalLifecycle) report(taskID string, attempt int64, producer Producer, ordinal int64, t EventType, payload json.RawMessage) EventAppend {
	now := l.journal.now()
	return EventAppend{
		TaskID: taskID, Type: t, CreatedAt: now, Attempt: attempt, Payload: payload,
		Tag:      EventTag(t, now, attempt, payload),
		Producer: producer, Ordinal: ordinal,
		MaxSequence: l.limits.StreamEvents,
	}
}

// append appends one report to the stream of the task.
func (l *LocalLifecycle) append(ctx context.Context, task Task, event EventAppend) (AppendResult, error) {
	operation := task.operation(OperationAppend)
	operation.Event = event.Type
	ctx, done := begin(ctx, l.observer, operation)
	result, err := l.journal.events.AppendEvent(ctx, event)
	done(err)
	return result, err
}

// attemptOver says why an attempt can report nothing more, nil if it can.
func attemptOver(row Task, attempt int64) error {
	switch {
	case row.Attempt != attempt:
		return ErrStaleAttempt
	case row.Status.Terminal():
		return ErrTaskFinished
	}
	return nil
}
