package process

import (
	"container/list"
	"context"
	"errors"
	"fmt"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// job is a task that this executor has, from its submission until its end is
// recorded.
type job struct {
	taskID, taskType string
	cancel           chan struct{} // closed by the first RequestCancellation while it holds a slot

	// Under Executor.mu.
	place     *list.Element // in the queue; nil once it has a slot or is being settled
	hasSlot   bool
	begun     bool // its attempt has been started
	cancelled bool // cancel is closed
}

// SubmitTask queues the task and starts it when fewer than MaxRunning run. A
// task that is here already is left as it is; one that was here before is
// queued again and dropped when the lifecycle says that it has ended.
//
// A type without a command is rejected. When the queue is full or the executor
// is closed, the error means "unknown outcome", so that the task is submitted
// again later.
func (e *Executor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := e.commands[task.Type]; !ok {
		return taskbridge.Reject("UNKNOWN_TASK_TYPE", fmt.Sprintf("no command is configured for the task type %q", task.Type), false)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return fmt.Errorf("process: submit: %w", taskbridge.ErrClosed)
	}
	if _, ok := e.jobs[task.ID]; ok {
		return nil
	}
	if e.waiting.Len() >= e.maxWaiting {
		return fmt.Errorf("process: submit: %d tasks are waiting already", e.waiting.Len())
	}
	j := &job{taskID: task.ID, taskType: task.Type, cancel: make(chan struct{})}
	e.jobs[task.ID] = j
	j.place = e.waiting.PushBack(j)
	e.dispatch()
	return nil
}

// dispatch gives free slots to what waits longest. The caller holds mu.
func (e *Executor) dispatch() {
	for !e.closing && e.running < e.maxRunning {
		front := e.waiting.Front()
		if front == nil {
			return
		}
		j := e.waiting.Remove(front).(*job)
		j.place = nil
		j.hasSlot = true
		e.running++
		e.executions.Go(func() {
			defer e.release(j)
			e.execute(j)
		})
	}
}

// release takes a job's slot back once nothing more is to be done for it.
func (e *Executor) release(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.jobs, j.taskID)
	e.running--
	e.dispatch()
}

// RequestCancellation begins to stop a running command. A task that waits is
// taken out of the queue and settled as cancelled; if that cannot be recorded,
// it goes back to the head of the queue, where the lifecycle's Start ends it.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	j := e.jobs[task.ID]
	if j == nil {
		e.mu.Unlock()
		return nil
	}
	if j.hasSlot && !j.cancelled {
		j.cancelled = true
		close(j.cancel)
	}
	if j.place == nil {
		e.mu.Unlock()
		return nil
	}
	e.waiting.Remove(j.place)
	j.place = nil
	e.mu.Unlock()

	err := e.lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{
		Status:  taskbridge.StatusCancelled,
		Message: "the command was not started",
	})
	settled := err == nil || errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound)

	e.mu.Lock()
	defer e.mu.Unlock()
	if settled || e.closing {
		delete(e.jobs, task.ID)
	} else {
		j.place = e.waiting.PushFront(j)
		e.dispatch()
	}
	if settled {
		return nil
	}
	return fmt.Errorf("process: cancel a waiting task: %w", err)
}

// InspectTask tells what this executor has as running or waiting, and anything
// else as absent: what another instance runs is not known here.
func (e *Executor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return taskbridge.Inspection{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	knowledge := taskbridge.InspectionAbsent
	switch j := e.jobs[task.ID]; {
	case j == nil:
	case j.begun:
		knowledge = taskbridge.InspectionRunning
	default:
		knowledge = taskbridge.InspectionWaiting
	}
	return taskbridge.Inspection{Knowledge: knowledge}, nil
}
