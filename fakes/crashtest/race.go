package crashtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// sameKey is how many clients create with one key at once.
const sameKey = 300

func runRaces(t *testing.T, h Harness) {
	t.Run("one key from many clients makes one task", func(t *testing.T) { raceCreate(t, h) })
	t.Run("cancel against complete", func(t *testing.T) { raceComplete(t, h) })
	t.Run("cancel against submit", func(t *testing.T) { raceSubmit(t, h) })
	t.Run("two workers start at once", func(t *testing.T) { raceStart(t, h) })
	t.Run("two reconcilers take over at once", func(t *testing.T) { raceReconcile(t, h) })
}

// together runs the functions as goroutines that begin at the same moment.
func together(functions ...func()) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for _, f := range functions {
		wg.Go(func() {
			<-begin
			f()
		})
	}
	close(begin)
	wg.Wait()
}

func raceCreate(t *testing.T, h Harness) {
	w := newWorld(t, h)
	runtime := fakes.NewScriptedExecutor()
	servers := []*process{w.start(outside(runtime)), w.start(outside(runtime)), w.start(outside(runtime))}
	results := make([]taskbridge.CreateTaskResult, sameKey)
	var clients []func()
	for i := range sameKey {
		clients = append(clients, func() {
			result, err := servers[i%len(servers)].create()
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			results[i] = result
		})
	}
	together(clients...)
	made := 0
	for i, result := range results {
		if !result.Deduplicated {
			made++
		}
		if result.Task.ID != results[0].Task.ID {
			t.Errorf("client %d has task %q, the first has %q", i, result.Task.ID, results[0].Task.ID)
		}
	}
	if made != 1 {
		t.Errorf("%d clients were told that they made the task", made)
	}
	if rows := w.rows(); len(rows) != 1 {
		t.Errorf("there are %d rows", len(rows))
	}
	if n := runtime.Submits(results[0].Task.ID); n != 1 || len(runtime.Submitted()) != 1 {
		t.Errorf("SubmitTask was called %d times, for %d tasks", n, len(runtime.Submitted()))
	}
}

