package crashtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// runRetirements lets the process die at each call that it makes while it
// retires a task whose time is over.
func runRetirements(t *testing.T, h Harness) {
	var steps []fakes.Call
	t.Run("without a crash", func(t *testing.T) { steps = retireWithCrash(t, h, 0, fakes.Fault{}) })
	for k := 1; k <= len(steps); k++ {
		for _, at := range moments() {
			t.Run(fmt.Sprintf("%s call %d, %s", at.name, k, steps[k-1].Op), func(t *testing.T) {
				retireWithCrash(t, h, k, at.crash)
			})
		}
	}
}

func retireWithCrash(t *testing.T, h Harness, k int, crash fakes.Fault) []fakes.Call {
	w := newWorld(t, h)
	p := w.start(outside(fakes.NewScriptedExecutor()))
	created, err := p.create()
	mustNotBe(t, err, "create")
	id := created.Task.ID
	run, err := p.begin(id, "first")
	mustNotBe(t, err, "start")
	for i := range 5 {
		mustNotBe(t, run.Progress(p.ctx, taskbridge.Progress{Percent: float64(i)}), "report")
	}
	mustNotBe(t, run.Complete(p.ctx, taskbridge.Completion{}), "complete")
	p.checkEnd(id)
	w.clock.Advance(far)

	before := len(p.faults.Steps())
	if k > 0 {
		p.faults.OnStep(k, crash)
	}
	if err := p.retireAll(); err != nil && !p.dead() {
		t.Fatalf("retire: %v", err)
	}
	steps := p.faults.Steps()[before:]
	p.kill()

	p = w.start(outside(fakes.NewScriptedExecutor()))
	// Between the two the task is there as a whole or it is gone for readers.
	if _, err := w.backend.Stores.Tasks.GetTask(w.ctx, id); err == nil {
		p.checkEnd(id)
	} else if !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Fatalf("read the row: %v", err)
	} else if _, err := p.bridge.Polling.PollEvents(p.ctx, client, taskbridge.PollRequest{TaskID: id}); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("a poll of a retired task: %v, want ErrTaskNotFound", err)
	}
	mustNotBe(t, p.retireAll(), "retire")
	if _, err := p.bridge.Query.GetTask(p.ctx, client, id, 0); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("read a retired task: %v, want ErrTaskNotFound", err)
	}
	if left := w.events(id); len(left) > 0 {
		t.Errorf("a retired task has left %s", ids(left))
	}
	for _, kind := range append(taskbridge.DueKinds(), taskbridge.DueDeletion) {
		if due, err := w.backend.Stores.Tasks.DueTasks(w.ctx, kind, w.clock.Now().Add(far), 10); err != nil || len(due) > 0 {
			t.Errorf("a retired task is due for %s: %v, %v", kind, due, err)
		}
	}
	again, err := p.create()
	if err != nil || again.Deduplicated || again.Task.ID == id {
		t.Errorf("the key of a retired task gives task %s, deduplicated %v, error %v", again.Task.ID, again.Deduplicated, err)
	}
	return steps
}

// retireAll retires until there is nothing more to do.
func (p *process) retireAll() error {
	for {
		if more, err := p.bridge.Reconciler.RetireOnce(p.ctx, time.Minute); err != nil || !more {
			return err
		}
	}
}
