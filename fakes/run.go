package fakes

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// CodeInvalidReport is the failure code of a task whose script says something
// that may not be recorded (a message over the limit, say).
const CodeInvalidReport = "INVALID_REPORT"

const (
	startRetryMin = 50 * time.Millisecond
	startRetryMax = 5 * time.Second
)

var errStopped = errors.New("the server was stopped")

// perform runs one task from its start to its recorded end. known is false
// where this run did not bring the end about.
func (e *DeterministicFakeExecutor) perform(t *fakeTask) (outcome taskbridge.Outcome, known bool) {
	run, err := e.begin(t)
	if err != nil {
		e.opts.Logger.Debug("fake task is not run", "taskId", t.id, "reason", err)
		return taskbridge.Outcome{}, false
	}
	defer func() {
		if err := run.Close(); err != nil {
			e.opts.Logger.Warn("closing the run of a fake task", "taskId", t.id, "error", err)
		}
	}()
	outcome, over := e.follow(t, run)
	if over {
		return taskbridge.Outcome{}, false
	}
	err = e.record(run, outcome)
	var refused *taskbridge.SizeError
	if errors.As(err, &refused) || errors.Is(err, taskbridge.ErrInvalidArgument) {
		outcome = failed(CodeInvalidReport, err.Error())
		err = e.record(run, outcome)
	}
	switch {
	case err == nil:
		return outcome, true
	case endsRun(err):
		e.opts.Logger.Debug("fake task was ended by somebody else", "taskId", t.id, "reason", err)
	default:
		e.opts.Logger.Error("the end of a fake task could not be recorded", "taskId", t.id, "status", outcome.Status, "error", err)
		e.mu.Lock()
		e.unrecorded = append(e.unrecorded, fmt.Errorf("task %s: %w", t.id, err))
		e.mu.Unlock()
	}
	return taskbridge.Outcome{}, false
}

