package crashtest

import (
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// scenarios returns the lives in which every call is a place to die.
func scenarios() []scenario {
	reject := &taskbridge.Failure{Code: "UNSUITABLE", Message: "not here"}
	return []scenario{
		{
			name: "create",
			play: func(p *process, _ *runtime, told *told) error { return playCreate(p, told) },
		},
		{
			name:    "create what the executor rejects",
			rejects: reject,
			play: func(p *process, _ *runtime, _ *told) error {
				return p.persist(func() error {
					_, err := p.create()
					if errors.Is(err, taskbridge.ErrSubmissionRejected) || p.faulty && err == nil {
						return nil
					}
					return fmt.Errorf("create: %w", errors.Join(err, errors.New("no rejection")))
				})
			},
			check: func(t *testing.T, row taskbridge.Task, _ []taskbridge.Event, _ told) {
				if failure, ok := row.Failure(); !ok || failure != *reject {
					t.Errorf("the row is %s %s, want it FAILED with %+v", row.Status, row.Terminal, *reject)
				}
			},
		},
		{
			name: "start, progress, complete",
			play: func(p *process, r *runtime, told *told) error {
				run, err := playStart(p, r, told, "first")
				if err != nil {
					return err
				}
				if err := playReports(p, run, told); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusCompleted, func() error {
					return run.Complete(p.ctx, taskbridge.Completion{Result: []byte(`{"n":[1,2]}`)})
				})
			},
			check: func(t *testing.T, row taskbridge.Task, _ []taskbridge.Event, told told) {
				if result, ok := row.Result(); told.ended != "" && (!ok || !sameJSON(result, []byte(`{"n":[1,2]}`))) {
					t.Errorf("the result is %s", result)
				}
			},
		},
		{
			name: "start, tokens, suspend, complete",
			play: func(p *process, r *runtime, told *told) error {
				run, err := playStart(p, r, told, "first")
				if err != nil {
					return err
				}
				for _, step := range []func() error{
					func() error { return run.Token(p.ctx, "Hel") },
					func() error { return run.Token(p.ctx, "lo") },
					func() error {
						return run.Suspend(p.ctx, taskbridge.Suspension{
							SuspendID: "s-1", Kind: taskbridge.SuspendUserAction, ReasonCode: "CONFIRM",
							AllowedActions: []string{"approve"}, SchemaVersion: 1,
						})
					},
					func() error { return run.Progress(p.ctx, taskbridge.Progress{Percent: 90}) },
				} {
					if err := p.persist(step); err != nil {
						return err
					}
				}
				if err := playLook(p, told); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusCompleted, func() error {
					return run.Complete(p.ctx, taskbridge.Completion{})
				})
			},
		},
		{
			name: "start, fail",
			play: func(p *process, r *runtime, told *told) error {
				run, err := playStart(p, r, told, "first")
				if err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusFailed, func() error {
					return run.Fail(p.ctx, taskbridge.Failure{Code: "BROKEN", Message: "it broke"})
				})
			},
		},
		{
			name: "start, start again by a second worker, complete",
			play: func(p *process, r *runtime, told *told) error {
				first, err := playStart(p, r, told, "first")
				if err != nil {
					return err
				}
				if err := p.persist(func() error { return first.Progress(p.ctx, taskbridge.Progress{Percent: 10}) }); err != nil {
					return err
				}
				second, err := playHandOver(p, r, told, "second")
				if err != nil {
					return err
				}
				if err := p.persist(func() error { return first.Progress(p.ctx, taskbridge.Progress{Percent: 20}) }); !p.dead() && !errors.Is(err, taskbridge.ErrStaleAttempt) {
					return fmt.Errorf("a report of a fenced attempt: %w", errors.Join(err, errors.New("not refused")))
				}
				if err := p.passing(aRetry, func() error { return first.Complete(p.ctx, taskbridge.Completion{}) }); !p.dead() && !errors.Is(err, taskbridge.ErrStaleAttempt) {
					return fmt.Errorf("the end of a fenced attempt: %w", errors.Join(err, errors.New("not refused")))
				}
				if err := playReports(p, second, told); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusCompleted, func() error {
					return second.Complete(p.ctx, taskbridge.Completion{})
				})
			},
		},
		{
			name: "cancel what waits",
			play: func(p *process, r *runtime, told *told) error {
				if err := playCreate(p, told); err != nil {
					return err
				}
				if err := playCancel(p, told); err != nil {
					return err
				}
				told.cancelledBeforeStart = true
				return nil
			},
		},
		{
			name: "cancel what runs",
			play: func(p *process, r *runtime, told *told) error {
				run, err := playStart(p, r, told, "first")
				if err != nil {
					return err
				}
				if err := playCancel(p, told); err != nil {
					return err
				}
				patience := aRetry
				if p.faulty { // the read that the wake-up brought about may have failed
					patience = aBackstop
				}
				if err := p.passing(patience, func() error {
					select {
					case <-run.CancelRequested():
						return nil
					case <-p.ctx.Done():
						return p.ctx.Err()
					}
				}); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusCancelled, func() error { return run.Cancelled(p.ctx, "") })
			},
		},
		{
			name: "cancel before a second worker starts",
			play: func(p *process, r *runtime, told *told) error {
				if _, err := playStart(p, r, told, "first"); err != nil {
					return err
				}
				if err := playCancel(p, told); err != nil {
					return err
				}
				if _, err := playHandOver(p, r, told, "second"); !p.dead() && !refusedToRun(err) {
					return fmt.Errorf("a new start after the cancellation: %w", errors.Join(err, errors.New("not refused")))
				}
				if !p.dead() {
					told.ended = taskbridge.StatusCancelled
					r.done(told.created)
				}
				return nil
			},
		},
		{
			name: "settle what runs",
			play: func(p *process, r *runtime, told *told) error {
				if _, err := playStart(p, r, told, "first"); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusFailed, func() error {
					return playSettle(p, told, taskbridge.Outcome{
						Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: "OOM", Message: "killed", Retryable: true},
					})
				})
			},
		},
		{
			name: "settle as completed what was never seen to start",
			play: func(p *process, r *runtime, told *told) error {
				if err := playCreate(p, told); err != nil {
					return err
				}
				return playEnd(p, r, told, taskbridge.StatusCompleted, func() error {
					return playSettle(p, told, taskbridge.Outcome{
						Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: []byte(`7`)},
					})
				})
			},
		},
		{
			name:   "reconcile after a crash before the submission",
			before: diesAt(fakes.OpSubmitTask, fakes.CrashBefore(), func(p *process, told *told) error { return playCreate(p, told) }),
			play:   playReconcile,
		},
		{
			name:   "reconcile after a crash behind the submission",
			before: diesAt(fakes.OpSubmitTask, fakes.CrashAfter(), func(p *process, told *told) error { return playCreate(p, told) }),
			play:   playReconcile,
		},
		{
			name: "reconcile after a crash between cancellation and executor",
			before: diesAt(fakes.OpRequestCancellation, fakes.CrashBefore(), func(p *process, told *told) error {
				if err := playCreate(p, told); err != nil {
					return err
				}
				return playCancel(p, told)
			}),
			play: playReconcile,
			check: func(t *testing.T, row taskbridge.Task, events []taskbridge.Event, _ told) {
				if row.Status != taskbridge.StatusCancelled || len(events) != 1 {
					t.Errorf("the task, cancelled while it waited, ended %s: %s", row.Status, ids(events))
				}
			},
		},
	}
}

