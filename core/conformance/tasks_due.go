package conformance

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var dueChecks = []check[registryHarness]{
	{"due rows come longest overdue first, up to the limit, each kind by itself", dueOrder},
	{"a row is due at its time and after it, and not before", dueBoundary},
	{"a row that has ended is due like any other", dueAfterTheEnd},
	{"the due rows follow every update", dueFollowsUpdates},
	{"due rows are those of now after a reopening", dueReopened},
}

// dueOf returns the field of the kind.
func dueOf(t *testing.T, due *taskbridge.Due, kind taskbridge.DueKind) *time.Time {
	t.Helper()
	before := *due
	for i := range reflect.TypeFor[taskbridge.Due]().NumField() {
		field := reflect.ValueOf(due).Elem().Field(i).Addr().Interface().(*time.Time)
		old := *field
		*field = old.Add(1)
		hit := !due.Of(kind).Equal(before.Of(kind))
		*field = old
		if hit {
			return field
		}
	}
	t.Fatalf("taskbridge.Due has no field for the kind %q", kind)
	return nil
}

func dueTasks(t *testing.T, tasks registry, kind taskbridge.DueKind, before time.Time, limit int) []string {
	t.Helper()
	got, err := tasks.DueTasks(t.Context(), kind, before, limit)
	if err != nil {
		t.Fatalf("DueTasks(%s): %v", kind, err)
	}
	return got
}

func dueOrder(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	const n = 60
	random := rand.New(rand.NewPCG(1, 2))
	// Of each kind some rows are due, at moments in an order of its own.
	times := make(map[taskbridge.DueKind]map[string]time.Time)
	order := make(map[taskbridge.DueKind][]string)
	moments := make(map[taskbridge.DueKind][]int)
	for _, kind := range taskbridge.DueKinds() {
		times[kind] = make(map[string]time.Time)
		moments[kind] = random.Perm(n)
	}
	for i := range n {
		task := newTask("owner", fmt.Sprintf("key-%d", i))
		for _, kind := range taskbridge.DueKinds() {
			if random.IntN(4) > 0 {
				moment := at(int64(moments[kind][i]) * 50_000)
				*dueOf(t, &task.Due, kind) = moment
				times[kind][task.ID] = moment
				order[kind] = append(order[kind], task.ID)
			}
		}
		create(ctx, t, tasks, task)
	}
	for _, kind := range taskbridge.DueKinds() {
		slices.SortFunc(order[kind], func(a, b string) int { return times[kind][a].Compare(times[kind][b]) })
		for _, limit := range []int{1, 2, 7, n, 1000} {
			for _, before := range []int64{-1, 0, 50_000 - 1, n / 2 * 50_000, n * 50_000} {
				var want []string
				for _, id := range order[kind] {
					if !times[kind][id].After(at(before)) && len(want) < limit {
						want = append(want, id)
					}
				}
				if got := dueTasks(t, tasks, kind, at(before), limit); !slices.Equal(got, want) {
					t.Errorf("DueTasks(%s, %v, %d)\n got %v\nwant %v", kind, at(before), limit, got, want)
				}
			}
		}
	}
}

func dueBoundary(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	for _, kind := range taskbridge.DueKinds() {
		task := newTask("owner", "key of "+string(kind))
		*dueOf(t, &task.Due, kind) = at(0)
		create(ctx, t, tasks, task)
		for micros, want := range map[int64]int{-1: 0, 0: 1, 1: 1} {
			if got := dueTasks(t, tasks, kind, at(micros), 10); len(got) != want {
				t.Errorf("DueTasks(%s) %d µs after the time: %d rows, want %d", kind, micros, len(got), want)
			}
		}
	}
	// A row that is owed nothing is never due, however late.
	create(ctx, t, tasks, newTask("owner", "nothing owed"))
	for _, kind := range taskbridge.DueKinds() {
		if got := dueTasks(t, tasks, kind, at(0).AddDate(1000, 0, 0), 10); len(got) != 1 {
			t.Errorf("DueTasks(%s) in a thousand years: %d rows, want 1", kind, len(got))
		}
	}
}

func dueAfterTheEnd(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := withStatus(ctx, t, tasks, "key", taskbridge.StatusCompleted)
	row.Due.Stream = at(0)
	row = update(ctx, t, tasks, row)
	if got := dueTasks(t, tasks, taskbridge.DueStream, at(0), 10); !slices.Equal(got, []string{row.ID}) {
		t.Errorf("DueTasks: %v, want the ended row", got)
	}
}

func dueFollowsUpdates(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	for _, kind := range taskbridge.DueKinds() {
		rows := make(map[string]taskbridge.Task)
		times := make(map[string]time.Time)
		for i := range 10 {
			row := create(ctx, t, tasks, newTask("owner", fmt.Sprintf("%s-%d", kind, i)))
			rows[row.ID] = row
		}
		random := rand.New(rand.NewPCG(3, 4))
		for step := range 60 {
			for id, row := range rows {
				moment := at(int64(step*1000 + random.IntN(1_000_000)))
				if random.IntN(3) == 0 {
					moment = time.Time{}
				}
				*dueOf(t, &row.Due, kind) = moment
				rows[id] = update(ctx, t, tasks, row)
				if times[id] = moment; moment.IsZero() {
					delete(times, id)
				}
				break // one row of any, by the map's whim
			}
			got := dueTasks(t, tasks, kind, at(10_000_000), 100)
			if len(got) != len(times) {
				t.Fatalf("%s: %d rows are due, want %d", kind, len(got), len(times))
			}
			for i, id := range got {
				if times[id].IsZero() || i > 0 && times[id].Before(times[got[i-1]]) {
					t.Fatalf("%s: the due rows are %v at %v", kind, got, times)
				}
			}
		}
		for id := range times {
			row := rows[id]
			row.Due = taskbridge.Due{}
			rows[id] = update(ctx, t, tasks, row)
		}
		if got := dueTasks(t, tasks, kind, at(10_000_000), 100); len(got) != 0 {
			t.Errorf("%s: %v is due after all was paid", kind, got)
		}
	}
}

func dueReopened(t *testing.T, h registryHarness) {
	if h.Reopen == nil {
		missing(t, "Reopen")
		return
	}
	ctx, tasks := deadline(t), h.New(t)
	var want []string
	for i := range 5 {
		task := newTask("owner", fmt.Sprintf("key-%d", i))
		task.Due.Submission = at(int64(i))
		row := create(ctx, t, tasks, task)
		if i%2 == 0 {
			want = append(want, row.ID)
		} else {
			row.Due.Submission, row.Due.Inspection = time.Time{}, at(int64(i))
			update(ctx, t, tasks, row)
		}
	}
	tasks = h.Reopen(t, tasks)
	if got := dueTasks(t, tasks, taskbridge.DueSubmission, at(9), 10); !slices.Equal(got, want) {
		t.Errorf("due for submission: %v, want %v", got, want)
	}
	if got := dueTasks(t, tasks, taskbridge.DueInspection, at(9), 10); len(got) != 2 {
		t.Errorf("due for inspection: %v, want two", got)
	}
}
