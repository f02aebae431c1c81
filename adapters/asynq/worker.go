package asynqadapter

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// HandlerFunc does the work of a task. Its context ends when a client cancels the
// task, when another attempt replaces this one, and for asynq's reasons: the
// time-out, the deadline, a shutdown. context.Cause tells them apart:
// *taskbridge.CancelledError, taskbridge.ErrStaleAttempt and the like, or
// asynq's own.
//
// The result is marshalled to JSON; a json.RawMessage is taken as it is. What an
// error says is told to the client; it decides about the end as the package's
// comment says. The run is closed when the function returns.
type HandlerFunc func(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (result any, err error)

// WorkerOptions configures [NewWorker]. Lifecycle is required.
type WorkerOptions struct {
	// Lifecycle is where attempts are recorded: that of the server, in this
	// process or over the network.
	Lifecycle taskbridge.TaskLifecycle
	// Patience is for how long the start and the end of an attempt are tried
	// again while they cannot be recorded; default 5 min. After it asynq is told
	// of an error.
	Patience time.Duration
	Clock    taskbridge.Clock
	Logger   *slog.Logger // nil: discarded
}

// Worker makes asynq handlers of work. It is safe for concurrent use.
type Worker struct {
	lifecycle taskbridge.TaskLifecycle
	patience  time.Duration
	clock     taskbridge.Clock
	logger    *slog.Logger
}

// NewWorker makes a worker.
func NewWorker(opts WorkerOptions) (*Worker, error) {
	switch {
	case opts.Lifecycle == nil:
		return nil, errors.New("asynq: WorkerOptions.Lifecycle must not be nil")
	case opts.Patience < 0:
		return nil, errors.New("asynq: WorkerOptions.Patience must not be negative")
	}
	return &Worker{
		lifecycle: opts.Lifecycle,
		patience:  cmp.Or(opts.Patience, 5*time.Minute),
		clock:     clockOrSystem(opts.Clock),
		logger:    loggerOrNone(opts.Logger),
	}, nil
}

// Handle makes a handler for asynq.ServeMux, with the defaults of
// [WorkerOptions]. It panics if an argument is nil, as the mux does.
func Handle(lifecycle taskbridge.TaskLifecycle, work HandlerFunc) asynq.Handler {
	worker, err := NewWorker(WorkerOptions{Lifecycle: lifecycle})
	if err != nil {
		panic(err)
	}
	return worker.Handle(work)
}

// Handle makes a handler for asynq.ServeMux. It panics if work is nil.
func (w *Worker) Handle(work HandlerFunc) asynq.Handler {
	if work == nil {
		panic("asynq: HandlerFunc must not be nil")
	}
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		envelope, err := openEnvelope(task.Payload())
		if errors.Is(err, errNoEnvelope) {
			return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
		}
		if err != nil {
			return err // a newer worker may know it
		}
		return w.process(ctx, task, envelope, func(ctx context.Context, run taskbridge.Run) (json.RawMessage, error) {
			result, err := work(ctx, run.Task(), run)
			if err != nil {
				return nil, err
			}
			return encode(result)
		})
	})
}

// encode makes JSON of a result.
func encode(result any) (json.RawMessage, error) {
	data, err := json.Marshal(result)
	if err != nil {
		return nil, Fail(CodeInvalidResult, "the result is no JSON: "+err.Error(), false)
	}
	return data, nil
}

// Middleware puts handlers that exist already behind TaskBridge: for a task that
// an [Executor] has enqueued, the handler gets the task's input as payload, its
// context carries the run ([RunFromContext]), and what it returns ends the task as
// with [Worker.Handle]. The result is null unless it calls [SetResult]; the
// asynq.ResultWriter of such a task is nil. Any other task goes through as it is.
//
//	mux.Use(worker.Middleware)
func (w *Worker) Middleware(next asynq.Handler) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		envelope, err := openEnvelope(task.Payload())
		if errors.Is(err, errNoEnvelope) {
			return next.ProcessTask(ctx, task)
		}
		if err != nil {
			return err
		}
		return w.process(ctx, task, envelope, func(ctx context.Context, run taskbridge.Run) (json.RawMessage, error) {
			carried := &carried{run: run}
			headers := map[string]string{}
			for name, value := range task.Headers() {
				headers[name] = value
			}
			if envelope.Traceparent != "" {
				headers["traceparent"] = envelope.Traceparent
			}
			inner := asynq.NewTaskWithHeaders(task.Type(), run.Task().Input, headers)
			if err := next.ProcessTask(context.WithValue(ctx, carriedKey{}, carried), inner); err != nil {
				return nil, err
			}
			return encode(carried.result)
		})
	})
}

