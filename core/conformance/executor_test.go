package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestAnExecutorConforms(t *testing.T) {
	for name, stores := range map[string]func(*testing.T) taskbridge.Stores{
		"atomic": nil,
		"separate": func(*testing.T) taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.RunExecutor(t, conformance.ExecutorHarness{
				NewStores: stores,
				New: func(t *testing.T, _ taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
					pool := newPool(lifecycle)
					t.Cleanup(pool.close)
					return conformance.Runtime{Executor: pool, Places: places, Begun: pool.begunTimes}
				},
				Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":1}`), Result: json.RawMessage(`{"a":1}`)},
				Fails:     conformance.Work{Type: "fail", Code: "NO_LUCK"},
				RunsOn:    conformance.Work{Type: "wait"},
				Rejected:  conformance.Work{Type: "nonsense"},
			})
		})
	}
}

// pool is about the least that an executor can be: it works on its tasks in a
// few goroutines of this process.
type pool struct {
	lifecycle taskbridge.TaskLifecycle
	queue     chan string
	workers   sync.WaitGroup
	ctx       context.Context
	stop      context.CancelFunc

	mu    sync.Mutex
	known map[string]taskbridge.Knowledge
	begun map[string]int
}

const places = 2

func newPool(lifecycle taskbridge.TaskLifecycle) *pool {
	p := &pool{
		lifecycle: lifecycle,
		queue:     make(chan string, 1000),
		known:     make(map[string]taskbridge.Knowledge),
		begun:     make(map[string]int),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for range places {
		p.workers.Go(func() {
			for {
				select {
				case id := <-p.queue:
					p.work(id)
				case <-p.ctx.Done():
					return
				}
			}
		})
	}
	return p
}

func (p *pool) close() {
	p.stop()
	p.workers.Wait()
}

func (p *pool) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if task.Type == "nonsense" {
		return taskbridge.Reject("NONSENSE", "there is no such work", false)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[task.ID] != taskbridge.InspectionUnknown {
		return nil
	}
	p.known[task.ID] = taskbridge.InspectionWaiting
	p.queue <- task.ID
	return nil
}

func (p *pool) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	waits := p.known[task.ID] == taskbridge.InspectionWaiting
	p.mu.Unlock()
	if !waits {
		return nil // the run is told by its lifecycle
	}
	err := p.lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled})
	if errors.Is(err, taskbridge.ErrTaskFinished) {
		return nil
	}
	return err
}

func (p *pool) InspectTask(_ context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch known := p.known[task.ID]; known {
	case taskbridge.InspectionUnknown:
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, nil
	default:
		return taskbridge.Inspection{Knowledge: known}, nil
	}
}

func (p *pool) begunTimes(taskID string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun[taskID]
}

func (p *pool) set(taskID string, knowledge taskbridge.Knowledge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[taskID] = knowledge
}

func (p *pool) work(taskID string) {
	defer p.set(taskID, taskbridge.InspectionGone)
	// From here on it is up to Start whether the task runs.
	p.set(taskID, taskbridge.InspectionRunning)
	run, err := p.lifecycle.Start(p.ctx, taskID, taskbridge.Claim{ID: "claim of " + taskID})
	if err != nil {
		return
	}
	p.mu.Lock()
	p.begun[taskID]++
	p.mu.Unlock()
	switch run.Task().Type {
	case "echo":
		err = run.Complete(p.ctx, taskbridge.Completion{Result: run.Task().Input})
	case "fail":
		err = run.Fail(p.ctx, taskbridge.Failure{Code: "NO_LUCK", Message: "as asked"})
	default:
		work, stop := taskbridge.WorkContext(p.ctx, run)
		<-work.Done()
		stop()
		err = run.Cancelled(p.ctx, "")
	}
	if err := errors.Join(err, run.Close()); err != nil && p.ctx.Err() == nil && !errors.Is(err, taskbridge.ErrTaskFinished) {
		panic(err) // nothing else fails here
	}
}
