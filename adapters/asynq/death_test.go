//go:build linux

package asynqadapter

import (
	"os"
	"strings"
	"syscall"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestATaskWhoseWorkerIsKilledRunsAgainWithOneStream(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{})
	f.reconcile()
	first := f.work()
	task := f.create("obey", `{}`)
	first.says("begun 1")
	first.kill()
	f.expireLease(task)
	second := f.work()
	second.says("begun 2")
	second.order("finish")
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != "2" {
		t.Errorf("the result is %s", result)
	}
	f.wantStream(task, "STARTED PROGRESS MESSAGE PROGRESS COMPLETED")
	if warning := f.stream(task)[2]; !strings.Contains(warning, `"level":"warning"`) {
		t.Errorf("the message of the second attempt is %s", warning)
	}
	f.wantEffects(task.ID + " 2")
}

func (f *processFixture) wantEffects(want ...string) {
	f.t.Helper()
	data, err := os.ReadFile(f.effects)
	must(f.t, err)
	if got := strings.Fields(strings.ReplaceAll(string(data), " ", ":")); strings.Join(got, ",") != strings.ReplaceAll(strings.Join(want, ","), " ", ":") {
		f.t.Errorf("the effects are %q, want %q", got, want)
	}
}

func TestALateReportOfAWorkerThatWasPausedIsRefused(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{})
	f.reconcile()
	first := f.work()
	task := f.create("obey", `{}`)
	first.says("begun 1")
	first.pause()
	f.expireLease(task)
	second := f.work()
	second.says("begun 2")
	first.order("report")
	first.signal(syscall.SIGCONT)
	// It learns that it was replaced, or is refused first; either way it stops.
	line := receive(t, "the first worker goes on", first.lines)
	if line == "reported false" {
		line = receive(t, "the first worker stops", first.lines)
	}
	if line != "stopped false" {
		t.Errorf("the first worker says %q", line)
	}
	second.order("report")
	second.says("reported true")
	second.order("finish")
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED PROGRESS MESSAGE PROGRESS MESSAGE COMPLETED")
	f.wantEffects(task.ID + " 2")
}

func TestATaskArchivedWithItsLastLeaseFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{change: func(o *Options) {
		once := o.Types["obey"]
		once.MaxRetry = NoRetry
		o.Types["obey"] = once
	}})
	f.reconcile()
	first := f.work()
	task := f.create("obey", `{}`)
	first.says("begun 1")
	first.kill()
	f.expireLease(task)
	f.work()
	f.wantEnd(task, CodeLeaseExpired, true)
	f.wantStream(task, "STARTED PROGRESS FAILED")
	if state := f.state(task); state != "archived" {
		t.Errorf("asynq has the task %s", state)
	}
}

func TestAWorkerProcessThatIsToldToStopHandsItsTaskOn(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{})
	f.reconcile()
	first := f.work()
	task := f.create("obey", `{}`)
	first.says("begun 1")
	first.signal(syscall.SIGTERM)
	if err := first.wait(); err != nil {
		t.Errorf("the worker exits with %v", err)
	}
	second := f.work()
	second.says("begun 2")
	second.order("finish")
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED PROGRESS MESSAGE PROGRESS COMPLETED")
}

func TestWorkInAnotherProcessLearnsOfItsCancellation(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{})
	worker := f.work()
	task := f.create("obey", `{}`)
	worker.says("begun 1")
	f.cancel(task, "enough")
	worker.says("stopped true")
	f.wantCancelled(task, "enough")
	f.wantStream(task, "STARTED PROGRESS CANCELLED")
}

func TestAPausedWorkerDoesNotKeepACancelledTaskFromEnding(t *testing.T) {
	t.Parallel()
	f := newProcessFixture(t, fixtureOptions{})
	f.reconcile()
	first := f.work()
	task := f.create("obey", `{}`)
	first.says("begun 1")
	first.pause()
	f.cancel(task, "enough")
	f.expireLease(task)
	f.work() // which is given the task, and must not run it
	f.wantCancelled(task, "enough")
	if row := f.row(task); row.Attempt != 1 || row.Status != taskbridge.StatusCancelled {
		t.Errorf("the task is %s after %d attempts", row.Status, row.Attempt)
	}
	first.signal(syscall.SIGCONT)
}
