package sqlitestore

import (
	"context"
	"errors"
	"fmt"
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
