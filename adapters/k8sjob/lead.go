package k8sjob

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// term is one time for which this process acts. All that is remembered of Jobs is
// remembered for a term: the next leader sees the same levels. Two may act at once,
// as when a leader does not yet know that it is none.
type term struct {
	*watcher
	ctx    context.Context
	acting sync.WaitGroup // reconciliations; none begins once the term is over
	aside  sync.WaitGroup // what reads output and watches runs

	mu     sync.Mutex
	tracks map[string]*track // by key
}

// lead has this process act whenever it may, until ctx ends.
func (w *watcher) lead(ctx context.Context) {
	if w.Election == nil {
		w.act(ctx)
		return
	}
	for ctx.Err() == nil {
		w.stand(ctx)
		timer := w.Clock.NewTimer(time.Second) // a lease that was lost is another's for longer
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// stand asks for the lease, acts while it has it, and gives it back when ctx ends.
func (w *watcher) stand(ctx context.Context) {
	// The lease is given back once nothing acts any more: its time is another one's.
	leasing, release := context.WithCancel(w.logging(context.WithoutCancel(ctx)))
	defer release()
	won := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: w.Election.Name,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: w.Election.Namespace, Name: w.Election.Name},
			Client:     w.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: w.Election.Identity},
		},
		LeaseDuration: w.Election.LeaseDuration, RenewDeadline: w.Election.RenewDeadline, RetryPeriod: w.Election.RetryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(holding context.Context) { won <- holding },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil { // Options.Check looks at all that may be wrong
		w.Logger.Error("the election cannot be held", "error", err)
		return
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(leasing)
	}()
	select {
	case holding := <-won:
		w.Logger.Info("this process leads", "lease", w.Election.Name, "identity", w.Election.Identity)
		both, stop := context.WithCancel(holding)
		unlink := context.AfterFunc(ctx, stop)
		w.act(both)
		unlink()
		stop()
		w.Logger.Info("this process does not lead any more", "lease", w.Election.Name, "identity", w.Election.Identity)
	case <-ctx.Done():
	case <-over:
	}
	release()
	<-over
}

// act is one term, until ctx ends.
func (w *watcher) act(ctx context.Context) {
	t := &term{watcher: w, ctx: ctx, tracks: map[string]*track{}}
	w.mu.Lock()
	w.current = t
	w.mu.Unlock()
	for namespace := range w.namespaces {
		w.enqueueAll(namespace)
	}
	<-ctx.Done()
	w.mu.Lock()
	w.current = nil
	w.mu.Unlock()
	t.acting.Wait()
	t.mu.Lock()
	tracks := slices.Collect(maps.Values(t.tracks))
	t.mu.Unlock()
	for _, tr := range tracks {
		t.release(tr)
	}
	t.aside.Wait()
}

// term is the one that acts now, nil: none.
func (w *watcher) term() *term {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

// enter is term for one who acts: the term waits for acting.Done.
func (w *watcher) enter() *term {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != nil {
		w.current.acting.Add(1)
	}
	return w.current
}

// logging has client-go log where we do.
func (w *watcher) logging(ctx context.Context) context.Context {
	return logr.NewContext(ctx, logr.FromSlogHandler(w.Logger.Handler()))
}
