//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func (f *fixture) wantCancelled(row taskbridge.Task, reason, message string) {
	f.t.Helper()
	events := f.events(row)
	last := events[len(events)-1]
	if row.Status != taskbridge.StatusCancelled || last.Type != taskbridge.EventCancelled || last.Reason != reason || last.Message != message {
		f.t.Fatalf("the task is %s %s, want CANCELLED %q %q", row.Status, row.Terminal, reason, message)
	}
}

func TestCancellationTerminatesTheCommand(t *testing.T) {
	const ready = `echo '::taskbridge {"message":"ready"}'; `
	for _, test := range []struct{ name, script, how string }{
		{"that does not handle it", ready + `sleep 1000`, "killed by signal 15 (terminated)"},
		{"that handles it", `trap 'echo "::taskbridge {\"progress\":99}"; exit 7' TERM; ` + ready + `while :; do :; done`, "exit status 7"},
		{"that completes all the same", `trap 'echo "::taskbridge {\"result\":1}"; exit 0' TERM; ` + ready + `while :; do :; done`, "exit status 0"},
		{"that reports a failure", `trap 'echo "::taskbridge {\"fail\":{\"code\":\"A\",\"message\":\"m\"}}"; exit 1' TERM; ` + ready + `while :; do :; done`, "exit status 1"},
		{"that is stopped", ready + `kill -STOP $$`, "killed by signal 15 (terminated)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, map[string]Command{"x": script(test.script)})
			task := f.create("x", `{}`)
			f.message(task, "ready")
			f.cancel(task, "no longer wanted")
			f.wantCancelled(f.end(task), "no longer wanted", "the command was stopped: "+test.how)
		})
	}
}

func TestACommandThatIgnoresSIGTERMIsKilledAfterTheGrace(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{"x": script(fmt.Sprintf(
		`exec 3>%s; trap 'echo "::taskbridge {\"message\":\"asked\"}"' TERM; echo '::taskbridge {"message":"ready"}'; while :; do sleep 1000 & wait; done`, w.path))})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	f.cancel(task, "r")
	f.message(task, "asked")
	if row := f.row(task); row.Status != taskbridge.StatusRunning {
		t.Fatalf("the task is %s while its command runs", row.Status)
	}
	f.clock.fire(t, graceHeld)
	f.wantCancelled(f.end(task), "r", "the command was stopped: killed by signal 9 (killed)")
	w.gone()
}

// stragglers start processes that leave their parent's group in every way that
// keeps the claim or a relative; each has the witness open. Some say "r" to it
// once they are where they are to be: announced in number. Of those some ignore
// SIGTERM, one goes on to breed, and one does so when it gets the signal.
func stragglers(w *witness) string {
	self, err := os.Executable()
	must(w.t, err)
	return fmt.Sprintf(`exec 3>%s
		sleep 1000 &
		env -i sleep 1000 &
		(trap '' TERM; echo r >&3; sleep 1000; sleep 1000) &
		setsid sleep 1000 &
		(setsid setsid sleep 1000 &)
		%[2]s helper group sleep 1000 &
		env -i PATH="$PATH" %[2]s helper group sleep 1000 &
		setsid sh -c '(trap "" TERM; echo r >&3; sleep 1000; sleep 1000) & wait' &
		setsid sh -c 'trap "" TERM; env -i /bin/sh -c "echo r >&3; for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; done; wait" & wait; wait' &
		setsid sh -c 'sh -c "env -i /bin/sh -c \"trap : TERM; echo r >&3; while :; do sleep 1000 & wait; done\" & wait" &' &
		setsid sh -c 'trap "env -i sleep 1000 & exit" TERM; echo r >&3; while :; do sleep 1000 & wait; done' &
		`, w.path, self)
}

const announced = 7

