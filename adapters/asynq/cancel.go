package asynqadapter

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// RequestCancellation takes a task that waits, for its turn or for its next
// attempt, out of its queue and settles it as cancelled. Running work learns of
// the cancellation by its Run, and so does an attempt that begins.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := e.find(ctx, task)
	if err != nil {
		return fmt.Errorf("asynq: cancel: %w", err)
	}
	if info == nil || !waits(info.State) {
		return nil
	}
	// Should it have ended in this moment, its memory is deleted: that is no harm,
	// as its row has an end, or gets one below.
	err = inspectorFor(ctx, e.redis).DeleteTask(info.Queue, task.ID)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil // somebody else was quicker, and settles it
	case err != nil:
		// asynq does not tell by the error that a worker has it now, so look.
		info, again := e.find(ctx, task)
		if again == nil && (info == nil || !waits(info.State)) {
			return nil
		}
		return fmt.Errorf("asynq: cancel: take the task out of its queue: %w", errors.Join(err, again))
	}
	message := "it was taken out of its queue before it ran"
	if task.Attempt > 0 || info.State == asynq.TaskStateRetry {
		message = "it was taken out of its queue between two attempts"
	}
	err = e.lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
	if err == nil || errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	// The task is out: the next inspection finds it gone, and ends it CANCELLED.
	return fmt.Errorf("asynq: cancel: record the end: %w", err)
}

// waits reports whether asynq has yet to begin an attempt.
func waits(state asynq.TaskState) bool {
	switch state {
	case asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateRetry, asynq.TaskStateAggregating:
		return true
	}
	return false
}
