//go:build linux

package temporaladapter

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"log/slog"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// record writes the histories of this version beside the old ones. What is there
// stays: it is what versions before this one wrote.
var record = flag.String("record", "", "write the histories of the tests to testdata under this version's name")

func quiet() sdklog.Logger { return sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)) }

// newReplayer is a replayer with the tests' workflows, and with the plugin as a
// replayer has it.
func newReplayer(t *testing.T, plain bool) worker.WorkflowReplayer {
	t.Helper()
	options := worker.WorkflowReplayerOptions{}
	if !plain {
		plugin, err := NewPlugin(PluginOptions{})
		must(t, err)
		options.Plugins = []worker.Plugin{plugin}
	}
	replayer, err := worker.NewWorkflowReplayerWithOptions(options)
	must(t, err)
	registerWorkflows(replayer)
	return replayer
}

func readHistory(t *testing.T, path string) *historypb.History {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	history, err := client.HistoryFromJSON(file, client.HistoryJSONOptions{})
	must(t, err)
	return history
}

func TestRecordedHistoriesReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.json")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("there are no histories")
	}
	for _, path := range files {
		t.Run(filepath.ToSlash(path), func(t *testing.T) {
			history := readHistory(t, path)
			must(t, newReplayer(t, false).ReplayWorkflowHistory(quiet(), history))
			if strings.Contains(path, "plain") {
				must(t, newReplayer(t, true).ReplayWorkflowHistory(quiet(), history))
				return
			}
			if err := newReplayer(t, true).ReplayWorkflowHistory(quiet(), history); err == nil {
				t.Error("it replays without the plugin that wrote it")
			}
		})
	}
}

// history fetches a history, and writes it if it is asked to.
func (f *fixture) history(task taskbridge.Task, name string) *historypb.History {
	f.t.Helper()
	return f.historyOf(f.prefix+task.ID, name)
}

func (f *fixture) historyOf(workflowID, name string) *historypb.History {
	f.t.Helper()
	history := &historypb.History{}
	events := f.client.GetWorkflowHistory(f.ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		must(f.t, err)
		history.Events = append(history.Events, event)
	}
	if *record != "" {
		text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(history)
		must(f.t, err)
		dir := filepath.Join("testdata", *record)
		must(f.t, os.MkdirAll(dir, 0o750))
		must(f.t, os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o600))
	}
	return history
}

func TestHistoriesOfThisVersionReplay(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"plugin": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{})
			if plain {
				f.serve(worker.Options{})
			} else {
				f.work()
			}
			for taskType, input := range map[string]string{
				"echo": `{"n":1}`, "fail": `{"type":"NO_STOCK"}`, "chain": `{"left":1}`, "report": `{}`, "slow": `{"steps":2,"millis":1}`,
				"parallel": `{}`, "mixed": `{"rounds":1,"millis":1}`, "family": `{}`,
			} {
				task := f.create(taskType, input)
				_ = f.client.GetWorkflow(f.ctx, f.prefix+task.ID, "").Get(f.ctx, nil) // some fail
				must(t, newReplayer(t, plain).ReplayWorkflowHistory(quiet(), f.history(task, name+"-"+taskType)))
				must(t, newReplayer(t, false).ReplayWorkflowHistory(quiet(), f.history(task, name+"-"+taskType)))
				if taskType == "family" {
					reporting := f.historyOf(task.ID+"-child-1", name+"-child")
					must(t, newReplayer(t, plain).ReplayWorkflowHistory(quiet(), reporting))
				}
			}
		})
	}
}

func TestThePluginAddsAFewEventsToAHistory(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	stop := f.work()
	with := f.create("echo", `{}`)
	f.wantEnd(with, "", false)
	stop()
	f.serve(worker.Options{})
	without := f.create("echo", `{}`)
	must(t, f.client.GetWorkflow(f.ctx, f.prefix+without.ID, "").Get(f.ctx, nil))
	more, plain := f.history(with, "plugin-echo-again"), f.history(without, "plain-echo-again")
	if n := len(more.GetEvents()) - len(plain.GetEvents()); n != 4 {
		t.Errorf("a workflow has %d events with the plugin and %d without", len(more.GetEvents()), len(plain.GetEvents()))
	}
	tasks := func(history *historypb.History) (n int) {
		for _, event := range history.GetEvents() {
			if event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
				n++
			}
		}
		return n
	}
	if tasks(more) != tasks(plain) {
		t.Errorf("a workflow has %d workflow tasks with the plugin and %d without", tasks(more), tasks(plain))
	}
}
