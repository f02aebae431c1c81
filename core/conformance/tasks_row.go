package conformance

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var rowChecks = []check[registryHarness]{
	{"every field of a created row comes back, times in UTC to the microsecond", rowFieldsCreated},
	{"every changeable field comes back from an update, and back to zero again", rowFieldsUpdated},
	{"get of an id that is not there is ErrTaskNotFound", rowMissing},
	{"rows are values: nothing that is passed in or handed out is shared", rowsAreValues},
	{"an input of 1 MiB, metadata of 64 KiB and a terminal payload of 256 KiB come back", rowsAreLarge},
	{"odd text comes back byte for byte in every text field", rowsWithOddText},
}

func rowFieldsCreated(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	task := filledTask("owner", "key", 1)
	task.Status, task.Terminal = taskbridge.StatusAccepted, nil
	same(t, "the row that CreateTask returned", task, create(ctx, t, tasks, task))
	same(t, "the row as read", task, get(ctx, t, tasks, task.ID))
	if h.Reopen != nil {
		tasks = h.Reopen(t, tasks)
		same(t, "the row after a reopening", task, get(ctx, t, tasks, task.ID))
	}
}

func rowFieldsUpdated(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))

	// All changeable fields at once, twice, the second time as at the end.
	for round, status := range []taskbridge.TaskStatus{taskbridge.StatusRunning, taskbridge.StatusCompleted} {
		next := changed(row, filledTask("owner", "key", int64(10+round)))
		next.Status = status
		if !status.Terminal() {
			next.Terminal = nil
		}
		got := update(ctx, t, tasks, next)
		next.Revision++
		same(t, "the row that UpdateTask returned", next, got)
		row = get(ctx, t, tasks, next.ID)
		same(t, "the row as read", next, row)
	}

	// Back to nothing: no field may stick.
	next := changed(row, taskbridge.Task{})
	next.Status = taskbridge.StatusCompleted
	update(ctx, t, tasks, next)
	next.Revision++
	same(t, "the row after its fields were cleared", next, get(ctx, t, tasks, next.ID))

	// One field at a time, so that none depends on another.
	full := filledTask("owner", "key", 20)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[taskbridge.Task]()) {
		if writtenOnce[field.Name] || field.Name == "Revision" || field.Name == "Status" {
			continue
		}
		next := next
		next.Revision = get(ctx, t, tasks, next.ID).Revision
		reflect.ValueOf(&next).Elem().FieldByIndex(field.Index).
			Set(reflect.ValueOf(full).FieldByIndex(field.Index))
		update(ctx, t, tasks, next)
		next.Revision++
		same(t, "the row with only "+field.Name+" set", next, get(ctx, t, tasks, next.ID))
	}
}

// changed returns the row with all changeable fields taken from another, except
// for the revision.
func changed(row, from taskbridge.Task) taskbridge.Task {
	next := reflect.ValueOf(&row).Elem()
	for _, field := range reflect.VisibleFields(next.Type()) {
		if !writtenOnce[field.Name] && field.Name != "Revision" {
			next.FieldByIndex(field.Index).Set(reflect.ValueOf(from).FieldByIndex(field.Index))
		}
	}
	return row
}

func rowMissing(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	create(ctx, t, tasks, newTask("owner", "key"))
	for _, id := range []string{newID(), "x", ""} {
		if row, err := tasks.GetTask(ctx, id); !errors.Is(err, taskbridge.ErrTaskNotFound) {
			t.Errorf("GetTask(%q) = %+v, %v; want ErrTaskNotFound", id, row, err)
		}
	}
}

