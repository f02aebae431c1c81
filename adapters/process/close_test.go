//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestCloseStopsWhatRunsAndLeavesWhatWaits(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{
		"x": script(fmt.Sprintf(`exec 3>%s; echo '::taskbridge {"message":"ready"}'; while :; do :; done`, w.path)),
	}, func(o *Options) { o.MaxRunning = 2 })
	running := []taskbridge.Task{f.create("x", `{}`), f.create("x", `{}`)}
	waiting := f.create("x", `{}`)
	for _, task := range running {
		f.message(task, "ready")
	}
	must(t, f.executor.Close(f.ctx))
	for _, task := range running {
		failure := f.wantFailure(f.row(task), taskbridge.CodeExecutorLost, true)
		if failure.Message != "the server was stopped" {
			t.Errorf("the message is %q", failure.Message)
		}
	}
	w.gone()
	if row := f.row(waiting); row.Status != taskbridge.StatusAccepted || row.Attempt != 0 {
		t.Errorf("what waited is %s", row.Status)
	}
	if got, err := f.executor.InspectTask(f.ctx, waiting); err != nil || got.Knowledge != taskbridge.InspectionAbsent {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := f.executor.SubmitTask(f.ctx, waiting); !errors.Is(err, taskbridge.ErrClosed) || errors.Is(err, taskbridge.ErrSubmissionRejected) {
		t.Errorf("submit: %v", err)
	}
	if err := f.executor.CheckHealth(f.ctx); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("health: %v", err)
	}
	must(t, f.executor.Close(f.ctx))
}

func TestCloseWaitsForTheGrace(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{
		"x": script(fmt.Sprintf(`exec 3>%s; trap 'echo "::taskbridge {\"message\":\"asked\"}"' TERM; echo '::taskbridge {"message":"ready"}'; while :; do sleep 1000 & wait; done`, w.path)),
	})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	closed := make(chan error)
	go func() { closed <- f.executor.Close(f.ctx) }()
	f.message(task, "asked")
	select {
	case err := <-closed:
		t.Fatalf("closed with a command running: %v", err)
	default:
	}
	f.clock.fire(t, graceHeld)
	must(t, <-closed)
	w.gone()
	f.wantFailure(f.row(task), taskbridge.CodeExecutorLost, true)
}

func TestCloseKillsAtOnceWhenItsContextEnds(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{
		"x": script(fmt.Sprintf(`exec 3>%s; trap 'echo "::taskbridge {\"message\":\"asked\"}"' TERM; echo '::taskbridge {"message":"ready"}'; while :; do sleep 1000 & wait; done`, w.path)),
	})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	ctx, cancel := context.WithCancel(f.ctx)
	closed := make(chan error)
	go func() { closed <- f.executor.Close(ctx) }()
	f.message(task, "asked")
	cancel()
	if err := <-closed; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	w.gone()
	// Its end is left to the reconciler of the next start.
	if row := f.row(task); row.Status != taskbridge.StatusRunning {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
}

func TestACancelledTaskThatIsRunningAtCloseIsCancelled(t *testing.T) {
	f := newFixture(t, map[string]Command{
		"x": script(`trap 'echo "::taskbridge {\"message\":\"asked\"}"' TERM; echo '::taskbridge {"message":"ready"}'; while :; do sleep 1000 & wait; done`),
	})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	closed := make(chan error)
	go func() { closed <- f.executor.Close(f.ctx) }()
	f.message(task, "asked")
	f.cancel(task, "meanwhile")
	f.clock.fire(t, graceHeld)
	must(t, <-closed)
	f.wantCancelled(f.row(task), "meanwhile", "the command was stopped: killed by signal 9 (killed)")
}

func TestCloseBehindAStartDoesNotRunTheCommand(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`echo '::taskbridge {"message":"ran"}'`)})
	started, goOn := make(chan struct{}), make(chan struct{})
	f.lifecycle.started = func(string) {
		close(started)
		<-goOn
	}
	task := f.create("x", `{}`)
	<-started
	closed := make(chan error)
	go func() { closed <- f.executor.Close(f.ctx) }()
	<-f.executor.stop
	close(goOn)
	must(t, <-closed)
	f.wantFailure(f.row(task), taskbridge.CodeExecutorLost, true)
	if got := f.messages(task); len(got) != 0 {
		t.Fatalf("it ran: %q", got)
	}
}

func TestCloseGivesUpAStartThatTheStoreDoesNotTake(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	tried := make(chan struct{}, 100)
	f.lifecycle.start = func(context.Context, string) error {
		tried <- struct{}{}
		return errors.New("the store is away")
	}
	task := f.create("x", `{}`)
	<-tried
	must(t, f.executor.Close(f.ctx))
	if row := f.row(task); row.Status != taskbridge.StatusAccepted {
		t.Fatalf("%s", row.Status)
	}
}

func TestAnEndThatCannotBeRecordedIsGivenUpWithAWordInTheLog(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	f.lifecycle.end = func(context.Context) error { return errors.New("the store is away") }
	task := f.create("x", `{}`)
	f.until(deadline(), "the executor lets go of the task", func() bool {
		got, err := f.executor.InspectTask(f.ctx, task)
		must(t, err)
		return got.Knowledge == taskbridge.InspectionAbsent
	})
	if row := f.row(task); row.Status != taskbridge.StatusRunning {
		t.Fatalf("%s", row.Status)
	}
	if log := f.log.String(); !strings.Contains(log, "end of task not recorded") || !strings.Contains(log, "the store is away") {
		t.Fatalf("the log is %s", log)
	}
}