// diesAt makes an earlier process that dies at the first call of op.
func diesAt(op fakes.Op, crash fakes.Fault, play func(p *process, told *told) error) func(*world, *runtime) {
	return func(w *world, r *runtime) {
		p := w.start(r.in)
		p.faults.On(op, 1, crash)
		if err := play(p, new(told)); err != nil && !p.dead() {
			w.t.Fatalf("the earlier process: %v", err)
		}
		if !p.dead() {
			w.t.Fatalf("the earlier process never called %s", op)
		}
		p.kill()
	}
}

func playCreate(p *process, told *told) error {
	var result taskbridge.CreateTaskResult
	if err := p.persist(func() (err error) {
		result, err = p.create()
		return err
	}); err != nil {
		return err
	}
	// The answer of a process that has died does not arrive.
	if !p.dead() {
		told.created = result.Task.ID
	}
	return p.alive()
}

func playStart(p *process, r *runtime, told *told, claim string) (taskbridge.Run, error) {
	if err := playCreate(p, told); err != nil {
		return nil, err
	}
	return playHandOver(p, r, told, claim)
}

// playHandOver is the runtime that gives a task to a worker.
func playHandOver(p *process, r *runtime, told *told, claim string) (run taskbridge.Run, err error) {
	for p.faulty && !r.has(told.created) {
		p.world.clock.Advance(overLease)
		if err := p.persist(func() error { return p.bridge.Reconciler.RunOnce(p.ctx) }); err != nil {
			return nil, err
		}
	}
	r.handOver(told.created, claim)
	if err := p.persist(func() error {
		run, err = p.begin(told.created, claim)
		return err
	}); err != nil {
		return nil, err
	}
	return run, p.alive()
}

