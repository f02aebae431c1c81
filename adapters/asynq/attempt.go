package asynqadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// attempt is one delivery of a task that has been started.
type attempt struct {
	worker   *Worker
	run      taskbridge.Run
	task     *asynq.Task
	envelope Envelope
	// asynq is the context of the delivery. What it ends for is asynq's business
	// already: it has put the task where it belongs and looks at no answer.
	asynq context.Context
}

func (a *attempt) close() {
	if err := a.run.Close(); err != nil {
		a.worker.logger.Warn("last reports of an attempt not recorded", "taskId", a.envelope.TaskID, "error", err)
	}
}

// do calls the work and records what came of it, before asynq records its own: if
// that gets lost, the next delivery finds the task finished.
func (a *attempt) do(work func(context.Context, taskbridge.Run) (json.RawMessage, error)) error {
	ctx, stop := taskbridge.WorkContext(a.asynq, a.run)
	defer stop()
	returned := false
	defer func() {
		// Without recover: the panic goes on to asynq, which has its own ways with it.
		if !returned {
			a.panicked()
		}
	}()
	result, err := work(ctx, a.run)
	returned = true
	if err == nil {
		return a.complete(result)
	}
	return a.failed(err)
}

// recording returns a context for what must be recorded whatever has ended.
func (a *attempt) recording() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(a.asynq), a.worker.patience)
}

func (a *attempt) complete(result json.RawMessage) error {
	ctx, cancel := a.recording()
	defer cancel()
	err := a.run.Complete(ctx, taskbridge.Completion{Result: result})
	if errors.Is(err, taskbridge.ErrInvalidArgument) {
		return a.failed(Fail(CodeInvalidResult, "the result cannot be recorded: "+err.Error(), false))
	}
	return a.recorded(err, nil)
}

// recorded is what asynq is told once the end is recorded, or is not.
func (a *attempt) recorded(err, answer error) error {
	switch {
	case err == nil:
		return answer
	case errors.Is(err, taskbridge.ErrTaskFinished):
		return nil // it ended otherwise: a client cancelled it, the server settled it
	case fenced(err):
		a.worker.logger.Info("attempt was replaced", "taskId", a.envelope.TaskID, "attempt", a.run.Attempt())
		return a.stale()
	}
	a.worker.logger.Error("end of an attempt not recorded", "taskId", a.envelope.TaskID, "attempt", a.run.Attempt(), "error", err)
	return fmt.Errorf("record the end of task %s: %w", a.envelope.TaskID, errors.Join(err, answer))
}

// stale is what asynq is told after another delivery has taken over. asynq has
// given this one up by then and looks at no answer. Where it has not, Redis having
// lost what it wrote, an error would start a third delivery against the second.
func (a *attempt) stale() error {
	if a.asynq.Err() != nil {
		return a.asynq.Err()
	}
	return skip(a.task)
}

// failed decides about an error of the work.
func (a *attempt) failed(err error) error {
	if over := a.run.Err(); over != nil && !errors.Is(over, taskbridge.ErrClosed) {
		return a.recorded(over, err)
	}
	select {
	case <-a.run.CancelRequested():
		ctx, cancel := a.recording()
		defer cancel()
		return a.recorded(a.run.Cancelled(ctx, ""), nil)
	default:
	}
	switch ended := a.asynq.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		if a.envelope.Deadline != nil && !a.worker.clock.Now().Before(a.envelope.Deadline.Truncate(time.Second)) {
			return a.end(taskbridge.Failure{Code: CodeDeadlineExceeded, Message: "the task was not done by its deadline", Retryable: true}, ended)
		}
		return a.endOrRetry(taskbridge.Failure{Code: CodeTimedOut, Message: "the attempt ran longer than its time-out", Retryable: true}, ended)
	case ended != nil:
		// A shutdown, or a lease that could not be renewed: asynq delivers the
		// task again, and the next attempt goes on with its stream.
		a.worker.logger.Info("attempt was interrupted", "taskId", a.envelope.TaskID, "attempt", a.run.Attempt())
		return ended
	}
	_, most := a.retries()
	failure := failureOf(err, most > 0)
	if !mayRetry(err) {
		return a.end(failure, err)
	}
	return a.endOrRetry(failure, err)
}

// panicked records an attempt that ends by a panic, which goes on afterwards.
func (a *attempt) panicked() {
	a.worker.logger.Error("handler panicked", "taskId", a.envelope.TaskID, "attempt", a.run.Attempt(), "stack", string(debug.Stack()))
	if a.run.Err() != nil {
		return
	}
	// What is not recorded is in the log, and the panic leaves no way to tell.
	_ = a.endOrRetry(taskbridge.Failure{Code: CodeHandlerPanic, Message: "the handler panicked"}, nil)
}

// retries says whether asynq has retries left for the task, and how many it had.
func (a *attempt) retries() (left bool, most int) {
	retried, _ := asynq.GetRetryCount(a.asynq)
	most, _ = asynq.GetMaxRetry(a.asynq)
	return retried < most, most
}

// endOrRetry fails the task, unless asynq will try again: then the client gets a
// warning.
func (a *attempt) endOrRetry(failure taskbridge.Failure, answer error) error {
	if left, _ := a.retries(); !left {
		return a.end(failure, answer)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.asynq), min(a.worker.patience, 5*time.Second))
	defer cancel()
	err := a.run.Message(ctx, taskbridge.Message{
		Level: taskbridge.LevelWarning,
		Text:  fmt.Sprintf("attempt %d failed and will be tried again: %s", a.run.Attempt(), cut(failure.Message)),
	})
	if err != nil {
		a.worker.logger.Warn("warning not recorded", "taskId", a.envelope.TaskID, "error", err)
	}
	return answer
}

// mostText is how many bytes of an error's text go into a warning and to asynq.
const mostText = 4 << 10

// cut makes UTF-8 of an error's text, and no more than an event has room for.
func cut(text string) string {
	return cutTo(text, mostText)
}

func cutTo(text string, most int) string {
	if len(text) <= most {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	// What the cut leaves of a character is dropped.
	return strings.ToValidUTF8(strings.TrimRightFunc(text[:most], func(r rune) bool { return r == utf8.RuneError }), "\uFFFD") + "…"
}

// end fails the task.
func (a *attempt) end(failure taskbridge.Failure, answer error) error {
	ctx, cancel := a.recording()
	defer cancel()
	return a.recorded(a.run.Fail(ctx, failure), answer)
}
