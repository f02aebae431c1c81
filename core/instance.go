package taskbridge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// InstanceOptions configures [StartInstance].
type InstanceOptions struct {
	// ID is unique to this process; empty: random.
	ID string
	// TTL is the lease's length; default 15 s. It is renewed at a third of it,
	// and tried again more often the nearer its end is.
	TTL   time.Duration
	Clock Clock
}

// Instance is this process's presence: a lease under its id that is renewed
// while it lives. Rows of tasks that run in the process carry the id.
type Instance struct {
	id     string
	leaser Leaser
	ttl    time.Duration
	clock  Clock

	stop    context.CancelFunc
	renewal sync.WaitGroup
	lost    chan struct{}
}

// instanceLease is the name of an instance's lease.
func instanceLease(id string) string { return "instance/" + id }

// StartInstance takes the lease and renews it until Close. ctx bounds the
// taking only.
func StartInstance(ctx context.Context, leaser Leaser, opts InstanceOptions) (*Instance, error) {
	i := &Instance{
		id:     cmp.Or(opts.ID, strings.ToLower(rand.Text())),
		leaser: leaser,
		ttl:    cmp.Or(opts.TTL, 15*time.Second),
		clock:  clockOrSystem(opts.Clock),
		lost:   make(chan struct{}),
	}
	// Counted from before the call: the lease ends no earlier than we think.
	taken := i.clock.Now()
	held, err := leaser.AcquireLease(ctx, instanceLease(i.id), i.id, i.ttl)
	if err != nil {
		return nil, fmt.Errorf("take the lease of instance %s: %w", i.id, err)
	}
	if !held {
		return nil, fmt.Errorf("take the lease of instance %s: another process has it", i.id)
	}
	life, stop := context.WithCancel(context.Background())
	i.stop = stop
	i.renewal.Go(func() { i.renew(life, taken) })
	return i, nil
}

// renew keeps the lease until life ends or the lease is lost.
func (i *Instance) renew(life context.Context, renewed time.Time) {
	// Near the lease's end tries are shorter and closer, so that a loss is known
	// when others may act on it, and not a try later.
	shortest := i.ttl / 30
	for {
		timer := i.clock.NewTimer(min(i.ttl/3, max(shortest, i.left(renewed)/2)))
		select {
		case <-life.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
		before := i.clock.Now()
		ctx, cancel := context.WithTimeout(life, min(i.ttl/3, max(shortest, i.left(renewed))))
		held, err := i.leaser.AcquireLease(ctx, instanceLease(i.id), i.id, i.ttl)
		cancel()
		switch {
		case life.Err() != nil:
			return
		case err == nil && held:
			renewed = before
		case err == nil, i.left(renewed) <= 0:
			close(i.lost)
			return
		}
	}
}

// left is for how long the lease that was renewed then is still held.
func (i *Instance) left(renewed time.Time) time.Duration {
	return i.ttl - i.clock.Now().Sub(renewed)
}

// ID returns the instance's id.
func (i *Instance) ID() string { return i.id }

// Lost is closed when the lease could not be renewed in time: others may take
// this process for dead, so it must stop what it runs.
func (i *Instance) Lost() <-chan struct{} { return i.lost }

// Close gives the lease back. It is called once, after all that the instance
// ran has stopped.
func (i *Instance) Close(ctx context.Context) error {
	i.stop()
	i.renewal.Wait()
	err := i.leaser.ReleaseLease(ctx, instanceLease(i.id), i.id)
	if errors.Is(err, ErrClosed) {
		return nil // a store that is closed grants nothing any more
	}
	return err
}
