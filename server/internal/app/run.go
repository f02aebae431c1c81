// Package app puts the server together from its configuration, runs it, and
// takes it down in good order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

// ErrInstanceLost: the store did not renew this process's lease in time. Others
// may have settled its tasks, so it has stopped them and ended.
var ErrInstanceLost = errors.New("the instance's lease is lost")

// recoverTimeout bounds how long the recovery at the start keeps the server
// from answering; the reconciler goes on with the rest.
const recoverTimeout = 10 * time.Second

// Run runs a server until ctx ends, which is a wish for a shutdown in good
// order, or until it cannot go on. The error is nil if everything that was
// running has ended within the drain timeout.
func Run(ctx context.Context, c *config.Config, logger *slog.Logger) error {
	return run(ctx, c, logger, openStore)
}

// run takes what tests replace: the store, and options of the transport that are
// no settings.
func run(ctx context.Context, c *config.Config, logger *slog.Logger, open opener, adjust ...func(*httpapi.Options)) (err error) {
	var parts teardown
	defer func() {
		drain, cancel := context.WithTimeout(context.Background(), c.DrainTimeout)
		defer cancel()
		err = errors.Join(err, parts.run(drain))
	}()

	var tls *certificate
	if c.TLS.CertFile != "" {
		if tls, err = openCertificate(c.TLS.CertFile, c.TLS.KeyFile, logger); err != nil {
			return err
		}
	}
	// Bound first: whoever finds the address taken touches nothing else.
	listener, err := listen(ctx, c)
	if err != nil {
		return err
	}
	parts.add("listener", func(context.Context) error {
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	s, err := start(ctx, c, listener.Addr(), logger, open, adjust, &parts)
	if err != nil {
		if ctx.Err() != nil {
			logger.Info("stopped while starting", "error", err)
			return nil
		}
		return err
	}
	failed := serve(s.api, listener, tls, c, logger, &parts)
	if err := announce(c, listener, logger, s.router); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		logger.Info("shutting down", "within", c.DrainTimeout)
		return nil
	case <-s.instance.Lost():
		logger.Error("the lease of this instance could not be renewed: stopping its tasks, which others may have taken for lost")
		return ErrInstanceLost
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	}
}

// server is what runs between start and shutdown.
type server struct {
	instance *taskbridge.Instance
	router   *taskbridge.ExecutorRouter
	api      *httpapi.API
}

// start makes the parts, from the store up, and finishes what an earlier
// process has left. Parts are torn down in the opposite order.
func start(ctx context.Context, c *config.Config, bound net.Addr, logger *slog.Logger, open opener, adjust []func(*httpapi.Options), parts *teardown) (*server, error) {
	store, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	parts.add("store", func(context.Context) error { return store.Close() })
	instance, err := taskbridge.StartInstance(ctx, store, taskbridge.InstanceOptions{TTL: c.InstanceLease})
	if err != nil {
		return nil, err
	}
	parts.add("instance", instance.Close)
	logger.Debug("instance started", "instance", instance.ID())

	ready := map[string]func(context.Context) error{"store": func(context.Context) error { return nil }}
	watch, err := newTelemetry(ctx, c, ready, logger, parts)
	if err != nil {
		return nil, err
	}
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Limits: c.Limits, Logger: logger, Observer: watch})
	if err != nil {
		return nil, err
	}
	signer, err := newSigner(c)
	if err != nil {
		return nil, err
	}
	worker, err := newWorkerServer(c, bound, signer)
	if err != nil {
		return nil, err
	}
	executors, err := newExecutors(c, lifecycle, store, instance.ID(), worker, logger)
	if err != nil {
		return nil, err
	}
	parts.add("executors", executors.Close)
	router, err := taskbridge.NewExecutorRouter(executors.byType)
	if err != nil {
		return nil, err
	}
	bridge, err := taskbridge.New(taskbridge.Options{
		Stores:         stores,
		Executors:      router,
		Ownership:      taskbridge.ScopedOwners{},
		Leaser:         store,
		Limits:         c.Limits,
		Submission:     c.Submission,
		Reconciliation: taskbridge.ReconciliationOptions{Interval: c.ReconcileInterval, Holder: instance.ID(), LeaseTTL: c.InstanceLease},
		Retention:      taskbridge.RetentionOptions{Keep: c.Retention, ByType: c.RetentionByType},
		Logger:         logger,
		Observer:       watch,
	})
	if err != nil {
		return nil, err
	}
	parts.add("subscriptions", func(context.Context) error {
		bridge.Subscription.Close()
		return nil
	})
	if err := reconcile(ctx, bridge.Reconciler, executors, logger, parts); err != nil {
		return nil, err
	}
	authenticator, err := newAuthenticator(c, logger, parts)
	if err != nil {
		return nil, err
	}
	limiter, err := newLimiter(c.RateLimit)
	if err != nil {
		return nil, err
	}
	checks := executors.ready(store)
	runtimes := executors.away()
	runtimes[partTaskTypes] = taskTypes(bridge.Reconciler)
	for _, parts := range []map[string]httpapi.ReadyCheck{checks, runtimes} {
		for name, check := range parts {
			ready[name] = check
		}
	}
	if err := serveAside(ctx, c, watch, logger, parts); err != nil {
		return nil, err
	}
	refused := func(err error) { watch.AuthenticationFailed(authModes[auth.PresentedOf(err)]) }
	opts := httpapi.Options{
		Bridge:        bridge,
		Authenticator: authenticator,
		Limiter:       limiter,
		AccessControl: c.Auth.On(),
		Ready:         checks,
		Runtimes:      runtimes,
		Pages:         pages(c, watch, logger),
		BeginRequest:  beginRequest(watch),
		RouteReached:  telemetry.SetRoute,
		Traceparent:   telemetry.TraceparentOf,
		StreamOpened:  func(transport string) func() { return watch.Open(telemetry.Transport(transport)) },
		Delivered: func(transport string, events, bytes int) {
			watch.Delivered(telemetry.Transport(transport), events, bytes)
		},
		SlowReaderCut:  func(transport string) { watch.SlowReaderCut(telemetry.Transport(transport)) },
		Refused:        refused,
		Worker:         newWorkerAPI(lifecycle, signer, authenticator, refused, watch, c, logger),
		Limited:        func(limit *ratelimit.LimitError) { watch.RateLimited(limits[limit.Kind]) },
		AllowedHosts:   c.HTTP.AllowedHosts,
		AllowedOrigins: c.AllowedOrigins,
		BodyBytes:      int64(c.HTTP.BodyBytes),
		BodyTimeout:    c.HTTP.BodyTimeout,
		RequestTimeout: c.HTTP.RequestTimeout,
		WriteTimeout:   c.HTTP.WriteTimeout,
		Heartbeat:      c.HTTP.Heartbeat,
		Logger:         logger,
	}
	for _, change := range adjust {
		change(&opts)
	}
	api, err := httpapi.New(opts)
	return &server{instance, router, api}, err
}

// reconcile ends what an earlier process left running, settles its tasks, and
// leaves the reconciler at work.
func reconcile(ctx context.Context, reconciler *taskbridge.Reconciler, executors *executors, logger *slog.Logger, parts *teardown) error {
	if err := executors.killSurvivors(ctx); err != nil {
		return err
	}
	recovery, cancel := context.WithTimeout(ctx, recoverTimeout)
	err := reconciler.Recover(telemetry.ByReconciler(recovery))
	cancel()
	if err != nil {
		logger.Warn("recovery is not complete yet and goes on beside the requests", "error", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		reconciler.Run(telemetry.ByReconciler(life))
	}()
	parts.add("reconciler", func(ctx context.Context) error {
		stop()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return nil
}

// teardown takes parts down in the opposite order of their making.
type teardown struct {
	names []string
	steps []func(context.Context) error
}

func (t *teardown) add(name string, step func(context.Context) error) {
	t.names, t.steps = append(t.names, name), append(t.steps, step)
}

// run takes every step, whatever the others come to.
func (t *teardown) run(ctx context.Context) error {
	var failed error
	for i := len(t.steps) - 1; i >= 0; i-- {
		if err := t.steps[i](ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("shut down %s: %w", t.names[i], err))
		}
	}
	return failed
}
