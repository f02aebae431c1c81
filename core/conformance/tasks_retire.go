package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var retireChecks = []check[registryHarness]{
	{"a retired task is found by no call, and its key is free", retireHides},
	{"only an ended task of the same revision is retired", retireRefuses},
	{"tombstones are due for deletion, the oldest first, until they are deleted", retireTombstones},
	{"tombstones outlast a reopening", retireReopened},
	{"of 64 concurrent retirements one succeeds, and the key goes to one new task", retireRace},
	{"the watchers of a row are woken when it retires", retireWakes},
}

// retire makes a task that has ended disappear.
func retire(t *testing.T, tasks registry, key string, when time.Time) taskbridge.Task {
	t.Helper()
	ctx := deadline(t)
	row := withStatus(ctx, t, tasks, key, taskbridge.StatusCompleted)
	row.Due.Retention = at(0)
	row = update(ctx, t, tasks, row)
	if err := tasks.RetireTask(ctx, row, when); err != nil {
		t.Fatalf("RetireTask: %v", err)
	}
	return row
}

func retireHides(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	kept := withStatus(ctx, t, tasks, "kept", taskbridge.StatusFailed)
	row := retire(t, tasks, "key", at(1))
	if _, err := tasks.GetTask(ctx, row.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask: %v, want ErrTaskNotFound", err)
	}
	if _, err := tasks.UpdateTask(ctx, row); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("UpdateTask: %v, want ErrTaskNotFound", err)
	}
	if err := tasks.RetireTask(ctx, row, at(1)); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("RetireTask again: %v, want ErrTaskNotFound", err)
	}
	for _, query := range []taskbridge.TaskQuery{{AnyOwner: true, Limit: 10}, {Owner: row.Owner, Limit: 10}, {Owner: row.Owner, Statuses: []taskbridge.TaskStatus{row.Status}, Limit: 10}} {
		rows, err := tasks.ListTasks(ctx, query)
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range rows {
			if listed.ID != kept.ID {
				t.Errorf("ListTasks(%+v) has %s", query, listed.ID)
			}
		}
	}
	for _, kind := range taskbridge.DueKinds() {
		if got := dueTasks(t, tasks, kind, at(1_000_000), 10); len(got) != 0 {
			t.Errorf("DueTasks(%s): %v", kind, got)
		}
	}
	again := create(ctx, t, tasks, newTask(row.Owner, row.ClientRequestID))
	if got := get(ctx, t, tasks, again.ID); got.Status != taskbridge.StatusAccepted {
		t.Errorf("the new task of the key is %s", got.Status)
	}
}

func retireRefuses(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	for _, status := range []taskbridge.TaskStatus{taskbridge.StatusAccepted, taskbridge.StatusRunning} {
		row := withStatus(ctx, t, tasks, string(status), status)
		if err := tasks.RetireTask(ctx, row, at(1)); !errors.Is(err, taskbridge.ErrIllegalTransition) {
			t.Errorf("%s: %v, want ErrIllegalTransition", status, err)
		}
		get(ctx, t, tasks, row.ID)
	}
	row := withStatus(ctx, t, tasks, "ended", taskbridge.StatusCancelled)
	stale := row
	stale.Revision--
	if err := tasks.RetireTask(ctx, stale, at(1)); !errors.Is(err, taskbridge.ErrRevisionConflict) {
		t.Errorf("another revision: %v, want ErrRevisionConflict", err)
	}
	get(ctx, t, tasks, row.ID)
	if err := tasks.RetireTask(ctx, newTask("owner", "missing"), at(1)); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("a missing task: %v, want ErrTaskNotFound", err)
	}
	if err := tasks.DeleteTask(ctx, row.ID); err != nil {
		t.Errorf("DeleteTask without a tombstone: %v", err)
	}
	get(ctx, t, tasks, row.ID)
	if err := tasks.RetireTask(cancelled(), row, at(1)); err == nil {
		t.Error("RetireTask under a cancelled context succeeded")
	}
	get(ctx, t, tasks, row.ID)
}

func retireTombstones(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	var want []string
	for i := range 6 {
		want = append(want, retire(t, tasks, fmt.Sprint("key-", i), at(int64(i))).ID)
	}
	for _, c := range []struct {
		before int64
		limit  int
		want   []string
	}{{-1, 10, nil}, {0, 10, want[:1]}, {3, 10, want[:4]}, {9, 2, want[:2]}, {9, 10, want}} {
		if got := dueTasks(t, tasks, taskbridge.DueDeletion, at(c.before), c.limit); !slices.Equal(got, c.want) {
			t.Errorf("due before %d, at most %d: %v, want %v", c.before, c.limit, got, c.want)
		}
	}
	for _, id := range want[1:3] {
		if err := tasks.DeleteTask(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if got := dueTasks(t, tasks, taskbridge.DueDeletion, at(9), 10); !slices.Equal(got, append(want[:1:1], want[3:]...)) {
		t.Errorf("after two deletions: %v", got)
	}
}

func retireReopened(t *testing.T, h registryHarness) {
	if h.Reopen == nil {
		missing(t, "Reopen")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	row := retire(t, tasks, "key", at(1))
	tasks = h.Reopen(t, tasks)
	if got := dueTasks(t, tasks, taskbridge.DueDeletion, at(1), 10); !slices.Equal(got, []string{row.ID}) {
		t.Errorf("due for deletion: %v, want %s", got, row.ID)
	}
	if _, err := tasks.GetTask(ctx, row.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask: %v, want ErrTaskNotFound", err)
	}
}

func retireRace(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusFailed)
	const callers = 64
	var errs, createErrs [callers]error
	var rows [callers]taskbridge.Task
	var created [callers]bool
	together(2*callers, func(i int) {
		if i < callers {
			errs[i] = tasks.RetireTask(ctx, row, at(0))
			return
		}
		i -= callers
		rows[i], created[i], createErrs[i] = tasks.CreateTask(ctx, newTask("owner", "key"))
	})
	retired, made, id := 0, 0, ""
	for i := range callers {
		switch {
		case errs[i] == nil:
			retired++
		case !errors.Is(errs[i], taskbridge.ErrTaskNotFound):
			t.Errorf("retirement %d: %v, want ErrTaskNotFound", i, errs[i])
		}
		switch {
		case createErrs[i] != nil:
			t.Errorf("creation %d: %v", i, createErrs[i])
		case created[i]:
			made, id = made+1, rows[i].ID
		}
	}
	if retired != 1 || made > 1 {
		t.Fatalf("%d retirements and %d creations succeeded, want 1 and at most 1", retired, made)
	}
	for i, got := range rows {
		if got.ID != row.ID && got.ID != id {
			t.Errorf("creation %d returned the row %s, which is neither the old nor the new one", i, got.ID)
		}
	}
}

func retireWakes(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusFailed)
	wake, woken := signal()
	stop, err := tasks.WatchTask(ctx, row.ID, wake)
	if err != nil {
		t.Fatalf("WatchTask: %v", err)
	}
	defer stop()
	if err := tasks.RetireTask(ctx, row, at(0)); err != nil {
		t.Fatalf("RetireTask: %v", err)
	}
	await(ctx, t, "the wake-up", woken)
}
