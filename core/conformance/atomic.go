package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

type (
	atomicStore   = taskbridge.AtomicStore
	atomicHarness = Harness[atomicStore]
)

// RunAtomicStore checks what [taskbridge.AtomicStore] adds to the two contracts
// that it is made of. Run [RunTaskRegistry] and [RunEventStore] beside it.
func RunAtomicStore[S taskbridge.AtomicStore](t *testing.T, h Harness[S]) {
	runChecks(t, through(t, h, func(s S) atomicStore { return s }), atomicChecks, atomicRaceChecks)
}

var atomicChecks = []check[atomicHarness]{
	{"row and events are written together, and the row comes back as from UpdateTask", atomicWrites},
	{"without events it is UpdateTask", atomicWithoutEvents},
	{"a row that is refused leaves the stream as it was", atomicRefusedRow},
	{"an event that is refused leaves the row and the other events as they were", atomicRefusedEvent},
	{"duplicates among the events are no error, and the rest is appended", atomicDuplicates},
	{"rules see the events that come before in the same call", atomicRulesWithin},
	{"an event of another task is refused and changes nothing", atomicForeignEvent},
	{"the watchers of row and stream are woken", atomicWakes},
	{"a call whose context has ended has no effect", atomicCancelled},
	{"after closing it is ErrClosed", atomicClosed},
	{"row and events outlive a reopening together", atomicReopened},
}

// sight is a task's row and stream, to be compared before and after.
type sight struct {
	Row    taskbridge.Task
	State  taskbridge.StreamState
	Events []taskbridge.Event
}

func see(ctx context.Context, t *testing.T, store atomicStore, taskID string) sight {
	t.Helper()
	return sight{get(ctx, t, store, taskID), streamState(ctx, t, store, taskID), readAll(ctx, t, store, taskID)}
}

// started makes a row that runs, with its TASK_STARTED and one message.
func started(ctx context.Context, t *testing.T, store atomicStore) taskbridge.Task {
	t.Helper()
	row := create(ctx, t, store, newTask("owner", "key"))
	row.Status, row.Attempt, row.Controls = taskbridge.StatusRunning, 2, 1
	start := control(row.ID, taskbridge.EventStarted, 1)
	start.Attempt = 2
	row, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{tagged(start)})
	if err != nil {
		t.Fatalf("UpdateTaskAndAppend: %v", err)
	}
	appendNew(ctx, t, store, message(row.ID, "source", 2, 5))
	return row
}

func atomicWrites(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := create(ctx, t, store, newTask("owner", "key"))
	next := changed(row, filledTask("owner", "key", 1))
	next.Terminal = nil
	next.Owner = "thief" // ignored, as by UpdateTask
	events := []taskbridge.EventAppend{
		control(row.ID, taskbridge.EventStarted, 1), message(row.ID, "source", 1, 1), message(row.ID, "source", 1, 2),
	}
	got, err := store.UpdateTaskAndAppend(ctx, next, events)
	if err != nil {
		t.Fatalf("UpdateTaskAndAppend: %v", err)
	}
	next.Revision++
	same(t, "the row that was returned", next, got)
	next.Owner = "owner"
	want := sight{Row: next, State: taskbridge.StreamState{
		First: 1, FirstTag: events[0].Tag, Last: 3, LastTag: events[2].Tag, LastAt: events[2].CreatedAt, Controls: 1,
	}}
	for i, e := range events {
		want.Events = append(want.Events, stored(e, int64(i+1)))
	}
	same(t, "what was written", want, see(ctx, t, store, row.ID))

	// And the end, with a large payload.
	next.Status, next.Controls = taskbridge.StatusCompleted, 2
	next.Terminal = jsonOfSize("result", taskbridge.DefaultLimits().TerminalPayload)
	end := control(row.ID, taskbridge.EventCompleted, 2)
	end.Payload = next.Terminal
	end = tagged(end)
	if _, err := store.UpdateTaskAndAppend(ctx, next, []taskbridge.EventAppend{end}); err != nil {
		t.Fatalf("UpdateTaskAndAppend of the end: %v", err)
	}
	next.Revision++
	want.Row = next
	want.Events = append(want.Events, stored(end, 4))
	want.State.Last, want.State.LastTag, want.State.LastAt = 4, end.Tag, end.CreatedAt
	want.State.Controls, want.State.Ended = 2, true
	same(t, "what was written at the end", want, see(ctx, t, store, row.ID))
}

func atomicWithoutEvents(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	before := see(ctx, t, store, row.ID)
	for _, none := range [][]taskbridge.EventAppend{nil, {}} {
		row.Claim += "x"
		got, err := store.UpdateTaskAndAppend(ctx, row, none)
		if err != nil {
			t.Fatalf("UpdateTaskAndAppend: %v", err)
		}
		row.Revision++
		same(t, "the row that was returned", row, got)
		before.Row = row
		same(t, "what is there", before, see(ctx, t, store, row.ID))
	}
}