func TestCancellationReachesEveryDescendant(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{"x": script(stragglers(w) + "env -i setsid sleep 1000 & wait")})
	task := f.create("x", `{}`)
	w.hears(announced * len("r\n"))
	f.cancel(task, "r")
	f.clock.fire(t, graceHeld)
	row := f.end(task)
	if row.Status != taskbridge.StatusCancelled {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	w.gone()
}

func TestWhatACommandLeavesBehindIsKilledBeforeItsTaskEnds(t *testing.T) {
	w, gate := newWitness(t), newWitness(t)
	f := newFixture(t, map[string]Command{"x": script(stragglers(w) + `echo '::taskbridge {"result":1}'; read -r line < ` + gate.path)})
	task := f.create("x", `{}`)
	w.hears(announced * len("r\n"))
	gate.opens()
	f.clock.fire(t, graceHeld)
	row := f.end(task)
	if result, _ := row.Result(); string(result) != "1" {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	w.gone()
}

func TestALeftoverThatOnlyHasTheClaimIsFound(t *testing.T) {
	w := newWitness(t)
	// Nothing but the environment ties it to its execution.
	f := newFixture(t, map[string]Command{"x": script(fmt.Sprintf(`exec 3>%s; (setsid sleep 1000 >/dev/null 2>&1 &); exit 0`, w.path))})
	if row := f.end(f.create("x", `{}`)); row.Status != taskbridge.StatusCompleted {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	w.gone()
}

func TestAFencedCommandIsKilledAndReportsNothingMore(t *testing.T) {
	w := newWitness(t)
	f := newFixture(t, map[string]Command{"x": script(fmt.Sprintf(
		`exec 3>%s; trap 'echo "::taskbridge {\"message\":\"late\"}"; exit 0' TERM; echo '::taskbridge {"message":"ready"}'; while :; do :; done`, w.path))})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	must(t, f.lifecycle.Settle(f.ctx, task.ID, taskbridge.Outcome{
		Status:  taskbridge.StatusFailed,
		Failure: taskbridge.Failure{Code: "SEEN_FROM_OUTSIDE", Message: "m"},
	}))
	f.wantFailure(f.end(task), "SEEN_FROM_OUTSIDE", false)
	w.gone()
	if got := f.messages(task); len(got) != 1 {
		t.Fatalf("got %q", got)
	}
}

func TestACancelledTaskThatWaitsNeverRuns(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{
		"gate": script("read -r line < " + gate.path),
		"x":    script(`echo '::taskbridge {"message":"ran"}'`),
	}, func(o *Options) { o.MaxRunning = 1 })
	first := f.create("gate", `{}`)
	before, waiting, behind := f.create("x", `{}`), f.create("x", `{}`), f.create("x", `{}`)
	f.cancel(waiting, "changed my mind")
	f.wantCancelled(f.end(waiting), "changed my mind", "the command was not started")
	for _, task := range []taskbridge.Task{before, behind} {
		if row := f.row(task); row.Status != taskbridge.StatusAccepted {
			t.Fatalf("a task that waits is %s", row.Status)
		}
	}
	gate.opens()
	for _, task := range []taskbridge.Task{first, before, behind} {
		if row := f.end(task); row.Status != taskbridge.StatusCompleted {
			t.Fatalf("%s %s", row.Status, row.Terminal)
		}
	}
	if got := f.messages(waiting); len(got) != 0 || f.row(waiting).Attempt != 0 {
		t.Fatalf("the cancelled task ran: %q", got)
	}
	if f.lifecycle.starts.Load() != 3 {
		t.Fatalf("%d starts", f.lifecycle.starts.Load())
	}
}

func TestAWaitingTaskWhoseCancellationIsNotRecordedDoesNotRunEither(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{
		"gate": script("read -r line < " + gate.path),
		"x":    script(`echo '::taskbridge {"message":"ran"}'`),
	}, func(o *Options) { o.MaxRunning = 1 })
	away := errors.New("the store is away")
	f.lifecycle.settle = func(context.Context, string) error { return away }
	first, waiting := f.create("gate", `{}`), f.create("x", `{}`)
	f.cancel(waiting, "r")
	if err := f.executor.RequestCancellation(f.ctx, waiting, "r"); !errors.Is(err, away) {
		t.Fatalf("got %v", err)
	}
	if got, err := f.executor.InspectTask(f.ctx, waiting); err != nil || got.Knowledge != taskbridge.InspectionWaiting {
		t.Fatalf("got %+v, %v", got, err)
	}
	gate.opens()
	f.end(first)
	f.wantCancelled(f.end(waiting), "r", "")
	if got := f.messages(waiting); len(got) != 0 || f.row(waiting).Attempt != 0 {
		t.Fatalf("the cancelled task ran: %q", got)
	}
}

