package taskbridge

import (
	"context"
	"time"
)

// ReconciliationOptions tunes the [Reconciler]. Zero fields mean the defaults.
type ReconciliationOptions struct {
	// Interval is the time between two rounds; default 1 s.
	Interval time.Duration
	// Batch is how many rows of a kind one round looks at; default 200.
	Batch int
	// Concurrency is how many tasks are handled at once; default 8.
	Concurrency int
	// Holder is this server's name in the reconciler's lease; default random.
	Holder string
	// LeaseTTL is the length of the reconciler's lease; default 15 s.
	LeaseTTL time.Duration
}

// Reconciler finishes what crashes and silent runtimes leave undone. Several
// may run over one store; a lease keeps all but one idle, and without it they
// do no harm.
type Reconciler struct{ *base }

func newReconciler(b *base, leaser Leaser, opts ReconciliationOptions) (*Reconciler, error) {
	panic("not yet")
}

// Run reconciles until ctx ends, beginning with a walk over every task that has
// not ended.
func (r *Reconciler) Run(ctx context.Context) error { panic("not yet") }

// RunOnce does one round now, without the lease, and returns once all that was
// due has been looked at.
func (r *Reconciler) RunOnce(ctx context.Context) error { panic("not yet") }

// Recover looks at every task that has not ended, as after a restart.
func (r *Reconciler) Recover(ctx context.Context) error { panic("not yet") }
