package fakes

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// CodeInvalidInput is the failure code of a task whose script was refused.
const CodeInvalidInput = "INVALID_INPUT"

// Options configures a [DeterministicFakeExecutor]. Only Lifecycle is required.
type Options struct {
	// Lifecycle records what happens.
	Lifecycle taskbridge.TaskLifecycle
	// Script says what a task does; it is called once by each SubmitTask of a
	// task that the executor does not have. An error turns the task down for
	// good, as INVALID_INPUT unless it is a [*taskbridge.RejectionError]
	// already. nil: every task completes at once.
	Script func(task taskbridge.Task) (Script, error)
	// SubmitError, unless nil, is asked first by SubmitTask; an error is
	// returned as it is and nothing is started.
	SubmitError func(task taskbridge.Task) error
	// InstanceID is the id of the [taskbridge.Instance] that the tasks belong
	// to; empty: the rows carry none.
	InstanceID string
	// MaxRunning is how many tasks run at once; what is above waits in the
	// order of submission. 0: any number.
	MaxRunning int
	// Clock makes the waits between ticks; nil: [taskbridge.SystemClock].
	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// DeterministicFakeExecutor runs each task as a goroutine of this process that
// follows a [Script]. With the same script and a clock moved by hand the same
// events are recorded every time: types, payloads and times. The work stops
// soon after a cancellation is asked for and ends CANCELLED.
//
// Its tasks die with the process, which it says by being
// [taskbridge.InstanceBound]. It is a [taskbridge.TaskInspector] too; of tasks
// that have ended it remembers the last thousand or so.
type DeterministicFakeExecutor struct {
	opts Options

	// reporting ends when Close begins: what reports then is cut off. ending
	// ends with Close's context: until then runs may record their ends.
	reporting, ending   context.Context
	stopReports, giveUp context.CancelFunc
	runs                sync.WaitGroup
	closed              chan struct{} // closed when Close has finished
	closeErr            error         // set before closed is closed

	mu         sync.Mutex
	tasks      map[string]*fakeTask
	waiting    list.List // of *fakeTask, in the order of submission
	running    int
	remembered memory
	closing    bool
	unrecorded []error
}

// fakeTask is what the executor knows of one task. The executor's mutex guards
// the changing fields.
type fakeTask struct {
	id     string
	script Script
	// cancel is closed by the first RequestCancellation of a running task.
	cancel    chan struct{}
	cancelled bool

	state   taskbridge.Knowledge // waiting, running or finished
	place   *list.Element        // in waiting
	outcome taskbridge.Outcome   // of a finished one
}

// NewDeterministicFakeExecutor makes an executor; its owner calls Close.
func NewDeterministicFakeExecutor(opts Options) (*DeterministicFakeExecutor, error) {
	switch {
	case opts.Lifecycle == nil:
		return nil, errors.New("fakes: Options.Lifecycle must not be nil")
	case opts.MaxRunning < 0:
		return nil, errors.New("fakes: Options.MaxRunning must not be negative")
	}
	if opts.Script == nil {
		opts.Script = Always(Script{})
	}
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	e := &DeterministicFakeExecutor{
		opts:   opts,
		tasks:  make(map[string]*fakeTask),
		closed: make(chan struct{}),
	}
	e.reporting, e.stopReports = context.WithCancel(context.Background())
	e.ending, e.giveUp = context.WithCancel(context.Background())
	return e, nil
}

// SubmitTask starts the task, or lets it wait for its turn. A task that the
// executor has, or remembers to have ended, is left as it is.
func (e *DeterministicFakeExecutor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.opts.SubmitError != nil {
		if err := e.opts.SubmitError(task); err != nil {
			return err
		}
	}
	e.mu.Lock()
	closing, known := e.closing, e.tasks[task.ID] != nil
	e.mu.Unlock()
	if closing {
		return taskbridge.ErrClosed
	}
	if known {
		return nil
	}
	script, err := e.opts.Script(task)
	if err == nil {
		err = script.validate()
	}
	if err != nil {
		if errors.Is(err, taskbridge.ErrSubmissionRejected) {
			return err
		}
		return taskbridge.Reject(CodeInvalidInput, err.Error(), false)
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return taskbridge.ErrClosed
	}
	if e.tasks[task.ID] != nil { // submitted by somebody else meanwhile
		return nil
	}
	t := &fakeTask{id: task.ID, script: script, cancel: make(chan struct{})}
	e.tasks[t.id] = t
	if e.opts.MaxRunning > 0 && e.running >= e.opts.MaxRunning {
		t.state = taskbridge.InspectionWaiting
		t.place = e.waiting.PushBack(t)
		return nil
	}
	e.start(t)
	return nil
}

// start is called with the mutex held.
func (e *DeterministicFakeExecutor) start(t *fakeTask) {
	t.state = taskbridge.InspectionRunning
	e.running++
	e.runs.Go(func() {
		outcome, known := e.perform(t)
		e.finish(t, outcome, known)
	})
}

// finish takes note of an end and gives the place to whoever waits.
func (e *DeterministicFakeExecutor) finish(t *fakeTask, outcome taskbridge.Outcome, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running--
	e.end(t, outcome, known)
	for !e.closing && e.waiting.Len() > 0 && (e.opts.MaxRunning == 0 || e.running < e.opts.MaxRunning) {
		next := e.waiting.Remove(e.waiting.Front()).(*fakeTask)
		next.place = nil
		e.start(next)
	}
}

// end is called with the mutex held. A task whose end this executor does not
// know (somebody else ended it, or it was not to be run) is forgotten.
func (e *DeterministicFakeExecutor) end(t *fakeTask, outcome taskbridge.Outcome, known bool) {
	if !known {
		delete(e.tasks, t.id)
		return
	}
	t.state, t.outcome, t.script = taskbridge.InspectionFinished, outcome, Script{}
	for _, forgotten := range e.remembered.add(t.id, len(outcome.Completion.Result)) {
		delete(e.tasks, forgotten)
	}
}

// RequestCancellation stops a task that runs, and settles one that waits as
// cancelled.
func (e *DeterministicFakeExecutor) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	t := e.tasks[task.ID]
	if t == nil || t.state != taskbridge.InspectionWaiting {
		if t != nil {
			t.interrupt()
		}
		e.mu.Unlock()
		return nil
	}
	e.mu.Unlock()

	// It stays in the queue until that is recorded, so that it cannot be lost
	// between the two. Should its turn come meanwhile, Start refuses it.
	outcome := taskbridge.Outcome{Status: taskbridge.StatusCancelled}
	err := e.opts.Lifecycle.Settle(ctx, task.ID, outcome)
	known := err == nil
	if errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("settle a waiting task as cancelled: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.place == nil {
		t.interrupt()
		return nil
	}
	e.waiting.Remove(t.place)
	t.place = nil
	e.end(t, outcome, known)
	return nil
}

