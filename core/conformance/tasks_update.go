package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var updateChecks = []check[registryHarness]{
	{"an update raises the revision by one", updateRaisesRevision},
	{"an update of a row that is not there is ErrTaskNotFound", updateMissing},
	{"an update of any other revision is ErrRevisionConflict and changes nothing", updateConflicts},
	{"the status changes only as the table of transitions allows", updateTransitions},
	{"a stale revision counts before an illegal transition", updateConflictFirst},
	{"a row that has ended takes changes that leave its status", updateAfterTheEnd},
	{"what create wrote stays, and is returned as the caller had it", updateIgnoresWrittenOnce},
	{"of 64 concurrent updates of one revision one succeeds, the rest conflict", updateOneWins},
	{"no update is lost under contention", updateContention},
}

func updateRaisesRevision(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))
	for i := range int64(5) {
		row.Attempt = i
		row = update(ctx, t, tasks, row)
		if want := i + 2; row.Revision != want {
			t.Fatalf("UpdateTask returned the revision %d, want %d", row.Revision, want)
		}
		same(t, "the row as read", row, get(ctx, t, tasks, row.ID))
	}
}

func updateMissing(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	ghost := newTask("owner", "key")
	if _, err := tasks.UpdateTask(ctx, ghost); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("UpdateTask: %v, want ErrTaskNotFound", err)
	}
	if _, err := tasks.GetTask(ctx, ghost.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask after it: %v, want ErrTaskNotFound", err)
	}
}

func updateConflicts(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))
	row = update(ctx, t, tasks, row)
	row = update(ctx, t, tasks, row) // 3
	for _, revision := range []int64{-1, 0, 1, 2, 4, 1 << 40} {
		next := changed(row, filledTask("owner", "key", 1))
		next.Terminal, next.Revision = nil, revision
		if _, err := tasks.UpdateTask(ctx, next); !errors.Is(err, taskbridge.ErrRevisionConflict) {
			t.Errorf("UpdateTask of revision %d on %d: %v, want ErrRevisionConflict", revision, row.Revision, err)
		}
		same(t, "the row after the refusal", row, get(ctx, t, tasks, row.ID))
	}
}

func updateTransitions(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	const (
		accepted, running            = taskbridge.StatusAccepted, taskbridge.StatusRunning
		completed, failed, cancelled = taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled
	)
	// Written out, so that the store is not compared with the code that it uses.
	allowed := map[[2]taskbridge.TaskStatus]bool{
		{accepted, accepted}: true, {accepted, running}: true, {accepted, failed}: true, {accepted, cancelled}: true,
		{running, running}: true, {running, completed}: true, {running, failed}: true, {running, cancelled}: true,
		{completed, completed}: true, {failed, failed}: true, {cancelled, cancelled}: true,
	}
	statuses := []taskbridge.TaskStatus{accepted, running, completed, failed, cancelled}
	for _, from := range statuses {
		for _, to := range append(statuses, "", "running", "NONSENSE") {
			row := withStatus(ctx, t, tasks, fmt.Sprintf("%s to %s", from, to), from)
			next := row
			next.Status, next.Claim = to, "changed"
			_, err := tasks.UpdateTask(ctx, next)
			want := row
			if allowed[[2]taskbridge.TaskStatus{from, to}] {
				want = next
				want.Revision++
				if err != nil {
					t.Errorf("%s to %q: %v, want nil", from, to, err)
				}
			} else if !errors.Is(err, taskbridge.ErrIllegalTransition) {
				t.Errorf("%s to %q: %v, want ErrIllegalTransition", from, to, err)
			}
			same(t, fmt.Sprintf("the row after %s to %q", from, to), want, get(ctx, t, tasks, row.ID))
		}
	}
}

func updateConflictFirst(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusCompleted)
	row.Revision--
	row.Status = taskbridge.StatusRunning
	_, err := tasks.UpdateTask(ctx, row)
	if !errors.Is(err, taskbridge.ErrRevisionConflict) || errors.Is(err, taskbridge.ErrIllegalTransition) {
		t.Errorf("UpdateTask: %v, want ErrRevisionConflict alone", err)
	}
}

func updateAfterTheEnd(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	for _, status := range []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled} {
		row := withStatus(ctx, t, tasks, string(status), status)
		row.Due.Stream, row.Controls = at(1), 7
		update(ctx, t, tasks, row)
		row.Revision++
		same(t, "the "+string(status)+" row", row, get(ctx, t, tasks, row.ID))
	}
}

func updateIgnoresWrittenOnce(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	created := create(ctx, t, tasks, newTask("owner", "key"))

	next := created
	next.Owner, next.ClientRequestID = "thief", "other key"
	next.Fingerprint, next.Type = "other fingerprint", "other type"
	next.Input, next.Metadata = json.RawMessage(`{"other":1}`), json.RawMessage(`{"other":2}`)
	next.CreatedAt = at(99)
	next.Attempt = 1
	returned := update(ctx, t, tasks, next)
	next.Revision++
	same(t, "the row that UpdateTask returned", next, returned)

	want := created
	want.Revision, want.Attempt = 2, 1
	same(t, "the row as read", want, get(ctx, t, tasks, created.ID))

	// The indexes have not moved either.
	row, isNew, err := tasks.CreateTask(ctx, newTask("owner", "key"))
	if err != nil || isNew || row.ID != created.ID {
		t.Errorf("CreateTask of the key: id %s, created %v, %v; want the row that was there", row.ID, isNew, err)
	}
	create(ctx, t, tasks, newTask("thief", "other key"))
	listed, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Types: []string{"type"}, CreatedBefore: at(1), Limit: 5})
	if err != nil || len(listed) != 1 || listed[0].ID != created.ID {
		t.Errorf("the owner's list: %d rows, %v; want the row alone", len(listed), err)
	}
}

func updateOneWins(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))
	for range 5 {
		const callers = 64
		var errs [callers]error
		together(callers, func(i int) {
			next := row
			next.Attempt = int64(100 + i)
			_, errs[i] = tasks.UpdateTask(ctx, next)
		})
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("callers %d and %d both updated revision %d", winner, i, row.Revision)
			case err == nil:
				winner = i
			case !errors.Is(err, taskbridge.ErrRevisionConflict):
				t.Fatalf("caller %d: %v, want ErrRevisionConflict", i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("no caller updated revision %d", row.Revision)
		}
		row.Revision++
		row.Attempt = int64(100 + winner)
		same(t, "the row after the race", row, get(ctx, t, tasks, row.ID))
	}
}

func updateContention(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	id := create(ctx, t, tasks, newTask("owner", "key")).ID
	const callers, each = 16, 20
	var errs [callers]error
	together(callers, func(i int) {
		for done := 0; done < each && errs[i] == nil; {
			row, err := tasks.GetTask(ctx, id)
			if err == nil {
				row.Attempt++
				_, err = tasks.UpdateTask(ctx, row)
			}
			switch {
			case err == nil:
				done++
			case !errors.Is(err, taskbridge.ErrRevisionConflict):
				errs[i] = err
			}
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if row := get(ctx, t, tasks, id); row.Attempt != callers*each || row.Revision != callers*each+1 {
		t.Errorf("%d updates were counted, revision %d; want %d", row.Attempt, row.Revision, callers*each)
	}
}
