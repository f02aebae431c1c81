package sqlitestore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
	"modernc.org/sqlite"
)

// openFilled opens a store of n finished tasks, a multiple of 100: each hundred
// was created a hundred hours before the next, the last just now.
func openFilled(t *testing.T, n int) *Store {
	t.Helper()
	opts := Options{Dir: t.TempDir()}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	err = bulk.Finish(t.Context(), taskbridge.Stores{Tasks: s, Events: s}, 100)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := bulk.Multiply(t.Context(), opts.Dir, n, time.Hour); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// someTasks returns the rows of tasks that are spread over all of the store.
func someTasks(t *testing.T, s *Store, n int64) (tasks []taskbridge.Task) {
	t.Helper()
	if err := s.read(t.Context(), func(c *conn) error {
		last, err := c.integer("SELECT max(task_no) FROM tasks WHERE status = ?", statusCodes[taskbridge.StatusCompleted])
		if err != nil {
			return err
		}
		for i := range n {
			no := 1 + last*i/n
			task, found, err := selectTask(c, "SELECT "+allColumns+" FROM tasks t WHERE task_no = ?", no)
			if err != nil || !found {
				return fmt.Errorf("task %d: %t, %w", no, found, err)
			}
			tasks = append(tasks, task)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return tasks
}

// pagesOf counts the pages that the connection has looked at since the last time,
// found in memory or not.
func pagesOf(c *conn) (pages int, err error) {
	for _, counter := range []sqlite.DBStatusOp{sqlite.DBStatusCacheHit, sqlite.DBStatusCacheMiss} {
		n, _, err := c.raw.(sqlite.DBStatus).Status(counter, true)
		if err != nil {
			return 0, err
		}
		pages += n
	}
	return pages, nil
}

// pages counts what all connections have looked at.
func (s *Store) pages(t *testing.T) (pages int) {
	t.Helper()
	s.readers.mu.Lock()
	defer s.readers.mu.Unlock()
	add := func(c *conn) error {
		n, err := pagesOf(c)
		pages += n
		return err
	}
	for _, c := range s.readers.idle {
		if err := add(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(s, func(w *writer) error { return add(w.conn) }); err != nil {
		t.Fatal(err)
	}
	return pages
}

// Of each operation: how often it looks for something from the root of a tree.
// Between 100 rows and 5,000 no tree gets deeper by more than two pages, so that
// is what each search may take longer; whoever scans looks at hundreds.
func TestOperationsLookAtMorePagesOnlyByTheDepthOfTheTrees(t *testing.T) {
	small, large := openFilled(t, 100), openFilled(t, 5_000)
	ctx := t.Context()
	list := func(s *Store, query taskbridge.TaskQuery, want int) error {
		query.Limit = 20
		tasks, err := s.ListTasks(ctx, query)
		if err == nil && len(tasks) != want {
			err = fmt.Errorf("%d tasks in the list instead of %d", len(tasks), want)
		}
		return err
	}
	fresh, middle := make(map[*Store]taskbridge.Task), make(map[*Store]taskbridge.ListCursor)
	for _, s := range []*Store{small, large} {
		task := someTasks(t, s, 2)[1]
		middle[s] = taskbridge.ListCursor{CreatedAt: task.CreatedAt, TaskID: task.ID}
	}
	for _, op := range []struct {
		name     string
		searches int
		do       func(s *Store, task taskbridge.Task) error
	}{
		{"get", 2, func(s *Store, task taskbridge.Task) error {
			_, err := s.GetTask(ctx, task.ID)
			return err
		}},
		{"poll", 3, func(s *Store, task taskbridge.Task) error {
			events, err := s.ReadEvents(ctx, task.ID, 0, 100)
			if err == nil && len(events) != bulk.EventsPerTask {
				err = fmt.Errorf("%d events", len(events))
			}
			return err
		}},
		{"state of a stream", 4, func(s *Store, task taskbridge.Task) error {
			_, err := s.StreamState(ctx, task.ID)
			return err
		}},
		{"first page", 5 + 20, func(s *Store, _ taskbridge.Task) error {
			return list(s, taskbridge.TaskQuery{Owner: bulk.Owner}, 20)
		}},
		{"first page of all owners, of one status", 1 + 20, func(s *Store, _ taskbridge.Task) error {
			return list(s, taskbridge.TaskQuery{AnyOwner: true, Statuses: []taskbridge.TaskStatus{taskbridge.StatusCompleted}}, 20)
		}},
		{"page in the middle", 5 + 20, func(s *Store, _ taskbridge.Task) error {
			return list(s, taskbridge.TaskQuery{Owner: bulk.Owner, After: middle[s]}, 20)
		}},
		{"page of an owner who has none", 5, func(s *Store, _ taskbridge.Task) error {
			return list(s, taskbridge.TaskQuery{Owner: "nobody"}, 0)
		}},
		{"open tasks", 2, func(s *Store, _ taskbridge.Task) error {
			return list(s, taskbridge.TaskQuery{AnyOwner: true, Statuses: []taskbridge.TaskStatus{taskbridge.StatusAccepted, taskbridge.StatusRunning}}, 0)
		}},
		{"tasks due for retention", 1 + 20, func(s *Store, _ taskbridge.Task) error {
			ids, err := s.DueTasks(ctx, taskbridge.DueRetention, time.Now(), 20)
			if err == nil && len(ids) != 20 {
				err = fmt.Errorf("%d tasks are due", len(ids))
			}
			return err
		}},
		{"create", 7, func(s *Store, _ taskbridge.Task) error {
			task := newTask(rand.Text())
			task.Owner = bulk.Owner
			task.ID = taskbridge.NewTaskID(task.Owner, task.ClientRequestID)
			task.Due.Submission = fixedTime
			task, created, err := s.CreateTask(ctx, task)
			if err == nil && !created {
				err = errors.New("it was there")
			}
			fresh[s] = task
			return err
		}},
		{"create again", 5, func(s *Store, task taskbridge.Task) error {
			_, created, err := s.CreateTask(ctx, task)
			if err == nil && created {
				err = errors.New("it was not there")
			}
			return err
		}},
		{"append", 4, func(s *Store, _ taskbridge.Task) error {
			_, err := s.AppendEvent(ctx, message(fresh[s].ID, 1))
			fresh[s] = taskbridge.Task{ID: rand.Text()} // the next has a stream of its own
			return err
		}},
		{"retirement and deletion", 20, func(s *Store, task taskbridge.Task) error {
			if err := s.RetireTask(ctx, task, fixedTime); err != nil {
				return err
			}
			if more, err := s.DeleteEvents(ctx, task.ID, 100); more || err != nil {
				return fmt.Errorf("more %t, %w", more, err)
			}
			return s.DeleteTask(ctx, task.ID)
		}},
	} {
		const times = 50
		var mean [2]float64
		for i, s := range []*Store{small, large} {
			tasks := someTasks(t, s, times)
			s.pages(t)
			for _, task := range tasks {
				if err := op.do(s, task); err != nil {
					t.Fatalf("%s: %v", op.name, err)
				}
			}
			mean[i] = float64(s.pages(t)) / times
		}
		if limit := mean[0] + 2*float64(op.searches); mean[1] > limit || mean[1] < 1 {
			t.Errorf("%s: %.1f pages with 100 tasks and %.1f with 5,000, want %.1f at most", op.name, mean[0], mean[1], limit)
		}
		t.Logf("%s: %.1f pages with 100 tasks, %.1f with 5,000", op.name, mean[0], mean[1])
	}
}
