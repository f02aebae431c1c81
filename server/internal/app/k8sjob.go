package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskbridge/taskbridge/adapters/k8sjob"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

// The templates are checked while the server starts, for so long at most, and where
// the cluster can't be asked, again and again beside its work.
const (
	templateCheckTimeout = 5 * time.Second
	templateCheckWait    = 15 * time.Second
)

// k8sjobRuntime is the adapter's executor, with what the cluster says of the
// templates.
type k8sjobRuntime struct {
	*k8sjob.Executor
	options runtimeOptions
	// refused is what the cluster has against a template, once it could be asked.
	refused atomic.Pointer[error]

	stop     context.CancelFunc
	checking sync.WaitGroup
}

// Close ends the watching. Jobs go on where they are.
func (r *k8sjobRuntime) Close(context.Context) error {
	r.stop()
	r.checking.Wait()
	return r.Executor.Close()
}

// CheckHealth asks the cluster, and remembers what it said of the templates.
func (r *k8sjobRuntime) CheckHealth(ctx context.Context) error {
	err := r.Executor.CheckHealth(ctx)
	if refused := r.refused.Load(); refused != nil {
		err = errors.Join(err, *refused)
	}
	return err
}

func newK8sJob(o runtimeOptions) (taskbridge.TaskExecutor, error) {
	settings := o.executor.Settings.(*config.K8sJob)
	client, err := k8sjob.NewClient(k8sjob.ClientOptions{
		Kubeconfig: settings.Kubeconfig, Context: settings.Context, UserAgent: "taskbridge/" + cmp.Or(Version, "devel"),
	})
	switch {
	case err != nil && settings.Kubeconfig == "":
		return nil, fmt.Errorf("kubeconfig is not set, and this process does not run in a pod of a cluster: %w", err)
	case err != nil:
		return nil, fmt.Errorf("kubeconfig %s: %w", settings.Kubeconfig, err)
	}
	options := k8sjob.Options{
		Client: client, Namespace: settings.Namespace, Instance: settings.Instance, Lifecycle: o.lifecycle, Rows: o.rows,
		WorkerURL: o.worker.url, Tokens: o.worker.tokens, Submission: o.config.Submission, Logger: o.logger,
	}
	if settings.LeaderElection {
		if options.Election, err = k8sjobElection(settings); err != nil {
			return nil, err
		}
	}
	types := make(map[string]k8sjob.TypeOptions, len(o.tasks))
	for _, taskType := range slices.Sorted(maps.Keys(o.tasks)) {
		task := o.tasks[taskType].(*config.K8sJobTask)
		types[taskType] = k8sjobType(task)
		options.Types = map[string]k8sjob.TypeOptions{taskType: types[taskType]}
		if err := options.Check(); err != nil {
			return nil, fmt.Errorf("line %d: template %s: %w", task.Line, task.Template, err)
		}
	}
	options.Types = types
	executor, err := k8sjob.New(options)
	if err != nil {
		return nil, err
	}
	r := &k8sjobRuntime{Executor: executor, options: o}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	if err := r.checkTemplates(ctx); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

// k8sjobElection names this process by its host, which is a pod's name in a cluster,
// and its number.
func k8sjobElection(settings *config.K8sJob) (*k8sjob.Election, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("leaderElection: %w", err)
	}
	return &k8sjob.Election{Name: settings.LeaseName, Identity: fmt.Sprintf("%s-%d", host, os.Getpid())}, nil
}

func k8sjobType(task *config.K8sJobTask) k8sjob.TypeOptions {
	options := k8sjob.TypeOptions{
		Template: task.Manifest, Namespace: task.Namespace, Container: task.Container, PlainLines: task.PlainLines,
		PendingTimeout: time.Duration(task.PendingTimeout), LostTimeout: time.Duration(task.LostTimeout), TTL: time.Duration(task.TTL),
	}
	if task.Reports == config.JobReportsWorker {
		options.Reports = k8sjob.ReportWorkerAPI
	}
	if task.Input == config.JobInputConfigMap {
		options.InputIn = k8sjob.InputConfigMap
	}
	if task.TailLines != nil {
		options.TailLines = cmp.Or(*task.TailLines, -1)
	}
	return options
}

// checkTemplates has the cluster look at the templates. Its error is what the cluster
// has against them; a cluster that can't be asked is asked again in the background.
func (r *k8sjobRuntime) checkTemplates(ctx context.Context) error {
	refused, err := r.ask(ctx)
	if err == nil || refused != nil {
		return refused
	}
	r.options.logger.Warn("the cluster cannot be asked about the templates of Jobs; tasks are accepted, and it is asked again", "error", err)
	r.checking.Go(func() {
		tick := time.NewTicker(templateCheckWait)
		defer tick.Stop()
		r.checkAgain(ctx, tick.C)
	})
	return nil
}

// checkAgain asks at each tick until the cluster has looked at all templates.
func (r *k8sjobRuntime) checkAgain(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		refused, err := r.ask(ctx)
		if refused != nil && r.refused.Swap(&refused) == nil {
			r.options.logger.Error("the cluster refuses a template of Jobs; tasks of its type fail", "error", refused)
		}
		if err == nil {
			r.options.logger.Info("the cluster has looked at the templates of Jobs")
			return
		}
	}
}

// ask returns what the cluster has against templates, each with its file, and an error
// if it could not look at all of them.
func (r *k8sjobRuntime) ask(ctx context.Context) (refused, err error) {
	ctx, cancel := context.WithTimeout(ctx, templateCheckTimeout)
	defer cancel()
	err = r.CheckTemplates(ctx)
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	err = nil
	for _, problem := range problems {
		var refusal *k8sjob.InvalidTemplateError
		if !errors.As(problem, &refusal) {
			err = errors.Join(err, problem)
			continue
		}
		task := r.options.tasks[refusal.TaskType].(*config.K8sJobTask)
		refused = errors.Join(refused, fmt.Errorf("line %d: template %s: %w", task.Line, task.Template, refusal))
	}
	return refused, err
}
