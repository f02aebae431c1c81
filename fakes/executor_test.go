package fakes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

var threeSeconds = fakes.Script{Ticks: 3, TickInterval: time.Second, Result: []byte(`{"sum":6}`), Message: "done"}

func TestTheSameScriptMakesTheSameEventsEveryTime(t *testing.T) {
	script := threeSeconds
	script.Reports = []fakes.Report{
		{Message: &taskbridge.Message{Text: "hello", Level: taskbridge.LevelDebug}},
		{AfterTicks: 1, Token: "one "},
		{AfterTicks: 1, Token: "piece"},
		{AfterTicks: 2, Suspension: &taskbridge.Suspension{
			SuspendID: "s", Kind: taskbridge.SuspendSystemPaused, ReasonCode: "PAUSE", AllowedActions: []string{"resume"}, SchemaVersion: 1,
		}},
		{AfterTicks: 3, Message: &taskbridge.Message{Text: "bye"}},
	}
	b := newBench(t, fakes.Options{Script: fakes.Always(script)})
	for range 3 {
		began := b.clock.Now().Sub(epoch).Seconds()
		task := b.submit()
		for range script.Ticks {
			b.tick(1)
		}
		b.awaitEnd(task.ID)
		at := func(seconds float64, event string) string { return fmt.Sprintf("%g %s", began+seconds, event) }
		b.wantStream(task.ID,
			at(0, `TASK_STARTED {}`),
			at(0, `TASK_MESSAGE {"message":"hello","level":"debug"}`),
			at(1, `TASK_PROGRESS {"progress":33.33}`),
			at(2, `TASK_MESSAGE {"message":"one piece"}`),
			at(2, `TASK_PROGRESS {"progress":66.67}`),
			at(2, `TASK_SUSPENDED {"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"PAUSE","allowedActions":["resume"],"schemaVersion":1}`),
			at(3, `TASK_PROGRESS {"progress":100}`),
			at(3, `TASK_MESSAGE {"message":"bye"}`),
			at(3, `TASK_COMPLETED {"result":{"sum":6},"message":"done"}`),
		)
	}
}

func TestAScriptedFailureComesAfterItsTicks(t *testing.T) {
	failure := &taskbridge.Failure{Code: "BROKEN", Message: "it broke", Retryable: true}
	for after, want := range map[int][]string{
		0: {`0 TASK_STARTED {}`, `0 TASK_FAILED {"code":"BROKEN","message":"it broke","retryable":true}`},
		2: {`0 TASK_STARTED {}`, `1 TASK_PROGRESS {"progress":50}`, `2 TASK_PROGRESS {"progress":100}`,
			`2 TASK_FAILED {"code":"BROKEN","message":"it broke","retryable":true}`},
	} {
		b := newBench(t, fakes.Options{Script: fakes.Always(fakes.Script{
			Ticks: 2, TickInterval: time.Second, Failure: failure, FailAfterTicks: after,
		})})
		task := b.submit()
		for range after {
			b.tick(1)
		}
		b.awaitEnd(task.ID)
		b.wantStream(task.ID, want...)
	}
}

func TestATaskWithoutAScriptCompletesAtOnce(t *testing.T) {
	b := newBench(t, fakes.Options{})
	task := b.submit()
	b.awaitEnd(task.ID)
	b.wantStream(task.ID, `0 TASK_STARTED {}`, `0 TASK_COMPLETED {"result":null}`)
}

func TestARunningTaskStopsWhenItIsCancelled(t *testing.T) {
	for name, ask := range map[string]func(b *bench, task taskbridge.Task){
		"asked by the executor": func(b *bench, task taskbridge.Task) {
			if err := b.executor.RequestCancellation(b.t.Context(), task, "enough"); err != nil {
				b.t.Error(err)
			}
		},
		"seen in the row": func(*bench, taskbridge.Task) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, fakes.Options{Script: fakes.Always(threeSeconds)})
			task := b.submit()
			b.tick(1)
			b.waitFor(1)
			ask(b, b.requestCancel(task.ID, "enough"))
			b.awaitEnd(task.ID)
			b.wantStream(task.ID, `0 TASK_STARTED {}`, `1 TASK_PROGRESS {"progress":33.33}`, `1 TASK_CANCELLED {"reason":"enough"}`)
		})
	}
}

