//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// scripted is a lifecycle that keeps what it is told, and fails as a test says.
type scripted struct {
	mu    sync.Mutex
	fails int   // so many calls to come fail and have no effect
	start error // the answer to each start
	told  []string
}

func (s *scripted) call(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 {
		s.fails--
		return errors.New("away")
	}
	s.told = append(s.told, what)
	return nil
}

func (s *scripted) Start(_ context.Context, _ string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if s.start != nil {
		return nil, s.start
	}
	if err := s.call("start " + claim.Producer); err != nil {
		return nil, err
	}
	return &scriptedRun{scripted: s}, nil
}

func (s *scripted) Notice(context.Context, string, taskbridge.Message) error { return nil }
func (s *scripted) Settle(context.Context, string, taskbridge.Outcome) error { return nil }

type scriptedRun struct {
	taskbridge.Run // what is not used here

	*scripted
}

func (r *scriptedRun) Progress(_ context.Context, p taskbridge.Progress) error {
	return r.call(fmt.Sprintf("progress %g", p.Percent))
}

func (r *scriptedRun) Complete(_ context.Context, c taskbridge.Completion) error {
	return r.call("complete " + string(c.Result))
}

func (r *scriptedRun) Fail(_ context.Context, f taskbridge.Failure) error {
	return r.call("fail " + f.Code)
}
func (r *scriptedRun) Cancelled(context.Context, string) error { return r.call("cancelled") }
func (r *scriptedRun) Close() error                            { return nil }

// reported are the calls without the starts, which each recording begins with.
func (s *scripted) reported() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.told), func(call string) bool { return strings.HasPrefix(call, "start ") })
}

// newEnvironment is a workflow environment with the plugin over the lifecycle, and a
// task's memo.
func newEnvironment(t *testing.T, lifecycle taskbridge.TaskLifecycle) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	p, err := newPlugin(PluginOptions{Lifecycle: lifecycle})
	must(t, err)
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{p}})
	taskID := taskbridge.NewTaskID("owner", "key")
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: defaultPrefix + taskID, TaskQueue: "queue"})
	must(t, env.SetMemoOnStart(map[string]any{tagKey: tag{Version: tagVersion, TaskID: taskID}}))
	env.RegisterActivityWithOptions(p.recorder.RecordLater, activity.RegisterOptions{Name: recordActivity})
	return env
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("reported was %q, want %q", got, want)
	}
}

func TestAWorkflowReportsItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		work func(workflow.Context) (any, error)
		want []string
	}{
		"a result":      {func(workflow.Context) (any, error) { return []int{1}, nil }, []string{"complete [1]"}},
		"no result":     {func(workflow.Context) (any, error) { return nil, nil }, []string{"complete "}},
		"a plain error": {func(workflow.Context) (any, error) { return nil, errors.New("x") }, []string{"fail TEMPORAL_FAILED"}},
		"an application error, wrapped": {func(workflow.Context) (any, error) {
			return nil, fmt.Errorf("while: %w", temporal.NewApplicationError("x", "NO_STOCK"))
		}, []string{"fail NO_STOCK"}},
		"a cancellation": {func(workflow.Context) (any, error) { return nil, temporal.NewCanceledError() }, []string{"cancelled"}},
		"it goes on as new": {func(ctx workflow.Context) (any, error) {
			return nil, workflow.NewContinueAsNewError(ctx, "again")
		}, []string{}},
		"progress": {func(ctx workflow.Context) (any, error) {
			return nil, ReportProgress(ctx, taskbridge.Progress{Percent: 5})
		}, []string{"progress 5", "complete "}},
	} {
		t.Run(name, func(t *testing.T) {
			lifecycle := &scripted{}
			env := newEnvironment(t, lifecycle)
			env.RegisterWorkflowWithOptions(c.work, workflow.RegisterOptions{Name: "work"})
			env.RegisterWorkflowWithOptions(func(workflow.Context) error { return nil }, workflow.RegisterOptions{Name: "again"})
			env.ExecuteWorkflow("work")
			want(t, lifecycle.reported(), c.want...)
		})
	}
}

func TestAWorkflowThatIsNoTasksIsLeftAlone(t *testing.T) {
	lifecycle := &scripted{}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	p, err := newPlugin(PluginOptions{Lifecycle: lifecycle})
	must(t, err)
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{p}})
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		return ReportProgress(ctx, taskbridge.Progress{Percent: 5})
	}, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	must(t, env.GetWorkflowError())
	want(t, lifecycle.told)
}

