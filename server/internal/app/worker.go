package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

// newSigner makes what signs workers' tokens.
func newSigner(c *config.Config) (*workerapi.Signer, error) {
	keys := c.Worker.Keys
	if len(keys) == 0 {
		key, err := ownKey(c)
		if err != nil {
			return nil, fmt.Errorf("key for workers' tokens: %w", err)
		}
		keys = [][]byte{key}
	}
	return workerapi.NewSigner(workerapi.SignerOptions{Keys: keys, AttemptTTL: c.Worker.TokenLifetime})
}

// ownKey returns the key that is kept with the data, so that tokens outlive the
// process; one of the process alone where tasks do not outlive it either.
func ownKey(c *config.Config) ([]byte, error) {
	if c.Store == config.StoreMemory {
		return newKey(), nil
	}
	path := filepath.Join(c.Data, "worker.key")
	content, err := os.ReadFile(path)
	switch {
	case err == nil:
		key, err := hex.DecodeString(strings.TrimSpace(string(content)))
		if err != nil || len(key) < workerapi.MinKeyBytes {
			return nil, fmt.Errorf("%s must hold %d bytes or more in hexadecimal", path, workerapi.MinKeyBytes)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// The folder belongs to this process, by the store's lock. On the disk before it
	// has its name: half a key would keep the server from starting again, while a
	// lost one is replaced with no harm but to tasks that are open.
	key := newKey()
	temporary, err := os.CreateTemp(c.Data, "worker.key.*") // which only this user can read
	if err != nil {
		return nil, err
	}
	_, err = temporary.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temporary.Name()))
	}
	return key, nil
}

func newKey() []byte {
	key := make([]byte, workerapi.MinKeyBytes)
	_, _ = rand.Read(key) // never fails: see package crypto/rand
	return key
}

// workerURL returns where workers reach the server.
func workerURL(c *config.Config, bound net.Addr) (string, error) {
	if c.Worker.URL != "" {
		return strings.TrimSuffix(c.Worker.URL, "/"), nil
	}
	address, err := netip.ParseAddrPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("address %s: %w", bound, err)
	}
	if address.Addr().IsUnspecified() {
		if len(c.Executors) > 0 {
			return "", fmt.Errorf("worker.url must be set, since workers cannot be told to come to %s: the runtimes of executors hand it to them", bound)
		}
		return "", nil
	}
	scheme := "http"
	if c.TLS.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + bound.String(), nil
}

// newWorkerAPI makes the handler of the worker API.
func newWorkerAPI(lifecycle *taskbridge.LocalLifecycle, signer *workerapi.Signer, authenticator auth.Authenticator, refused func(error), watch *telemetry.Telemetry, c *config.Config, logger *slog.Logger) func(<-chan struct{}) (http.Handler, error) {
	return func(draining <-chan struct{}) (http.Handler, error) {
		service, err := taskbridge.NewWorkerService(lifecycle)
		if err != nil {
			return nil, err
		}
		admit, err := admitWorkers(c.Worker, watch)
		if err != nil {
			return nil, err
		}
		return workerapi.NewHandler(workerapi.Options{
			Service: service, Lifecycle: lifecycle, Signer: signer, BodyBytes: int64(c.HTTP.BodyBytes),
			Authorize: func(r *http.Request) (bool, error) {
				principal, err := authenticator.Authenticate(r)
				switch {
				case errors.Is(err, auth.ErrUnauthenticated):
					refused(err)
					return false, nil
				case err != nil:
					return false, err
				case !principal.HasScope(taskbridge.ScopeWorker):
					return false, taskbridge.ErrForbidden
				}
				return true, nil
			},
			Refused: func(_ *http.Request, token workerapi.TokenKind) { watch.AuthenticationFailed(tokenModes[token]) },
			Admit:   admit, Draining: draining, Logger: logger,
		})
	}
}

// tokenModes are the labels of workers' tokens that are refused.
var tokenModes = map[workerapi.TokenKind]telemetry.AuthMode{
	workerapi.TokenSubmission: telemetry.AuthSubmissionToken, workerapi.TokenAttempt: telemetry.AuthAttemptToken,
}

// workerLimits are the labels of workers' limits.
var workerLimits = map[ratelimit.Kind]telemetry.Limit{
	ratelimit.KindRequests: telemetry.LimitWorkerRate, ratelimit.KindConcurrent: telemetry.LimitWorkerConcurrency,
}

// admitWorkers bounds what the worker of one task may ask.
func admitWorkers(w config.Worker, watch *telemetry.Telemetry) (func(*http.Request, string) (func(), error), error) {
	limiter, err := ratelimit.New(ratelimit.Options{
		Requests:           ratelimit.Rate{PerSecond: w.RequestsPerSecond, Burst: w.RequestsBurst},
		ConcurrentRequests: w.ConcurrentRequests,
	})
	if err != nil {
		return nil, err
	}
	return func(_ *http.Request, caller string) (func(), error) {
		done, err := limiter.Request(caller)
		var limit *ratelimit.LimitError
		if !errors.As(err, &limit) {
			return done, err
		}
		watch.RateLimited(workerLimits[limit.Kind])
		return nil, &workerapi.LimitError{Message: limit.Error() + " for this task", After: limit.After}
	}, nil
}

// workerServer is what the runtimes tell workers.
type workerServer struct {
	url    string
	tokens taskbridge.SubmissionTokens
}

// newWorkerServer says where workers report and what lets them.
func newWorkerServer(c *config.Config, bound net.Addr, signer *workerapi.Signer) (workerServer, error) {
	url, err := workerURL(c, bound)
	return workerServer{url, signer}, err
}

// closer is a runtime that holds something of this process.
type closer interface {
	Close(ctx context.Context) error
}
