package taskbridge_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// playedExecutor does what its functions do. A nil one succeeds; without
// inspect nothing is known.
type playedExecutor struct {
	instance string // empty: of no instance
	submit   func(context.Context, taskbridge.Task) error
	cancel   func(context.Context) error
	inspect  func(taskbridge.Task) taskbridge.Inspection
}

func (e *playedExecutor) InstanceID() string { return e.instance }

func (e *playedExecutor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if e.submit == nil {
		return nil
	}
	return e.submit(ctx, task)
}

func (e *playedExecutor) RequestCancellation(ctx context.Context, _ taskbridge.Task, _ string) error {
	if e.cancel == nil {
		return nil
	}
	return e.cancel(ctx)
}

func (e *playedExecutor) InspectTask(_ context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if e.inspect == nil {
		return taskbridge.Inspection{}, nil
	}
	return e.inspect(task), nil
}

func absent(taskbridge.Task) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}
}

func executedBy(t *testing.T, executors map[string]taskbridge.TaskExecutor) func(*taskbridge.Options) {
	t.Helper()
	router, err := taskbridge.NewExecutorRouter(executors)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *taskbridge.Options) { o.Executors = router }
}

func (h *host) createOf(key, taskType string) string {
	h.t.Helper()
	result, err := h.Creation.CreateTask(h.t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: key, TaskType: taskType})
	h.must(err)
	return result.Task.ID
}

// reconciling runs the reconciler until stop is called.
func (h *host) reconciling() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Reconciler.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestWhatComesOfATryThatWasHeldUpDoesNotTouchTheTryAfterIt(t *testing.T) {
	for name, late := range map[string]error{
		"unknown outcome": errFault,
		"rejection":       taskbridge.Reject("NO", "no", false),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := []chan error{make(chan error), make(chan error)}
				var calls atomic.Int64
				submitted := make(chan string, 2)
				h := newHost(t, atomicStores(), executedBy(t, map[string]taskbridge.TaskExecutor{"work": &playedExecutor{
					inspect: absent,
					submit: func(_ context.Context, task taskbridge.Task) error {
						submitted <- task.ID
						return <-answers[calls.Add(1)-1]
					},
				}}))
				var work sync.WaitGroup
				work.Go(func() {
					request := taskbridge.CreateTaskRequest{ClientRequestID: "a", TaskType: "work"}
					if _, err := h.Creation.CreateTask(t.Context(), me, request); err != nil {
						t.Errorf("the task that another try goes on with: %v", err)
					}
				})
				<-time.After(31 * time.Second) // the lease has run out
				work.Go(func() {
					if err := h.Reconciler.RunOnce(t.Context()); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				id := <-submitted
				answers[0] <- late
				synctest.Wait()
				row := h.row(id)
				if row.Status != taskbridge.StatusAccepted || !row.Submission.LeaseUntil.Equal(time.Now().Add(30*time.Second)) {
					t.Errorf("%s, claimed until %s", row.Status, row.Submission.LeaseUntil)
				}
				answers[1] <- nil
				work.Wait()
				if row := h.row(id); row.Submission.State != taskbridge.SubmissionRecorded || calls.Load() != 2 {
					t.Errorf("%q after %d calls", row.Submission.State, calls.Load())
				}
			})
		})
	}
}

func TestAReconcilerThatLearnsNothingLeavesTheClaimOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inspections, calls atomic.Int64
		silence, answer := make(chan struct{}), make(chan struct{})
		h := newHost(t, atomicStores(), executedBy(t, map[string]taskbridge.TaskExecutor{"work": &playedExecutor{
			inspect: func(task taskbridge.Task) taskbridge.Inspection {
				if inspections.Add(1) == 1 {
					<-silence
					return taskbridge.Inspection{}
				}
				return absent(task)
			},
			submit: func(context.Context, taskbridge.Task) error {
				if calls.Add(1) == 1 {
					return errFault
				}
				<-answer
				return nil
			},
		}}))
		id := h.create("a")
		<-time.After(time.Minute)
		var work sync.WaitGroup
		for range 2 {
			work.Go(func() {
				if err := h.Reconciler.RunOnce(t.Context()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		claimed := h.row(id)
		close(silence)
		synctest.Wait()
		if row := h.row(id); row.Revision != claimed.Revision || calls.Load() != 2 {
			t.Errorf("revision %d, then %d; %d calls", claimed.Revision, row.Revision, calls.Load())
		}
		close(answer)
		work.Wait()
	})
}

func TestATaskThatStartsWhileItIsGivenUpGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		executor := &playedExecutor{submit: func(context.Context, taskbridge.Task) error { return errFault }}
		h := newHost(t, atomicStores(), executedBy(t, map[string]taskbridge.TaskExecutor{"work": executor}))
		var run taskbridge.Run
		executor.inspect = func(task taskbridge.Task) taskbridge.Inspection {
			run = h.start(task.ID, "c")
			return absent(task)
		}
		id := h.create("a")
		<-time.After(time.Hour) // long after the deadline
		h.must(h.Reconciler.RunOnce(t.Context()))
		if row := h.row(id); row.Status != taskbridge.StatusRunning {
			t.Errorf("%s: %s", row.Status, row.Terminal)
		}
		h.complete(run)
	})
}

