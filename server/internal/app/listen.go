package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
)

// listen binds the address and, without access control, makes sure that it is one
// of loopback: a name may resolve otherwise by now than when the configuration
// was read.
func listen(ctx context.Context, c *config.Config) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	if err := c.CheckBound(listener.Addr()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return newLimitListener(listener, c.HTTP.MaxConnections), nil
}

// serve answers requests until the teardown. A value on the channel means that
// it cannot go on. tls is nil for plain HTTP.
func serve(api *httpapi.API, listener net.Listener, tls *certificate, c *config.Config, logger *slog.Logger, parts *teardown) <-chan error {
	// Requests under way are not cancelled when the shutdown begins: streams and
	// waiters end by the API's own Drain, the others are finished.
	base, cancel := context.WithCancel(context.Background())
	var silent silentConns
	server := &http.Server{
		Handler:           api,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         silent.note,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	serve := server.Serve
	if tls != nil {
		server.TLSConfig = tls.config()
		serve = func(l net.Listener) error { return server.ServeTLS(httpapi.UnderTLS(l), "", "") }
	}
	failed, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	parts.add("HTTP", func(ctx context.Context) error {
		api.Drain()
		// What is left of the time is for the tasks.
		ctx, stop := context.WithTimeout(ctx, c.DrainTimeout/3)
		defer stop()
		hangUp := time.AfterFunc(silentGrace, silent.close)
		err := server.Shutdown(ctx)
		hangUp.Stop()
		cancel()
		if err != nil {
			err = errors.Join(fmt.Errorf("requests were cut: %w", err), server.Close())
		}
		if cut := api.Wait(ctx); cut != nil {
			err = errors.Join(err, fmt.Errorf("streams were not closed in time: %w", cut))
		}
		<-done
		return err
	})
	return failed
}

// silentConns are the connections that nothing has been sent on yet. Clients and
// browsers open some in advance, and a shutdown of package http gives each five
// seconds.
type silentConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// silentGrace is what they get here: a request that was sent before the shutdown
// has arrived by then.
const silentGrace = 250 * time.Millisecond

// note is the server's ConnState hook.
func (s *silentConns) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.conns, conn)
		return
	}
	if s.closed {
		_ = conn.Close() // nobody has used it
		return
	}
	if s.conns == nil {
		s.conns = make(map[net.Conn]bool)
	}
	s.conns[conn] = true
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close() // nobody has used it
	}
}

// announce says where the server can be reached, once it can.
func announce(c *config.Config, listener net.Listener, logger *slog.Logger, router *taskbridge.ExecutorRouter) error {
	address := listener.Addr().String()
	attrs := []any{"store", string(c.Store), "taskTypes", router.Types()}
	if c.Store != config.StoreMemory {
		attrs = append(attrs, "data", c.Data)
	}
	scheme := "http"
	if c.TLS.CertFile != "" {
		scheme = "https"
	} else if c.Auth.On() && c.CheckLoopback(listener.Addr()) != nil {
		logger.Warn("credentials cross the network in the clear unless a proxy in front of the server speaks TLS")
	}
	//nolint:sloglint // people and scripts look for this line, in whichever format
	logger.Info("listening on "+scheme+"://"+address, attrs...)
	if c.ListenFile == "" {
		return nil
	}
	// Renamed into place, so that nobody reads half of it.
	temporary := filepath.Join(filepath.Dir(c.ListenFile), "."+filepath.Base(c.ListenFile)+".tmp")
	if err := os.WriteFile(temporary, []byte(address+"\n"), 0o600); err != nil {
		return fmt.Errorf("write listen file: %w", err)
	}
	if err := os.Rename(temporary, c.ListenFile); err != nil {
		return fmt.Errorf("write listen file: %w", errors.Join(err, os.Remove(temporary)))
	}
	return nil
}
