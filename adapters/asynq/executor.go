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
