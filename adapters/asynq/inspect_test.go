//go:build linux

package asynqadapter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// inspect asks the executor about the task as its row is now.
func (f *fixture) inspect(task taskbridge.Task) taskbridge.Inspection {
	f.t.Helper()
	inspection, err := f.executor.InspectTask(f.ctx, f.row(task))
	must(f.t, err)
	return inspection
}

func TestATaskDeletedBehindOurBackFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := f.create("work", `{}`)
	must(t, f.inspector.DeleteTask(f.queue, task.ID))
	f.reconcile()
	f.wantEnd(task, CodeDeleted, true)
	f.wantStream(task, "FAILED")
}

func TestWhatIsSubmittedAfterRedisLostItsDataIsNotTakenForLost(t *testing.T) {
	t.Parallel()
	server, err := startRedis(t.TempDir()) // which writes nothing to disk
	must(t, err)
	t.Cleanup(func() { server.kill() })
	connection := server.option()
	f := newFixture(t, fixtureOptions{connection: &connection})
	lost := f.create("work", `{}`)
	server.kill()
	must(t, server.start())
	kept, unwanted := f.create("work", `{}`), f.create("work", `{}`)
	for _, task := range []taskbridge.Task{kept, unwanted} {
		if got := f.inspect(task).Knowledge; got != taskbridge.InspectionWaiting {
			t.Errorf("the inspection says %v", got)
		}
	}
	f.cancel(unwanted, "changed my mind")
	f.wantCancelled(unwanted, "changed my mind")
	if state := f.state(unwanted); state != "" {
		t.Errorf("asynq still has the cancelled task: it is %s", state)
	}
	f.reconcile()
	f.wantEnd(lost, CodeDeleted, true)
	f.serve(f.worker(done))
	f.wantEnd(kept, "", false)
}

func TestATaskDeletedBetweenTwoAttemptsFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return nil, errors.New("boom") }), hourly)
	task := f.create("work", `{}`)
	f.awaitState(task, "retry")
	must(t, f.inspector.DeleteTask(f.queue, task.ID))
	f.reconcile()
	f.wantEnd(task, CodeDeleted, true)
	f.wantStream(task, "STARTED MESSAGE FAILED")
}

func TestATaskArchivedByHandFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	waiting := f.create("work", `{}`)
	must(t, f.inspector.ArchiveTask(f.queue, waiting.ID))
	f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return nil, errors.New("boom") }), hourly)
	failing := f.create("work", `{}`)
	f.awaitState(failing, "retry")
	must(t, f.inspector.ArchiveTask(f.queue, failing.ID))
	f.reconcile()
	f.wantEnd(waiting, CodeArchived, true)
	row := f.wantEnd(failing, CodeArchived, true)
	if failure, _ := row.Failure(); !strings.HasSuffix(failure.Message, "the last error: boom") {
		t.Errorf("the message is %q", failure.Message)
	}
	// Run again by hand, it is dropped: the client was told of its end.
	must(t, f.inspector.RunTask(f.queue, failing.ID))
	f.awaitState(failing, "completed")
	f.wantStream(failing, "STARTED MESSAGE FAILED")
}

func TestATaskInAPausedQueueWaits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(f.worker(done))
	must(t, f.inspector.PauseQueue(f.queue))
	task := f.create("work", `{}`)
	for range 5 { // all of them find it silent for too long
		must(t, f.bridge.Reconciler.RunOnce(f.ctx))
		if row := f.row(task); row.Status != taskbridge.StatusAccepted {
			t.Fatalf("the task is %s %s", row.Status, row.Terminal)
		}
		if got := f.inspect(task).Knowledge; got != taskbridge.InspectionWaiting {
			t.Fatalf("the inspection says %v", got)
		}
	}
	must(t, f.inspector.UnpauseQueue(f.queue))
	f.wantEnd(task, "", false)
}

func TestATaskThatNoWorkerTakesFailsAtItsDeadline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"urgent": {Deadline: time.Second}}})
	task := f.create("urgent", `{}`)
	f.reconcile()
	f.wantEnd(task, CodeDeadlineExceeded, true)
	f.wantStream(task, "FAILED")
}

func TestWhatAHandlerOfAsynqsOwnHasDoneIsCompleted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		_, err := task.ResultWriter().Write([]byte(`{"by":"asynq"}`))
		return err
	}))
	task := f.create("work", `{}`)
	f.awaitState(task, "completed")
	f.reconcile()
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != `{"by":"asynq"}` {
		t.Errorf("the result is %s", result)
	}
	f.wantStream(task, "STARTED COMPLETED")
}

