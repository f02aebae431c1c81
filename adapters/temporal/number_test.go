//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// recording is a recorder over stores in memory, and the reports that came.
type recording struct {
	t         *testing.T
	store     *memory.Store
	lifecycle *taskbridge.LocalLifecycle
	recorder  *recorder
	keys      int
}

func newRecording(t *testing.T) *recording {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	t.Cleanup(func() { must(t, store.Close()) })
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	must(t, err)
	return &recording{t: t, store: store, lifecycle: lifecycle, recorder: &recorder{lifecycle, taskbridge.SystemClock{}}}
}

// task makes a row as a creation leaves it that was submitted.
func (r *recording) task() string {
	r.t.Helper()
	r.keys++
	now := time.Now().UTC().Truncate(time.Microsecond)
	row, _, err := r.store.CreateTask(r.t.Context(), taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", number(int64(r.keys))), Owner: "owner", ClientRequestID: number(int64(r.keys)), Fingerprint: "f",
		Type: "work", Input: []byte("{}"), Metadata: []byte("{}"), CreatedAt: now, UpdatedAt: now,
		Status: taskbridge.StatusAccepted, Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded, Tries: 1},
	})
	must(r.t, err)
	return row.ID
}

// texts are the messages in the stream.
func (r *recording) texts(taskID string) []string {
	r.t.Helper()
	events, err := r.store.ReadEvents(r.t.Context(), taskID, 0, 10_000)
	must(r.t, err)
	texts := []string{}
	for _, event := range events {
		if text, ok := strings.CutPrefix(string(event.Payload), `{"message":"`); ok {
			texts = append(texts, text[:strings.IndexByte(text, '"')])
		}
	}
	return texts
}

// replica is a worker in the middle of a workflow task: the history is what it
// knows.
type replica struct {
	*recording
	taskID  string
	content []string // of the reports of its run
	history numbering
	next    int
}

// report makes the next report. One that is lost has not come into the history.
func (r *replica) report(lost bool) {
	r.t.Helper()
	r.as(workflowReports, lost)
}

// as makes the next report under the name.
func (r *replica) as(producer string, lost bool) {
	r.t.Helper()
	event := taskEvent{
		TaskID: r.taskID, Claim: "claim", Producer: producer, Epoch: r.history.epoch, Ordinal: int64(r.next + 1), Since: r.history.since, Search: r.history.search,
		Message: &taskbridge.Message{Text: r.content[r.next]},
	}
	answer, err := r.recorder.RecordTaskEvent(r.t.Context(), event)
	must(r.t, err)
	if answer.Refused != "" {
		r.t.Fatal(answer.Refused)
	}
	if !lost {
		r.history.take(answer)
		r.next++
	}
}

// TestAWorkerThatGoesOnAfterItsWorkflowTaskWasGivenAwayTakesNoReportAndAddsNone
// has two workers report for one run, in any order, with any of their answers lost:
// the one whose workflow task counts, and another one that does the same up to a
// point and then has nothing more to do, or does something else.
func TestAWorkerThatGoesOnAfterItsWorkflowTaskWasGivenAwayTakesNoReportAndAddsNone(t *testing.T) {
	h := newRecording(t)
	random := rand.New(rand.NewPCG(3, 4))
	for story := range 300 {
		id := h.task()
		run, err := h.lifecycle.Start(t.Context(), id, taskbridge.Claim{ID: "claim"})
		must(t, err)
		must(t, run.Close())
		var valid, other []string
		same := random.IntN(6)
		for i := range 6 {
			valid = append(valid, fmt.Sprintf("valid %d", i))
			if i < same {
				other = append(other, valid[i])
			} else if story%2 == 0 {
				other = append(other, fmt.Sprintf("other %d", i))
			}
		}
		epoch := time.Now().UnixMicro()
		workers := []*replica{
			{h, id, valid, numbering{epoch: epoch, search: true}, 0},
			{h, id, other, numbering{epoch: epoch, search: true}, 0},
		}
		for workers[0].next < len(valid) {
			w := workers[random.IntN(2)]
			if w.next < len(w.content) {
				w.report(random.IntN(3) == 0)
			}
		}
		got := h.texts(id)
		if story%2 == 0 {
			got = slices.DeleteFunc(got, func(text string) bool { return strings.HasPrefix(text, "other") })
		}
		if !slices.Equal(got, valid) {
			t.Fatalf("story %d: the reports are %q; all: %q", story, got, h.texts(id))
		}
	}
}