func atomicRefusedRow(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	before := see(ctx, t, store, row.ID)
	for _, c := range []struct {
		want error
		next func(next *taskbridge.Task)
	}{
		{taskbridge.ErrRevisionConflict, func(next *taskbridge.Task) { next.Revision-- }},
		{taskbridge.ErrRevisionConflict, func(next *taskbridge.Task) { next.Revision++ }},
		{taskbridge.ErrIllegalTransition, func(next *taskbridge.Task) { next.Status = taskbridge.StatusAccepted }},
		{taskbridge.ErrIllegalTransition, func(next *taskbridge.Task) { next.Status = "NONSENSE" }},
	} {
		next := row
		next.Claim = "changed"
		c.next(&next)
		_, err := store.UpdateTaskAndAppend(ctx, next, []taskbridge.EventAppend{message(row.ID, "source", 2, 6), control(row.ID, taskbridge.EventCompleted, 2)})
		if !errors.Is(err, c.want) {
			t.Errorf("UpdateTaskAndAppend: %v, want %v", err, c.want)
		}
		same(t, "what is there after "+c.want.Error(), before, see(ctx, t, store, row.ID))
	}
	ghost := newTask("owner", "ghost")
	_, err := store.UpdateTaskAndAppend(ctx, ghost, []taskbridge.EventAppend{control(ghost.ID, taskbridge.EventStarted, 1)})
	if !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("UpdateTaskAndAppend without a row: %v, want ErrTaskNotFound", err)
	}
	same(t, "the stream of the task that is not there", taskbridge.StreamState{}, streamState(ctx, t, store, ghost.ID))
	if _, err := store.GetTask(ctx, ghost.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask of it: %v, want ErrTaskNotFound", err)
	}

	// Nor does a retired task come back.
	retired := retire(t, store, "retired", at(0))
	_, err = store.UpdateTaskAndAppend(ctx, retired, []taskbridge.EventAppend{message(retired.ID, "source", 1, 1)})
	if !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("UpdateTaskAndAppend of a retired task: %v, want ErrTaskNotFound", err)
	}
	same(t, "the stream of the retired task", taskbridge.StreamState{}, streamState(ctx, t, store, retired.ID))
}

func atomicRefusedEvent(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	fine := func(ordinal int64) taskbridge.EventAppend { return message(row.ID, "source", 2, ordinal) }
	refusals := []struct {
		want error
		bad  taskbridge.EventAppend
	}{
		{taskbridge.ErrStaleAttempt, func() taskbridge.EventAppend {
			e := message(row.ID, "other", 1, 1)
			e.Attempt = 1
			return tagged(e)
		}()},
		{taskbridge.ErrStaleProducer, message(row.ID, "source", 1, 9)},
		{taskbridge.ErrStreamFull, func() taskbridge.EventAppend {
			e := message(row.ID, "other", 1, 1)
			e.MaxSequence = 1
			return e
		}()},
	}
	check := func(want error, events ...taskbridge.EventAppend) {
		t.Helper()
		before := see(ctx, t, store, row.ID)
		next := changed(row, filledTask("owner", "key", 1))
		next.Status, next.Terminal = row.Status, row.Terminal
		if _, err := store.UpdateTaskAndAppend(ctx, next, events); !errors.Is(err, want) {
			t.Errorf("UpdateTaskAndAppend: %v, want %v", err, want)
		}
		same(t, "what is there after "+want.Error(), before, see(ctx, t, store, row.ID))
	}
	for _, r := range refusals {
		check(r.want, r.bad)
		check(r.want, r.bad, fine(6))
		check(r.want, fine(6), r.bad)
		check(r.want, fine(5), fine(6), r.bad, fine(7))
	}
	// Nothing of the refused calls counts as seen.
	if e := appendNew(ctx, t, store, fine(6)); e.Sequence != 3 {
		t.Errorf("the event after the refusals has the number %d, want 3", e.Sequence)
	}
	for i := range taskbridge.MaxProducers - 2 {
		appendNew(ctx, t, store, message(row.ID, fmt.Sprintf("filler-%d", i), 1, 1))
	}
	check(taskbridge.ErrInvalidArgument, fine(7), message(row.ID, "one too many", 1, 1))
	appendNew(ctx, t, store, control(row.ID, taskbridge.EventCancelled, 2))
	check(taskbridge.ErrTaskFinished, fine(5), fine(7))
}

