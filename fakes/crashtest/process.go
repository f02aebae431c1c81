package crashtest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// process is one life of a server together with the workers in it: all services
// over the world's stores, everything that it does to the outside under one plan
// of faults.
type process struct {
	world     *world
	faults    *fakes.Faults
	faulty    bool            // something may fail and the process lives on
	ctx       context.Context // ends when the process dies
	bridge    *taskbridge.Bridge
	lifecycle *taskbridge.LocalLifecycle
	instance  string // its id, where tasks run in the process

	cancel context.CancelFunc
	mu     sync.Mutex
	runs   []taskbridge.Run
	// undo ends what the process has begun besides runs, the last first.
	undo []func()
}

// executorIn makes the process's executor; it may report by p.lifecycle.
type executorIn func(p *process) taskbridge.TaskExecutor

// outside is for an executor that is not part of any process.
func outside(executor taskbridge.TaskExecutor) executorIn {
	return func(*process) taskbridge.TaskExecutor { return executor }
}

// start makes a process. It ends with the test at the latest.
func (w *world) start(executor executorIn) *process {
	w.t.Helper()
	p := &process{world: w, faults: fakes.NewFaults()}
	p.ctx, p.cancel = p.faults.Context(w.ctx)
	w.t.Cleanup(p.stop)
	stores := fakes.WrapStores(w.backend.Stores, p.faults)
	var err error
	p.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Clock: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{
		taskType: fakes.WrapExecutor(executor(p), p.faults),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	options := taskbridge.Options{
		Stores:     stores,
		Executors:  router,
		Submission: submission,
		Retention:  taskbridge.RetentionOptions{Step: 2}, // so that there is something to die between
		Clock:      w.clock,
	}
	if w.backend.Leaser != nil {
		options.Leaser = fakes.WrapLeaser(w.backend.Leaser, p.faults)
	}
	if p.bridge, err = taskbridge.New(options); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// kill is the process's sudden death. Nothing of it happens any more once kill
// has returned.
func (p *process) kill() {
	p.faults.Kill()
	if err := p.faults.Drain(p.world.ctx); err != nil {
		p.world.t.Fatalf("a call of the dead process does not return: %v", err)
	}
	p.stop()
}

// stop waits for all goroutines of the process. Of a live one it drops what is
// not recorded: only a dead or an idle process is stopped.
func (p *process) stop() {
	p.cancel()
	p.mu.Lock()
	runs, undo := p.runs, p.undo
	p.runs, p.undo = nil, nil
	p.mu.Unlock()
	for _, run := range runs {
		_ = run.Close() // what a dead process has not recorded is lost, as it would be
	}
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
	p.bridge.Subscription.Close()
}

// create is what a client does, and does again when it got no answer.
func (p *process) create() (taskbridge.CreateTaskResult, error) {
	return p.createAs(requestID)
}

func (p *process) createAs(requestID string) (taskbridge.CreateTaskResult, error) {
	return p.bridge.Creation.CreateTask(p.ctx, client, taskbridge.CreateTaskRequest{
		ClientRequestID: requestID,
		TaskType:        taskType,
		Input:           json.RawMessage(`{"n":1}`),
	})
}

// begin is what a worker does first.
func (p *process) begin(taskID, claim string) (taskbridge.Run, error) {
	run, err := p.lifecycle.Start(p.ctx, taskID, taskbridge.Claim{ID: claim})
	if err == nil {
		p.mu.Lock()
		p.runs = append(p.runs, run)
		p.mu.Unlock()
	}
	return run, err
}

// dead reports whether the process has died.
func (p *process) dead() bool {
	select {
	case <-p.faults.Dead():
		return true
	default:
		return false
	}
}

// alive is an error once the process is dead: its code does not go on.
func (p *process) alive() error {
	if p.dead() {
		return fakes.ErrCrashed
	}
	return nil
}

// persist makes a call again whose outcome is unknown, as every caller may.
func (p *process) persist(call func() error) error {
	err := call()
	for range 3 {
		if !errors.Is(err, fakes.ErrInjected) {
			break
		}
		err = call()
	}
	return err
}

// The waits that passing lets pass: those before a store is tried again, and
// those before a row is read without a wake-up.
const (
	aRetry    = 3 * time.Second
	aBackstop = 20 * time.Second
)

// passing lets time pass while a call waits: whenever a timer is due within d
// the clock moves to it.
func (p *process) passing(d time.Duration, call func() error) error {
	ctx, stop := context.WithCancel(p.ctx)
	var pump sync.WaitGroup
	pump.Go(func() {
		for p.world.clock.BlockUntilDue(ctx, 1, d) == nil {
			p.world.clock.AdvanceToNext()
		}
	})
	err := call()
	stop()
	pump.Wait()
	return err
}

// reconcile is one round of the reconciler.
func (p *process) reconcile() {
	p.world.t.Helper()
	if err := p.bridge.Reconciler.RunOnce(p.ctx); err != nil {
		p.world.t.Errorf("a round of the reconciler: %v", err)
	}
}

// row reads a row from the store itself.
func (w *world) row(taskID string) taskbridge.Task {
	w.t.Helper()
	row, err := w.backend.Stores.Tasks.GetTask(w.ctx, taskID)
	if err != nil {
		w.t.Fatalf("read the row of %s: %v", taskID, err)
	}
	return row
}

// rows reads every row in the store.
func (w *world) rows() []taskbridge.Task {
	w.t.Helper()
	rows, err := w.backend.Stores.Tasks.ListTasks(w.ctx, taskbridge.TaskQuery{AnyOwner: true, Limit: 10_000})
	if err != nil {
		w.t.Fatalf("list rows: %v", err)
	}
	for i, row := range rows { // a list leaves out part of each
		rows[i] = w.row(row.ID)
	}
	return rows
}

// events reads a whole stream from the store itself.
func (w *world) events(taskID string) []taskbridge.Event {
	w.t.Helper()
	events, err := w.backend.Stores.Events.ReadEvents(w.ctx, taskID, 0, 100_000)
	if err != nil {
		w.t.Fatalf("read the stream of %s: %v", taskID, err)
	}
	return events
}

func mustNotBe(t *testing.T, err error, what string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func refusedToRun(err error) bool { return errors.Is(err, taskbridge.ErrNotRunnable) }