func TestARunWhoseClockIsBehindGoesOnUnderAHigherEpoch(t *testing.T) {
	h := newRecording(t)
	id := h.task()
	now := time.Now()
	fast := &replica{h, id, []string{"fast 0", "fast 1"}, numbering{epoch: now.Add(2 * time.Hour).UnixMicro()}, 0}
	slow := &replica{h, id, []string{"slow 0", "slow 1", "slow 2"}, *newNumbering(now, handedOn{}, false), 0}
	fast.report(false)
	fast.report(false)
	slow.report(false)
	slow.report(true)
	slow.report(false)
	slow.report(false)
	want(t, h.texts(id), "fast 0", "fast 1", "slow 0", "slow 1", "slow 2")
	if last := slow.history; last.epoch <= fast.history.epoch || last.since != 6 {
		t.Errorf("it goes on at %+v", last)
	}
	// What the run before hands on spares the run that continues it the search.
	next := newNumbering(now, handedOn{Epoch: slow.history.epoch, Since: slow.history.since}, true)
	if next.epoch != slow.history.epoch+1 || next.since != 6 {
		t.Errorf("the next run begins at %+v", next)
	}
}

// TestAWorkerThatGoesOnWithARunWhoseNextOneReportsAddsNothing has a worker make the
// reports of a run again, late and in any order with those of the run that continues
// it.
func TestAWorkerThatGoesOnWithARunWhoseNextOneReportsAddsNothing(t *testing.T) {
	h := newRecording(t)
	random := rand.New(rand.NewPCG(5, 6))
	for story := range 300 {
		id := h.task()
		first, next := []string{"first 0", "first 1", "first 2"}, []string{"next 0", "next 1", "next 2", "next 3"}
		now := time.Now()
		valid := &replica{h, id, first, *newNumbering(now, handedOn{}, true), 0}
		late := &replica{h, id, first, *newNumbering(now, handedOn{}, true), 0}
		for valid.next < len(first) {
			valid.report(random.IntN(3) == 0)
		}
		begun := now.Add(time.Duration(random.IntN(4000)-2000) * time.Millisecond) // clocks differ
		handed := handedOn{Epoch: valid.history.epoch, Since: valid.history.since}
		valid = &replica{h, id, next, *newNumbering(begun, handed, true), 0}
		for valid.next < len(next) {
			if random.IntN(2) == 0 && late.next < len(first) {
				late.report(random.IntN(3) == 0)
			} else {
				valid.report(random.IntN(3) == 0)
			}
		}
		if got := h.texts(id); !slices.Equal(got, append(first, next...)) {
			t.Fatalf("story %d: the reports are %q", story, got)
		}
	}
}

// retriedRun is the numbering of a run that a retry policy began.
func retriedRun(begun time.Time, attempt int32, before handedOn) numbering {
	n := newNumbering(begun, before, false)
	n.retried(attempt)
	return *n
}

func TestARunThatIsRetriedWhileClocksGoBackReportsOnce(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		back time.Duration
		want []string
	}{
		"not at all":        {0, []string{"same", "same"}},
		"by minutes":        {59 * time.Minute, []string{"same", "same"}},
		"further than that": {2 * time.Hour, []string{"same", "same", "same"}},
	} {
		for from, before := range map[string]handedOn{"from the beginning": {}, "behind a run that went on as new": {Epoch: now.Add(-time.Minute).UnixMicro()}} {
			t.Run(name+" "+from, func(t *testing.T) {
				h := newRecording(t)
				id := h.task()
				first := &replica{h, id, []string{"same"}, retriedRun(now, 1, before), 0}
				second := &replica{h, id, []string{"same"}, retriedRun(now.Add(-c.back), 2, before), 0}
				first.report(false)
				second.report(true)
				second.report(false)
				expected := c.want
				if before.Epoch > 0 && c.back > time.Hour { // which bounds how far back it goes
					expected = expected[:2]
				}
				want(t, h.texts(id), expected...)
			})
		}
	}
}

