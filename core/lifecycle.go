package taskbridge

import (
	"context"
	"encoding/json"
	"fmt"
)

// TaskLifecycle is the one way in which executors and workers record what
// happens to a task: each call moves the row and appends the event. It is
// local over the stores ([LocalLifecycle]) or remote over a server; the work
// cannot tell.
//
// All methods are safe for concurrent use and, but for Notice, safe to repeat. An error that
// matches no sentinel means that the outcome is unknown.
type TaskLifecycle interface {
	// Start begins, or joins, the attempt that the claim stands for: the same
	// claim gives the same attempt back, a new one becomes the next attempt and
	// fences all before it. The first start appends TASK_STARTED, a later
	// attempt a TASK_MESSAGE of level warning. A claim that was fenced stays so:
	// [ErrStaleAttempt]. Where the claim has an epoch the run is a [NumberedRun],
	// and joining its attempt writes nothing.
	//
	// [ErrNotRunnable]: the task has ended, was cancelled (a new claim on a task
	// with a cancellation intent ends it CANCELLED), is barred, or belongs to
	// another instance; the work must not be run. [ErrTaskNotFound].
	Start(ctx context.Context, taskID string, claim Claim) (Run, error)

	// Notice appends a TASK_MESSAGE without a claim: what an adapter sees before
	// or beside a run. It alone is not recognised when it is repeated: after an
	// unknown outcome the message may be there twice. [ErrTaskFinished], [ErrStreamFull], [ErrTaskNotFound],
	// [ErrInvalidArgument].
	Notice(ctx context.Context, taskID string, message Message) error

	// Settle ends a task whose end was seen from outside and fences every
	// attempt. A task that has ended already is left as it is: [ErrTaskFinished].
	// A completion of a task that never started here appends TASK_STARTED first.
	Settle(ctx context.Context, taskID string, outcome Outcome) error
}

// Run is the reporting side of one attempt. Its methods are safe for concurrent
// use; reports are recorded in the order of the calls. After the attempt is
// fenced they return [ErrStaleAttempt] or [ErrStaleProducer], after the task has
// ended [ErrTaskFinished], after Close [ErrClosed]. Progress, Message and
// Suspend return [*ArgumentError] and [*SizeError] for what may not be
// recorded, and [ErrStreamFull] when the stream is.
//
// Complete, Fail and Cancelled repeat themselves on passing faults of the store
// until their context ends, because the work's outcome exists nowhere else;
// they succeed when the same end is recorded already, and close the run. Among
// holders of one claim the first end counts.
type Run interface {
	// Task is the row as it was when the run was started, with its input.
	Task() Task
	// Attempt is the attempt's number, from 1.
	Attempt() int64

	Progress(ctx context.Context, progress Progress) error
	Message(ctx context.Context, message Message) error
	// Token reports a piece of text. Consecutive pieces are joined into one
	// TASK_MESSAGE: it is recorded when another report follows, when it reaches
	// the payload's limit, or after a short delay, whichever is first. An error
	// of a delayed recording is returned by the next call of Token.
	Token(ctx context.Context, text string) error
	// Suspend records that the work waits for somebody. Repeating it with the
	// same content is safe; another content under the same SuspendID is an
	// [*ArgumentError].
	Suspend(ctx context.Context, suspension Suspension) error

	// Complete ends the task COMPLETED. A result over the limit is recorded as
	// null with resultOmitted beside it.
	Complete(ctx context.Context, completion Completion) error
	// Fail ends the task FAILED. A message over the limit is cut.
	Fail(ctx context.Context, failure Failure) error
	// Cancelled ends the task CANCELLED, with the intent's reason; message may
	// say more or be empty.
	Cancelled(ctx context.Context, message string) error

	// CancelRequested is closed once a cancellation is asked for.
	CancelRequested() <-chan struct{}
	// CancelReason is the client's reason, "" before CancelRequested is closed.
	CancelReason() string
	// Done is closed once the run can report nothing more: it was fenced, the
	// task ended, or the run was closed.
	Done() <-chan struct{}
	// Err says why Done is closed; nil before.
	Err() error

	// Close records pending tokens and releases the run without ending the
	// task, after the report that is under way. It may be called more than once
	// and after the end.
	Close() error
}

