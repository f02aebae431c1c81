package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var faultChecks = []check[LifecycleHarness]{
	{"every call can be repeated after a fault at any step, and is recorded once", faultAnywhere},
	{"an end repeats itself over passing faults", faultEndRepeats},
	{"an end repeats itself no longer than its context, and may be tried again", faultEndGivesUp},
	{"text whose delayed recording meets a passing fault is recorded once", faultTokens},
	{"text whose delayed recording is refused is told of by the next token", faultTokensRefused},
	{"a run learns of an intent although no wake-up comes and a read fails", faultWatch},
}

// faultyScene is a scene whose lifecycle meets the faults, and the checks do not.
func faultyScene(t *testing.T, h LifecycleHarness, opts taskbridge.LifecycleOptions) (*scene, *faults) {
	t.Helper()
	stores, f := h.NewStores(t), &faults{fired: make(chan struct{}, 100)}
	opts.Stores = f.over(stores)
	s := set(t, h, opts)
	s.stores = stores
	return s, f
}

func faultAnywhere(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	running := func() (string, taskbridge.Run) { return s.running() }
	waiting := func() (string, taskbridge.Run) { return s.accepted().ID, nil }
	start := func(claim string) func(string, taskbridge.Run) error {
		return func(id string, _ taskbridge.Run) error {
			run, err := s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: claim})
			if err == nil {
				err = run.Close()
			}
			return err
		}
	}
	settle := func(status taskbridge.TaskStatus) func(string, taskbridge.Run) error {
		return func(id string, _ taskbridge.Run) error { return s.lifecycle.Settle(s.ctx, id, outcome(status)) }
	}
	for _, op := range []struct {
		name string
		on   func() (string, taskbridge.Run)
		do   func(id string, run taskbridge.Run) error
		done error // what a repetition may find instead of success
		want []string
	}{
		{"a first start", waiting, start("claim"), nil, []string{"TASK_STARTED"}},
		{"a joining start", running, start("claim"), nil, []string{"TASK_STARTED"}},
		{"a second attempt", running, start("second"), nil, []string{"TASK_STARTED", "TASK_MESSAGE"}},
		{"a refused start", func() (string, taskbridge.Run) { return s.accepted(intent("never")).ID, nil }, start("claim"),
			taskbridge.ErrNotRunnable, []string{"TASK_CANCELLED"}},
		{"progress", running, func(_ string, run taskbridge.Run) error {
			return run.Progress(s.ctx, taskbridge.Progress{Percent: 50})
		}, nil, []string{"TASK_STARTED", "TASK_PROGRESS"}},
		{"a message", running, func(_ string, run taskbridge.Run) error {
			return run.Message(s.ctx, taskbridge.Message{Text: "m"})
		}, nil, []string{"TASK_STARTED", "TASK_MESSAGE"}},
		{"a suspension", running, func(_ string, run taskbridge.Run) error { return run.Suspend(s.ctx, suspension("one")) },
			nil, []string{"TASK_STARTED", "TASK_SUSPENDED"}},
		{"a completion", running, func(_ string, run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) },
			nil, []string{"TASK_STARTED", "TASK_COMPLETED"}},
		{"a settled failure", waiting, settle(taskbridge.StatusFailed), taskbridge.ErrTaskFinished, []string{"TASK_FAILED"}},
		{"a settled completion", waiting, settle(taskbridge.StatusCompleted), taskbridge.ErrTaskFinished, []string{"TASK_STARTED", "TASK_COMPLETED"}},
		{"a settled cancellation of a run", running, settle(taskbridge.StatusCancelled), taskbridge.ErrTaskFinished, []string{"TASK_STARTED", "TASK_CANCELLED"}},
	} {
		for _, step := range faultSteps {
			for skip := range 3 { // meet the first, second or third call of the kind
				t.Run(fmt.Sprintf("%s, fault %s, after %d calls", op.name, step, skip), func(t *testing.T) {
					s := *s
					s.t = t
					id, run := op.on()
					f.arm(step, skip, 1, errPassing)
					var err error
					for range 5 {
						if err = op.do(id, run); err == nil || op.done != nil && errors.Is(err, op.done) {
							err = nil
							break
						}
						if !errors.Is(err, errPassing) {
							break
						}
					}
					f.disarm()
					s.must("the call, at last", err)
					s.expect(id, op.want...)
				})
			}
		}
	}
}

func faultEndRepeats(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	for _, step := range faultSteps {
		id, run := s.running()
		s.must("Token", run.Token(s.ctx, "last words"))
		f.arm(step, 0, 3, errPassing)
		s.must("Complete over faults "+step.String(), run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`1`)}))
		f.disarm()
		s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"last words"}`, `TASK_COMPLETED {"result":1}`)
	}
}

func faultEndGivesUp(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	giveUp := func() {
		f.arm(faultStep{"row", false}, 0, 1<<30, errPassing)
		short, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
		defer cancel()
		s.refused("Complete while the store is away", run.Complete(short, taskbridge.Completion{}), context.DeadlineExceeded)
		f.disarm()
	}
	if h.Remote {
		giveUp()
	} else {
		s.untouched("the end that came to nothing", id, giveUp)
		s.live(run)
	}
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(id, "TASK_STARTED", "TASK_COMPLETED")
}

func faultTokens(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{TokenDelay: time.Millisecond})
	for _, after := range []bool{false, true} {
		id, run := s.running()
		f.arm(faultStep{"event", after}, 0, 2, errPassing)
		s.must("Token", run.Token(s.ctx, "text"))
		await(s.ctx, t, "the first fault", f.fired)
		await(s.ctx, t, "the second fault", f.fired)
		s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{}))
		s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"text"}`, "TASK_PROGRESS")
		f.disarm()
	}
}

func faultTokensRefused(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{TokenDelay: time.Millisecond})
	id, run := s.running()
	f.arm(faultStep{"event", false}, 0, 1<<30, taskbridge.ErrStreamFull)
	s.must("Token", run.Token(s.ctx, "lost"))
	await(s.ctx, t, "the delayed recording", f.fired)
	s.refused("the next token", run.Token(s.ctx, "refused"), taskbridge.ErrStreamFull)
	if h.Remote {
		return // let in again, the stream would take a late copy of the request too
	}
	f.disarm()
	s.must("Token", run.Token(s.ctx, "fine"))
	s.must("Close", run.Close())
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"fine"}`)
}

func faultWatch(t *testing.T, h LifecycleHarness) {
	s, f := faultyScene(t, h, taskbridge.LifecycleOptions{Backstop: time.Millisecond})
	f.deaf = true // before any run watches
	id, run := s.running()
	s.requestCancel(id, "too slow")
	await(s.ctx, t, "CancelRequested without a wake-up", run.CancelRequested())
	f.arm(faultStep{"read", false}, 0, 2, errPassing)
	s.must("Settle", func() error {
		for {
			err := s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed))
			if !errors.Is(err, errPassing) {
				return err
			}
		}
	}())
	s.over(run, taskbridge.ErrTaskFinished)
}
