package app

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/webhook"
)

// runtimeOptions is what a runtime is made from.
type runtimeOptions struct {
	executor  config.Executor
	tasks     map[string]any // settings by task type, of the executor's kind
	config    *config.Config
	lifecycle taskbridge.TaskLifecycle
	rows      taskbridge.TaskRegistry
	worker    workerServer
	logger    *slog.Logger
}

// makeRuntime makes an executor of each kind.
var makeRuntime = map[config.ExecutorKind]func(runtimeOptions) (taskbridge.TaskExecutor, error){
	config.KindWebhook:  newWebhook,
	config.KindAsynq:    newAsynq,
	config.KindK8sJob:   newK8sJob,
	config.KindTemporal: newTemporal,
}

// newRuntimes makes the runtimes of the configuration, by their names.
func newRuntimes(c *config.Config, lifecycle taskbridge.TaskLifecycle, rows taskbridge.TaskRegistry, worker workerServer, logger *slog.Logger) (map[string]taskbridge.TaskExecutor, error) {
	runtimes := make(map[string]taskbridge.TaskExecutor, len(c.Executors))
	for _, name := range slices.Sorted(maps.Keys(c.Executors)) {
		o := runtimeOptions{c.Executors[name], map[string]any{}, c, lifecycle, rows, worker, logger.With("executor", name)}
		for taskType, route := range c.Routes {
			if route.Executor == name {
				o.tasks[taskType] = route.Settings
			}
		}
		runtime, err := makeRuntime[o.executor.Kind](o)
		if err != nil {
			return runtimes, fmt.Errorf("%s line %d: executors.%s: %w", c.Source("executors"), o.executor.Line, name, err)
		}
		runtimes[name] = runtime
	}
	return runtimes, nil
}

func newWebhook(o runtimeOptions) (taskbridge.TaskExecutor, error) {
	settings := o.executor.Settings.(*config.Webhook)
	deadlines := make(map[string]time.Duration, len(o.tasks))
	for taskType, task := range o.tasks {
		deadlines[taskType] = task.(*config.WebhookTask).Deadline
	}
	return webhook.New(webhook.Options{
		URL: settings.URL, Secret: []byte(settings.Secret), Tokens: o.worker.tokens, WorkerURL: o.worker.url, Deadlines: deadlines,
	})
}
