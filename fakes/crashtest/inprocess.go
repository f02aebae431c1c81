package crashtest

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// startInstance makes the process known to others; it returns its id.
func (p *process) startInstance() (id string) {
	w := p.world
	w.t.Helper()
	id = rand.Text()
	if w.backend.Leaser == nil {
		return id
	}
	instance, err := taskbridge.StartInstance(w.ctx, fakes.WrapLeaser(w.backend.Leaser, p.faults), taskbridge.InstanceOptions{ID: id, Clock: w.clock})
	mustNotBe(w.t, err, "start the instance")
	p.undo = append(p.undo, func() {
		if err := instance.Close(w.ctx); err != nil && !p.dead() {
			w.t.Errorf("close the instance: %v", err)
		}
	})
	return id
}

// embedded makes an executor whose tasks run in the process itself and die with
// it, together with the instance that they belong to.
func embedded(script fakes.Script) executorIn {
	return func(p *process) taskbridge.TaskExecutor {
		w := p.world
		w.t.Helper()
		p.instance = p.startInstance()
		executor, err := fakes.NewDeterministicFakeExecutor(fakes.Options{
			Lifecycle: p.lifecycle, Script: fakes.Always(script), InstanceID: p.instance, Clock: w.clock,
		})
		mustNotBe(w.t, err, "make the executor")
		p.undo = append(p.undo, func() {
			ctx := w.ctx
			if p.dead() {
				ctx = p.ctx // nothing is recorded any more
			}
			if err := executor.Close(ctx); err != nil && !p.dead() {
				w.t.Errorf("close the executor: %v", err)
			}
		})
		return executor
	}
}

type inProcessScenario struct {
	name string
	// script is what the tasks of the first process do.
	script fakes.Script
	// play goes through a life in the first process; promised is set by it to
	// the status that was promised to a client.
	play func(p *process, promised *taskbridge.TaskStatus) error
}

func inProcessScenarios() []inProcessScenario {
	return []inProcessScenario{
		{
			name:   "a task runs to its end",
			script: fakes.Script{Ticks: 2, Result: []byte(`1`)},
			play: func(p *process, promised *taskbridge.TaskStatus) error {
				result, err := p.create()
				if err != nil {
					return err
				}
				return p.awaitEnd(result.Task.ID, promised)
			},
		},
		{
			name:   "a task is cancelled",
			script: fakes.Script{Ticks: 1, TickInterval: time.Hour},
			play: func(p *process, promised *taskbridge.TaskStatus) error {
				result, err := p.create()
				if err != nil {
					return err
				}
				if _, _, err := p.bridge.Cancellation.CancelTask(p.ctx, client, result.Task.ID, cancelReason); err != nil {
					return err
				}
				if err := p.alive(); err != nil {
					return err
				}
				*promised = taskbridge.StatusCancelled
				return p.awaitEnd(result.Task.ID, promised)
			},
		},
	}
}

// awaitEnd is a client that waits for the end.
func (p *process) awaitEnd(taskID string, promised *taskbridge.TaskStatus) error {
	row, err := p.bridge.Query.GetTask(p.ctx, client, taskID, time.Minute)
	if err != nil {
		return err
	}
	if err := p.alive(); err != nil {
		return err
	}
	if !row.Status.Terminal() {
		return fmt.Errorf("the task is still %s", row.Status)
	}
	*promised = row.Status
	return nil
}

func runInProcessCrashes(t *testing.T, h Harness) {
	for _, s := range inProcessScenarios() {
		t.Run(s.name, func(t *testing.T) {
			var steps []fakes.Call
			t.Run("without a crash", func(t *testing.T) {
				w := newWorld(t, h)
				p := w.start(embedded(s.script))
				before := len(p.faults.Steps())
				var promised taskbridge.TaskStatus
				mustNotBe(t, s.play(p, &promised), "play without a crash")
				steps = p.faults.Steps()[before:]
				p.kill()
				w.checkAfterInProcess(promised)
			})
			for k := 1; k <= len(steps); k++ {
				for _, at := range moments() {
					t.Run(fmt.Sprintf("%s call %d, %s", at.name, k, steps[k-1].Op), func(t *testing.T) {
						w := newWorld(t, h)
						p := w.start(embedded(s.script))
						p.faults.OnStep(k, at.crash)
						var promised taskbridge.TaskStatus
						if err := s.play(p, &promised); err != nil && !p.dead() {
							t.Fatalf("play: %v", err)
						}
						p.kill()
						w.checkAfterInProcess(promised)
					})
				}
			}
		})
	}
}

// checkAfterInProcess lets a new server take over: what ran has been lost, what
// had not started runs.
func (w *world) checkAfterInProcess(promised taskbridge.TaskStatus) {
	t := w.t
	t.Helper()
	left := w.rows()
	var seen []taskbridge.Event
	if len(left) > 0 {
		seen = w.events(left[0].ID)
	}
	p := w.start(embedded(fakes.Script{Ticks: 1, Result: []byte(`2`)}))
	id := p.createAgain(left, false)
	mustNotBe(t, p.bridge.Reconciler.Recover(p.ctx), "recover")
	for range 4 {
		p.reconcile()
		w.clock.Advance(overLease)
	}
	p.reconcile()
	var ended taskbridge.TaskStatus
	mustNotBe(t, p.awaitEnd(id, &ended), "wait for the end")
	// The end is in the row before the watch tells of it, and in a pair of
	// stores the stream follows.
	p.reconcile()

	row, events := p.checkEnd(id)
	if len(seen) > len(events) || !sameEvents(seen, events[:len(seen)]) {
		t.Errorf("a client may have seen %s, now the stream is %s", ids(seen), ids(events))
	}
	failure, failed := row.Failure()
	switch {
	case promised != "":
		if row.Status != promised {
			t.Errorf("the task was promised to be %s and is %s", promised, row.Status)
		}
	case len(left) == 0 || left[0].Status == taskbridge.StatusAccepted && left[0].Cancellation.RequestedAt.IsZero():
		if row.Status != taskbridge.StatusCompleted {
			t.Errorf("a task that had not started is %s %s", row.Status, row.Terminal)
		}
	case left[0].Status == taskbridge.StatusRunning && left[0].Cancellation.RequestedAt.IsZero():
		if !failed || failure.Code != taskbridge.CodeExecutorLost || !failure.Retryable {
			t.Errorf("a task that ran in a dead process is %s %s", row.Status, row.Terminal)
		}
	}
	if starts := slices.IndexFunc(events, func(e taskbridge.Event) bool { return e.Attempt > 1 }); starts >= 0 {
		t.Errorf("the work was started twice: %s", ids(events))
	}
	p.checkRefused(id)
	p.checkStaysEnded(id)
}
