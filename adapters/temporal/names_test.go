//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// naming is a lifecycle that knows the producers of its starts.
type naming struct {
	taskbridge.TaskLifecycle

	mu    sync.Mutex
	names map[string]bool
}

func (n *naming) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	n.mu.Lock()
	n.names[claim.Producer] = true
	n.mu.Unlock()
	return n.TaskLifecycle.Start(ctx, taskID, claim)
}

// of returns the names of a kind.
func (n *naming) of(kind string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(n.names)), func(name string) bool { return !strings.HasPrefix(name, kind) })
}

// brood has several children at once, each of which reports and has activities that
// do, and goes on as new once.
func brood(ctx workflow.Context, in Input) error {
	const both = 2 * childReporters
	again := string(in.Input) == `"again"`
	var running []workflow.Future
	for i := range childReporters {
		child := workflow.WithChildOptions(ReportingChildren(ctx), workflow.ChildWorkflowOptions{WorkflowID: fmt.Sprintf("%s-%v-%d", in.TaskID, again, i)})
		running = append(running, workflow.ExecuteChildWorkflow(child, "child", i))
	}
	for i := range both {
		running = append(running, workflow.ExecuteActivity(once(ctx), "stepping", 1), workflow.ExecuteLocalActivity(
			workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: time.Minute}), "telling", i))
	}
	var failure error
	for _, one := range running {
		failure = errors.Join(failure, one.Get(ctx, nil))
	}
	if failure != nil || again {
		return failure
	}
	in.Input = []byte(`"again"`)
	return workflow.NewContinueAsNewError(ctx, "brood", in)
}

func TestChildrenThatReportAtOnceHaveProducersOfTheirOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"brood": {}}})
	lifecycle := &naming{TaskLifecycle: f.lifecycle, names: map[string]bool{}}
	p, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
	register(w)
	w.RegisterWorkflowWithOptions(brood, workflow.RegisterOptions{Name: "brood"})
	w.RegisterActivityWithOptions(func(ctx context.Context, i int) error {
		return ReporterFromContext(ctx).Message(ctx, taskbridge.Message{Text: number(int64(i))})
	}, activity.RegisterOptions{Name: "telling"})
	must(t, w.Start())
	t.Cleanup(w.Stop)
	task := f.create("brood", `{}`)
	f.wantEnd(task, "", false)
	if got := lifecycle.of(childReports + "-"); len(got) != childReporters {
		t.Errorf("%d children that report at once do it as %q", childReporters, got)
	}
	if got := lifecycle.of(stepProducer + "-"); len(got) != stepReporters {
		t.Errorf("activities make steps as %q", got)
	}
	// With the notices, the control events and what a host may add there is room still.
	if got := lifecycle.of(""); len(got) > taskbridge.MaxProducers-3 {
		t.Errorf("the task has %d producers: %q", len(got), got)
	}
	types := f.types(task)
	children, steps, told := 2*childReporters, 2*childReporters+4*childReporters, 4*childReporters
	if n := strings.Count(types, "PROGRESS"); n != children+steps {
		t.Errorf("progress was reported %d times, want %d", n, children+steps)
	}
	if n := strings.Count(types, "MESSAGE"); n != told {
		t.Errorf("messages were reported %d times, want %d", n, told)
	}
}

// child is a replica of a child that reports, of the given turn.
func (r *recording) child(taskID string, turn uint32, begun time.Time, content ...string) *childReplica {
	task := &taskWorkflow{child: true}
	info := workflow.Info{WorkflowStartTime: begun, WorkflowExecution: workflow.Execution{ID: fmt.Sprintf("child %d", turn)}, Attempt: 1}
	task.numberChild(&info, handedOn{Turn: turn, Names: childReporters})
	return &childReplica{replica{r, taskID, content, *task.reports, 0}, task.producer}
}

type childReplica struct {
	replica
	producer string
}

// report makes the next report. One that is lost has not come into the history.
func (c *childReplica) report(lost bool) {
	c.t.Helper()
	c.as(c.producer, lost)
}

// TestAChildsReportThatIsMadeAgainBehindAnothersIsThereOnce also says what becomes of
// children of which more are there at once than names.
func TestAChildsReportThatIsMadeAgainBehindAnothersIsThereOnce(t *testing.T) {
	for name, c := range map[string]struct {
		turn uint32 // of the other child
		want []string
	}{
		"each has a name of its own": {2, []string{"half", "half", "done"}},
		"the two share a name":       {1 + childReporters, []string{"half", "half", "half", "done"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newRecording(t)
			id := h.task()
			begun := time.Now()
			one := h.child(id, 1, begun, "half", "done")
			other := h.child(id, c.turn, begun.Add(time.Second), "half")
			one.report(true)
			other.report(false)
			one.report(false)
			one.report(false)
			want(t, h.texts(id), c.want...)
		})
	}
}

func TestAStreamThatHasAllTheProducersItTakesRefusesAnotherAloud(t *testing.T) {
	h := newRecording(t)
	id := h.task()
	event := taskEvent{TaskID: id, Claim: "claim", Epoch: 7, Ordinal: 1, Message: &taskbridge.Message{Text: "m"}}
	for i := range taskbridge.MaxProducers + 1 {
		event.Producer = number(int64(i))
		answer, err := h.recorder.RecordTaskEvent(t.Context(), event)
		must(t, err)
		// TASK_STARTED is of a producer, too.
		if refused := i+1 >= taskbridge.MaxProducers; (answer.Refused != "") != refused || answer.Over {
			t.Errorf("the answer to producer %d is %+v", i+1, answer)
		}
	}
	event.Producer, event.Ordinal = "0", 2
	answer, err := h.recorder.RecordTaskEvent(t.Context(), event)
	must(t, err)
	if answer.Refused != "" {
		t.Errorf("one that was there is refused: %+v", answer)
	}
	run, err := h.lifecycle.Start(t.Context(), id, taskbridge.Claim{ID: "claim", Producer: "last"})
	must(t, err)
	if err := run.Progress(t.Context(), progress(1)); !errors.Is(err, taskbridge.ErrInvalidArgument) {
		t.Errorf("an activity's progress is answered %v", err)
	}
	must(t, run.Complete(t.Context(), taskbridge.Completion{}))
}