func TestAnExecutorThatDoesNotAnswerACancellationHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		submitting, submitted := make(chan taskbridge.Task), make(chan struct{})
		h := newHost(t, atomicStores(), executedBy(t, map[string]taskbridge.TaskExecutor{"work": &playedExecutor{
			submit: func(_ context.Context, task taskbridge.Task) error {
				submitting <- task
				<-submitted
				return nil
			},
			cancel: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
		}}))
		created := make(chan struct{})
		go func() {
			defer close(created)
			h.create("a")
		}()
		task := <-submitting
		_, _, err := h.Cancellation.CancelTask(t.Context(), me, task.ID, "enough")
		h.must(err)
		close(submitted)
		select {
		case <-created:
		case <-time.After(time.Minute):
			t.Fatal("the creation waits for the cancellation")
		}
	})
}

// holeyStore does not give one of its rows out.
type holeyStore struct {
	*memory.Store
	hole atomic.Value // of string
}

func (s *holeyStore) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	if s.hole.Load() == taskID {
		return taskbridge.Task{}, errFault
	}
	return s.Store.GetTask(ctx, taskID)
}

func TestATaskThatCannotBeReadHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &holeyStore{Store: memory.NewStore(memory.Options{})}
		stores := taskbridge.Stores{Tasks: store, Events: store}
		dead := newHost(t, stores, executedBy(t, map[string]taskbridge.TaskExecutor{"local": &playedExecutor{instance: "dead"}}))
		store.hole.Store(dead.createOf("bad", "local"))

		var calls atomic.Int64
		h := newHost(t, stores, func(o *taskbridge.Options) {
			executedBy(t, map[string]taskbridge.TaskExecutor{
				"local": &playedExecutor{instance: "alive"},
				"work": &playedExecutor{inspect: absent, submit: func(context.Context, taskbridge.Task) error {
					if calls.Add(1) == 1 {
						return errFault
					}
					return nil
				}},
			})(o)
			o.Retention.Keep = time.Second
		})
		open := h.create("open")
		ended := h.create("ended")
		h.complete(h.start(ended, "c"))
		stop := h.reconciling()
		<-time.After(10 * time.Second)
		stop()
		if row := h.row(open); row.Submission.State != taskbridge.SubmissionRecorded {
			t.Errorf("the submission is %q", row.Submission.State)
		}
		if _, err := stores.Tasks.GetTask(t.Context(), ended); !errors.Is(err, taskbridge.ErrTaskNotFound) {
			t.Errorf("the ended task is not retired: %v", err)
		}
	})
}

func TestAServerMindsItsOwnTasksWhileAnotherReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores, leaser := atomicStores(), memory.NewLeaser(nil)
		var full atomic.Bool
		full.Store(true)
		server := func(id string) *host {
			instance, err := taskbridge.StartInstance(t.Context(), leaser, taskbridge.InstanceOptions{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			h := newHost(t, stores, func(o *taskbridge.Options) {
				o.Leaser = leaser
				executedBy(t, map[string]taskbridge.TaskExecutor{"local": &playedExecutor{
					instance: id, inspect: absent,
					submit: func(context.Context, taskbridge.Task) error {
						if full.Load() {
							return errFault
						}
						return nil
					},
				}})(o)
			})
			stop := h.reconciling()
			t.Cleanup(func() {
				stop()
				if err := instance.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			return h
		}
		server("first")
		second := server("second")
		again := second.createOf("again", "local")
		unwanted := second.createOf("unwanted", "local")
		<-time.After(30 * time.Second)
		full.Store(false)
		_, _, err := second.Cancellation.CancelTask(t.Context(), me, unwanted, "")
		second.must(err)
		<-time.After(3 * time.Minute)
		if row := second.row(again); row.Submission.State != taskbridge.SubmissionRecorded || row.Instance != "second" {
			t.Errorf("submission %q of instance %q", row.Submission.State, row.Instance)
		}
		if row := second.row(unwanted); row.Status != taskbridge.StatusCancelled {
			t.Errorf("%s", row.Status)
		}
	})
}

func TestAnEndWithoutAnOutcomeEndsTheTaskAllTheSame(t *testing.T) {
	for name, outcome := range map[string]taskbridge.Outcome{
		"none":     {},
		"open":     {Status: taskbridge.StatusRunning},
		"not JSON": {Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: []byte("{")}},
	} {
		synctest.Test(t, func(t *testing.T) {
			executor := &playedExecutor{inspect: func(taskbridge.Task) taskbridge.Inspection {
				return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: outcome}
			}}
			h := newHost(t, atomicStores(), executedBy(t, map[string]taskbridge.TaskExecutor{"played": executor}))
			id := h.createOf("k", "played")
			<-time.After(2 * time.Minute)
			h.must(h.Reconciler.RunOnce(t.Context()))
			failure, _ := h.row(id).Failure()
			if failure.Code != taskbridge.CodeExecutorLost || !failure.Retryable {
				t.Errorf("%s: %s, %+v", name, h.row(id).Status, failure)
			}
		})
	}
}
