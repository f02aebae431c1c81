package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	temporaladapter "github.com/taskbridge/taskbridge/adapters/temporal"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

// temporalRuntime is the adapter's executor with the client that is made for it.
type temporalRuntime struct {
	*temporaladapter.Executor
	client client.Client
}

// Close ends the sweep and the connection. Work goes on where it is.
func (r temporalRuntime) Close(context.Context) error {
	err := r.Executor.Close()
	r.client.Close()
	return err
}

func newTemporal(o runtimeOptions) (taskbridge.TaskExecutor, error) {
	settings := o.executor.Settings.(*config.Temporal)
	options := client.Options{
		HostPort: settings.Address, Namespace: settings.Namespace, Logger: log.NewStructuredLogger(o.logger),
	}
	if settings.TLS {
		var err error
		if options.ConnectionOptions.TLS, err = temporalTLS(settings); err != nil {
			return nil, err
		}
	}
	if settings.APIKey != "" {
		key := &temporalKey{settings: settings, logger: o.logger, last: settings.APIKey}
		options.Credentials = client.NewAPIKeyDynamicCredentials(key.current)
	}
	// It connects when it is first used: the server starts with Temporal away.
	c, err := client.NewLazyClient(options)
	if err != nil {
		return nil, err
	}
	types := make(map[string]temporaladapter.TypeOptions, len(o.tasks))
	for taskType, task := range o.tasks {
		types[taskType] = temporalType(task.(*config.TemporalTask))
	}
	executor, err := temporaladapter.New(temporaladapter.Options{
		Client: c, Namespace: cmp.Or(settings.Namespace, client.DefaultNamespace), Lifecycle: o.lifecycle, Rows: o.rows,
		Types: types, Prefix: settings.Prefix, WorkerURL: o.worker.url, Tokens: o.worker.tokens,
		SweepInterval: settings.SweepInterval, Submission: o.config.Submission, Logger: o.logger,
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return temporalRuntime{executor, c}, nil
}

// temporalKey is the key in a file that may be replaced. Safe for concurrent use.
type temporalKey struct {
	settings *config.Temporal
	logger   *slog.Logger

	mu     sync.Mutex
	last   string // that was good
	failed bool   // the file has none since
}

// current is the key to send with a request: the file's, or while it has none, as in
// the middle of a change, the one before.
func (k *temporalKey) current(context.Context) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.settings.ReadAPIKey()
	if err != nil {
		if !k.failed {
			k.logger.Warn("apiKeyFile of Temporal has no key, its last key goes on", "file", k.settings.APIKeyFile, "error", err)
		}
		k.failed = true
		return k.last, nil
	}
	if key != k.last || k.failed {
		k.logger.Info("Temporal's key was read again", "file", k.settings.APIKeyFile, "changed", key != k.last)
	}
	k.last, k.failed = key, false
	return key, nil
}

func temporalType(task *config.TemporalTask) temporaladapter.TypeOptions {
	options := temporaladapter.TypeOptions{
		TaskQueue: task.TaskQueue, Workflow: task.Workflow, Activity: task.Activity,
		ExecutionTimeout: task.ExecutionTimeout, RunTimeout: task.RunTimeout,
		StartToCloseTimeout: task.StartToCloseTimeout, ScheduleToCloseTimeout: task.ScheduleToCloseTimeout,
		HeartbeatTimeout: task.HeartbeatTimeout,
		Cancel:           temporaladapter.Cancel{Signal: task.CancelSignal, TerminateAfter: task.TerminateAfter},
	}
	if task.MaxAttempts != nil && (*task.MaxAttempts > 1 || task.Activity != "") {
		options.RetryPolicy = &temporal.RetryPolicy{MaximumAttempts: int32(min(*task.MaxAttempts, 1<<30))}
	}
	return options
}

func temporalTLS(settings *config.Temporal) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: settings.ServerName}
	if settings.CAFile != "" {
		content, err := os.ReadFile(settings.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile cannot be read: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(content) {
			return nil, errors.New("caFile has no certificate")
		}
	}
	if settings.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(settings.CertFile, settings.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certFile and keyFile cannot be used: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
