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
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var fixedTime = time.Date(2031, 3, 5, 7, 9, 11, 13_000, time.UTC)

func openTestStore(t *testing.T, opts Options) *Store {
	t.Helper()
	opts.Dir = t.TempDir()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// work is a request that runs f in the writer's transaction.
type work struct {
	operation
	f func(w *writer) error
}

func (r *work) apply(w *writer) error { return r.f(w) }
func (r *work) committed(*Store)      {}

func do(s *Store, f func(w *writer) error) error {
	return s.write(context.Background(), &work{f: f})
}

// calls waits for calls that run beside the test.
type calls struct{ done []chan error }

func (c *calls) start(f func() error) {
	done := make(chan error, 1)
	c.done = append(c.done, done)
	go func() { done <- f() }()
}

func (c *calls) wait() (errs []error) {
	for _, done := range c.done {
		errs = append(errs, <-done)
	}
	return errs
}

// hold keeps the writer busy from when it returns until release is called.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- do(s, func(*writer) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	return func() {
		close(end)
		if err := <-ended; err != nil {
			t.Errorf("the operation that held the writer: %v", err)
		}
	}
}

func message(taskID string, ordinal int64) taskbridge.EventAppend {
	e := taskbridge.EventAppend{
		TaskID:    taskID,
		Type:      taskbridge.EventMessage,
		CreatedAt: fixedTime,
		Payload:   fmt.Appendf(nil, `{"message":"%d"}`, ordinal),
		Producer:  taskbridge.Producer{Name: "source", Epoch: 1},
		Ordinal:   ordinal,
	}
	e.Tag = taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload)
	return e
}

func newTask(key string) taskbridge.Task {
	return taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", key), Owner: "owner", ClientRequestID: key,
		Fingerprint: "fingerprint", Type: "type", Input: []byte(`{}`), Metadata: []byte(`{}`),
		CreatedAt: fixedTime, UpdatedAt: fixedTime, Status: taskbridge.StatusAccepted,
	}
}

// sequences reads the sequence numbers of a stream.
func sequences(t *testing.T, s *Store, taskID string) (numbers []int64) {
	t.Helper()
	events, err := s.ReadEvents(t.Context(), taskID, 0, 1000)
	if err != nil {
		t.Fatalf("ReadEvents: %v", err)
	}
	for _, e := range events {
		numbers = append(numbers, e.Sequence)
	}
	return numbers
}

func TestWhatWaitsTogetherIsCommittedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{})
		release := hold(t, s)
		var c calls
		for i := range 40 {
			c.start(func() error {
				_, err := s.AppendEvent(context.Background(), message(fmt.Sprintf("task-%d", i%4), int64(i+1)))
				return err
			})
		}
		synctest.Wait()
		release()
		for _, err := range c.wait() {
			if err != nil && !errors.Is(err, taskbridge.ErrStaleProducer) {
				t.Errorf("AppendEvent: %v", err)
			}
		}
		// One for the operation that held the writer, one for all that waited.
		var batches int
		if err := do(s, func(w *writer) error { batches = w.batches; return nil }); err != nil {
			t.Fatal(err)
		}
		if batches != 2 {
			t.Errorf("%d transactions, want 2", batches)
		}
	})
}

func TestABatchHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{MaxBatch: 10})
		release := hold(t, s)
		var c calls
		for i := range 10 {
			c.start(func() error {
				_, _, err := s.CreateTask(context.Background(), newTask(fmt.Sprint(i)))
				return err
			})
		}
		synctest.Wait()
		for i := range 10 { // these cannot be handed over yet
			c.start(func() error {
				_, _, err := s.CreateTask(context.Background(), newTask(fmt.Sprint(10+i)))
				return err
			})
		}
		release()
		if err := errors.Join(c.wait()...); err != nil {
			t.Fatal(err)
		}
		tasks, err := s.ListTasks(t.Context(), taskbridge.TaskQuery{AnyOwner: true, Limit: 100})
		if err != nil || len(tasks) != 20 {
			t.Errorf("%d tasks are there (%v), want 20", len(tasks), err)
		}
	})
}

func TestACallThatIsCancelledWhileItWaitsHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestStore(t, Options{})
		release := hold(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var c calls
		c.start(func() error { _, err := s.AppendEvent(ctx, message("task", 1)); return err })
		c.start(func() error { _, _, err := s.CreateTask(ctx, newTask("key")); return err })
		synctest.Wait()
		cancel()
		for _, err := range c.wait() {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled call: %v", err)
			}
		}
		release()
		if _, err := s.AppendEvent(t.Context(), message("task", 2)); err != nil {
			t.Fatal(err)
		}
		if got := sequences(t, s, "task"); !slices.Equal(got, []int64{1}) {
			t.Errorf("the stream has %v, want the one event of the later call", got)
		}
		if tasks, err := s.ListTasks(t.Context(), taskbridge.TaskQuery{AnyOwner: true, Limit: 9}); err != nil || len(tasks) != 0 {
			t.Errorf("%d tasks, %v; want none", len(tasks), err)
		}
	})
}

func TestACallThatIsCancelledOnceItHasBegunDoesNotKnowItsOutcome(t *testing.T) {
	s := openTestStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	begun, end := make(chan struct{}), make(chan struct{})
	var c calls
	c.start(func() error {
		return s.write(ctx, &work{f: func(w *writer) error {
			close(begun)
			<-end
			return (&appendEvent{event: message("task", 1)}).apply(w)
		}})
	})
	<-begun
	cancel()
	err := c.wait()[0]
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "outcome is unknown") {
		t.Errorf("the cancelled call: %v", err)
	}
	close(end)
	if err := do(s, func(*writer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got := sequences(t, s, "task"); len(got) != 1 {
		t.Errorf("the stream has %v, want the event: its operation had begun", got)
	}
}

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

func TestCloseFinishesWhatItHasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		release := hold(t, s)
		var c calls
		for i := range 20 {
			c.start(func() error {
				_, err := s.AppendEvent(context.Background(), message(fmt.Sprintf("task-%d", i), 1))
				return err
			})
		}
		synctest.Wait()
		var closed calls
		closed.start(s.Close)
		synctest.Wait()
		release()
		if err := errors.Join(append(c.wait(), closed.wait()...)...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendEvent(t.Context(), message("task", 1)); !errors.Is(err, taskbridge.ErrClosed) {
			t.Errorf("append after Close: %v", err)
		}
		s, err = Open(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		for i := range 20 {
			if got := sequences(t, s, fmt.Sprintf("task-%d", i)); len(got) != 1 {
				t.Errorf("stream %d has %v", i, got)
			}
		}
	})
}