func TestCancellationOfATaskThatIsNotHereIsNoError(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	if err := f.executor.RequestCancellation(f.ctx, taskbridge.Task{ID: "000-none", Type: "x"}, "r"); err != nil {
		t.Fatal(err)
	}
}

func TestCancellationDuringTheStartEndsTheTaskUnstarted(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`echo '::taskbridge {"message":"ran"}'`)})
	starting, goOn := make(chan struct{}), make(chan struct{})
	f.lifecycle.start = func(context.Context, string) error {
		close(starting)
		<-goOn
		return nil
	}
	task := f.create("x", `{}`)
	<-starting
	f.cancel(task, "r")
	close(goOn)
	f.wantCancelled(f.end(task), "r", "")
	if got := f.messages(task); len(got) != 0 {
		t.Fatalf("the cancelled task ran: %q", got)
	}
}

func TestCancellationBehindTheStartEndsTheTaskWithoutItsCommand(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`echo '::taskbridge {"message":"ran"}'`)})
	f.lifecycle.started = func(taskID string) { f.cancel(taskbridge.Task{ID: taskID}, "r") }
	task := f.create("x", `{}`)
	f.wantCancelled(f.end(task), "r", "the command was not started")
	if got := f.messages(task); len(got) != 0 {
		t.Fatalf("the cancelled task ran: %q", got)
	}
}

func TestCancelAgainstComplete(t *testing.T) {
	const rounds = 200
	f := newFixture(t, map[string]Command{"x": script(`echo '::taskbridge {"result":1}'`)},
		func(o *Options) { o.MaxRunning = 8 })
	var tasks []taskbridge.Task
	for range rounds {
		tasks = append(tasks, f.create("x", `{}`))
	}
	var cancellers sync.WaitGroup
	for _, task := range tasks {
		cancellers.Go(func() {
			if _, _, err := f.bridge.Cancellation.CancelTask(f.ctx, owner, task.ID, "race"); err != nil {
				t.Errorf("cancel: %v", err)
			}
		})
		row := f.end(task)
		events := f.events(task)
		terminal := 0
		for _, event := range events {
			if event.Type.Terminal() {
				terminal++
			}
		}
		last := events[len(events)-1].Type
		if terminal != 1 || last.Status() != row.Status {
			t.Fatalf("the row is %s, the stream %+v", row.Status, events)
		}
		if row.Status == taskbridge.StatusFailed {
			t.Fatalf("%s", row.Terminal)
		}
	}
	cancellers.Wait()
}

func TestThatACommandHasEndedCountsBeforeACancellation(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`trap '' TERM; sleep 1000 & echo "::taskbridge {\"message\":\"pid $$\"}"; kill -9 $$`)})
	task := f.create("x", `{}`)
	pid, err := strconv.Atoi(f.message(task, "pid "))
	must(t, err)
	// The command is dead; what it left keeps the execution from its end.
	f.until(deadline(), "the command ends", func() bool { return isDead(pid) })
	f.cancel(task, "late")
	f.clock.fire(t, graceHeld)
	failure := f.wantFailure(f.end(task), "SIGNALLED", false)
	if !strings.Contains(failure.Message, "signal 9") || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		t.Fatalf("%+v", failure)
	}
}
