package crashtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// scenario is a piece of a task's life in one process, which dies at some point
// of it.
type scenario struct {
	name    string
	rejects *taskbridge.Failure
	// before happens in an earlier process, which dies in its own way; nil:
	// nothing has happened yet.
	before func(w *world, r *runtime)
	// play goes through the life until its end or the first error.
	play func(p *process, r *runtime, told *told) error
	// check, where it is set, looks at the end.
	check func(t *testing.T, row taskbridge.Task, events []taskbridge.Event, told told)
}

// told is what the dead process has promised to clients and workers.
type told struct {
	created string // the task's id
	// cancelled: the cancellation was accepted, and no work had begun by then.
	cancelledBeforeStart bool
	ended                taskbridge.TaskStatus
	events               []taskbridge.Event
}

// aftermath is what the runtime does with what it has after the crash.
type aftermath struct {
	name string
	// act is called once a round.
	act func(p *process, r *runtime)
}

func aftermaths() []aftermath {
	return []aftermath{
		{"the runtime delivers again to a new worker", func(p *process, r *runtime) {
			for _, j := range r.unfinished() {
				finishJob(p, r, j, fmt.Sprintf("again, after %q", j.claim))
			}
		}},
		{"the same execution goes on", func(p *process, r *runtime) {
			for _, j := range r.unfinished() {
				claim := j.claim
				if claim == "" {
					claim = "first"
				}
				finishJob(p, r, j, claim)
			}
		}},
		{"the runtime has forgotten", func(_ *process, r *runtime) {
			for _, j := range r.unfinished() {
				r.done(j.task.ID)
			}
		}},
		{"the work has finished unseen", func(p *process, r *runtime) {
			for _, j := range r.unfinished() {
				if j.claim == "" { // it had not begun, and begins by asking
					finishJob(p, r, j, "first")
					continue
				}
				r.set(j.task.ID, func(j *job) {
					j.state = taskbridge.InspectionFinished
					j.end = taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: []byte(`"unseen"`)}}
				})
			}
		}},
	}
}

// finishJob is a worker that gets a job and brings it to its end.
func finishJob(p *process, r *runtime, j job, claim string) {
	t := p.world.t
	t.Helper()
	r.handOver(j.task.ID, claim)
	run, err := p.begin(j.task.ID, claim)
	if errors.Is(err, taskbridge.ErrStaleAttempt) { // another execution has come in between: begin anew
		claim += ", again"
		r.handOver(j.task.ID, claim)
		run, err = p.begin(j.task.ID, claim)
	}
	if refusedToRun(err) {
		r.done(j.task.ID)
		return
	}
	mustNotBe(t, err, "start the work again")
	select {
	case <-run.CancelRequested():
		err = run.Cancelled(p.ctx, "")
	default:
		err = run.Complete(p.ctx, taskbridge.Completion{Result: []byte(`"second try"`)})
	}
	mustNotBe(t, err, "end the work")
	r.done(j.task.ID)
}

func runCrashes(t *testing.T, h Harness) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			steps := countSteps(t, h, s)
			turn := 0
			for k := 1; k <= len(steps); k++ {
				for _, at := range moments() {
					ways := aftermaths()
					if !h.Thorough {
						ways = ways[turn%len(ways) : turn%len(ways)+1]
					}
					turn++
					for _, a := range ways {
						name := fmt.Sprintf("%s call %d, %s, then %s", at.name, k, steps[k-1].Op, a.name)
						t.Run(name, func(t *testing.T) { crashOnce(t, h, s, k, at.crash, a) })
					}
				}
			}
		})
	}
}

// moment is a place to die at a call.
type moment struct {
	name  string
	crash fakes.Fault
}

func moments() []moment {
	return []moment{{"before", fakes.CrashBefore()}, {"after", fakes.CrashAfter()}}
}

// countSteps plays the scenario without a crash and returns its calls.
func countSteps(t *testing.T, h Harness, s scenario) (steps []fakes.Call) {
	t.Run("without a crash", func(t *testing.T) {
		w, r := newWorld(t, h), newRuntime()
		r.rejects = s.rejects
		if s.before != nil {
			s.before(w, r)
		}
		p := w.start(r.in)
		var told told
		mustNotBe(t, s.play(p, r, &told), "play without a crash")
		steps = p.faults.Steps()
		p.kill()
		w.checkAfter(r, s, told, aftermaths()[0])
	})
	if len(steps) == 0 {
		t.Fatal("the scenario makes no calls")
	}
	return steps
}

func crashOnce(t *testing.T, h Harness, s scenario, k int, crash fakes.Fault, a aftermath) {
	w, r := newWorld(t, h), newRuntime()
	r.rejects = s.rejects
	if s.before != nil {
		s.before(w, r)
	}
	p := w.start(r.in)
	p.faults.OnStep(k, crash)
	var told told
	if err := s.play(p, r, &told); err != nil && !p.dead() {
		t.Fatalf("play: %v", err)
	}
	p.kill() // where the play took fewer calls this time, it dies at its end
	w.checkAfter(r, s, told, a)
}

