package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var createChecks = []check[registryHarness]{
	{"create inserts the row with revision 1", createInserts},
	{"create with a key that is there returns that row and changes nothing", createDeduplicates},
	{"one key from 300 concurrent creates makes one row and gives it to all", createConcurrentlyOneKey},
	{"300 concurrent creates with keys of their own make 300 rows", createConcurrentlyManyKeys},
	{"keys are the pair of owner and client request id, byte for byte", createKeysApart},
	{"an id that belongs to another key is refused and changes nothing", createForeignID},
}

func createInserts(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	task := newTask("owner", "key")
	task.Revision = 77 // not for the caller to choose
	row := create(ctx, t, tasks, task)
	task.Revision = 1
	same(t, "the row that CreateTask returned", task, row)
	same(t, "the row as read", task, get(ctx, t, tasks, task.ID))
}

func createDeduplicates(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	original := filledTask("owner", "key", 1)
	original.Status = taskbridge.StatusAccepted
	create(ctx, t, tasks, original)

	other := filledTask("owner", "key", 2) // whatever else differs
	for range 2 {
		row, created, err := tasks.CreateTask(ctx, other)
		if err != nil || created {
			t.Fatalf("the second CreateTask of the key: created %v, %v", created, err)
		}
		same(t, "the row that the second CreateTask returned", original, row)
	}
	same(t, "the row as read", original, get(ctx, t, tasks, original.ID))
	if _, err := tasks.GetTask(ctx, other.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask of the id that was not used: %v, want ErrTaskNotFound", err)
	}

	// It is the row of now that comes back, not the one that was created.
	next := original
	next.Status, next.Attempt = taskbridge.StatusRunning, 9
	changed := update(ctx, t, tasks, next)
	row, created, err := tasks.CreateTask(ctx, other)
	if err != nil || created {
		t.Fatalf("CreateTask after an update: created %v, %v", created, err)
	}
	same(t, "the row that CreateTask returned after an update", changed, row)
}

func createConcurrentlyOneKey(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	const callers = 300
	var (
		sent, rows [callers]taskbridge.Task
		created    [callers]bool
		errs       [callers]error
	)
	for i := range callers {
		sent[i] = newTask("owner", "key")
		sent[i].Input = fmt.Appendf(nil, `{"caller":%d}`, i)
	}
	together(callers, func(i int) {
		rows[i], created[i], errs[i] = tasks.CreateTask(ctx, sent[i])
	})
	winner := -1
	for i := range callers {
		switch {
		case errs[i] != nil:
			t.Fatalf("caller %d: %v", i, errs[i])
		case created[i] && winner >= 0:
			t.Fatalf("callers %d and %d both created", winner, i)
		case created[i]:
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal("no caller created the row")
	}
	for i := range callers {
		same(t, fmt.Sprintf("the row that caller %d got", i), sent[winner], rows[i])
	}
	listed, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 10})
	if err != nil || len(listed) != 1 {
		t.Errorf("the list has %d rows (%v), want 1", len(listed), err)
	}
}

func createConcurrentlyManyKeys(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	const callers = 300
	var (
		sent    [callers]taskbridge.Task
		created [callers]bool
		errs    [callers]error
	)
	for i := range callers {
		sent[i] = newTask("owner", fmt.Sprintf("key-%d", i))
	}
	together(callers, func(i int) {
		_, created[i], errs[i] = tasks.CreateTask(ctx, sent[i])
	})
	for i := range callers {
		if errs[i] != nil || !created[i] {
			t.Fatalf("caller %d: created %v, %v", i, created[i], errs[i])
		}
		same(t, "the row as read", sent[i], get(ctx, t, tasks, sent[i].ID))
	}
	listed, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Limit: callers + 1})
	if err != nil || len(listed) != callers {
		t.Errorf("the list has %d rows (%v), want %d", len(listed), err, callers)
	}
}

func createKeysApart(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	var keys [][2]string
	for _, name := range oddNames() {
		keys = append(keys, [2]string{name, "key"}, [2]string{"owner", name})
	}
	// Pairs that run together where owner and key are merely joined.
	keys = append(keys, [2]string{"ab", "c"}, [2]string{"a", "bc"},
		[2]string{"p:q", "r"}, [2]string{"p", "q:r"}, [2]string{"p/q", "r"}, [2]string{"p", "q/r"})
	var rows []taskbridge.Task
	for _, key := range keys {
		task := newTask(key[0], key[1])
		task.Type, task.Fingerprint = key[1], key[0]
		rows = append(rows, create(ctx, t, tasks, task))
	}
	for i, key := range keys {
		same(t, fmt.Sprintf("the row of %q", key), rows[i], get(ctx, t, tasks, rows[i].ID))
		row, created, err := tasks.CreateTask(ctx, newTask(key[0], key[1]))
		if err != nil || created || row.ID != rows[i].ID {
			t.Errorf("CreateTask of %q again: id %s, created %v, %v; want the row %s", key, row.ID, created, err, rows[i].ID)
		}
	}
}

func createForeignID(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))
	thief := newTask("thief", "other key")
	thief.ID, thief.Input = row.ID, json.RawMessage(`{"stolen":true}`)
	if _, created, err := tasks.CreateTask(ctx, thief); err == nil || created {
		t.Errorf("CreateTask with the id of another row: created %v, %v; want an error", created, err)
	}
	same(t, "the row that has the id", row, get(ctx, t, tasks, row.ID))
	thief.ID = taskbridge.NewTaskID(thief.Owner, thief.ClientRequestID)
	create(ctx, t, tasks, thief) // the refused key is still free
}