func TestRunsThatGoOnAsNewAndAreRetriedReportEachForItself(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{submission: &unwatched, types: map[string]TypeOptions{
		"insists": {RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 3}},
	}})
	p, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, Logger: f.logger()})
	must(t, err)
	w := worker.New(f.client, f.queue, worker.Options{Plugins: []worker.Plugin{p}})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, in Input) error {
		if err := ReportMessage(ctx, taskbridge.Message{Text: "same"}); err != nil {
			return err
		}
		switch {
		case string(in.Input) == "{}":
			in.Input = []byte(`"again"`)
			return workflow.NewContinueAsNewError(ctx, "insists", in)
		case workflow.GetInfo(ctx).Attempt < 3:
			return errors.New("not yet")
		}
		return nil
	}, workflow.RegisterOptions{Name: "insists"})
	must(t, w.Start())
	t.Cleanup(w.Stop)
	task := f.create("insists", `{}`)
	f.wantEnd(task, "", false)
	want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"same"}`, `MESSAGE {"message":"same"}`, `MESSAGE {"message":"same"}`,
		`MESSAGE {"message":"same"}`, `COMPLETED {"result":null}`)
}

func TestAReportThatIsRefusedTakesNoOther(t *testing.T) {
	h := newRecording(t)
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: h.store, Events: h.store}, Limits: taskbridge.Limits{StreamEvents: 2},
	})
	must(t, err)
	h.recorder.lifecycle = lifecycle
	event := taskEvent{TaskID: h.task(), Claim: "claim", Producer: workflowReports, Epoch: 7, Ordinal: 1, Message: &taskbridge.Message{Text: "one"}}
	for range 2 {
		answer, err := h.recorder.RecordTaskEvent(t.Context(), event)
		must(t, err)
		if answer != (verdict{Sequence: 2}) {
			t.Errorf("the answer is %+v", answer)
		}
	}
	event.Ordinal, event.Message = 2, &taskbridge.Message{Text: "two"}
	answer, err := h.recorder.RecordTaskEvent(t.Context(), event)
	must(t, err)
	if answer.Refused != taskbridge.ErrStreamFull.Error() || answer.Over {
		t.Errorf("the answer to a report for which there is no room is %+v", answer)
	}
	event.Message.Level = "loud"
	if answer, err = h.recorder.RecordTaskEvent(t.Context(), event); err != nil || answer.Refused == "" || answer.Over {
		t.Errorf("the answer to a report that is not valid is %+v, %v", answer, err)
	}
}

// listening is a lifecycle that knows what its runs were told.
type listening struct {
	taskbridge.TaskLifecycle

	mu   sync.Mutex
	told []taskbridge.Report
}

func (l *listening) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	run, err := l.TaskLifecycle.Start(ctx, taskID, claim)
	if numbered, ok := run.(taskbridge.NumberedRun); ok {
		return &listeningRun{numbered, l}, err
	}
	return run, err
}

type listeningRun struct {
	taskbridge.NumberedRun

	lifecycle *listening
}

func (r *listeningRun) Report(ctx context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	r.lifecycle.mu.Lock()
	r.lifecycle.told = append(r.lifecycle.told, reports...)
	r.lifecycle.mu.Unlock()
	return r.NumberedRun.Report(ctx, reports)
}

func TestReportsOfCoroutinesAreRecordedInTheOrderOfTheCalls(t *testing.T) {
	h := newRecording(t)
	lifecycle := &listening{TaskLifecycle: h.lifecycle}
	env := newEnvironment(t, lifecycle)
	id := h.task()
	must(t, env.SetMemoOnStart(map[string]any{tagKey: tag{Version: tagVersion, TaskID: id}}))
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		over := workflow.NewWaitGroup(ctx)
		for _, text := range []string{"one", "two"} {
			over.Add(1)
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer over.Done()
				if err := ReportMessage(ctx, taskbridge.Message{Text: text}); err != nil {
					t.Error(err)
				}
			})
		}
		over.Wait(ctx)
		return nil
	}, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	must(t, env.GetWorkflowError())
	want(t, h.texts(id), "one", "two")
	// The second was made when the place of the first was known.
	if told := lifecycle.told; len(told) != 2 || told[0].Ordinal != 1 || told[1].Ordinal != 2 || told[1].Since != 2 {
		t.Errorf("the reports are %+v", told)
	}
}

func TestAServerWithoutEpochsIsReportedToAllTheSame(t *testing.T) {
	lifecycle := &scripted{}
	env := newEnvironment(t, lifecycle)
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		for i := range 2 {
			if err := ReportProgress(ctx, taskbridge.Progress{Percent: float64(i)}); err != nil {
				return err
			}
		}
		return nil
	}, workflow.RegisterOptions{Name: "work"})
	env.ExecuteWorkflow("work")
	must(t, env.GetWorkflowError())
	want(t, lifecycle.reported(), "progress 0", "progress 1", "complete ")
	want(t, lifecycle.told[:3], "start "+workflowReports, "start "+workflowProducer, "progress 0")
}

func TestWhatAResetRepeatsIsNotThereTwice(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.work()
	task := f.create("gates", `{}`)
	f.awaitStream(task, "STARTED PROGRESS")
	f.signal(task, "gate", nil)
	f.awaitStream(task, "STARTED PROGRESS PROGRESS")
	f.until("the workflow waits", func() bool {
		description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
		must(t, err)
		return description.GetPendingWorkflowTask() == nil
	})
	f.reset(task) // the signal comes to the run that takes the place of this one
	f.signal(task, "gate", nil)
	f.wantResult(task, `"through"`)
	want(t, f.stream(task), "STARTED {}", `PROGRESS {"progress":10}`, `PROGRESS {"progress":50}`, `COMPLETED {"result":"through"}`)
}
