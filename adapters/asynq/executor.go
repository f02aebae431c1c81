package asynqadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Executor enqueues tasks with asynq. It is safe for concurrent use, and several
// servers may use the same queues. The host closes it.
type Executor struct {
	redis     redis.UniversalClient
	client    *asynq.Client
	lifecycle taskbridge.TaskLifecycle
	types     map[string]TypeOptions
	url       string
	tokens    taskbridge.SubmissionTokens
	clock     taskbridge.Clock
	logger    *slog.Logger
}

var (
	_ taskbridge.TaskExecutor  = (*Executor)(nil)
	_ taskbridge.TaskInspector = (*Executor)(nil)
	_ taskbridge.HealthChecker = (*Executor)(nil)
)

// New makes an executor. It does not wait for Redis: see [Executor.CheckHealth].
func New(opts Options) (*Executor, error) {
	types, err := opts.checkedTypes()
	if err != nil {
		return nil, fmt.Errorf("asynq: %w", err)
	}
	client, err := newClient(opts.Redis)
	if err != nil {
		return nil, fmt.Errorf("asynq: %w", err)
	}
	return &Executor{
		redis:     client,
		client:    asynq.NewClientFromRedisClient(client),
		lifecycle: opts.Lifecycle,
		types:     types,
		url:       opts.WorkerURL,
		tokens:    opts.Tokens,
		clock:     clockOrSystem(opts.Clock),
		logger:    loggerOrNone(opts.Logger),
	}, nil
}

func clockOrSystem(clock taskbridge.Clock) taskbridge.Clock {
	if clock == nil {
		return taskbridge.SystemClock{}
	}
	return clock
}

func loggerOrNone(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return logger
}

// Close closes the connections to Redis. Tasks stay where they are.
func (e *Executor) Close() error {
	if err := e.redis.Close(); err != nil {
		return fmt.Errorf("asynq: close: %w", err)
	}
	return nil
}

// CheckHealth asks Redis for a sign of life. That workers listen it does not say.
func (e *Executor) CheckHealth(ctx context.Context) error {
	if err := e.redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("asynq: Redis does not answer: %w", err)
	}
	return nil
}

// SubmitTask enqueues the task under its own id. One that is in its queue already,
// in whatever state, is left as it is. A type without options is rejected.
func (e *Executor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	options, ok := e.types[task.Type]
	if !ok {
		return taskbridge.Reject("UNKNOWN_TASK_TYPE", fmt.Sprintf("no queue is configured for the task type %q", task.Type), false)
	}
	payload, deadline, err := e.seal(task, options)
	if err != nil {
		return fmt.Errorf("asynq: submit: %w", err)
	}
	how := []asynq.Option{
		asynq.TaskID(task.ID),
		asynq.Queue(options.Queue),
		asynq.MaxRetry(options.MaxRetry),
		asynq.Timeout(options.Timeout),
		asynq.Retention(options.Retention),
	}
	if !deadline.IsZero() {
		how = append(how, asynq.Deadline(deadline))
	}
	_, err = e.client.EnqueueContext(ctx, asynq.NewTask(task.Type, payload), how...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("asynq: submit: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

// seal makes the payload, and the time by which asynq gives the task up.
func (e *Executor) seal(task taskbridge.Task, options TypeOptions) (payload []byte, deadline time.Time, err error) {
	envelope := Envelope{
		Version: envelopeVersion, TaskID: task.ID, TaskType: task.Type, Owner: task.Owner,
		Input: task.Input, Metadata: task.Metadata, Traceparent: task.Traceparent, URL: e.url,
	}
	if options.Deadline > 0 {
		deadline = task.CreatedAt.Add(options.Deadline)
		envelope.Deadline = &deadline
	}
	if e.tokens != nil {
		if envelope.Token, err = e.tokens.SubmissionToken(task.ID); err != nil {
			return nil, deadline, fmt.Errorf("make the submission token: %w", err)
		}
	}
	if payload, err = json.Marshal(envelope); err != nil {
		return nil, deadline, fmt.Errorf("encode the payload: %w", err)
	}
	return payload, deadline, nil
}

// find looks for a task in the queue of its type and then, for the options may
// have changed since it was enqueued, in all others; nil if it is nowhere.
func (e *Executor) find(ctx context.Context, task taskbridge.Task) (*asynq.TaskInfo, error) {
	inspector := inspectorFor(ctx, e.redis)
	first := e.types[task.Type].Queue
	if first != "" {
		if info, err := inQueue(inspector, first, task.ID); info != nil || err != nil {
			return info, err
		}
	}
	queues, err := inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	for _, queue := range queues {
		if queue == first {
			continue
		}
		if info, err := inQueue(inspector, queue, task.ID); info != nil || err != nil {
			return info, err
		}
	}
	return nil, nil
}

// inQueue returns nil for a task that the queue does not have.
func inQueue(inspector *asynq.Inspector, queue, taskID string) (*asynq.TaskInfo, error) {
	info, err := inspector.GetTaskInfo(queue, taskID)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into queue %q: %w", queue, err)
	}
	return info, nil
}

// RequestCancellation takes a task that waits, for its turn or for its next
// attempt, out of its queue and settles it as cancelled. Running work learns of
// the cancellation by its Run, and so does an attempt that begins.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := e.find(ctx, task)
	if err != nil {
		return fmt.Errorf("asynq: cancel: %w", err)
	}
	if info == nil || !waits(info.State) {
		return nil
	}
	// Should it have ended in this moment, its memory is deleted: that is no harm,
	// as its row has an end, or gets one below.
	err = inspectorFor(ctx, e.redis).DeleteTask(info.Queue, task.ID)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil // somebody else was quicker, and settles it
	case err != nil:
		// asynq does not tell by the error that a worker has it now, so look.
		info, again := e.find(ctx, task)
		if again == nil && (info == nil || !waits(info.State)) {
			return nil
		}
		return fmt.Errorf("asynq: cancel: take the task out of its queue: %w", errors.Join(err, again))
	}
	message := "it was taken out of its queue before it ran"
	if info.State == asynq.TaskStateRetry {
		message = "it was taken out of its queue between two attempts"
	}
	err = e.lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
	if err == nil || errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	// The task is out: the next inspection finds it gone, and ends it CANCELLED.
	return fmt.Errorf("asynq: cancel: record the end: %w", err)
}

// waits reports whether asynq has yet to begin an attempt.
func waits(state asynq.TaskState) bool {
	switch state {
	case asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateRetry, asynq.TaskStateAggregating:
		return true
	}
	return false
}
