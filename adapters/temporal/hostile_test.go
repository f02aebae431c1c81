//go:build linux

package temporaladapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// oddResults are what a workflow may return, and what clients are to see of it.
var oddResults = map[string]struct {
	result any
	want   string
}{
	"nothing":          {nil, `{"result":null}`},
	"a protobuf":       {&commonpb.WorkflowType{Name: "x"}, `{"result":{"name":"x"}}`},
	"bytes of JSON":    {[]byte(`{"a":1}`), `{"result":{"a":1}}`},
	"bytes of no JSON": {[]byte("\x00\xff"), `{"result":null,"message":"the result is no JSON"}`},
	"no bytes":         {[]byte{}, `{"result":null,"message":"the result is no JSON"}`},
	"a text":           {"雪", `{"result":"雪"}`},
	"a raw text":       {json.RawMessage(` [1, 2] `), `{"result":[1,2]}`},
}

func TestClientsSeeTheSameResultWhoeverRecordsIt(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"odd": {}}, submission: &unwatched}).reconcile()
			options := worker.Options{}
			if !plain {
				plugin, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix})
				must(t, err)
				options.Plugins = []worker.Plugin{plugin}
			}
			w := worker.New(f.client, f.queue, options)
			w.RegisterWorkflowWithOptions(func(_ workflow.Context, in struct{ Input struct{ Result string } }) (any, error) {
				return oddResults[in.Input.Result].result, nil
			}, workflow.RegisterOptions{Name: "odd"})
			must(t, w.Start())
			t.Cleanup(w.Stop)
			for name, c := range oddResults {
				row := f.wantEnd(f.create("odd", fmt.Sprintf(`{"result":%q}`, name)), "", false)
				if string(row.Terminal) != c.want {
					t.Errorf("%s: the end is %s, want %s", name, row.Terminal, c.want)
				}
			}
		})
	}
}

// submitted hands a task of a type over as its options say, and returns the answer.
func (f *fixture) submitted(taskType string) error {
	f.t.Helper()
	return f.executor.SubmitTask(f.ctx, taskbridge.Task{ID: taskbridge.NewTaskID("owner", newName()), Type: taskType, Input: []byte(`{}`), Metadata: []byte(`{}`)})
}

func TestWhatTemporalWouldNeverTakeIsTurnedDown(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 2<<20-100)
	unknown := func(taskbridge.Task) (temporal.SearchAttributes, error) {
		return temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("NobodyKnowsThis").ValueSet("x")), nil
	}
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{
		"arguments": {Input: func(taskbridge.Task, Input) ([]any, error) { return []any{big, big, big}, nil }},
		"memo": {Memo: func(taskbridge.Task) (map[string]any, error) {
			return map[string]any{"a": big, "b": big, "c": big}, nil
		}},
		"memo that is too large for Temporal": {Memo: func(taskbridge.Task) (map[string]any, error) { return map[string]any{"a": big + big}, nil }},
		"attribute":                           {SearchAttributes: unknown},
		"attribute of an activity":            {Activity: "alone", StartToCloseTimeout: time.Minute, SearchAttributes: unknown},
		"a time-out of no time":               {Activity: "alone", StartToCloseTimeout: time.Minute, HeartbeatTimeout: time.Nanosecond, RetryPolicy: &temporal.RetryPolicy{BackoffCoefficient: 0.5}},
		"a retry policy":                      {RetryPolicy: &temporal.RetryPolicy{BackoffCoefficient: 0.5}},
		"what cannot be encoded":              {Input: func(taskbridge.Task, Input) ([]any, error) { return []any{make(chan int)}, nil }},
		"a memo that cannot be encoded":       {Memo: func(taskbridge.Task) (map[string]any, error) { return map[string]any{"a": make(chan int)}, nil }},
	}})
	for taskType := range f.executor.Types {
		if works[taskType] != nil {
			continue
		}
		err := f.submitted(taskType)
		var rejection *taskbridge.RejectionError
		if !errors.As(err, &rejection) {
			t.Errorf("%s: the answer is %v, want a rejection", taskType, err)
			continue
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%s: the answer has %d bytes", taskType, len(err.Error()))
		}
	}
}

func TestAPrefixThatTemporalCannotTakeIsRefused(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"a'b", "a\"b", "a%b", "a\nb", "a\xffb", strings.Repeat("a", 201)} {
		opts := newFixture(t, fixtureOptions{}).executor.Options
		opts.Prefix = prefix
		if err := opts.Check(); err == nil || !strings.Contains(err.Error(), "Prefix") {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

func TestNamesThatTemporalCannotTakeAreRefused(t *testing.T) {
	t.Parallel()
	for _, options := range []TypeOptions{
		{TaskQueue: "\xff"}, {TaskQueue: "a\x00"}, {TaskQueue: strings.Repeat("x", 1001)},
		{TaskQueue: "q", Workflow: "\xff"}, {TaskQueue: "q", Activity: "a\nb", StartToCloseTimeout: time.Minute},
	} {
		opts := newFixture(t, fixtureOptions{}).executor.Options
		opts.Types = map[string]TypeOptions{"echo": options}
		if err := opts.Check(); err == nil || !strings.Contains(err.Error(), "must be text of at most") {
			t.Errorf("%+v: %v", options, err)
		}
	}
}

func TestTheHostsMemoDoesNotHideTheAdapters(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"echo": {Memo: func(taskbridge.Task) (map[string]any, error) {
		return map[string]any{tagKey: "mine", "other": 1}, nil
	}}}})
	f.work()
	task := f.create("echo", `{}`)
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED COMPLETED")
}

