package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// recordActivity is the name of the activity that records what a local one could
// not.
const recordActivity = "taskbridge.record"

// taskEvent is something to be recorded for a workflow. Exactly one of the pointers
// is set, or none for a start.
type taskEvent struct {
	TaskID   string `json:"taskId"`
	Claim    string `json:"claim"`
	Producer string `json:"producer"`
	Token    string `json:"token,omitempty"`
	// Epoch is the producer's; 0: there is none, and reports have no ordinals.
	Epoch int64 `json:"epoch,omitempty"`
	// Ordinal is that of progress or a message; Since is an event behind which it
	// comes, 0 where none is known. Search: what is like it behind that is it.
	Search     bool                   `json:"search,omitempty"`
	Ordinal    int64                  `json:"ordinal,omitempty"`
	Since      int64                  `json:"since,omitempty"`
	Progress   *taskbridge.Progress   `json:"progress,omitempty"`
	Message    *taskbridge.Message    `json:"message,omitempty"`
	Suspension *taskbridge.Suspension `json:"suspension,omitempty"`
	Outcome    *taskbridge.Outcome    `json:"outcome,omitempty"`
}

// verdict is what the history keeps of a recording. The zero value: recorded.
type verdict struct {
	// Refused says why it was not recorded and never will be.
	Refused string `json:"refused,omitempty"`
	// Over: the task has ended, or was never to run.
	Over bool `json:"over,omitempty"`
	// Numbered is in the answer to a start: the run numbers its reports. Histories
	// of versions that did not have none.
	Numbered bool `json:"numbered,omitempty"`
	// Epoch is the one to go on under, where it is another one than the report's. In
	// the answer to a start it is the run's; histories of versions that did not allow
	// for clocks that go back have none.
	Epoch int64 `json:"epoch,omitempty"`
	// Sequence is the report's place in the stream, 0 where it is not known.
	Sequence int64 `json:"sequence,omitempty"`
}

// recorder records over the lifecycle. Each recording joins the attempt anew, so
// that nothing is held for workflows that sleep.
type recorder struct {
	lifecycle taskbridge.TaskLifecycle
	clock     taskbridge.Clock
}

// RecordLater is the activity with a name; see [recorder.RecordTaskEvent].
func (r *recorder) RecordLater(ctx context.Context, event taskEvent) (verdict, error) {
	return r.RecordTaskEvent(ctx, event)
}

// RecordTaskEvent is the local activity. Histories have its name, which is that of
// the method since it is registered nowhere: a replayer cannot register it. An error
// means: try again.
func (r *recorder) RecordTaskEvent(ctx context.Context, event taskEvent) (verdict, error) {
	if event.Ordinal > 0 && (event.Progress != nil || event.Message != nil) {
		return r.number(ctx, event)
	}
	run, err := r.join(ctx, event)
	if err != nil {
		return judged(err)
	}
	err = report(ctx, run, event)
	if closing := run.Close(); err == nil && event.Outcome == nil {
		err = closing
	}
	answer, err := judged(err)
	if _, answer.Numbered = run.(taskbridge.NumberedRun); answer.Numbered && event.Outcome == nil && event.Suspension == nil {
		answer.Epoch = event.Epoch
	}
	return answer, err
}

// join starts a run for one recording.
func (r *recorder) join(ctx context.Context, event taskEvent) (taskbridge.Run, error) {
	return r.start(ctx, event.TaskID, taskbridge.Claim{ID: event.Claim, Producer: event.Producer, Token: event.Token, Epoch: event.Epoch})
}

// start starts a run with all that the claim has, or without what the server does not
// know of. Where that is epochs, what is reported over the run may come twice.
func (r *recorder) start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	for {
		run, err := r.lifecycle.Start(ctx, taskID, claim)
		var refused *remote.Error
		switch {
		case !errors.As(err, &refused) || refused.Status != http.StatusBadRequest:
			return run, err
		case len(claim.Replaces) > 0:
			claim.Replaces = nil
		case claim.Epoch > 0:
			claim.Epoch = 0
		default:
			return run, err
		}
	}
}

func report(ctx context.Context, run taskbridge.Run, event taskEvent) error {
	var err error
	switch {
	case event.Progress != nil:
		err = run.Progress(ctx, *event.Progress)
	case event.Message != nil:
		err = run.Message(ctx, *event.Message)
	case event.Suspension != nil:
		return run.Suspend(ctx, *event.Suspension)
	case event.Outcome != nil:
		return end(ctx, run, *event.Outcome)
	}
	if err != nil {
		return err
	}
	return flush(ctx, run)
}

// flush waits until what a remote run has buffered is recorded.
func flush(ctx context.Context, run taskbridge.Run) error {
	if buffered, ok := run.(interface{ Flush(context.Context) error }); ok {
		return buffered.Flush(ctx)
	}
	return nil
}

func end(ctx context.Context, run taskbridge.Run, outcome taskbridge.Outcome) error {
	switch outcome.Status {
	case taskbridge.StatusCompleted:
		err := run.Complete(ctx, outcome.Completion)
		if errors.Is(err, taskbridge.ErrInvalidArgument) {
			return run.Complete(ctx, taskbridge.Completion{Message: "the result cannot be recorded: " + err.Error()})
		}
		return err
	case taskbridge.StatusFailed:
		return run.Fail(ctx, outcome.Failure)
	case taskbridge.StatusCancelled:
		return run.Cancelled(ctx, outcome.Message)
	}
	return fmt.Errorf("%w: %s is no end", taskbridge.ErrInvalidArgument, outcome.Status)
}

// judged tells answers, which the history keeps, from passing faults.
func judged(err error) (verdict, error) {
	switch {
	case err == nil:
		return verdict{}, nil
	case errors.Is(err, taskbridge.ErrNotRunnable), errors.Is(err, taskbridge.ErrTaskFinished), errors.Is(err, taskbridge.ErrTaskNotFound),
		errors.Is(err, taskbridge.ErrStaleAttempt):
		return verdict{Refused: err.Error(), Over: true}, nil
	case errors.Is(err, taskbridge.ErrStreamFull), errors.Is(err, taskbridge.ErrPayloadTooLarge), errors.Is(err, taskbridge.ErrInvalidArgument):
		return verdict{Refused: err.Error()}, nil
	}
	return verdict{}, err
}

// Times of one recording. A local activity stays well under a workflow task's
// time-out; what takes longer becomes an activity of its own.
const (
	localTry    = 2 * time.Second
	localMost   = 5 * time.Second
	activityTry = 30 * time.Second
)