// playReports makes two reports, and a client reads them.
func playReports(p *process, run taskbridge.Run, told *told) error {
	if err := p.persist(func() error { return run.Progress(p.ctx, taskbridge.Progress{Percent: 50, Stage: "half"}) }); err != nil {
		return err
	}
	if err := p.persist(func() error { return run.Message(p.ctx, taskbridge.Message{Text: "nearly there"}) }); err != nil {
		return err
	}
	return playLook(p, told)
}

// playLook is a client that polls and keeps what it has seen.
func playLook(p *process, told *told) error {
	var page taskbridge.PollResult
	if err := p.persist(func() (err error) {
		page, err = p.bridge.Polling.PollEvents(p.ctx, client, taskbridge.PollRequest{TaskID: told.created, GapError: true})
		return err
	}); err != nil {
		return err
	}
	if !p.dead() {
		told.events = page.Events
	}
	return p.alive()
}

func playCancel(p *process, told *told) error {
	if err := p.persist(func() error {
		_, already, err := p.bridge.Cancellation.CancelTask(p.ctx, client, told.created, cancelReason)
		if err == nil && already && !p.faulty {
			err = errors.New("cancelled by itself")
		}
		return err
	}); err != nil {
		return err
	}
	return p.alive()
}

func playEnd(p *process, r *runtime, told *told, status taskbridge.TaskStatus, end func() error) error {
	if err := p.passing(aRetry, func() error { return p.persist(end) }); err != nil {
		return err
	}
	if err := p.alive(); err != nil {
		return err
	}
	told.ended = status
	r.done(told.created)
	return nil
}

// playSettle is an adapter that has seen the end. Where the first answer was
// lost, the second is that the task has ended already.
func playSettle(p *process, told *told, outcome taskbridge.Outcome) error {
	err := p.lifecycle.Settle(p.ctx, told.created, outcome)
	if p.faulty && errors.Is(err, taskbridge.ErrTaskFinished) {
		return nil
	}
	return err
}

// playReconcile is a process that does nothing but take over.
func playReconcile(p *process, _ *runtime, _ *told) error {
	if err := p.persist(func() error { return p.bridge.Reconciler.Recover(p.ctx) }); err != nil {
		return err
	}
	for range 4 {
		if err := p.alive(); err != nil {
			return err
		}
		p.world.clock.Advance(overLease)
		if err := p.persist(func() error { return p.bridge.Reconciler.RunOnce(p.ctx) }); err != nil {
			return err
		}
	}
	return p.alive()
}