func TestATaskIsSubmittedOnceHoweverOftenItIsCalled(t *testing.T) {
	scripts := 0
	b := newBench(t, fakes.Options{Script: func(taskbridge.Task) (fakes.Script, error) {
		scripts++
		return threeSeconds, nil
	}})
	task := b.submit()
	again := func() {
		t.Helper()
		if err := b.executor.SubmitTask(t.Context(), task); err != nil {
			t.Error(err)
		}
	}
	again()
	for range 3 {
		b.tick(1)
	}
	b.awaitEnd(task.ID)
	events := b.stream(task.ID)
	again()
	if scripts != 1 {
		t.Errorf("the task was taken %d times", scripts)
	}
	if got := b.stream(task.ID); !slices.Equal(got, events) {
		t.Errorf("a task that had ended ran again: %q", got)
	}
}

func TestWhatIsAboveMaxRunningWaitsInItsOrder(t *testing.T) {
	b := newBench(t, fakes.Options{MaxRunning: 2, Script: fakes.Always(fakes.Script{Ticks: 1, TickInterval: time.Second})})
	var tasks []taskbridge.Task
	for range 5 {
		tasks = append(tasks, b.submit())
	}
	b.awaitRunning(tasks[0].ID)
	b.awaitRunning(tasks[1].ID)
	var known []taskbridge.Knowledge
	for _, task := range tasks {
		known = append(known, b.inspect(task))
	}
	if want := []taskbridge.Knowledge{3, 3, 2, 2, 2}; !slices.Equal(known, want) {
		t.Errorf("the executor knows %v, want %v", known, want)
	}
	for _, n := range []int{2, 4} {
		for _, task := range tasks[n:min(n+2, 5)] {
			if now, err := b.store.GetTask(t.Context(), task.ID); err != nil || now.Status != taskbridge.StatusAccepted {
				t.Errorf("%s is %s before its turn, %v", task.ID, now.Status, err)
			}
		}
		b.tick(2)
		for _, task := range tasks[n:min(n+2, 5)] {
			b.awaitRunning(task.ID)
		}
	}
	b.tick(1)
	for _, task := range tasks {
		if ended := b.awaitEnd(task.ID); ended.Status != taskbridge.StatusCompleted {
			t.Errorf("%s ended %s", task.ID, ended.Status)
		}
	}
	// Its place was given on, so the executor has taken note of its end.
	inspection, err := b.executor.InspectTask(t.Context(), tasks[0])
	if err != nil || inspection.Knowledge != taskbridge.InspectionFinished || inspection.Outcome.Status != taskbridge.StatusCompleted {
		t.Errorf("the executor knows %+v of a task that has ended, %v", inspection, err)
	}
}

func TestWhatWaitsIsSettledWhenItIsCancelledAndNeverRuns(t *testing.T) {
	b := newBench(t, fakes.Options{MaxRunning: 1, Script: fakes.Always(fakes.Script{Ticks: 1, TickInterval: time.Second})})
	first, second := b.submit(), b.submit()
	second = b.requestCancel(second.ID, "changed my mind")

	b.awaitRunning(first.ID)
	b.faults.On(fakes.OpUpdateTaskAndAppend, 1, fakes.FailBefore(nil))
	if err := b.executor.RequestCancellation(t.Context(), second, "changed my mind"); !errors.Is(err, fakes.ErrInjected) {
		t.Errorf("the end could not be recorded: error %v", err)
	}
	if knowledge := b.inspect(second); knowledge != taskbridge.InspectionWaiting {
		t.Errorf("a task whose end is not recorded is forgotten: %d", knowledge)
	}
	for range 2 { // repeating it is safe
		if err := b.executor.RequestCancellation(t.Context(), second, "changed my mind"); err != nil {
			t.Error(err)
		}
	}
	b.wantStream(second.ID, `0 TASK_CANCELLED {"reason":"changed my mind"}`)
	b.tick(1)
	b.awaitEnd(first.ID)
	b.wantStream(second.ID, `0 TASK_CANCELLED {"reason":"changed my mind"}`)
	if err := b.executor.RequestCancellation(t.Context(), row("nobody-knows"), "x"); err != nil {
		t.Errorf("a task that is not known: %v", err)
	}
}

func TestATaskThatMayNotRunIsDropped(t *testing.T) {
	b := newBench(t, fakes.Options{Script: fakes.Always(threeSeconds)})
	task := b.create()
	task = b.requestCancel(task.ID, "too slow")
	if err := b.executor.SubmitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	b.awaitEnd(task.ID)
	b.wantStream(task.ID, `0 TASK_CANCELLED {"reason":"too slow"}`)
}