func rowsAreValues(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	want := filledTask("owner", "key", 1)
	want.Status, want.Terminal = taskbridge.StatusAccepted, nil

	passed := want.Clone()
	returned := create(ctx, t, tasks, passed)
	scribble(&passed)
	same(t, "what CreateTask returned, after the caller wrote into what was passed", want, returned)
	scribble(&returned)
	same(t, "the row after the caller wrote into what was passed and returned", want, get(ctx, t, tasks, want.ID))

	for _, hand := range []struct {
		name string
		out  func() (taskbridge.Task, error)
	}{
		{"CreateTask of a row that is there", func() (taskbridge.Task, error) {
			row, _, err := tasks.CreateTask(ctx, want.Clone())
			return row, err
		}},
		{"GetTask", func() (taskbridge.Task, error) { return tasks.GetTask(ctx, want.ID) }},
		{"ListTasks", func() (taskbridge.Task, error) {
			rows, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Limit: 1})
			if err != nil || len(rows) != 1 {
				return taskbridge.Task{}, fmt.Errorf("%d rows: %w", len(rows), err)
			}
			return rows[0], nil
		}},
	} {
		row, err := hand.out()
		if err != nil {
			t.Fatalf("%s: %v", hand.name, err)
		}
		scribble(&row)
		same(t, "the row after the caller wrote into what "+hand.name+" returned", want, get(ctx, t, tasks, want.ID))
	}

	running := want.Clone()
	running.Status = taskbridge.StatusRunning
	next := changed(update(ctx, t, tasks, running), filledTask("owner", "key", 2))
	next.Status = taskbridge.StatusCompleted
	passed = next.Clone()
	returned = update(ctx, t, tasks, passed)
	next.Revision++
	scribble(&passed)
	scribble(&returned)
	same(t, "the row after the caller wrote into what UpdateTask was given and returned", next, get(ctx, t, tasks, want.ID))
}

func rowsAreLarge(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	limits := taskbridge.DefaultLimits()
	task := newTask("owner", "key")
	task.Input = jsonOfSize("input", limits.Input)
	task.Metadata = jsonOfSize("metadata", limits.Metadata)
	row := create(ctx, t, tasks, task)
	same(t, "the row as read", task, get(ctx, t, tasks, task.ID))

	row.Status = taskbridge.StatusRunning
	row = update(ctx, t, tasks, row)
	row.Status = taskbridge.StatusCompleted
	row.Terminal = jsonOfSize("result", limits.TerminalPayload)
	for i := range limits.Suspensions {
		row.SuspendIDs = append(row.SuspendIDs, fmt.Sprintf("suspend-%d", i))
	}
	update(ctx, t, tasks, row)
	row.Revision++
	same(t, "the row at its end", row, get(ctx, t, tasks, task.ID))

	listed, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Limit: 1})
	if err != nil || len(listed) != 1 {
		t.Fatalf("ListTasks: %d rows, %v", len(listed), err)
	}
	row.Input, row.Terminal = nil, nil
	same(t, "the row in a list", row, listed[0])
}

func rowsWithOddText(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	for i, name := range oddNames() {
		row := create(ctx, t, tasks, newTask("owner", fmt.Sprintf("key-%d", i)))
		row.Claim, row.Instance, row.Cancellation.Reason = name, name, name
		row.Cancellation.RequestedAt = instant
		row.SuspendIDs = []string{name, name + name}
		row.Suspension = &taskbridge.Suspension{
			SuspendID: name, Kind: taskbridge.SuspendUserAction, ReasonCode: name,
			AllowedActions: []string{name, name}, SchemaVersion: 1,
		}
		update(ctx, t, tasks, row)
		row.Revision++
		same(t, fmt.Sprintf("the row with %q", name), row, get(ctx, t, tasks, row.ID))
	}

	// Times at the edges of what formats and integer columns keep apart.
	times := []time.Time{at(1), at(100_000 - 13), at(999_987), instant.Truncate(time.Second),
		time.Date(1970, 1, 1, 0, 0, 0, 1000, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)}
	for i, moment := range slices.Backward(times) {
		task := newTask("owner", fmt.Sprintf("moment-%d", i))
		task.CreatedAt, task.UpdatedAt, task.StartedAt, task.FinishedAt = moment, moment, moment, moment
		task.Due.Inspection = moment
		create(ctx, t, tasks, task)
		same(t, fmt.Sprintf("the row of %v", moment), task, get(ctx, t, tasks, task.ID))
	}
}