// checkAfter lets a new process take over and checks what was promised.
func (w *world) checkAfter(r *runtime, s scenario, told told, a aftermath) {
	t := w.t
	t.Helper()
	left := w.rows()
	streams := make(map[string][]taskbridge.Event)
	for _, row := range left {
		streams[row.ID] = w.events(row.ID)
	}
	if told.created != "" && !slices.ContainsFunc(left, func(row taskbridge.Task) bool { return row.ID == told.created }) {
		t.Fatalf("task %s was promised to a client and is not there", told.created)
	}

	p := w.start(r.in)
	id := p.createAgain(left, s.rejects != nil)
	if err := p.bridge.Reconciler.Recover(p.ctx); err != nil {
		t.Errorf("recover: %v", err)
	}
	for range 40 { // 10 minutes: less than the submission's deadline
		a.act(p, r)
		p.reconcile()
		if w.ended() {
			break
		}
		w.clock.Advance(15 * time.Second)
	}

	row, events := p.checkEnd(id)
	r.check(t, row)
	for _, row := range left {
		if now := w.row(row.ID); row.Status.Terminal() && (now.Status != row.Status || !sameJSON(now.Terminal, row.Terminal)) {
			t.Errorf("the task had ended %s %s, now it is %s %s", row.Status, row.Terminal, now.Status, now.Terminal)
		}
	}
	if seen := streams[id]; len(seen) > len(events) || !sameEvents(seen, events[:len(seen)]) {
		t.Errorf("a client may have seen %s, now the stream is %s", ids(seen), ids(events))
	}
	if seen := told.events; len(seen) > len(events) || !sameEvents(seen, events[:len(seen)]) {
		t.Errorf("a client has seen %s, now the stream is %s", ids(seen), ids(events))
	}
	if told.ended != "" && row.Status != told.ended {
		t.Errorf("a worker was told that the task is %s, it is %s", told.ended, row.Status)
	}
	if told.cancelledBeforeStart && (row.Status != taskbridge.StatusCancelled || events[0].Type == taskbridge.EventStarted) {
		t.Errorf("a task whose cancellation was accepted before it began has ended %s: %s", row.Status, ids(events))
	}
	if row.Status == taskbridge.StatusCancelled && !sameJSON(row.Terminal, []byte(`{"reason":"`+cancelReason+`"}`)) {
		t.Errorf("the task ended CANCELLED with %s", row.Terminal)
	}
	if s.check != nil {
		s.check(t, row, events, told)
	}
	p.checkRefused(id)
	p.checkStaysEnded(id)
}

// check is what the runtime has noticed, now that the task has its end.
func (r *runtime) check(t *testing.T, row taskbridge.Task) {
	t.Helper()
	r.checkSubmits(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if begun := int64(len(r.claims[row.ID])); row.Attempt > begun {
		t.Errorf("the row has attempt %d, the runtime has begun %d executions", row.Attempt, begun)
	}
}

// checkSubmits checks that no task was handed over twice.
func (r *runtime) checkSubmits(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, violation := range r.violations {
		t.Error(violation)
	}
}

// createAgain is the client that got no answer, or another one, and asks again.
func (p *process) createAgain(left []taskbridge.Task, rejected bool) (id string) {
	t := p.world.t
	t.Helper()
	result, err := p.create()
	if rejected && len(left) == 0 {
		if err == nil {
			t.Fatal("a task that the executor rejects was created")
		}
		rows := p.world.rows()
		if len(rows) != 1 {
			t.Fatalf("a rejected creation leaves %d rows", len(rows))
		}
		return rows[0].ID
	}
	mustNotBe(t, err, "create the task again")
	if result.Deduplicated != (len(left) > 0) {
		t.Errorf("the task was created again with %d rows there: deduplicated is %v", len(left), result.Deduplicated)
	}
	if len(left) > 0 && result.Task.ID != left[0].ID {
		t.Errorf("the same key gives task %s, it made %s", result.Task.ID, left[0].ID)
	}
	if n := len(p.world.rows()); n != 1 {
		t.Errorf("one key has made %d rows", n)
	}
	return result.Task.ID
}

// checkStaysEnded checks that nothing happens to an ended task any more.
func (p *process) checkStaysEnded(id string) {
	w, t := p.world, p.world.t
	t.Helper()
	row, events := w.row(id), w.events(id)
	w.clock.Advance(far)
	p.reconcile()
	mustNotBe(t, p.bridge.Reconciler.Recover(p.ctx), "recover with nothing to do")
	if now := w.row(id); now.Revision != row.Revision {
		t.Errorf("an ended row was changed: %s; it was %s", describe(now), describe(row))
	}
	if now := w.events(id); !sameEvents(now, events) {
		t.Errorf("an ended stream was changed: %s, it was %s", ids(now), ids(events))
	}
	if w.owes() {
		t.Error("something is owed to an ended task")
	}
	if result, already, err := p.bridge.Cancellation.CancelTask(p.ctx, client, id, "too late"); err != nil || !already || result.Status != row.Status {
		t.Errorf("cancelling an ended task: %s, already terminal %v, error %v", result.Status, already, err)
	}
}
