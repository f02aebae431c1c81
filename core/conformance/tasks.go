package conformance

import (
	"context"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

type (
	registry        = taskbridge.TaskRegistry
	registryHarness = Harness[registry]
)

// RunTaskRegistry checks every obligation of [taskbridge.TaskRegistry].
func RunTaskRegistry[S taskbridge.TaskRegistry](t *testing.T, h Harness[S]) {
	runChecks(t, through(t, h, func(s S) registry { return s }),
		createChecks, rowChecks, updateChecks, listChecks, dueChecks, retireChecks, taskWatchChecks, registryObligationChecks)
}

// create makes the row, which must be new.
func create(ctx context.Context, t *testing.T, tasks registry, task taskbridge.Task) taskbridge.Task {
	t.Helper()
	row, created, err := tasks.CreateTask(ctx, task)
	if err != nil {
		t.Fatalf("CreateTask: %v", err)
	}
	if !created {
		t.Fatalf("CreateTask found a row with the key (%q, %q): %s", task.Owner, task.ClientRequestID, row.ID)
	}
	return row
}

// update replaces the row, which must be allowed.
func update(ctx context.Context, t *testing.T, tasks registry, next taskbridge.Task) taskbridge.Task {
	t.Helper()
	row, err := tasks.UpdateTask(ctx, next)
	if err != nil {
		t.Fatalf("UpdateTask of revision %d, status %s: %v", next.Revision, next.Status, err)
	}
	return row
}

// get reads the row, which must be there.
func get(ctx context.Context, t *testing.T, tasks registry, taskID string) taskbridge.Task {
	t.Helper()
	row, err := tasks.GetTask(ctx, taskID)
	if err != nil {
		t.Fatalf("GetTask: %v", err)
	}
	return row
}

// withStatus makes a row and brings it to the status by allowed steps.
func withStatus(ctx context.Context, t *testing.T, tasks registry, clientRequestID string, status taskbridge.TaskStatus) taskbridge.Task {
	t.Helper()
	row := create(ctx, t, tasks, newTask("owner", clientRequestID))
	steps := []taskbridge.TaskStatus{status}
	if status == taskbridge.StatusAccepted {
		steps = nil
	} else if status.Terminal() {
		steps = []taskbridge.TaskStatus{taskbridge.StatusRunning, status}
	}
	for _, step := range steps {
		row.Status = step
		if step.Terminal() {
			row.Terminal = []byte(`{"result":null}`)
		}
		row = update(ctx, t, tasks, row)
	}
	return row
}
