package conformance

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var listChecks = []check[registryHarness]{
	{"a list has the newest row first, those of one moment by id descending", listOrder},
	{"every filter, and all of them together, selects the same rows on pages of any size", listFilters},
	{"listed rows have all but the input and the payload of a completion", listFields},
	{"a list shows the row of now", listFollowsUpdates},
	{"paging neither leaves out nor repeats a row while others come", listWhileRowsCome},
	{"a cursor needs no row of its own", listForeignCursor},
	{"an empty registry lists nothing", listEmpty},
}

// listed makes rows of three owners, two types and all statuses, many of them of
// the same moment, and returns them in the order of a list.
func listed(ctx context.Context, t *testing.T, tasks registry) []taskbridge.Task {
	t.Helper()
	// Moments whose texts do not sort as they do, where fractions are cut short.
	micros := []int64{0, 1, 87, 100_000 - 13, 100_000 - 12, 1_000_000 - 13, 1_000_000}
	statuses := []taskbridge.TaskStatus{taskbridge.StatusAccepted, taskbridge.StatusRunning,
		taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled}
	var rows []taskbridge.Task
	for i := range 84 {
		task := newTask([]string{"ada", "bob", ""}[i%3], fmt.Sprintf("key-%d", i))
		task.CreatedAt = at(micros[(i/5)%len(micros)])
		task.Type = []string{"type", "type/2"}[(i/3)%2]
		task.Input = []byte(`{"some":"input"}`)
		row := create(ctx, t, tasks, task)
		if status := statuses[i%len(statuses)]; status != taskbridge.StatusAccepted {
			row.Status = taskbridge.StatusRunning
			row = update(ctx, t, tasks, row)
			if status.Terminal() {
				row.Status, row.Terminal = status, []byte(`{"some":"payload"}`)
				row = update(ctx, t, tasks, row)
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b taskbridge.Task) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	return rows
}

func ids(rows []taskbridge.Task) []string {
	found := make([]string, len(rows))
	for i, row := range rows {
		found[i] = row.ID
	}
	return found
}

// pages reads all rows of the query, page by page.
func pages(ctx context.Context, t *testing.T, tasks registry, query taskbridge.TaskQuery) []taskbridge.Task {
	t.Helper()
	var all []taskbridge.Task
	for {
		page, err := tasks.ListTasks(ctx, query)
		if err != nil {
			t.Fatalf("ListTasks(%+v): %v", query, err)
		}
		if len(page) > query.Limit {
			t.Fatalf("ListTasks(%+v) returned %d rows", query, len(page))
		}
		all = append(all, page...)
		if len(page) < query.Limit {
			return all
		}
		last := page[len(page)-1]
		query.After = taskbridge.ListCursor{CreatedAt: last.CreatedAt, TaskID: last.ID}
		if len(all) > 10_000 {
			t.Fatalf("ListTasks(%+v) pages without end", query)
		}
	}
}

func listOrder(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	want := ids(listed(ctx, t, tasks))
	got, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: len(want) + 1})
	if err != nil || !slices.Equal(ids(got), want) {
		t.Errorf("ListTasks: %v\n got %v\nwant %v", err, ids(got), want)
	}
}

func listFilters(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	rows := listed(ctx, t, tasks)
	owners := []taskbridge.TaskQuery{{Owner: "ada"}, {Owner: ""}, {Owner: "nobody"}, {AnyOwner: true}, {AnyOwner: true, Owner: "bob"}}
	statuses := [][]taskbridge.TaskStatus{nil, {}, {taskbridge.StatusRunning},
		{taskbridge.StatusCompleted, taskbridge.StatusAccepted}, {"NONSENSE"}}
	types := [][]string{nil, {"type/2"}, {"type", "type/2", "type/3"}, {"type/"}}
	befores := []int64{0, 1, 100_000 - 12, 2_000_000}
	limits := []int{1, 7, 100}
	n := 0
	for _, query := range owners {
		for _, query.Statuses = range statuses {
			for _, query.Types = range types {
				for i := range len(befores) + 1 {
					if i > 0 {
						query.CreatedBefore = at(befores[i-1])
					}
					var want []string
					for _, row := range rows {
						if selected(row, query) {
							want = append(want, row.ID)
						}
					}
					// Every query with one size of page, all sizes by turns.
					query.Limit = limits[n%len(limits)]
					n++
					if got := ids(pages(ctx, t, tasks, query)); !slices.Equal(got, want) {
						t.Fatalf("ListTasks(%+v)\n got %v\nwant %v", query, got, want)
					}
				}
			}
		}
	}
	for limit := 1; limit <= len(rows)+1; limit++ {
		if got := ids(pages(ctx, t, tasks, taskbridge.TaskQuery{AnyOwner: true, Limit: limit})); !slices.Equal(got, ids(rows)) {
			t.Fatalf("pages of %d rows\n got %v\nwant %v", limit, got, ids(rows))
		}
	}
}

