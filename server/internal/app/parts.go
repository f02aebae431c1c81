package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/taskbridge/taskbridge/adapters/process"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// store is what the server needs of a store.
type store interface {
	taskbridge.AtomicStore
	taskbridge.Leaser
	Close() error
}

// opener opens the store that the configuration names.
type opener func(ctx context.Context, c *config.Config) (store, error)

func openStore(ctx context.Context, c *config.Config) (store, error) {
	switch c.Store {
	case config.StoreMemory:
		return memory.NewStore(memory.Options{}), nil
	case config.StoreSQLite:
		return sqlitestore.Open(ctx, sqlitestore.Options{Dir: c.Data})
	}
	return nil, fmt.Errorf("there is no store %q", c.Store)
}

// executors are those of this process.
type executors struct {
	byType  map[string]taskbridge.TaskExecutor
	demo    *fakes.DeterministicFakeExecutor // nil: turned off
	process *process.Executor                // nil: not needed
	// runtimes are those of the configuration, by their names.
	runtimes map[string]taskbridge.TaskExecutor
}

func newExecutors(c *config.Config, lifecycle taskbridge.TaskLifecycle, rows taskbridge.TaskRegistry, instanceID string, worker workerServer, logger *slog.Logger) (*executors, error) {
	e := &executors{byType: make(map[string]taskbridge.TaskExecutor)}
	var err error
	if e.runtimes, err = newRuntimes(c, lifecycle, rows, worker, logger); err != nil {
		return nil, errors.Join(err, e.Close(context.Background()))
	}
	for taskType, route := range c.Routes {
		e.byType[taskType] = e.runtimes[route.Executor]
	}
	// With a durable store it is there without any commands too: the process
	// before this one may have had some and left them running.
	if len(c.Tasks) > 0 || c.Store != config.StoreMemory {
		commands := make(map[string]process.Command, len(c.Tasks))
		for taskType, command := range c.Tasks {
			commands[taskType] = processCommand(command)
		}
		e.process, err = process.New(process.Options{
			Lifecycle:  lifecycle,
			InstanceID: instanceID,
			Commands:   commands,
			StateDir:   filepath.Join(c.Data, "process"),
			MaxRunning: c.Process.MaxRunning,
			MaxWaiting: c.Process.MaxWaiting,
			Grace:      c.Process.Grace,
			Logger:     logger,
		})
		if err != nil {
			return nil, errors.Join(err, e.Close(context.Background()))
		}
		for taskType := range commands {
			e.byType[taskType] = e.process
		}
	}
	if c.Demo {
		e.demo, err = fakes.NewDeterministicFakeExecutor(fakes.Options{
			Lifecycle:  lifecycle,
			Script:     fakes.DemoScript,
			InstanceID: instanceID,
			Logger:     logger,
		})
		if err != nil {
			return nil, errors.Join(err, e.Close(context.Background()))
		}
		e.byType["demo"] = e.demo
	}
	return e, nil
}

func processCommand(c config.Command) process.Command {
	return process.Command{
		Path: c.Argv[0],
		Args: c.Argv[1:],
		Dir:  c.Dir,
		Env:  c.Env,
		InheritEnv: map[config.InheritEnv]process.EnvPolicy{
			config.InheritAll: process.EnvAll, config.InheritNone: process.EnvNone, // else process.EnvBasic
		}[c.InheritEnv],
		PlainLines: c.PlainLines,
		Timeout:    c.Timeout,
	}
}

// killSurvivors ends the commands that an earlier server left running.
func (e *executors) killSurvivors(ctx context.Context) error {
	if e.process == nil {
		return nil
	}
	return e.process.KillSurvivors(ctx)
}

// Close stops what runs in this process; its tasks end EXECUTOR_LOST.
func (e *executors) Close(ctx context.Context) error {
	var (
		closing    sync.WaitGroup
		demo, proc error
		errs       = make([]error, len(e.runtimes))
	)
	for i, name := range slices.Sorted(maps.Keys(e.runtimes)) {
		if runtime, ok := e.runtimes[name].(closer); ok {
			closing.Go(func() { errs[i] = runtime.Close(ctx) })
		}
	}
	if e.demo != nil {
		closing.Go(func() { demo = e.demo.Close(ctx) })
	}
	if e.process != nil {
		closing.Go(func() { proc = e.process.Close(ctx) })
	}
	closing.Wait()
	return errors.Join(append(errs, demo, proc)...)
}

// ready returns what the server's readiness depends on.
func (e *executors) ready(s store) map[string]httpapi.ReadyCheck {
	checks := map[string]httpapi.ReadyCheck{"store": func(context.Context) error { return nil }}
	if checker, ok := s.(taskbridge.HealthChecker); ok {
		checks["store"] = checker.CheckHealth
	}
	if e.demo != nil {
		checks["demo"] = e.demo.CheckHealth
	}
	if e.process != nil {
		checks["process"] = e.process.CheckHealth
	}
	return checks
}

// partTaskTypes is what /ready and the metrics report [taskTypes] as; no runtime
// can have the name.
const partTaskTypes = "taskTypes"

// taskTypes reports whether each open task's type has an executor.
func taskTypes(reconciler *taskbridge.Reconciler) httpapi.ReadyCheck {
	return func(context.Context) error {
		if types := reconciler.MissingExecutors(); len(types) > 0 {
			return fmt.Errorf("open tasks are of types without an executor: %q", types)
		}
		return nil
	}
}

// away returns what the server can do without for a while: tasks are accepted
// and watched with their runtime away.
func (e *executors) away() map[string]httpapi.ReadyCheck {
	checks := make(map[string]httpapi.ReadyCheck)
	for name, runtime := range e.runtimes {
		if checker, ok := runtime.(taskbridge.HealthChecker); ok {
			checks[name] = checker.CheckHealth
		}
	}
	return checks
}
