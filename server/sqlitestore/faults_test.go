package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestAnOperationThatFailsAgainstExpectationFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{})
		task, _, err := s.CreateTask(t.Context(), newTask("key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendEvent(t.Context(), message(task.ID, 1)); err != nil {
			t.Fatal(err)
		}
		release := hold(t, s)
		var good, bad calls
		for i := range 30 {
			good.start(func() error {
				e := message(task.ID, 0)
				e.Payload = fmt.Appendf(nil, `{"message":"call %d"}`, i)
				_, err := s.AppendEvent(context.Background(), e)
				return err
			})
			if i%10 == 5 {
				bad.start(func() error {
					return do(s, func(w *writer) error {
						// It has written when it fails: nothing of that may stay.
						if err := (&appendEvent{event: message("poisoned", 0)}).apply(w); err != nil {
							return err
						}
						err := w.conn.exec("INSERT INTO events (event_no) VALUES (1)")
						return err
					})
				})
			}
		}
		synctest.Wait()
		release()
		if err := errors.Join(good.wait()...); err != nil {
			t.Errorf("the others: %v", err)
		}
		for _, err := range bad.wait() {
			if err == nil || !strings.Contains(err.Error(), "NOT NULL") {
				t.Errorf("the poisoned operation: %v", err)
			}
		}
		got := sequences(t, s, task.ID)
		for i, sequence := range got {
			if sequence != int64(i+1) {
				t.Fatalf("the stream has %v, want it dense", got)
			}
		}
		if len(got) != 31 {
			t.Errorf("the stream has %d events, want 31", len(got))
		}
		if got := sequences(t, s, "poisoned"); len(got) != 0 {
			t.Errorf("the failed operation left %v", got)
		}
		if err := s.CheckHealth(t.Context()); err != nil {
			t.Errorf("CheckHealth afterwards: %v", err)
		}
	})
}

func TestACreationThatIsRunAgainIsTheCallersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{})
		release := hold(t, s)
		first, second := newTask("key"), newTask("key")
		var poisoned, other calls
		runs := 0
		poisoned.start(func() error { // it makes the row of the key, but not when it is run again
			return do(s, func(w *writer) error {
				if runs++; runs > 1 {
					return errors.New("poison")
				}
				return (&createTask{task: first}).apply(w)
			})
		})
		synctest.Wait()
		var row taskbridge.Task
		var created bool
		other.start(func() (err error) {
			row, created, err = s.CreateTask(context.Background(), second)
			return err
		})
		synctest.Wait()
		poisoned.start(func() error { return do(s, func(*writer) error { return errors.New("poison") }) })
		synctest.Wait()
		release()
		for _, err := range poisoned.wait() {
			if err == nil {
				t.Error("a poisoned operation succeeded")
			}
		}
		if err := other.wait()[0]; err != nil || !created || row.ID != second.ID {
			t.Errorf("the other made the row %s, created %v, %v; want %s", row.ID, created, err, second.ID)
		}
	})
}

func TestAFailedCommitFailsTheBatchAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{})
		if _, err := s.AppendEvent(t.Context(), message("task", 1)); err != nil {
			t.Fatal(err)
		}
		// A constraint that is looked at when the transaction commits.
		if err := do(s, func(w *writer) error {
			return w.conn.script("CREATE TABLE trap (no INTEGER PRIMARY KEY, task_no INTEGER REFERENCES tasks DEFERRABLE INITIALLY DEFERRED)")
		}); err != nil {
			t.Fatal(err)
		}
		if err := do(s, func(w *writer) error { // between two transactions, where alone this takes effect
			return w.conn.script("COMMIT; PRAGMA foreign_keys = ON; BEGIN IMMEDIATE")
		}); err != nil {
			t.Fatal(err)
		}
		release := hold(t, s)
		var c calls
		c.start(func() error { _, err := s.AppendEvent(context.Background(), message("task", 2)); return err })
		c.start(func() error {
			return do(s, func(w *writer) error { return w.conn.script("INSERT INTO trap VALUES (1, 77)") })
		})
		c.start(func() error { _, err := s.AppendEvent(context.Background(), message("task", 3)); return err })
		synctest.Wait()
		release()
		for _, err := range c.wait() {
			if err == nil || !strings.Contains(err.Error(), "commit") {
				t.Errorf("an operation of the failed commit: %v", err)
			}
		}
		if got := sequences(t, s, "task"); !slices.Equal(got, []int64{1}) {
			t.Errorf("the stream has %v, want what was there before", got)
		}
		for ordinal := int64(2); ordinal <= 3; ordinal++ {
			result, err := s.AppendEvent(t.Context(), message("task", ordinal))
			if err != nil || result.Duplicate || result.Sequence != ordinal {
				t.Errorf("append afterwards: %+v, %v", result, err)
			}
		}
	})
}