func TestABadScriptIsARejection(t *testing.T) {
	for name, c := range map[string]struct {
		script func(taskbridge.Task) (fakes.Script, error)
		want   taskbridge.Failure
	}{
		"error": {func(taskbridge.Task) (fakes.Script, error) { return fakes.Script{}, errors.New("no such trick") },
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "no such trick"}},
		"rejection": {func(taskbridge.Task) (fakes.Script, error) {
			return fakes.Script{}, taskbridge.Reject("BUSY", "not now", true)
		}, taskbridge.Failure{Code: "BUSY", Message: "not now", Retryable: true}},
		"ticks": {fakes.Always(fakes.Script{Ticks: -1}), taskbridge.Failure{Code: "INVALID_INPUT", Message: "ticks must not be negative"}},
		"interval": {fakes.Always(fakes.Script{TickInterval: -1}),
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "tick interval must not be negative"}},
		"failure": {fakes.Always(fakes.Script{Ticks: 1, Failure: &taskbridge.Failure{Code: "X"}, FailAfterTicks: 2}),
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "failure must come after 0 to 1 ticks, not 2"}},
		"no code": {fakes.Always(fakes.Script{Failure: &taskbridge.Failure{}}),
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "failure needs a code"}},
		"result": {fakes.Always(fakes.Script{Result: []byte(`{`)}), taskbridge.Failure{Code: "INVALID_INPUT", Message: "result must be JSON"}},
		"report": {fakes.Always(fakes.Script{Reports: []fakes.Report{{Token: "x", Message: &taskbridge.Message{Text: "y"}}}}),
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "a report must be exactly one of message, token and suspension"}},
		"late report": {fakes.Always(fakes.Script{Reports: []fakes.Report{{Token: "x", AfterTicks: 1}}}),
			taskbridge.Failure{Code: "INVALID_INPUT", Message: "a report must come after 0 to 0 ticks, not 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, fakes.Options{Script: c.script})
			task := b.create()
			var rejection *taskbridge.RejectionError
			if err := b.executor.SubmitTask(t.Context(), task); !errors.As(err, &rejection) || rejection.Failure != c.want {
				t.Errorf("error %v, want %+v", err, c.want)
			}
			if knowledge := b.inspect(task); knowledge != taskbridge.InspectionAbsent {
				t.Errorf("the executor has the task: %d", knowledge)
			}
		})
	}
}

func TestAReportThatMayNotBeRecordedFailsTheTask(t *testing.T) {
	for name, script := range map[string]fakes.Script{
		"a report":       {Reports: []fakes.Report{{Message: &taskbridge.Message{Text: strings.Repeat("x", 33<<10)}}}},
		"the suspension": {Reports: []fakes.Report{{Suspension: &taskbridge.Suspension{SuspendID: "s"}}}},
	} {
		b := newBench(t, fakes.Options{Script: fakes.Always(script)})
		task := b.awaitEnd(b.submit().ID)
		if failure, ok := task.Failure(); !ok || failure.Code != fakes.CodeInvalidReport {
			t.Errorf("%s: the task ended %s %s", name, task.Status, task.Terminal)
		}
	}
}

func TestASubmitErrorStartsNothing(t *testing.T) {
	away := errors.New("away")
	answer := away
	b := newBench(t, fakes.Options{SubmitError: func(taskbridge.Task) error { return answer }})
	task := b.create()
	if err := b.executor.SubmitTask(t.Context(), task); !errors.Is(err, away) {
		t.Errorf("error %v", err)
	}
	if knowledge := b.inspect(task); knowledge != taskbridge.InspectionAbsent {
		t.Errorf("the executor has the task: %d", knowledge)
	}
	answer = nil
	if err := b.executor.SubmitTask(t.Context(), task); err != nil {
		t.Error(err)
	}
	b.awaitEnd(task.ID)
}

func TestAStoreThatIsAwayDelaysATaskAndDoesNotLoseIt(t *testing.T) {
	for name, fail := range map[string]fakes.Fault{"before": fakes.FailBefore(nil), "after": fakes.FailAfter(nil)} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, fakes.Options{})
			for n := range 3 { // the start, and later the end
				b.faults.On(fakes.OpUpdateTaskAndAppend, 1+n, fail)
			}
			task := b.submit()
			pumping, stop := context.WithCancel(t.Context())
			var pump sync.WaitGroup
			pump.Go(func() { // whatever waits for the store waits by the clock
				for b.clock.BlockUntilDue(pumping, 1, 5*time.Second) == nil {
					b.clock.AdvanceToNext()
				}
			})
			ended := b.awaitEnd(task.ID)
			if err := b.executor.Close(t.Context()); err != nil {
				t.Error(err)
			}
			stop()
			pump.Wait()
			if ended.Status != taskbridge.StatusCompleted || ended.Attempt != 1 || len(b.stream(task.ID)) != 2 {
				t.Errorf("the task ended %s, attempt %d: %q", ended.Status, ended.Attempt, b.stream(task.ID))
			}
		})
	}
}

