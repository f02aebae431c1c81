package sqlitestore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// A retired task's events wait for their deletion: nothing may get at them, nor
// join them, whatever comes between.
func TestTheEventsOfARetiredTaskAreOutOfReach(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(ctx, Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	append1 := func(s *Store, id string, ordinal int64, e taskbridge.EventType) error {
		_, err := s.AppendEvent(ctx, taskbridge.EventAppend{
			TaskID: id, Type: e, CreatedAt: time.UnixMicro(ordinal), Payload: []byte(`{"message":"m"}`), Tag: "00000000",
			Producer: taskbridge.Producer{Name: "p", Epoch: 1}, Ordinal: ordinal,
		})
		return err
	}
	task := func(key string) taskbridge.Task {
		return taskbridge.Task{
			ID: taskbridge.NewTaskID("o", key), Owner: "o", ClientRequestID: key, Type: "t", Status: taskbridge.StatusFailed,
			Input: []byte(`{}`), Metadata: []byte(`{}`), CreatedAt: time.UnixMicro(1), Terminal: []byte(`{}`),
		}
	}
	s := open()
	old, _, err := s.CreateTask(ctx, task("k"))
	if err != nil {
		t.Fatal(err)
	}
	for i := int64(1); i <= 10; i++ {
		if err := append1(s, old.ID, i, taskbridge.EventMessage); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RetireTask(ctx, old, time.UnixMicro(5)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := append1(s, old.ID, 11, taskbridge.EventMessage); !errors.Is(err, taskbridge.ErrTaskFinished) {
			t.Errorf("an append to the retired task: %v, want ErrTaskFinished", err)
		}
		// The number of the retired task was the highest: it must not be given again.
		fresh, created, err := s.CreateTask(ctx, task("k"))
		if err != nil || !created {
			t.Fatal(created, err)
		}
		if events, err := s.ReadEvents(ctx, fresh.ID, 0, 100); err != nil || len(events) != 0 {
			t.Errorf("the new task of the key has %d events, %v", len(events), err)
		}
		if err := s.RetireTask(ctx, fresh, time.UnixMicro(6)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
	}
	steps := 0
	for more := true; more; steps++ {
		if more, err = s.DeleteEvents(ctx, old.ID, 4); err != nil {
			t.Fatal(err)
		}
	}
	if steps != 3 {
		t.Errorf("10 events were deleted in %d steps of 4", steps)
	}
	if err := s.DeleteTask(ctx, old.ID); err != nil {
		t.Fatal(err)
	}
	var left int64
	if err := s.read(ctx, func(c *conn) (err error) {
		left, err = c.integer("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM streams) + (SELECT count(*) FROM tasks)")
		return err
	}); err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A retired task's number stays its own until the tombstone is gone, though no
// row and no event has it.
func TestTheNumberOfARetiredTaskIsNotGivenAgain(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 { // each opening looks for the next number anew
		s, err := Open(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		task := newTask("key")
		task.Status = taskbridge.StatusCancelled
		task, _, err = s.CreateTask(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RetireTask(t.Context(), task, fixedTime); err != nil {
			t.Fatal(err)
		}
		if err := do(s, func(w *writer) error {
			tombstones, err := w.conn.integer("SELECT count(DISTINCT stream_no) FROM tombstones")
			if tombstones != int64(round+1) {
				t.Errorf("%d retired tasks have %d numbers", round+1, tombstones)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheFileShrinksAsTasksAreDeleted(t *testing.T) {
	s := openTestStore(t, Options{})
	pages := func() (pages, free int64) {
		if err := do(s, func(w *writer) (err error) {
			if pages, err = w.conn.integer("PRAGMA page_count"); err == nil {
				free, err = w.conn.integer("PRAGMA freelist_count")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return pages, free
	}
	var tasks []taskbridge.Task
	for i := range 50 {
		task := newTask(fmt.Sprint(i))
		task.Status = taskbridge.StatusFailed
		task.Input = []byte(`{"text":"` + strings.Repeat("x", 1<<19) + `"}`)
		task, _, err := s.CreateTask(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task)
	}
	full, _ := pages()
	for _, task := range tasks {
		if err := errors.Join(s.RetireTask(t.Context(), task, fixedTime), s.DeleteTask(t.Context(), task.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if left, free := pages(); left > full/4 || free > keptFree {
		t.Errorf("of %d pages %d are left, %d of them free", full, left, free)
	}
	if err := do(s, func(w *writer) error {
		if bad, err := w.conn.integer("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"); err != nil || bad != 0 {
			t.Errorf("the file has %d faults, %v", bad, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