func selected(row taskbridge.Task, query taskbridge.TaskQuery) bool {
	switch {
	case !query.AnyOwner && row.Owner != query.Owner,
		len(query.Statuses) > 0 && !slices.Contains(query.Statuses, row.Status),
		len(query.Types) > 0 && !slices.Contains(query.Types, row.Type),
		!query.CreatedBefore.IsZero() && !row.CreatedAt.Before(query.CreatedBefore):
		return false
	}
	return true
}

func listFields(t *testing.T, h registryHarness) {
	for _, status := range []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled} {
		ctx, tasks := deadline(t), h.New(t)
		row := create(ctx, t, tasks, func() taskbridge.Task {
			task := filledTask("owner", "key", 1)
			task.Terminal = nil
			return task
		}())
		next := changed(row, filledTask("owner", "key", 2))
		next.Status = status
		row = update(ctx, t, tasks, next)
		row.Input = nil
		if status == taskbridge.StatusCompleted {
			row.Terminal = nil
		}
		for _, query := range []taskbridge.TaskQuery{{Owner: "owner", Limit: 1}, {AnyOwner: true, Limit: 9}} {
			got, err := tasks.ListTasks(ctx, query)
			if err != nil || len(got) != 1 {
				t.Fatalf("ListTasks(%+v): %d rows, %v", query, len(got), err)
			}
			same(t, "the "+string(status)+" row in a list", row, got[0])
		}
	}
}

func listFollowsUpdates(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	row := create(ctx, t, tasks, newTask("owner", "key"))
	expect := func(status taskbridge.TaskStatus, want int) {
		t.Helper()
		got, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{Owner: "owner", Statuses: []taskbridge.TaskStatus{status}, Limit: 9})
		if err != nil || len(got) != want {
			t.Fatalf("a list of %s rows has %d of them, %v; want %d", status, len(got), err, want)
		}
	}
	for _, status := range []taskbridge.TaskStatus{taskbridge.StatusRunning, taskbridge.StatusFailed} {
		before := row.Status
		row.Status = status
		row = update(ctx, t, tasks, row)
		expect(before, 0)
		expect(status, 1)
	}
}

func listWhileRowsCome(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	there := listed(ctx, t, tasks)
	random := rand.New(rand.NewPCG(5, 6))
	for limit := 1; limit <= 16; limit *= 2 {
		seen := make(map[string]bool)
		query := taskbridge.TaskQuery{AnyOwner: true, Limit: limit}
		for n := 0; ; n++ {
			page, err := tasks.ListTasks(ctx, query)
			if err != nil {
				t.Fatalf("ListTasks: %v", err)
			}
			for _, row := range page {
				if seen[row.ID] {
					t.Errorf("pages of %d: the row %s came twice", limit, row.ID)
				}
				seen[row.ID] = true
				query.After = taskbridge.ListCursor{CreatedAt: row.CreatedAt, TaskID: row.ID}
			}
			if len(page) < limit {
				break
			}
			// Between two pages a row comes somewhere, and another one changes.
			late := newTask("late", fmt.Sprintf("%d-%d", limit, n))
			late.CreatedAt = at(random.Int64N(1_100_000))
			create(ctx, t, tasks, late)
			row := get(ctx, t, tasks, there[random.IntN(len(there))].ID)
			row.Claim = late.ID
			update(ctx, t, tasks, row)
		}
		for _, row := range there {
			if !seen[row.ID] {
				t.Errorf("pages of %d: the row %s was left out", limit, row.ID)
			}
		}
	}
}

func listForeignCursor(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	rows := listed(ctx, t, tasks)
	for _, cursor := range []taskbridge.ListCursor{
		{CreatedAt: at(50), TaskID: newID()},       // between moments
		{CreatedAt: at(87), TaskID: newID()},       // within one
		{CreatedAt: at(-1), TaskID: newID()},       // below all
		{CreatedAt: at(9_000_000), TaskID: "zzzz"}, // above all
	} {
		var want []string
		for _, row := range rows {
			if row.CreatedAt.Before(cursor.CreatedAt) || row.CreatedAt.Equal(cursor.CreatedAt) && row.ID < cursor.TaskID {
				want = append(want, row.ID)
			}
		}
		got, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, After: cursor, Limit: 1000})
		if err != nil || !slices.Equal(ids(got), want) {
			t.Errorf("ListTasks after %+v: %v\n got %v\nwant %v", cursor, err, ids(got), want)
		}
	}
}

func listEmpty(t *testing.T, h registryHarness) {
	ctx, tasks := deadline(t), h.New(t)
	got, err := tasks.ListTasks(ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 10})
	if err != nil || len(got) != 0 {
		t.Errorf("ListTasks: %d rows, %v; want none (does Harness.New open an empty store?)", len(got), err)
	}
}
