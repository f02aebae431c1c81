package taskbridge

import (
	"context"
	"time"
)

// InstanceOptions configures [StartInstance].
type InstanceOptions struct {
	// ID is unique to this process; empty: random.
	ID string
	// TTL is the lease's length; default 15 s. It is renewed at a third of it.
	TTL   time.Duration
	Clock Clock
}

// Instance is this process's presence: a lease under its id that is renewed
// while it lives. Rows of tasks that run in the process carry the id.
type Instance struct{}

// StartInstance takes the lease and renews it until Close.
func StartInstance(ctx context.Context, leaser Leaser, opts InstanceOptions) (*Instance, error) {
	panic("not yet")
}

// ID returns the instance's id.
func (i *Instance) ID() string { panic("not yet") }

// Lost is closed when the lease could not be renewed in time: others may take
// this process for dead, so it must stop what it runs.
func (i *Instance) Lost() <-chan struct{} { panic("not yet") }

// Close gives the lease back.
func (i *Instance) Close(ctx context.Context) error { panic("not yet") }
