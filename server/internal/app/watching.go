package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/openapi"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

// newTelemetry makes metrics, and traces where the environment names a
// collector. ready may be filled until the server answers requests.
func newTelemetry(ctx context.Context, c *config.Config, ready map[string]func(context.Context) error, logger *slog.Logger, parts *teardown) (*telemetry.Telemetry, error) {
	exporter, err := telemetry.NewExporter(ctx, Version, logger)
	if err != nil {
		return nil, err
	}
	types := c.TaskTypes()
	if c.Demo {
		types = append(types, "demo")
	}
	opts := telemetry.Options{TaskTypes: types, Version: Version, Revision: Revision, Ready: ready}
	if exporter != nil {
		parts.add("traces", exporter.Shutdown)
		opts.Tracer = exporter.TracerProvider()
	}
	if c.Store == config.StoreSQLite {
		file := filepath.Join(c.Data, "taskbridge.db")
		opts.StoreFiles = map[string]string{"database": file, "log": file + "-wal"}
	}
	return telemetry.New(opts), nil
}

// Version and Revision are what the server says of itself; the command sets them.
var Version, Revision string

// pages are what the main address answers besides the API.
func pages(c *config.Config, t *telemetry.Telemetry, logger *slog.Logger) map[string]http.Handler {
	p := map[string]http.Handler{"/openapi.yaml": openapi.Handler()}
	if c.OnMain() {
		p["/metrics"] = t.MetricsHandler(logger)
	}
	return p
}

// beginRequest is the transport's way to tell of requests.
func beginRequest(t *telemetry.Telemetry) func(*http.Request) (*http.Request, func(int, bool)) {
	return func(r *http.Request) (*http.Request, func(int, bool)) {
		r, request := t.BeginRequest(r)
		return r, func(status int, streaming bool) {
			if streaming {
				telemetry.SetStreaming(r.Context(), status)
			}
			request.End(status)
		}
	}
}

// authModes are the labels of refusals, by what the request had shown: which of
// several modes is meant by one that shows nothing, nobody can say.
var authModes = map[auth.Presented]telemetry.AuthMode{
	auth.PresentedNothing: telemetry.AuthNone, auth.PresentedAPIKey: telemetry.AuthAPIKey,
	auth.PresentedJWT: telemetry.AuthJWT, auth.PresentedIdentity: telemetry.AuthHeader,
	auth.PresentedUnclear: telemetry.AuthUnclear,
}

// limits are the labels of limits.
var limits = map[ratelimit.Kind]telemetry.Limit{
	ratelimit.KindRequests: telemetry.LimitRate, ratelimit.KindCreates: telemetry.LimitCreations,
	ratelimit.KindConcurrent: telemetry.LimitConcurrency, ratelimit.KindStreams: telemetry.LimitStreams,
	ratelimit.KindTotalStreams: telemetry.LimitTotalStreams,
}

// serveAside serves metrics and profiles on the addresses that they have of
// their own.
func serveAside(ctx context.Context, c *config.Config, t *telemetry.Telemetry, logger *slog.Logger, parts *teardown) error {
	if c.Metrics.Enabled && c.Metrics.Listen != "" {
		mux := http.NewServeMux()
		mux.Handle("/metrics", t.MetricsHandler(logger))
		if err := aside(ctx, "metrics", c.Metrics.Listen, mux, nil, logger, parts); err != nil {
			return err
		}
	}
	if c.PprofListen == "" {
		return nil
	}
	return aside(ctx, "profiles", c.PprofListen, telemetry.Profiles(), c.CheckLoopback, logger, parts)
}

// aside serves the handler until the teardown. check may refuse the address that
// the name has resolved to.
func aside(ctx context.Context, name, address string, handler http.Handler, check func(net.Addr) error, logger *slog.Logger, parts *teardown) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if check != nil {
		if err := check(listener.Addr()); err != nil {
			return fmt.Errorf("%s: %w", name, errors.Join(err, listener.Close()))
		}
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("an address is not served any more", "what", name, "error", err)
		}
	}()
	parts.add(name, func(context.Context) error {
		err := server.Close() // nobody loses anything by it
		<-done
		return err
	})
	logger.Info("serving aside", "what", name, "address", listener.Addr().String())
	return nil
}
