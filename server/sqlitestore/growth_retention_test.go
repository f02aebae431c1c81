package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
)

// idleExecutor takes every task and does nothing.
type idleExecutor struct{}

func (idleExecutor) SubmitTask(context.Context, taskbridge.Task) error { return nil }

func (idleExecutor) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

// content is a row with its events.
type content struct {
	task   taskbridge.Task
	events []taskbridge.Event
}

func contents(t *testing.T, s *Store, tasks []taskbridge.Task) (all []content) {
	t.Helper()
	for _, task := range tasks {
		row, err := s.GetTask(t.Context(), task.ID)
		if err != nil {
			t.Fatal(err)
		}
		events, err := s.ReadEvents(t.Context(), task.ID, 0, 100)
		if err != nil || len(events) != bulk.EventsPerTask {
			t.Fatalf("%d events, %v", len(events), err)
		}
		all = append(all, content{row, events})
	}
	return all
}

func TestRetentionTakesHalfOfTheTasksInSmallStepsWhileOthersAreCreated(t *testing.T) {
	const all, batch = 1000, 50
	s := openFilled(t, all)
	tasks := someTasks(t, s, all)
	before := contents(t, s, tasks)
	// The older half, and the test may take fifty hours.
	const keep = (all/2 - 50) * time.Hour
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{bulk.Type: idleExecutor{}})
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := taskbridge.New(taskbridge.Options{
		Stores: taskbridge.Stores{Tasks: s, Events: s}, Executors: executors,
		Retention:      taskbridge.RetentionOptions{Keep: keep, Step: 2},
		Reconciliation: taskbridge.ReconciliationOptions{Batch: batch},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Subscription.Close()

	var created []string
	create := func() error {
		result, err := bridge.Creation.CreateTask(t.Context(), taskbridge.Principal{Subject: "other"}, taskbridge.CreateTaskRequest{
			ClientRequestID: fmt.Sprint(len(created)), TaskType: bulk.Type,
		})
		created = append(created, result.Task.ID)
		return err
	}
	left := func() (tasks, tombstones int64) {
		if err := do(s, func(w *writer) (err error) {
			if tasks, err = w.conn.integer("SELECT count(*) FROM tasks WHERE owner = ?", bulk.Owner); err == nil {
				tombstones, err = w.conn.integer("SELECT count(*) FROM tombstones")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return tasks, tombstones
	}
	for more := true; more; {
		was, _ := left()
		var wg sync.WaitGroup
		var createErr error
		wg.Go(func() {
			for range 5 {
				createErr = errors.Join(createErr, create())
			}
		})
		if more, err = bridge.Reconciler.RetireOnce(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if createErr != nil {
			t.Errorf("creates beside the retention: %v", createErr)
		}
		if now, tombstones := left(); was-now > batch || tombstones > batch {
			t.Fatalf("one round took %d tasks and left %d tombstones, want %d at most", was-now, tombstones, batch)
		}
	}

	if kept, tombstones := left(); kept != all/2 || tombstones != 0 {
		t.Errorf("%d tasks and %d tombstones are left, want %d and none", kept, tombstones, all/2)
	}
	for i, task := range tasks[:all/2] {
		if _, err := s.GetTask(t.Context(), task.ID); !errors.Is(err, taskbridge.ErrTaskNotFound) {
			t.Errorf("the retired task %d: %v", i, err)
		}
		if events, err := s.ReadEvents(t.Context(), task.ID, 0, 1); len(events) > 0 || err != nil {
			t.Errorf("the retired task %d has %d events, %v", i, len(events), err)
		}
	}
	for i, after := range contents(t, s, tasks[all/2:]) {
		if want := before[all/2+i]; !reflect.DeepEqual(after, want) {
			t.Errorf("the kept task %d is %+v, was %+v", i, after, want)
		}
	}
	for _, id := range created {
		if task, err := s.GetTask(t.Context(), id); err != nil || task.Submission.State != taskbridge.SubmissionRecorded {
			t.Errorf("a task that was created beside the retention: %s, %v", task.Submission.State, err)
		}
	}
	if err := do(s, func(w *writer) error {
		events, err := w.conn.integer("SELECT count(*) FROM events")
		if events != all/2*bulk.EventsPerTask {
			t.Errorf("%d events are left", events)
		}
		bad, badErr := w.conn.integer("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'")
		if bad != 0 {
			t.Errorf("the file has %d faults", bad)
		}
		return errors.Join(err, badErr)
	}); err != nil {
		t.Fatal(err)
	}
}

// Deletions that share a commit don't each move pages about: those who wait for
// the commit would wait for all of them.
func TestACommitGivesBackSoManyPagesAtMost(t *testing.T) {
	s := openTestStore(t, Options{})
	const tasks = 40
	var all []taskbridge.Task
	for i := range tasks {
		task := newTask(fmt.Sprint(i))
		task.Status = taskbridge.StatusCancelled
		task.Input = fmt.Appendf(nil, `{"text":"%0*d"}`, 400_000, i)
		task, _, err := s.CreateTask(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, task)
	}
	size := func() (pages int64) {
		if err := do(s, func(w *writer) (err error) {
			pages, err = w.conn.integer(sqlPages)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	before := size()
	release := hold(t, s)
	var retired calls
	for _, task := range all {
		retired.start(func() error { return s.RetireTask(context.Background(), task, fixedTime) })
	}
	for len(s.writer.queue) < tasks { // all wait for the next commit
		runtime.Gosched()
	}
	release()
	for _, err := range retired.wait() {
		if err != nil {
			t.Error(err)
		}
	}
	if after := size(); before-after != givenBack {
		t.Errorf("one commit of %d deletions gave back %d pages, want %d", tasks, before-after, givenBack)
	}
	// What is left goes with the deletions that follow.
	for _, task := range all {
		if err := s.DeleteTask(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
	}
	if after := size(); after > before/2 {
		t.Errorf("of %d pages %d are left", before, after)
	}
}