// meeting returns two faults that hold each its call back until the other's has
// come too, so that both go on at the same moment.
func meeting() (fakes.Fault, fakes.Fault) {
	here, there := make(chan struct{}), make(chan struct{})
	meet := func(mine chan<- struct{}, other <-chan struct{}) fakes.Fault {
		return fakes.Fault{Before: func(ctx context.Context, _ fakes.Call) error {
			close(mine)
			select {
			case <-other:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
	}
	return meet(here, there), meet(there, here)
}

// raceComplete lets a client cancel, one worker complete and, from another
// server, an adapter settle, all at once.
func raceComplete(t *testing.T, h Harness) {
	w := newWorld(t, h)
	runtime := fakes.NewScriptedExecutor()
	here, there := w.start(outside(runtime)), w.start(outside(runtime))
	// The write of an end: with separate stores the second of a server that
	// wrote the intent before.
	end, settle := fakes.OpUpdateTask, 2
	if _, atomic := fakes.WrapStores(w.backend.Stores, fakes.NewFaults()).Tasks.(taskbridge.AtomicStore); atomic {
		end, settle = fakes.OpUpdateTaskAndAppend, 1
	}
	ends := make(map[taskbridge.TaskStatus]int)
	for i := range h.Races {
		created, err := here.createAs(fmt.Sprintf("race-%d", i))
		mustNotBe(t, err, "create")
		id := created.Task.ID
		run, err := here.lifecycle.Start(here.ctx, id, taskbridge.Claim{ID: "first"})
		mustNotBe(t, err, "start")
		a, b := meeting()
		switch i % 4 { // else: as it comes
		case 2: // the end meets the intent
			here.faults.On(end, 1, a)
			there.faults.On(fakes.OpUpdateTask, 1, b)
		case 3: // the end meets the other end
			here.faults.On(end, 1, a)
			there.faults.On(end, settle, b)
		}

		var completed, settled, cancelled error
		var alreadyTerminal bool
		racers := []func(){
			func() { completed = run.Complete(here.ctx, taskbridge.Completion{Result: []byte(`1`)}) },
			func() {
				_, alreadyTerminal, cancelled = there.bridge.Cancellation.CancelTask(there.ctx, client, id, cancelReason)
				settled = there.lifecycle.Settle(there.ctx, id, taskbridge.Outcome{Status: taskbridge.StatusCancelled})
			},
		}
		if i%2 == 0 {
			slices.Reverse(racers)
		}
		together(racers...)
		if err := run.Close(); err != nil {
			t.Errorf("race %d: close the run: %v", i, err)
		}
		if cancelled != nil {
			t.Errorf("race %d: cancel: %v", i, cancelled)
		}
		here.reconcile()
		row, _ := there.checkEnd(id)
		ends[row.Status]++
		var winner, loser error
		switch row.Status {
		case taskbridge.StatusCompleted:
			winner, loser = completed, settled
		case taskbridge.StatusCancelled:
			winner, loser = settled, completed
			if alreadyTerminal {
				t.Errorf("race %d: the client was told that the task had ended before its cancellation", i)
			}
		default:
			t.Fatalf("race %d: the task ended %s", i, row.Status)
		}
		if winner != nil || !errors.Is(loser, taskbridge.ErrTaskFinished) {
			t.Errorf("race %d ended %s: complete says %v, settle says %v", i, row.Status, completed, settled)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("ends: %v", ends)
}

// raceSubmit lets a client cancel from the moment in which the row is there,
// while it is being submitted and the runtime starts it at once.
func raceSubmit(t *testing.T, h Harness) {
	w, r := newWorld(t, h), newRuntime()
	submitting, workers := w.start(r.in), w.start(r.in)
	refused, ran := 0, 0
	for i := range h.Races {
		submitting.faults.Clear()
		var (
			race     sync.WaitGroup
			mu       sync.Mutex
			startErr error
		)
		submitting.faults.On(fakes.OpCreateTask, 1, fakes.HookAfter(func(call fakes.Call) {
			race.Go(func() {
				if _, _, err := workers.bridge.Cancellation.CancelTask(workers.ctx, client, call.TaskID, cancelReason); err != nil {
					t.Errorf("race %d: cancel: %v", i, err)
				}
				// From here on no work may begin.
				if _, err := workers.begin(call.TaskID, "too late"); !refusedToRun(err) {
					t.Errorf("race %d: a start behind the cancellation: %v, want ErrNotRunnable", i, err)
				}
			})
		}))
		submitting.faults.On(fakes.OpSubmitTask, 1, fakes.HookAfter(func(call fakes.Call) {
			race.Go(func() {
				r.handOver(call.TaskID, "first")
				run, err := workers.lifecycle.Start(workers.ctx, call.TaskID, taskbridge.Claim{ID: "first"})
				mu.Lock()
				startErr = err
				mu.Unlock()
				if err != nil {
					r.done(call.TaskID)
					return
				}
				<-run.CancelRequested()
				if err := run.Cancelled(workers.ctx, ""); err != nil && !errors.Is(err, taskbridge.ErrTaskFinished) && !errors.Is(err, taskbridge.ErrStaleAttempt) {
					t.Errorf("race %d: end as cancelled: %v", i, err)
				}
				if err := run.Close(); err != nil {
					t.Errorf("race %d: close the run: %v", i, err)
				}
				r.done(call.TaskID)
			})
		}))
		result, err := submitting.createAs(fmt.Sprintf("race-%d", i))
		mustNotBe(t, err, "create")
		id := result.Task.ID
		race.Wait()
		for range 4 {
			workers.reconcile()
			if w.ended() {
				break
			}
			w.clock.Advance(overLease)
		}
		row, events := submitting.checkEnd(id)
		if row.Status != taskbridge.StatusCancelled {
			t.Errorf("race %d: the task ended %s", i, row.Status)
		}
		started := slices.ContainsFunc(events, func(e taskbridge.Event) bool { return e.Type == taskbridge.EventStarted })
		switch {
		case startErr == nil && r.submits[id] > 0:
			ran++
			if !started {
				t.Errorf("race %d: the work was started, the stream is %s", i, ids(events))
			}
		case started:
			t.Errorf("race %d: the start was refused with %v, the stream is %s", i, startErr, ids(events))
		default:
			refused++
		}
		if t.Failed() {
			return
		}
	}
	r.checkSubmits(t)
	t.Logf("the work was started %d times, refused %d times", ran, refused)
}

// raceStart hands one task to two workers of different servers.
func raceStart(t *testing.T, h Harness) {
	w := newWorld(t, h)
	runtime := fakes.NewScriptedExecutor()
	servers := []*process{w.start(outside(runtime)), w.start(outside(runtime))}
	for i := range h.Races / 4 {
		created, err := servers[0].createAs(fmt.Sprintf("race-%d", i))
		mustNotBe(t, err, "create")
		id := created.Task.ID
		var attempts, ends [2]error
		var numbers [2]int64
		worker := func(n int) func() {
			return func() {
				run, err := servers[n].lifecycle.Start(w.ctx, id, taskbridge.Claim{ID: fmt.Sprintf("worker %d", n)})
				if attempts[n] = err; err != nil {
					return
				}
				numbers[n] = run.Attempt()
				ends[n] = run.Complete(w.ctx, taskbridge.Completion{Result: fmt.Appendf(nil, "%d", n)})
				if err := run.Close(); err != nil {
					t.Errorf("race %d: close the run: %v", i, err)
				}
			}
		}
		together(worker(0), worker(1))
		row, _ := servers[0].checkEnd(id)
		finished := 0
		for n := range 2 {
			switch {
			case refusedToRun(attempts[n]): // the other had finished already
			case attempts[n] != nil:
				t.Errorf("race %d: start: %v", i, attempts[n])
			case ends[n] == nil:
				finished++
				if result, _ := row.Result(); string(result) != fmt.Sprint(n) {
					t.Errorf("race %d: worker %d has completed, the result is %s", i, n, result)
				}
				if numbers[n] != row.Attempt {
					t.Errorf("race %d: attempt %d has completed, the row has %d", i, numbers[n], row.Attempt)
				}
			case !errors.Is(ends[n], taskbridge.ErrStaleAttempt) && !errors.Is(ends[n], taskbridge.ErrTaskFinished):
				t.Errorf("race %d: complete: %v", i, ends[n])
			}
		}
		if finished != 1 {
			t.Errorf("race %d: %d workers were told that they completed the task", i, finished)
		}
		if numbers[0] == numbers[1] {
			t.Errorf("race %d: both workers had attempt %d", i, numbers[0])
		}
		if t.Failed() {
			return
		}
	}
}

// raceReconcile lets two servers reconcile what a third has left.
func raceReconcile(t *testing.T, h Harness) {
	w, r := newWorld(t, h), newRuntime()
	const tasks = 100
	dead := w.start(r.in)
	for i := range tasks {
		if i == tasks/2 {
			dead.faults.OnEvery(fakes.OpSubmitTask, fakes.FailAfter(nil)) // the answers are lost
		} else if i == 0 {
			dead.faults.OnEvery(fakes.OpSubmitTask, fakes.FailBefore(nil))
		}
		if _, err := dead.createAs(fmt.Sprintf("request-%d", i)); err != nil {
			t.Fatalf("create: %v", err)
		}
		if i == tasks/2-1 {
			dead.faults.Clear()
		}
	}
	dead.kill()
	servers := []*process{w.start(r.in), w.start(r.in)}
	for range 4 {
		w.clock.Advance(overLease)
		together(servers[0].reconcile, servers[1].reconcile)
	}
	for _, row := range w.rows() {
		if row.Status != taskbridge.StatusAccepted || row.Submission.State != taskbridge.SubmissionRecorded {
			t.Errorf("task %s is %s, its submission %q", row.ID, row.Status, row.Submission.State)
		}
	}
	r.checkSubmits(t)
	if n := len(r.unfinished()); n != tasks {
		t.Errorf("the runtime has %d of %d tasks", n, tasks)
	}
}