// interrupt is called with the executor's mutex held.
func (t *fakeTask) interrupt() {
	if !t.cancelled {
		t.cancelled = true
		close(t.cancel)
	}
}

// InspectTask says what the executor knows. After Close it knows nothing.
func (e *DeterministicFakeExecutor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return taskbridge.Inspection{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return taskbridge.Inspection{}, taskbridge.ErrClosed
	}
	t := e.tasks[task.ID]
	if t == nil {
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, nil
	}
	return taskbridge.Inspection{Knowledge: t.state, Outcome: t.outcome}, nil
}

// CheckHealth returns nil until the executor is closed.
func (e *DeterministicFakeExecutor) CheckHealth(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return taskbridge.ErrClosed
	}
	return ctx.Err()
}

// InstanceID returns [Options.InstanceID].
func (e *DeterministicFakeExecutor) InstanceID() string { return e.opts.InstanceID }

// Close stops what runs, which ends FAILED with code EXECUTOR_LOST, and returns
// once no goroutine is left. What waits is dropped without a record: it has not
// begun, and whoever comes next may be handed it again. When ctx ends, ends that
// are not recorded yet are given up; the error says how many and why. Every call
// after the first waits for the same end and returns the same.
func (e *DeterministicFakeExecutor) Close(ctx context.Context) error {
	e.mu.Lock()
	first := !e.closing
	e.closing = true
	for e.waiting.Len() > 0 {
		t := e.waiting.Remove(e.waiting.Front()).(*fakeTask)
		t.place = nil
		delete(e.tasks, t.id)
	}
	e.mu.Unlock()
	if !first {
		<-e.closed
		return e.closeErr
	}
	e.stopReports()
	stop := context.AfterFunc(ctx, e.giveUp)
	e.runs.Wait()
	stop()
	e.giveUp()
	e.mu.Lock()
	if n := len(e.unrecorded); n > 0 {
		e.closeErr = fmt.Errorf("the end of %d tasks could not be recorded: %w", n, e.unrecorded[0])
	}
	e.mu.Unlock()
	close(e.closed)
	return e.closeErr
}

// memory is the order in which ended tasks are forgotten.
type memory struct {
	ids   []string
	sizes []int
	bytes int
}

const (
	maxRemembered      = 1_000
	maxRememberedBytes = 8 << 20
)

// add returns the ids that are to be forgotten for the new one.
func (m *memory) add(id string, size int) (forgotten []string) {
	m.ids, m.sizes, m.bytes = append(m.ids, id), append(m.sizes, size), m.bytes+size
	n := 0
	for len(m.ids)-n > maxRemembered || m.bytes > maxRememberedBytes && n < len(m.ids) {
		m.bytes -= m.sizes[n]
		n++
	}
	forgotten = m.ids[:n:n]
	m.ids, m.sizes = m.ids[n:], m.sizes[n:]
	return forgotten
}
