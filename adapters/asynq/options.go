package asynqadapter

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [New]. Redis, Lifecycle and Types are required.
type Options struct {
	// Redis is where asynq keeps its queues.
	Redis asynq.RedisConnOpt
	// Lifecycle records the end of what is taken out of its queue.
	Lifecycle taskbridge.TaskLifecycle
	// Types are the task types that are taken, by name; a task of another is
	// rejected. The name is asynq's type name, too.
	Types map[string]TypeOptions

	// WorkerURL is the address at which workers find the server; it is handed to
	// them with each task. Optional.
	WorkerURL string
	// Tokens makes what a worker elsewhere may start the task with; nil: workers
	// have credentials of their own, or a lifecycle that asks for none.
	Tokens taskbridge.SubmissionTokens

	// Submission is what the host gives to taskbridge.Options. asynq must remember
	// a task's id for as long as a submission may be repeated; New checks it.
	Submission taskbridge.SubmissionOptions
	// IdempotencyWindow is how long asynq must remember ids for some other
	// reason; New checks it. Usually none: a repeated request finds the task's row.
	IdempotencyWindow time.Duration

	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// TypeOptions is how tasks of a type are enqueued.
type TypeOptions struct {
	// Queue is asynq's queue; default "default". Priority belongs to the queue:
	// workers weigh theirs with asynq.Config.Queues.
	Queue string
	// Timeout bounds one attempt; at least 1 s, in whole seconds; default 30 min.
	Timeout time.Duration
	// Deadline bounds all attempts, counted from the creation of the task; at
	// least 1 s; 0: none.
	Deadline time.Duration
	// MaxRetry is how often asynq runs a task again that failed; 0 means asynq's
	// own default of 25, [NoRetry] not once.
	MaxRetry int
	// Retention is for how long asynq remembers the id of a task that it has
	// done; default 1 h, or what the options ask for if that is more.
	Retention time.Duration
}

// NoRetry is the [TypeOptions.MaxRetry] of tasks that are attempted once.
const NoRetry = -1

const (
	defaultQueue     = "default"
	defaultTimeout   = 30 * time.Minute
	defaultMaxRetry  = 25
	defaultRetention = time.Hour
)

// remember is for how long asynq must know the id of a task that it has done.
func (o Options) remember() (time.Duration, string) {
	const defaultLimit = 15 * time.Minute // of both, in taskbridge.SubmissionOptions
	deadline := cmp.Or(o.Submission.Deadline, defaultLimit)
	unknown := cmp.Or(o.Submission.UnknownLimit, defaultLimit)
	if o.IdempotencyWindow > deadline+unknown {
		return o.IdempotencyWindow, "the idempotency window"
	}
	return deadline + unknown, fmt.Sprintf("the submission deadline of %s and the limit of %s for an unknown outcome", deadline, unknown)
}

// Check says in a sentence what is wrong with the options, nil if nothing is. It
// does not connect to Redis.
func (o Options) Check() error {
	_, err := o.checkedTypes()
	return err
}

func (o Options) checkedTypes() (map[string]TypeOptions, error) {
	switch {
	case o.Redis == nil:
		return nil, errors.New("Options.Redis must not be nil")
	case o.Lifecycle == nil:
		return nil, errors.New("Options.Lifecycle must not be nil")
	case len(o.Types) == 0:
		return nil, errors.New("Options.Types must name a task type")
	case o.IdempotencyWindow < 0 || o.Submission.Deadline < 0 || o.Submission.UnknownLimit < 0:
		return nil, errors.New("Options.IdempotencyWindow and Options.Submission must not be negative")
	}
	least, why := o.remember()
	types := make(map[string]TypeOptions, len(o.Types))
	for _, name := range slices.Sorted(maps.Keys(o.Types)) {
		if strings.TrimSpace(name) == "" {
			return nil, errors.New("a task type must not be blank")
		}
		checked, err := o.Types[name].checked(least, why)
		if err != nil {
			return nil, fmt.Errorf("task type %q: %w", name, err)
		}
		types[name] = checked
	}
	return types, nil
}

func (t TypeOptions) checked(least time.Duration, why string) (TypeOptions, error) {
	if t.Queue == "" {
		t.Queue = defaultQueue
	}
	t.Timeout = cmp.Or(t.Timeout, defaultTimeout)
	switch t.MaxRetry {
	case 0:
		t.MaxRetry = defaultMaxRetry
	case NoRetry:
		t.MaxRetry = 0
	}
	t.Retention = cmp.Or(t.Retention, max(defaultRetention, least))
	switch {
	case strings.TrimSpace(t.Queue) == "":
		return t, errors.New("Queue must not be blank")
	case t.Timeout < time.Second || t.Timeout%time.Second != 0:
		return t, fmt.Errorf("Timeout is %s, but must be whole seconds, at least one", t.Timeout)
	case t.Deadline != 0 && t.Deadline < time.Second:
		return t, fmt.Errorf("Deadline is %s, but must be at least 1s", t.Deadline)
	case t.MaxRetry < 0:
		return t, fmt.Errorf("MaxRetry is %d, but must not be negative (NoRetry is %d)", t.MaxRetry, NoRetry)
	case t.Retention < least:
		return t, fmt.Errorf("Retention is %s, but must be at least %s, which is %s: "+
			"asynq has to recognise the task's id for as long as it may be submitted again", t.Retention, least, why)
	}
	return t, nil
}
