package temporaladapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// PluginOptions configures [NewPlugin]. Lifecycle is required, but for a replayer.
type PluginOptions struct {
	// Lifecycle is where workflows and activities report: that of the server, in
	// this process or over the network. nil is for replayers alone.
	Lifecycle taskbridge.TaskLifecycle
	// Prefix is [Options.Prefix] of the executor; default "taskbridge-".
	Prefix string
	// DataConverter is the client's, where it has one of its own.
	DataConverter converter.DataConverter
	// Patience is for how long a report is tried again while it cannot be
	// recorded; default 5 min. A start is tried without end, since the work must
	// not run without it. A report that was given up is lost; an end that was is
	// found by the server's sweep.
	Patience time.Duration
	Clock    taskbridge.Clock
	Logger   *slog.Logger // nil: discarded
}

// NewPlugin makes the plugin of a worker or a replayer:
//
//	worker.New(client, queue, worker.Options{Plugins: []worker.Plugin{plugin}})
//	worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{Plugins: []worker.Plugin{plugin}})
//
// It may be given to several of them. What it adds to the history of a workflow
// that an [Executor] started is a version marker and two local activities; without
// it such a history does not replay. Workflows that began before the plugin was
// there go on without it.
func NewPlugin(opts PluginOptions) (*temporal.SimplePlugin, error) {
	p, err := newPlugin(opts)
	if err != nil {
		return nil, err
	}
	made, err := temporal.NewSimplePlugin(temporal.SimplePluginOptions{
		Name:               "taskbridge",
		WorkerInterceptors: []interceptor.WorkerInterceptor{p},
		RunContextBefore: func(_ context.Context, run temporal.SimplePluginRunContextBeforeOptions) error {
			if run.WorkflowReplayer {
				return nil
			}
			if opts.Lifecycle == nil {
				return errors.New("temporal: PluginOptions.Lifecycle must not be nil for a worker")
			}
			run.Registry.RegisterActivityWithOptions(p.recorder.RecordLater, activity.RegisterOptions{Name: recordActivity})
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("temporal: make the plugin: %w", err)
	}
	return made, nil
}

func newPlugin(opts PluginOptions) (*plugin, error) {
	if opts.Patience < 0 {
		return nil, errors.New("temporal: PluginOptions.Patience must not be negative")
	}
	opts.Prefix = cmp.Or(opts.Prefix, defaultPrefix)
	opts.Patience = cmp.Or(opts.Patience, 5*time.Minute)
	opts.DataConverter = converterOrDefault(opts.DataConverter)
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &plugin{PluginOptions: opts, recorder: &recorder{opts.Lifecycle, opts.Clock}}, nil
}

// plugin intercepts what runs on a worker.
type plugin struct {
	interceptor.WorkerInterceptorBase
	PluginOptions
	recorder *recorder
}

func (p *plugin) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &workflowInbound{WorkflowInboundInterceptorBase: interceptor.WorkflowInboundInterceptorBase{Next: next}, plugin: p}
}

func (p *plugin) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &activityInbound{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, plugin: p}
}