func TestAHandlerOfAsynqsOwnThatFailsIsFailed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { panic("secret") }))
	task := f.create("work", `{}`)
	f.awaitState(task, "archived")
	f.reconcile()
	row := f.wantEnd(task, CodeRetriesExhausted, true)
	if failure, _ := row.Failure(); failure.Message != "the last attempt failed: the handler panicked" {
		t.Errorf("the message is %q", failure.Message)
	}
}

func TestWorkThatWasBarredAndDroppedIsNotFinished(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := f.create("work", `{}`)
	// The submission was never recorded, and its time is over.
	row := f.row(task)
	row.Submission.State, row.Submission.Barred = taskbridge.SubmissionClaimed, true
	row.Submission.Deadline, row.Submission.LeaseUntil = row.CreatedAt, row.CreatedAt
	row.Due.Submission = row.CreatedAt
	_, err := f.store.UpdateTask(f.ctx, row)
	must(t, err)
	f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		t.Error("the work ran")
		return nil, nil
	}))
	f.awaitState(task, "completed")
	if got := f.inspect(task).Knowledge; got != taskbridge.InspectionAbsent {
		t.Fatalf("the inspection says %v, want absent", got)
	}
	f.reconcile()
	f.wantEnd(task, taskbridge.CodeSubmissionFailed, true)
}

func TestWorkThatWasDroppedAfterItsSubmissionWasRecordedFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error { return skip(task) }))
	task := f.create("work", `{}`)
	f.awaitState(task, "completed")
	f.reconcile()
	f.wantEnd(task, CodeSkipped, true)
}

func TestAnActiveTaskWithoutALeaseIsFoundOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := f.create("work", `{}`)
	// Taken off the queue as a worker does it, by one that is gone, and its lease
	// is gone with it: asynq leaves such a task active for good.
	key := "asynq:{" + f.queue + "}:"
	must(t, f.redis.LMove(f.ctx, key+"pending", key+"active", "RIGHT", "LEFT").Err())
	must(t, f.redis.HSet(f.ctx, key+"t:"+task.ID, "state", "active").Err())
	f.reconcile()
	f.wantEnd(task, CodeLeaseExpired, true)
	f.wantStream(task, "FAILED")
}

func TestAnActiveTaskWithoutALeaseRunsOnWhileItsWorkerLives(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	begun, finish := make(chan bool, 1), make(chan bool)
	f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		begun <- true
		<-finish
		return nil, nil
	}))
	task := f.create("work", `{}`)
	receive(t, "the work begins", begun)
	must(t, f.redis.ZRem(f.ctx, "asynq:{"+f.queue+"}:lease", task.ID).Err())
	// The worker tells asynq every few seconds what it has at work.
	f.until("the worker has said so", func() bool {
		running, err := f.executor.atWork(f.ctx, task)
		must(t, err)
		return running
	})
	if got := f.inspect(task).Knowledge; got != taskbridge.InspectionRunning {
		t.Errorf("the inspection says %v", got)
	}
	// Nor is it lost when Redis has lost all of it.
	must(t, f.redis.Del(f.ctx, "asynq:{"+f.queue+"}:t:"+task.ID, "asynq:{"+f.queue+"}:active").Err())
	if got := f.inspect(task).Knowledge; got != taskbridge.InspectionRunning {
		t.Errorf("the inspection says %v after Redis lost the task", got)
	}
	close(finish)
	f.wantEnd(task, "", false)
}

func TestATaskIsFoundInTheQueueThatItsTypeHadBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	task := f.create("work", `{}`)
	moved, err := New(Options{Redis: f.connection, Lifecycle: f.lifecycle, Types: map[string]TypeOptions{"work": {Queue: newQueue(t, f.connection)}}})
	must(t, err)
	defer func() { must(t, moved.Close()) }()
	inspection, err := moved.InspectTask(f.ctx, f.row(task))
	must(t, err)
	if inspection.Knowledge != taskbridge.InspectionWaiting {
		t.Errorf("the inspection says %v", inspection.Knowledge)
	}
	must(t, moved.RequestCancellation(f.ctx, f.row(task), "reason"))
	if state := f.state(task); state != "" {
		t.Errorf("the task is %s still", state)
	}
}