func atomicDuplicates(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	want := see(ctx, t, store, row.ID)
	first, last := message(row.ID, "source", 2, 6), message(row.ID, "source", 2, 7)
	row.Claim = "changed"
	row, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{
		control(row.ID, taskbridge.EventStarted, 1), first, message(row.ID, "source", 2, 5), first, last, last,
	})
	if err != nil {
		t.Fatalf("UpdateTaskAndAppend: %v", err)
	}
	want.Row = row
	want.Events = append(want.Events, stored(first, 3), stored(last, 4))
	want.State.Last, want.State.LastTag, want.State.LastAt = 4, last.Tag, last.CreatedAt
	same(t, "what is there", want, see(ctx, t, store, row.ID))

	// Nothing but duplicates: the row changes alone.
	row.Claim = "changed again"
	if want.Row, err = store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{last, first}); err != nil {
		t.Fatalf("UpdateTaskAndAppend of duplicates: %v", err)
	}
	if want.Row.Revision != row.Revision+1 {
		t.Errorf("the revision is %d, want %d", want.Row.Revision, row.Revision+1)
	}
	same(t, "what is there after the duplicates", want, see(ctx, t, store, row.ID))
}

func atomicRulesWithin(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	before := see(ctx, t, store, row.ID)
	limited := message(row.ID, "source", 2, 7)
	limited.MaxSequence = 3
	for _, c := range []struct {
		want   error
		events []taskbridge.EventAppend
	}{
		{taskbridge.ErrTaskFinished, []taskbridge.EventAppend{control(row.ID, taskbridge.EventFailed, 2), message(row.ID, "source", 2, 6)}},
		{taskbridge.ErrStreamFull, []taskbridge.EventAppend{message(row.ID, "source", 2, 6), limited}},
		{taskbridge.ErrStaleProducer, []taskbridge.EventAppend{message(row.ID, "source", 3, 1), message(row.ID, "source", 2, 6)}},
	} {
		if _, err := store.UpdateTaskAndAppend(ctx, row, c.events); !errors.Is(err, c.want) {
			t.Errorf("UpdateTaskAndAppend: %v, want %v", err, c.want)
		}
		same(t, "what is there after "+c.want.Error(), before, see(ctx, t, store, row.ID))
	}
}

func atomicForeignEvent(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	other := create(ctx, t, store, newTask("owner", "other key"))
	before := see(ctx, t, store, row.ID)
	_, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{message(row.ID, "source", 2, 6), message(other.ID, "source", 1, 1)})
	if err == nil {
		t.Error("UpdateTaskAndAppend of another task's event: nil, want an error")
	}
	same(t, "what is there", before, see(ctx, t, store, row.ID))
	same(t, "the other stream", taskbridge.StreamState{}, streamState(ctx, t, store, other.ID))
}

func atomicWakes(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	rowWake, rowWoken := signal()
	streamWake, streamWoken := signal()
	stopRow, err := store.WatchTask(ctx, row.ID, rowWake)
	if err != nil {
		t.Fatalf("WatchTask: %v", err)
	}
	defer stopRow()
	stopStream, err := store.WatchEvents(ctx, row.ID, streamWake)
	if err != nil {
		t.Fatalf("WatchEvents: %v", err)
	}
	defer stopStream()
	for n := range int64(10) {
		if row, err = store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{message(row.ID, "source", 3, n+1)}); err != nil {
			t.Fatalf("UpdateTaskAndAppend: %v", err)
		}
		await(ctx, t, "the wake-up of the row", rowWoken)
		await(ctx, t, "the wake-up of the stream", streamWoken)
	}
}

func atomicCancelled(t *testing.T, h atomicHarness) {
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	before := see(ctx, t, store, row.ID)
	_, err := store.UpdateTaskAndAppend(cancelled(), row, []taskbridge.EventAppend{message(row.ID, "source", 2, 6)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("UpdateTaskAndAppend: %v, want context.Canceled", err)
	}
	same(t, "what is there", before, see(ctx, t, store, row.ID))
}

func atomicClosed(t *testing.T, h atomicHarness) {
	if h.Close == nil {
		missing(t, "Close")
		return
	}
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	if err := h.Close(store); err != nil {
		t.Fatalf("Close: %v", err)
	}
	_, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{message(row.ID, "source", 2, 6)})
	if !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("UpdateTaskAndAppend: %v, want ErrClosed", err)
	}
}

func atomicReopened(t *testing.T, h atomicHarness) {
	if h.Reopen == nil {
		missing(t, "Reopen")
		return
	}
	ctx, store := deadline(t), h.New(t)
	row := started(ctx, t, store)
	row.Status, row.Terminal, row.Controls = taskbridge.StatusCompleted, []byte(`{"result":null}`), 2
	if _, err := store.UpdateTaskAndAppend(ctx, row, []taskbridge.EventAppend{control(row.ID, taskbridge.EventCompleted, 2)}); err != nil {
		t.Fatalf("UpdateTaskAndAppend: %v", err)
	}
	before := see(ctx, t, store, row.ID)
	store = h.Reopen(t, store)
	same(t, "what is there after a reopening", before, see(ctx, t, store, row.ID))
}