// NumberedRun is what Start returns for a claim with an epoch: reports are made by
// Report, under ordinals of the caller's. So whoever repeats a source from its
// beginning, in this process or another, at once or later, repeats its reports,
// and each is recorded once.
//
// Progress, Message and Token, which have no ordinal, return an [*ArgumentError].
// Suspensions and ends are recognised by themselves, as in any run.
type NumberedRun interface {
	Run
	// Report records the reports in their order; a call of none does nothing. They
	// are checked first: if one may not be recorded, nothing is, [*ReportError].
	// After an error that matches no sentinel the call is repeated as it was, here
	// or on another run of the same claim, producer and epoch: what has been
	// recorded is recognised by its ordinal. A remote run does so itself, until ctx
	// ends. Consecutive tokens of a call become one message, so a call with tokens
	// is recognised only if it is cut the same.
	//
	// A report whose ordinal is not above all that the epoch has recorded is taken
	// for a repetition, and nothing of it is recorded. Where that may be wrong, see
	// [Verification]: [ErrOrdinalReused] in a [*ReportError]. The reports before its
	// Index are recorded then, and Reported tells of them.
	//
	// [ErrStaleProducer]: a higher epoch has reported. Whether the reports of this
	// call had been recorded before is not known then.
	Report(ctx context.Context, reports []Report) (Reported, error)
}

// Reported is the answer to a call with reports.
type Reported struct {
	// Refused are those that were not recorded and never will be.
	Refused []RefusedReport
	// Sequence is the highest known sequence number of the events that the call
	// recorded or recognised, 0 where none is: of a repetition that was not
	// verified, that of the epoch's last event alone is known. What is not 0 is good
	// for [Report.Since] of the next call, also where it is lower than the one before.
	Sequence int64
}

// Claim is the identity of one execution of a task.
type Claim struct {
	// ID is opaque, 1 to 255 bytes, and different for each execution: random
	// for a handler's call, a pod's UID, a workflow's first run id.
	ID string
	// Producer names the source of the reports among those that share the
	// claim; empty means "worker". A later start of the same claim and producer
	// fences the earlier one, unless they bring an Epoch.
	Producer string
	// Epoch, above 0, is the producer's epoch in the place of one that the start
	// counts, for a source that may repeat itself: starts of the same claim,
	// producer and epoch do not fence each other, a higher epoch fences the lower
	// ones, and reports have ordinals of the caller's, see [NumberedRun]. At most
	// [MaxReportOrdinal]; the producer must be named, and have no starts without.
	// Epochs say nothing of the order of claims: a new claim takes over under a
	// lower one too, and then its reports are refused where a higher one of the
	// same producer has reported.
	Epoch int64
	// Replaces names executions that this one came after, as far as the caller
	// knows, whether they were seen here or not; at most [MaxPastClaims]. A start of
	// theirs that comes late is [ErrStaleAttempt], and does not take the task from
	// this one.
	Replaces []string
	// Instance is the id of the server instance in whose process the work runs,
	// empty for any other; it must be the row's.
	Instance string
	// Token is the submission token that came with the task, for a lifecycle that
	// is remote; a local one does not look at it.
	Token string
}

// Progress is the payload of TASK_PROGRESS.
type Progress struct {
	// Percent is 0 to 100.
	Percent float64
	// Stage and Message are optional.
	Stage, Message string
}

// MessageLevel is the level of a TASK_MESSAGE.
type MessageLevel string

// The levels; none means info.
const (
	LevelInfo    MessageLevel = "info"
	LevelWarning MessageLevel = "warning"
	LevelDebug   MessageLevel = "debug"
)

// Message is the payload of TASK_MESSAGE.
type Message struct {
	Text  string
	Level MessageLevel
}

// Completion is the payload of TASK_COMPLETED.
type Completion struct {
	// Result is any JSON; nil means null.
	Result json.RawMessage
	// Message is optional.
	Message string
}

// Outcome is an end seen from outside.
type Outcome struct {
	// Status is terminal and selects which of the others counts.
	Status     TaskStatus
	Completion Completion
	Failure    Failure
	// Message goes with CANCELLED; optional.
	Message string
}

// CancelledError is the cause of a work context that ended because a client
// asked for cancellation.
type CancelledError struct {
	// Reason is the client's.
	Reason string
}

func (e *CancelledError) Error() string { return fmt.Sprintf("cancelled: %s", e.Reason) }

// WorkContext returns a context for the work of a run: it ends when a
// cancellation is asked for (cause [*CancelledError]) or when the run can report
// nothing more (cause [Run.Err]). The caller calls stop when the work is over.
func WorkContext(ctx context.Context, run Run) (work context.Context, stop context.CancelFunc) {
	work, cancel := context.WithCancelCause(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-run.CancelRequested():
			cancel(&CancelledError{Reason: run.CancelReason()})
		case <-run.Done():
			cancel(run.Err())
		case <-work.Done():
		}
	}()
	return work, func() {
		cancel(context.Canceled)
		<-finished
	}
}
