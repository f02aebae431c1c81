package taskbridge

import (
	"fmt"
	"log/slog"
	"time"
)

// Stores is where tasks and events are kept. The two may be one value; if that
// is an [AtomicStore], a row and its event are written in one step.
type Stores struct {
	Tasks  TaskRegistry
	Events EventStore
}

// Options configures [New]. Only Stores and Executors are required.
type Options struct {
	Stores    Stores
	Executors *ExecutorRouter
	// Ownership decides who may do what; nil means [OwnerOnly].
	Ownership OwnershipPolicy
	// Leaser lets several servers share one store; nil: this is the only one.
	Leaser Leaser
	Limits Limits
	// Submission, Subscription and Reconciliation tune the services of that name.
	Submission     SubmissionOptions
	Subscription   SubscriptionOptions
	Reconciliation ReconciliationOptions
	// Retention says for how long tasks are kept after their end.
	Retention RetentionOptions
	Clock     Clock
	Logger    *slog.Logger // nil: discarded
	Observer  Observer     // nil: nobody is told
}

// Bridge holds the services over one pair of stores. Its fields are set by
// [New] and are not to be changed.
type Bridge struct {
	Creation     *TaskCreationService
	Cancellation *TaskCancellationService
	Query        *TaskQueryService
	Polling      *TaskPollingService
	Subscription *TaskSubscriptionService
	Reconciler   *Reconciler
}

// SubmissionOptions says how long the hand-over of a task may take. Zero fields
// mean the defaults.
type SubmissionOptions struct {
	// Timeout bounds one call of SubmitTask; default 10 s.
	Timeout time.Duration
	// Lease is how long after the begin of a submission nobody else submits;
	// more than Timeout; default 30 s.
	Lease time.Duration
	// Deadline is how long after creation a submission that is not recorded is
	// barred; default 15 min. It must be shorter than the time for which the
	// runtime remembers task ids.
	Deadline time.Duration
	// UnknownLimit is how long after the deadline a runtime that stays silent is
	// waited for; default 15 min.
	UnknownLimit time.Duration
	// RetryMin and RetryMax bound the back-off between tries; defaults 1 s and 1 min.
	RetryMin, RetryMax time.Duration
	// CancelTimeout bounds one call of RequestCancellation that a client waits
	// for; default 2 s.
	CancelTimeout time.Duration
	// Silence is how long nothing may be heard of a submitted task before its
	// executor is asked about it; default 1 min.
	Silence time.Duration
	// MissingExecutorLimit is how long a task that was handed over is waited for
	// while its type has no executor, and nothing is heard of its work: then it ends
	// FAILED, EXECUTOR_LOST. Default 24 h; negative: for ever. One whose cancellation
	// was asked for ends CANCELLED after UnknownLimit.
	MissingExecutorLimit time.Duration
}

func (o SubmissionOptions) withDefaults() (SubmissionOptions, error) {
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"Timeout", &o.Timeout, 10 * time.Second},
		{"Lease", &o.Lease, 30 * time.Second},
		{"Deadline", &o.Deadline, 15 * time.Minute},
		{"UnknownLimit", &o.UnknownLimit, 15 * time.Minute},
		{"RetryMin", &o.RetryMin, time.Second},
		{"RetryMax", &o.RetryMax, time.Minute},
		{"CancelTimeout", &o.CancelTimeout, 2 * time.Second},
		{"Silence", &o.Silence, time.Minute},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("submission option: %w", argumentErrorf(d.name, "must not be negative"))
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if o.MissingExecutorLimit == 0 {
		o.MissingExecutorLimit = 24 * time.Hour
	}
	if o.Lease <= o.Timeout {
		return o, fmt.Errorf("submission option: %w", argumentErrorf("Lease", "(%s) must be longer than Timeout (%s)", o.Lease, o.Timeout))
	}
	return o, nil
}

// New makes all services over one pair of stores. The host runs
// Reconciler.Run beside its transport and closes Subscription at the end.
func New(opts Options) (*Bridge, error) {
	base, err := newBase(opts)
	if err != nil {
		return nil, err
	}
	subscription, err := newSubscriptionService(base, opts.Subscription)
	if err != nil {
		return nil, err
	}
	reconciler, err := newReconciler(base, opts.Leaser, opts.Reconciliation, opts.Retention)
	if err != nil {
		return nil, err
	}
	return &Bridge{
		Creation:     &TaskCreationService{base},
		Cancellation: &TaskCancellationService{base},
		Query:        &TaskQueryService{base},
		Polling:      &TaskPollingService{base},
		Subscription: subscription,
		Reconciler:   reconciler,
	}, nil
}