// begin starts the run. A store that is away is waited for: the same claim may
// be started again and again.
func (e *DeterministicFakeExecutor) begin(t *fakeTask) (taskbridge.Run, error) {
	claim := taskbridge.Claim{ID: rand.Text(), Instance: e.opts.InstanceID}
	for delay := startRetryMin; ; delay = min(2*delay, startRetryMax) {
		run, err := e.opts.Lifecycle.Start(e.ending, t.id, claim)
		if err == nil || endsRun(err) ||
			errors.Is(err, taskbridge.ErrNotRunnable) ||
			errors.Is(err, taskbridge.ErrTaskNotFound) ||
			errors.Is(err, taskbridge.ErrInvalidArgument) {
			return run, err
		}
		e.opts.Logger.Warn("fake task could not be started", "taskId", t.id, "error", err)
		timer := e.opts.Clock.NewTimer(delay)
		select {
		case <-timer.C():
		case <-e.reporting.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// follow does what the script says until there is an end to record; over means
// that somebody else has brought it about.
func (e *DeterministicFakeExecutor) follow(t *fakeTask, run taskbridge.Run) (outcome taskbridge.Outcome, over bool) {
	script := t.script
	for tick := 0; ; tick++ {
		if tick > 0 {
			if err := e.wait(t, run, script.TickInterval); err != nil {
				return e.interrupted(err)
			}
			err := run.Progress(e.reporting, taskbridge.Progress{Percent: percent(tick, script.Ticks)})
			if err := e.judge(t, err); err != nil {
				return e.interrupted(err)
			}
		}
		for _, r := range script.Reports {
			if r.AfterTicks != tick {
				continue
			}
			if err := e.interruption(t, run); err != nil {
				return e.interrupted(err)
			}
			if err := e.judge(t, e.say(run, r)); err != nil {
				return e.interrupted(err)
			}
		}
		if err := e.interruption(t, run); err != nil {
			return e.interrupted(err)
		}
		if script.Failure != nil && tick == script.FailAfterTicks {
			return taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: *script.Failure}, false
		}
		if tick == script.Ticks {
			return taskbridge.Outcome{
				Status:     taskbridge.StatusCompleted,
				Completion: taskbridge.Completion{Result: script.Result, Message: script.Message},
			}, false
		}
	}
}

func (e *DeterministicFakeExecutor) say(run taskbridge.Run, r Report) error {
	switch {
	case r.Message != nil:
		return run.Message(e.reporting, *r.Message)
	case r.Suspension != nil:
		return run.Suspend(e.reporting, *r.Suspension)
	default:
		return run.Token(e.reporting, r.Token)
	}
}

// wait lets one tick pass.
func (e *DeterministicFakeExecutor) wait(t *fakeTask, run taskbridge.Run, d time.Duration) error {
	if d > 0 {
		timer := e.opts.Clock.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-t.cancel:
		case <-run.CancelRequested():
		case <-run.Done():
		case <-e.reporting.Done():
		}
	}
	// Asked again even if the timer has fired: where both have happened, select
	// picks either, and the same run would not give the same events.
	return e.interruption(t, run)
}

var errCancelled = errors.New("cancelled")

// interruption says why the run must not go on, nil if it may.
func (e *DeterministicFakeExecutor) interruption(t *fakeTask, run taskbridge.Run) error {
	select {
	case <-run.Done():
		if err := run.Err(); err != nil {
			return err
		}
		return taskbridge.ErrClosed
	default:
	}
	select {
	case <-t.cancel:
		return errCancelled
	case <-run.CancelRequested():
		return errCancelled
	default:
	}
	if e.reporting.Err() != nil {
		return errStopped
	}
	return nil
}

// judge sorts the error of a report: nil means that the run goes on.
func (e *DeterministicFakeExecutor) judge(t *fakeTask, err error) error {
	switch {
	case err == nil, errors.Is(err, taskbridge.ErrStreamFull):
		return nil
	case endsRun(err), errors.Is(err, taskbridge.ErrInvalidArgument), errors.Is(err, taskbridge.ErrPayloadTooLarge):
		return err
	case e.reporting.Err() != nil:
		return errStopped
	}
	// Not repeated: it may have been recorded, and twice would be worse than
	// not at all.
	e.opts.Logger.Warn("a report of a fake task may be lost", "taskId", t.id, "error", err)
	return nil
}

// interrupted turns the reason for which a run does not go on into its end.
func (e *DeterministicFakeExecutor) interrupted(why error) (outcome taskbridge.Outcome, over bool) {
	switch {
	case errors.Is(why, errCancelled):
		return taskbridge.Outcome{Status: taskbridge.StatusCancelled}, false
	case errors.Is(why, errStopped):
		outcome = failed(taskbridge.CodeExecutorLost, why.Error())
		outcome.Failure.Retryable = true
		return outcome, false
	case errors.Is(why, taskbridge.ErrInvalidArgument), errors.Is(why, taskbridge.ErrPayloadTooLarge):
		return failed(CodeInvalidReport, why.Error()), false
	}
	return taskbridge.Outcome{}, true
}

func (e *DeterministicFakeExecutor) record(run taskbridge.Run, outcome taskbridge.Outcome) error {
	switch outcome.Status {
	case taskbridge.StatusCompleted:
		return run.Complete(e.ending, outcome.Completion)
	case taskbridge.StatusCancelled:
		return run.Cancelled(e.ending, outcome.Message)
	default:
		return run.Fail(e.ending, outcome.Failure)
	}
}

func failed(code, message string) taskbridge.Outcome {
	return taskbridge.Outcome{
		Status:  taskbridge.StatusFailed,
		Failure: taskbridge.Failure{Code: code, Message: message},
	}
}

// endsRun reports whether the error says that this run is over and its end is
// somebody else's.
func endsRun(err error) bool {
	return errors.Is(err, taskbridge.ErrTaskFinished) ||
		errors.Is(err, taskbridge.ErrStaleAttempt) ||
		errors.Is(err, taskbridge.ErrStaleProducer) ||
		errors.Is(err, taskbridge.ErrClosed)
}