func TestCloseEndsWhatRunsAndLeavesWhatWaits(t *testing.T) {
	b := newBench(t, fakes.Options{InstanceID: "instance", MaxRunning: 2, Script: fakes.Always(threeSeconds)})
	running := []taskbridge.Task{b.submit(), b.submit()}
	waiting := b.submit()
	for _, task := range running {
		b.awaitRunning(task.ID)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := b.executor.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	for _, task := range running {
		b.wantStream(task.ID, `0 TASK_STARTED {}`,
			`0 TASK_FAILED {"code":"EXECUTOR_LOST","message":"the server was stopped","retryable":true}`)
	}
	if task, err := b.store.GetTask(t.Context(), waiting.ID); err != nil || task.Status != taskbridge.StatusAccepted {
		t.Errorf("what waited is %s, %v", task.Status, err)
	}
	if err := b.executor.SubmitTask(t.Context(), b.create()); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("submit to a closed executor: %v", err)
	}
	if inspection, err := b.executor.InspectTask(t.Context(), waiting); !errors.Is(err, taskbridge.ErrClosed) || inspection.Knowledge != taskbridge.InspectionUnknown {
		t.Errorf("inspect in a closed executor: %v, %v", inspection, err)
	}
	if err := b.executor.CheckHealth(t.Context()); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("health of a closed executor: %v", err)
	}
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	store := memory.NewStore(memory.Options{})
	faults := fakes.NewFaults()
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: fakes.WrapStores(taskbridge.Stores{Tasks: store, Events: store}, faults),
	})
	if err != nil {
		t.Fatal(err)
	}
	executor, err := fakes.NewDeterministicFakeExecutor(fakes.Options{
		Lifecycle: lifecycle, Script: fakes.Always(fakes.Script{Ticks: 1, TickInterval: time.Hour}),
	})
	if err != nil {
		t.Fatal(err)
	}
	task, _, err := store.CreateTask(t.Context(), row("task"))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	faults.On(fakes.OpUpdateTaskAndAppend, 1, fakes.HookAfter(func(fakes.Call) { close(started) }))
	if err := executor.SubmitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	<-started
	hanging := make(chan struct{})
	faults.On(fakes.OpUpdateTaskAndAppend, 1, fakes.Hook(func(fakes.Call) { close(hanging) }))
	faults.On(fakes.OpUpdateTaskAndAppend, 1, fakes.Hang())
	ctx, cancel := context.WithCancel(t.Context())
	var closing sync.WaitGroup
	closing.Go(func() {
		if err := executor.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 task") {
			t.Errorf("error %v, want one that tells of the task", err)
		}
	})
	<-hanging
	cancel()
	closing.Wait()
}

func TestThousandsRunAtOnce(t *testing.T) {
	const tasks = 3000
	b := newBench(t, fakes.Options{Script: fakes.Always(fakes.Script{Ticks: 2, TickInterval: time.Second})})
	var made []taskbridge.Task
	for range tasks {
		made = append(made, b.submit())
	}
	for range 2 {
		b.tick(tasks)
	}
	for _, task := range made {
		if ended := b.awaitEnd(task.ID); ended.Status != taskbridge.StatusCompleted {
			t.Fatalf("%s ended %s", task.ID, ended.Status)
		}
	}
	if err := b.executor.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOfTasksThatHaveEndedTheLastThousandAreRemembered(t *testing.T) {
	b := newBench(t, fakes.Options{MaxRunning: 1})
	var made []taskbridge.Task
	for range 1_002 { // the end of the last one may not have been noticed yet
		task := b.submit()
		made = append(made, task)
		b.awaitEnd(task.ID)
	}
	if knowledge := b.inspect(made[0]); knowledge != taskbridge.InspectionAbsent {
		t.Errorf("the executor knows %d of the first", knowledge)
	}
	if knowledge := b.inspect(made[1_000]); knowledge != taskbridge.InspectionFinished {
		t.Errorf("the executor knows %d of the last but one", knowledge)
	}
}

func TestAnExecutorWithoutALifecycleIsNotMade(t *testing.T) {
	if _, err := fakes.NewDeterministicFakeExecutor(fakes.Options{}); err == nil {
		t.Error("no error")
	}
	b := newBench(t, fakes.Options{})
	if _, err := fakes.NewDeterministicFakeExecutor(fakes.Options{Lifecycle: b.lifecycle, MaxRunning: -1}); err == nil {
		t.Error("no error for a negative MaxRunning")
	}
}