func TestWorkThatIsNotToRunDoesNot(t *testing.T) {
	lifecycle := &scripted{start: taskbridge.ErrNotRunnable}
	env := newEnvironment(t, lifecycle)
	ran := false
	env.RegisterWorkflowWithOptions(func(workflow.Context) error { ran = true; return nil }, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	if ran || !temporal.IsCanceledError(env.GetWorkflowError()) {
		t.Errorf("it ran: %v; it ends with %v", ran, env.GetWorkflowError())
	}
}

func TestARecordingIsRepeatedUntilItIsMadeOnce(t *testing.T) {
	lifecycle := &scripted{fails: 3}
	env := newEnvironment(t, lifecycle)
	env.RegisterWorkflowWithOptions(func(workflow.Context) (int, error) { return 1, nil }, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	must(t, env.GetWorkflowError())
	want(t, lifecycle.reported(), "complete 1")
}

func TestAReportThatWasRefusedIsTold(t *testing.T) {
	lifecycle := &scripted{}
	env := newEnvironment(t, lifecycle)
	var told error
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		lifecycle.mu.Lock()
		lifecycle.start = taskbridge.ErrTaskFinished
		lifecycle.mu.Unlock()
		told = ReportProgress(ctx, taskbridge.Progress{Percent: 5})
		return nil
	}, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	must(t, env.GetWorkflowError())
	if !errors.Is(told, ErrReportRefused) {
		t.Errorf("the workflow is told %v", told)
	}
}

func TestFailuresAreTheSameFromInsideAndFromOutside(t *testing.T) {
	inner := temporal.NewNonRetryableApplicationError("sold out", "NO_STOCK", nil)
	for name, c := range map[string]struct {
		err  error
		want taskbridge.Failure
	}{
		"plain":           {errors.New("x"), taskbridge.Failure{Code: CodeFailed, Message: "x", Retryable: true}},
		"wrapped plain":   {fmt.Errorf("a: %w", errors.New("b")), taskbridge.Failure{Code: CodeFailed, Message: "a: b", Retryable: true}},
		"own":             {inner, taskbridge.Failure{Code: "NO_STOCK", Message: "sold out"}},
		"wrapped own":     {fmt.Errorf("a: %w", inner), taskbridge.Failure{Code: "NO_STOCK", Message: "sold out"}},
		"a type of Go's":  {&scriptedError{}, taskbridge.Failure{Code: "scriptedError", Message: "scripted", Retryable: true}},
		"ran out of time": {temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_START_TO_CLOSE, nil), taskbridge.Failure{Code: CodeTimedOut, Message: "an activity or child workflow ran out of time", Retryable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			converter := temporal.GetDefaultFailureConverter()
			outside := converter.FailureToError(converter.ErrorToFailure(c.err))
			if got := failureOf(c.err); got != c.want {
				t.Errorf("from inside %+v, want %+v", got, c.want)
			}
			if got := failureOf(outside); got != c.want {
				t.Errorf("from outside %+v, want %+v", got, c.want)
			}
		})
	}
}

type scriptedError struct{}

func (*scriptedError) Error() string { return "scripted" }

func TestOptionsThatCannotWorkAreToldInASentence(t *testing.T) {
	c, err := client.NewLazyClient(client.Options{})
	must(t, err)
	defer c.Close()
	good := func() Options {
		return Options{Client: c, Lifecycle: &scripted{}, Types: map[string]TypeOptions{"work": {TaskQueue: "q"}}}
	}
	must(t, good().Check())
	for name, spoil := range map[string]func(*Options){
		"no client":    func(o *Options) { o.Client = nil },
		"no lifecycle": func(o *Options) { o.Lifecycle = nil },
		"no types":     func(o *Options) { o.Types = nil },
		"a blank type": func(o *Options) { o.Types[" "] = TypeOptions{TaskQueue: "q"} },
		"no queue":     func(o *Options) { o.Types["work"] = TypeOptions{} },
		"workflow and activity": func(o *Options) {
			o.Types["work"] = TypeOptions{TaskQueue: "q", Workflow: "w", Activity: "a", StartToCloseTimeout: 1}
		},
		"an activity without end": func(o *Options) { o.Types["work"] = TypeOptions{TaskQueue: "q", Activity: "a"} },
		"an activity's signal": func(o *Options) {
			o.Types["work"] = TypeOptions{TaskQueue: "q", Activity: "a", StartToCloseTimeout: 1, Cancel: Cancel{Signal: "s"}}
		},
		"a workflow's heartbeat": func(o *Options) { o.Types["work"] = TypeOptions{TaskQueue: "q", HeartbeatTimeout: time.Second} },
		"a negative time":        func(o *Options) { o.Types["work"] = TypeOptions{TaskQueue: "q", RunTimeout: -1} },
		"a quote in the prefix":  func(o *Options) { o.Prefix = "it's" },
		"a negative interval":    func(o *Options) { o.SweepInterval = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := good()
			spoil(&o)
			if err := o.Check(); err == nil {
				t.Error("they are taken")
			}
		})
	}
}