// carried is what the context of a handler behind the middleware holds.
type carried struct {
	run    taskbridge.Run
	result any
}

type carriedKey struct{}

// RunFromContext returns the run of the task that a handler behind
// [Worker.Middleware] works on; false for a task that did not come from TaskBridge.
func RunFromContext(ctx context.Context) (taskbridge.Run, bool) {
	c, ok := ctx.Value(carriedKey{}).(*carried)
	if !ok {
		return nil, false
	}
	return c.run, true
}

// SetResult says what a task completes with, should the handler behind
// [Worker.Middleware] return nil; the last call counts. It is called by the
// handler's own goroutine, and does nothing for a task that did not come from
// TaskBridge.
func SetResult(ctx context.Context, result any) {
	if c, ok := ctx.Value(carriedKey{}).(*carried); ok {
		c.result = result
	}
}

// process runs one delivery of a task.
func (w *Worker) process(ctx context.Context, task *asynq.Task, envelope Envelope, work func(context.Context, taskbridge.Run) (json.RawMessage, error)) error {
	// Random for each delivery: asynq's own counter stands still when a worker
	// that shuts down gives a task back.
	run, err := w.start(ctx, envelope, taskbridge.Claim{ID: rand.Text(), Token: envelope.Token})
	switch {
	case fenced(err) || errors.Is(err, taskbridge.ErrNotRunnable):
		w.logger.Info("task not run", "taskId", envelope.TaskID, "reason", err)
		return skip(task)
	case err != nil:
		return fmt.Errorf("start task %s: %w", envelope.TaskID, err)
	}
	a := &attempt{worker: w, run: run, task: task, envelope: envelope, asynq: ctx}
	defer a.close()
	return storable(a.do(work))
}

// storable makes asynq able to keep an error. It puts the text into a field that
// must be UTF-8, and where it is not fails to record that the attempt has ended:
// the task would hang until its lease is over. The text is stored with the task,
// and so kept short.
func storable(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); !utf8.ValidString(text) || len(text) > mostText {
		return &storableError{cut(text), err}
	}
	return err
}

// storableError is an error under another text.
type storableError struct {
	text string
	err  error
}

func (e *storableError) Error() string { return e.text }
func (e *storableError) Unwrap() error { return e.err }

// fenced reports whether the error says that another attempt has taken over.
func fenced(err error) bool {
	return errors.Is(err, taskbridge.ErrStaleAttempt) || errors.Is(err, taskbridge.ErrStaleProducer)
}

// skip takes the task off asynq's queue without work, and leaves a mark of that
// for the inspection. An error would have asynq deliver it again.
func skip(task *asynq.Task) error {
	result := task.ResultWriter()
	if result == nil {
		return nil // not delivered by an asynq server: there is nothing to mark
	}
	if _, err := result.Write([]byte(skippedResult)); err != nil {
		return fmt.Errorf("mark the task as skipped: %w", err)
	}
	return nil
}

// start begins the attempt. While the lifecycle is away it tries again: an error
// would use up one of the task's retries for nothing.
func (w *Worker) start(ctx context.Context, envelope Envelope, claim taskbridge.Claim) (taskbridge.Run, error) {
	const first, most = 50 * time.Millisecond, 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	for pause := first; ; pause = min(2*pause, most) {
		run, err := w.lifecycle.Start(ctx, envelope.TaskID, claim)
		if err == nil || definite(err) || ctx.Err() != nil {
			return run, err
		}
		w.logger.Warn("attempt not started, trying again", "taskId", envelope.TaskID, "error", err)
		timer := w.clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// definite reports whether a start's error is an answer, and not a passing fault.
func definite(err error) bool {
	for _, answer := range []error{
		taskbridge.ErrNotRunnable, taskbridge.ErrTaskNotFound, taskbridge.ErrTaskFinished, taskbridge.ErrStaleAttempt,
		taskbridge.ErrStaleProducer, taskbridge.ErrInvalidArgument, taskbridge.ErrForbidden, taskbridge.ErrClosed,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}