func TestAWorkflowOfSomebodyElseIsNotTakenForATasks(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := taskbridge.Task{ID: taskbridge.NewTaskID("owner", newName()), Type: "wait", Input: []byte(`{}`), Metadata: []byte(`{}`)}
	_, err := f.client.ExecuteWorkflow(f.ctx, client.StartWorkflowOptions{ID: f.prefix + task.ID, TaskQueue: f.queue}, "wait")
	must(t, err)
	inspection, err := f.executor.InspectTask(f.ctx, task)
	if must(t, err); inspection.Knowledge != taskbridge.InspectionAbsent {
		t.Errorf("of the task is known %d", inspection.Knowledge)
	}
	var rejection *taskbridge.RejectionError
	if err := f.executor.SubmitTask(f.ctx, task); !errors.As(err, &rejection) {
		t.Errorf("the answer is %v, want a rejection", err)
	}
}

func TestATaskIsFoundWhenItsTypeHasMovedToAnotherKindOfWork(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: aloneType(), change: onlySilence, submission: &unwatched})
	workflow, activity := f.create("wait", `{}`), f.create("alone", `{"wait":true}`)
	f.executor.Types["wait"], f.executor.Types["alone"] = f.executor.Types["alone"], f.executor.Types["wait"]
	for _, task := range []taskbridge.Task{workflow, activity} {
		inspection, err := f.executor.InspectTask(f.ctx, f.row(task))
		if must(t, err); inspection.Knowledge != taskbridge.InspectionWaiting {
			t.Errorf("of the %s is known %d", task.Type, inspection.Knowledge)
		}
		f.cancel(task, "moved")
		f.wantCancelled(task, "moved")
	}
}

func TestACancellationIsSignalledOnceHoweverOftenItIsRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"ignore": {Cancel: Cancel{Signal: "stop"}}}})
	f.work()
	task := f.create("ignore", `{}`)
	f.awaitStream(task, "STARTED")
	f.cancel(task, "please")
	for range 3 {
		must(t, f.executor.RequestCancellation(f.ctx, f.row(task), "please"))
	}
	signals := 0
	events := f.client.GetWorkflowHistory(f.ctx, f.prefix+task.ID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		must(t, err)
		signal := event.GetWorkflowExecutionSignaledEventAttributes()
		if signal == nil {
			continue
		}
		signals++
		var arg CancelSignal
		if must(t, f.executor.DataConverter.FromPayloads(signal.GetInput(), &arg)); arg != (CancelSignal{TaskID: task.ID, Reason: "please"}) {
			t.Errorf("the signal has %+v", arg)
		}
	}
	if signals != 1 {
		t.Errorf("it was sent %d times", signals)
	}
}

func TestANamespaceThatHasVanishedProvesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{change: onlySilence, connect: func(o *client.Options) { o.Namespace = "vanished" }})
	for _, task := range []taskbridge.Task{
		{ID: taskbridge.NewTaskID("owner", newName()), Type: "wait", Input: []byte(`{}`)},
		{ID: taskbridge.NewTaskID("owner", newName()), Type: "wait", Input: []byte(`{}`), Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded}},
	} {
		if inspection, err := f.executor.InspectTask(f.ctx, task); err == nil {
			t.Errorf("it is inspected as %+v", inspection)
		}
		var rejection *taskbridge.RejectionError
		if err := f.executor.SubmitTask(f.ctx, task); err == nil || errors.As(err, &rejection) {
			t.Errorf("its submission is answered %v", err)
		}
		if err := f.executor.RequestCancellation(f.ctx, task, "-"); err == nil {
			t.Error("its cancellation is taken")
		}
	}
}

func TestATemporalThatComesBackEmptyHasLostWhatItHadAndTakesWhatItHadNot(t *testing.T) {
	t.Parallel()
	server, err := newServer(t.TempDir())
	must(t, err)
	must(t, server.start())
	t.Cleanup(server.kill)
	f := newFixture(t, fixtureOptions{address: server.address}).reconcile()
	f.work()
	running := f.create("wait", `{}`)
	f.awaitStream(running, "STARTED")
	server.kill()
	waiting := f.create("echo", `{"n":1}`)
	files, err := filepath.Glob(filepath.Join(server.dir, "temporal.db*"))
	must(t, err)
	for _, file := range files {
		must(t, os.Remove(file))
	}
	must(t, server.start())
	f.wantEnd(running, taskbridge.CodeExecutorLost, true)
	f.wantResult(waiting, `{"n":1}`)
	f.wantStream(waiting, "STARTED COMPLETED")
}
