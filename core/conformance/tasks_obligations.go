package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var registryObligationChecks = []check[registryHarness]{
	{"a call whose context has ended has no effect", registryCancelled},
	{"after closing every method is ErrClosed, and a stop still works", registryClosed},
	{"rows and keys outlive a reopening", registryReopened},
	{"a row that a call has returned is there, though the store is closed in the midst of calls", registryClosedInTheMidst},
	{"another server sees a row as soon as the call that wrote it has returned", registryPeer},
}

// call is one call of a method, made to be refused.
type call struct {
	name string
	do   func(ctx context.Context) error
}

// registryCalls returns a call of every method that would succeed on the row,
// which has ended.
func registryCalls(tasks registry, row taskbridge.Task) []call {
	fresh := newTask("owner", "fresh key")
	next := row
	next.Claim = "changed"
	return []call{
		{"CreateTask", func(ctx context.Context) error { _, _, err := tasks.CreateTask(ctx, fresh); return err }},
		{"CreateTask of a key that is there", func(ctx context.Context) error { _, _, err := tasks.CreateTask(ctx, row); return err }},
		{"GetTask", func(ctx context.Context) error { _, err := tasks.GetTask(ctx, row.ID); return err }},
		{"UpdateTask", func(ctx context.Context) error { _, err := tasks.UpdateTask(ctx, next); return err }},
		{"ListTasks", func(ctx context.Context) error {
			_, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 5})
			return err
		}},
		{"DueTasks", func(ctx context.Context) error {
			_, err := tasks.DueTasks(ctx, taskbridge.DueSubmission, instant, 5)
			return err
		}},
		{"RetireTask", func(ctx context.Context) error { return tasks.RetireTask(ctx, row, instant) }},
		{"DeleteTask", func(ctx context.Context) error { return tasks.DeleteTask(ctx, row.ID) }},
		{"WatchTask", func(ctx context.Context) error {
			stop, err := tasks.WatchTask(ctx, row.ID, func() {})
			if err == nil {
				stop()
			}
			return err
		}},
	}
}

func refused(ctx context.Context, t *testing.T, want error, calls []call) {
	t.Helper()
	for _, c := range calls {
		if err := c.do(ctx); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", c.name, err, want)
		}
	}
}

func registryCancelled(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusCompleted)
	tombstone := retire(t, tasks, "retired", at(0)).ID
	refused(cancelled(), t, context.Canceled, append(registryCalls(tasks, row), call{"DeleteTask of a tombstone",
		func(ctx context.Context) error { return tasks.DeleteTask(ctx, tombstone) }}))
	same(t, "the row after the refused calls", row, get(ctx, t, tasks, row.ID))
	create(ctx, t, tasks, newTask("owner", "fresh key"))
	if got := dueTasks(t, tasks, taskbridge.DueDeletion, at(0), 10); !slices.Equal(got, []string{tombstone}) {
		t.Errorf("due for deletion: %v, want %s", got, tombstone)
	}
}

func registryClosed(t *testing.T, h registryHarness) {
	if h.Close == nil {
		missing(t, "Close")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusCompleted)
	stop, err := tasks.WatchTask(ctx, row.ID, func() {})
	if err != nil {
		t.Fatalf("WatchTask: %v", err)
	}
	if err := h.Close(tasks); err != nil {
		t.Fatalf("Close: %v", err)
	}
	refused(ctx, t, taskbridge.ErrClosed, registryCalls(tasks, row))
	stop()
	if err := h.Close(tasks); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func registryReopened(t *testing.T, h registryHarness) {
	if h.Reopen == nil {
		missing(t, "Reopen")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	var rows []taskbridge.Task
	for round := range 3 {
		row := create(ctx, t, tasks, newTask("owner", fmt.Sprintf("key-%d", round)))
		next := changed(row, filledTask("owner", "key", int64(round)))
		next.Terminal = nil
		rows = append(rows, update(ctx, t, tasks, next))
		create(ctx, t, tasks, newTask("owner", fmt.Sprintf("plain-%d", round)))

		tasks = h.Reopen(t, tasks)
		for _, row := range rows {
			same(t, "the row after a reopening", row, get(ctx, t, tasks, row.ID))
			found, created, err := tasks.CreateTask(ctx, newTask(row.Owner, row.ClientRequestID))
			if err != nil || created {
				t.Fatalf("CreateTask of the key after a reopening: created %v, %v", created, err)
			}
			same(t, "the row by its key after a reopening", row, found)
		}
		listed, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Limit: 100})
		if want := 2 * (round + 1); err != nil || len(listed) != want {
			t.Errorf("the list after a reopening has %d rows, %v; want %d", len(listed), err, want)
		}
	}
}

func registryClosedInTheMidst(t *testing.T, h registryHarness) {
	if h.Close == nil || h.Reopen == nil {
		missing(t, "Close and Reopen")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	const writers = 8
	var (
		mu      sync.Mutex
		written []taskbridge.Task
		enough  = make(chan struct{})
		wg      sync.WaitGroup
	)
	for w := range writers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				row, _, err := tasks.CreateTask(ctx, newTask("owner", fmt.Sprintf("%d-%d", w, i)))
				if errors.Is(err, taskbridge.ErrClosed) {
					return
				}
				if err != nil {
					continue // cut off in the midst: the outcome is unknown
				}
				mu.Lock()
				if written = append(written, row); len(written) == 100 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	await(ctx, t, "a hundred rows", enough)
	reopened := h.Reopen(t, tasks)
	wg.Wait()
	if ctx.Err() != nil {
		t.Fatal("the closed store did not answer ErrClosed")
	}
	for _, row := range written {
		same(t, "a row that was written before the end", row, get(ctx, t, reopened, row.ID))
	}
}

func registryPeer(t *testing.T, h registryHarness) {
	if h.Peer == nil {
		missing(t, "Peer")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	stores := []registry{tasks, h.Peer(t, tasks)}
	for i := range 20 {
		here, there := stores[i%2], stores[(i+1)%2]
		row := create(ctx, t, here, newTask("owner", fmt.Sprintf("key-%d", i)))
		same(t, "the row on the other server", row, get(ctx, t, there, row.ID))
		row.Attempt = 5
		row = update(ctx, t, there, row)
		same(t, "the row on the first server", row, get(ctx, t, here, row.ID))
		_, created, err := there.CreateTask(ctx, newTask("owner", row.ClientRequestID))
		if err != nil || created {
			t.Errorf("CreateTask of the key on the other server: created %v, %v", created, err)
		}
	}
	// One key on both at once.
	for i := range 20 {
		var created [16]bool
		var errs [16]error
		together(16, func(c int) {
			_, created[c], errs[c] = stores[c%2].CreateTask(ctx, newTask("owner", fmt.Sprintf("race-%d", i)))
		})
		n := 0
		for _, c := range created {
			if c {
				n++
			}
		}
		if err := errors.Join(errs[:]...); err != nil || n != 1 {
			t.Fatalf("%d calls created the row, %v; want 1", n, err)
		}
	}
}