func TestTheStoreGoesOnAfterAFullDisk(t *testing.T) {
	s := openTestStore(t, Options{})
	var pages int64
	limit := func(n int64) {
		if err := do(s, func(w *writer) (err error) {
			pages, err = w.conn.integer("PRAGMA page_count")
			if err == nil {
				err = w.conn.script(fmt.Sprintf("PRAGMA max_page_count = %d", n))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	limit(1 << 30)
	limit(pages + 20)
	big := newTask("big")
	big.Input = []byte(`{"text":"` + strings.Repeat("x", 1<<20) + `"}`)
	if _, _, err := s.CreateTask(t.Context(), big); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("CreateTask on a full disk: %v", err)
	}
	if _, err := s.GetTask(t.Context(), big.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("GetTask of what did not fit: %v", err)
	}
	if _, _, err := s.CreateTask(t.Context(), newTask("small")); err != nil {
		t.Errorf("CreateTask of what fits: %v", err)
	}
	limit(1 << 30)
	if _, created, err := s.CreateTask(t.Context(), big); err != nil || !created {
		t.Errorf("CreateTask with room again: created %v, %v", created, err)
	}
}

// breakConnection keeps transactions from beginning on the writer's connection.
func breakConnection(t *testing.T, s *Store) {
	t.Helper()
	if err := do(s, func(w *writer) (err error) {
		w.conn.statements[sqlBegin], err = w.conn.statement("ROLLBACK")
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionThatBreaksIsReplaced(t *testing.T) {
	s := openTestStore(t, Options{})
	if _, err := s.AppendEvent(t.Context(), message("task", 1)); err != nil {
		t.Fatal(err)
	}
	breakConnection(t, s)
	if _, err := s.AppendEvent(t.Context(), message("task", 2)); err != nil {
		t.Errorf("append afterwards: %v", err)
	}
	if got := sequences(t, s, "task"); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("the stream has %v", got)
	}
}

func TestHealthIsThatOfReadingAndOfTheLastWrite(t *testing.T) {
	s := openTestStore(t, Options{})
	if err := s.CheckHealth(t.Context()); err != nil {
		t.Errorf("a new store: %v", err)
	}
	breakConnection(t, s)
	database := s.writer.database // the writer looks at it when it needs another connection
	s.writer.database = filepath.Join(t.TempDir(), "no such folder", "taskbridge.db")
	if _, err := s.AppendEvent(t.Context(), message("task", 1)); err == nil {
		t.Fatal("a write was done where none can be")
	}
	if err := s.CheckHealth(t.Context()); err == nil || !strings.Contains(err.Error(), "sqlitestore: write") {
		t.Errorf("after a failed write, while no other would do better: %v", err)
	}
	s.writer.database = database
	for range 2 {
		if err := s.CheckHealth(t.Context()); err != nil {
			t.Errorf("when writes succeed again: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.CheckHealth(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// afterCommit is a request that runs f on the writer, between transactions.
type afterCommit struct {
	operation
	f func()
}

func (r *afterCommit) apply(*writer) error { return nil }
func (r *afterCommit) committed(*Store)    { r.f() }

func TestALogThatReadersHaveKeptLongIsCutBack(t *testing.T) {
	s := openTestStore(t, Options{})
	size := func() int64 {
		info, err := os.Stat(s.folder.database() + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for n := int64(1); n <= 20; n++ {
		if _, err := s.AppendEvent(t.Context(), message("task", n)); err != nil {
			t.Fatal(err)
		}
	}
	bound := func(limit int64) {
		if err := s.write(t.Context(), &afterCommit{f: func() {
			s.writer.maxLog = limit
			s.writer.boundLog()
		}}); err != nil {
			t.Fatal(err)
		}
	}
	bound(size())
	if size() == 0 {
		t.Error("a log within its bound was cut back")
	}
	bound(size() - 1)
	if got := size(); got != 0 {
		t.Errorf("the log still has %d bytes", got)
	}
	if got := sequences(t, s, "task"); len(got) != 20 {
		t.Errorf("the stream has %v", got)
	}
}
