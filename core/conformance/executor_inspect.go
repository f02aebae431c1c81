package conformance

import (
	"fmt"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var executorInspectChecks = []check[ExecutorHarness]{
	{"an inspector knows a task that was never submitted for absent", inspectAbsent},
	{"an inspector knows a task that waits, runs and has ended for what it is", inspectStages},
	{"an inspection changes nothing", inspectHarmless},
}

// inspect asks until the runtime knows the task for one of what is wanted.
// Until then it may not know, and nothing may go backwards.
func (th *theatre) inspect(inspector taskbridge.TaskInspector, taskID string, wanted ...taskbridge.Knowledge) taskbridge.Inspection {
	th.t.Helper()
	var got taskbridge.Inspection
	eventually(th.ctx, th.t, fmt.Sprintf("an inspection as one of %v", wanted), func() (bool, any) {
		var err error
		if got, err = inspector.InspectTask(th.ctx, th.row(taskID)); err != nil {
			return false, err
		}
		return slices.Contains(wanted, got.Knowledge), got
	})
	return got
}

func (th *theatre) inspector() (taskbridge.TaskInspector, bool) {
	th.t.Helper()
	inspector, ok := th.Executor.(taskbridge.TaskInspector)
	if !ok {
		missing(th.t, "taskbridge.TaskInspector")
	}
	return inspector, ok
}

func inspectAbsent(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	if inspector, ok := th.inspector(); ok {
		th.inspect(inspector, th.task(h.Completes).ID, taskbridge.InspectionAbsent)
	}
}

func inspectStages(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	inspector, ok := th.inspector()
	if !ok {
		return
	}
	if release, ok := th.hold(h); ok {
		waiting := th.submit(h.Completes)
		th.inspect(inspector, waiting.ID, taskbridge.InspectionWaiting)
		release()
		th.await(waiting.ID, taskbridge.StatusCompleted)
	}
	running := th.submit(h.RunsOn)
	th.await(running.ID, taskbridge.StatusRunning)
	th.inspect(inspector, running.ID, taskbridge.InspectionRunning)
	th.cancel(running.ID, "enough")
	th.await(running.ID, taskbridge.StatusCancelled)

	completed, failed := th.submit(h.Completes), th.submit(h.Fails)
	for id, status := range map[string]taskbridge.TaskStatus{
		running.ID: taskbridge.StatusCancelled, completed.ID: taskbridge.StatusCompleted, failed.ID: taskbridge.StatusFailed,
	} {
		th.await(id, status)
		// The end is recorded, so a runtime need not remember it.
		got := th.inspect(inspector, id, taskbridge.InspectionFinished, taskbridge.InspectionGone, taskbridge.InspectionAbsent)
		if got.Knowledge == taskbridge.InspectionFinished && got.Outcome.Status != status {
			t.Errorf("the outcome of a %s task is %+v", status, got.Outcome)
		}
	}
}

func inspectHarmless(t *testing.T, h ExecutorHarness) {
	th := stage(t, h)
	inspector, ok := th.inspector()
	if !ok {
		return
	}
	task := th.submit(h.RunsOn)
	th.await(task.ID, taskbridge.StatusRunning)
	for range 5 {
		th.inspect(inspector, task.ID, taskbridge.InspectionRunning)
	}
	if row := th.row(task.ID); row.Status != taskbridge.StatusRunning {
		t.Errorf("the task is %s", row.Status)
	}
	th.cancel(task.ID, "enough")
	th.await(task.ID, taskbridge.StatusCancelled)
	th.ranOnce(task.ID)
}
