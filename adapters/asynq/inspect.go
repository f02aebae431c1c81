package asynqadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// InspectTask asks asynq what became of the task. asynq calls nobody when it
// archives a task after its last lease, nor when somebody deletes one with its
// tools; this is how that is found.
//
// What has ended here and there alike is "gone": its row knows how.
func (e *Executor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return taskbridge.Inspection{}, err
	}
	info, err := e.find(ctx, task)
	if err != nil {
		return taskbridge.Inspection{}, fmt.Errorf("asynq: inspect: %w", err)
	}
	inspection, err := e.judge(ctx, task, info)
	if err != nil {
		return taskbridge.Inspection{}, fmt.Errorf("asynq: inspect: %w", err)
	}
	return inspection, nil
}

// find looks for a task in the queue of its type and then, for the options may
// have changed since it was enqueued, in all others; nil if it is nowhere.
func (e *Executor) find(ctx context.Context, task taskbridge.Task) (*asynq.TaskInfo, error) {
	inspector := inspectorFor(ctx, e.redis)
	first := e.types[task.Type].Queue
	if first != "" {
		if info, err := inQueue(inspector, first, task.ID); info != nil || err != nil {
			return info, err
		}
	}
	queues, err := inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	for _, queue := range queues {
		if queue == first {
			continue
		}
		if info, err := inQueue(inspector, queue, task.ID); info != nil || err != nil {
			return info, err
		}
	}
	return nil, nil
}

// inQueue returns nil for a task that the queue does not have.
func inQueue(inspector *asynq.Inspector, queue, taskID string) (*asynq.TaskInfo, error) {
	info, err := inspector.GetTaskInfo(queue, taskID)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into queue %q: %w", queue, err)
	}
	return info, nil
}

func (e *Executor) judge(ctx context.Context, task taskbridge.Task, info *asynq.TaskInfo) (taskbridge.Inspection, error) {
	switch {
	case info == nil:
		return e.judgeMissing(ctx, task)
	case info.State == asynq.TaskStateActive:
		return e.judgeActive(ctx, task, info)
	case waits(info.State):
		// Past the deadline asynq calls no handler any more, but counts retries
		// down, which may take weeks.
		if !task.Status.Terminal() && !info.Deadline.IsZero() && e.clock.Now().After(info.Deadline.Add(time.Second)) {
			return finishedAs(CodeDeadlineExceeded, "the task was not done by its deadline", true), nil
		}
		return known(taskbridge.InspectionWaiting), nil
	case task.Status.Terminal():
		return known(taskbridge.InspectionGone), nil
	case info.State == asynq.TaskStateArchived:
		return judgeArchived(info), nil
	}
	return e.judgeCompleted(ctx, task, info)
}

func known(knowledge taskbridge.Knowledge) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: knowledge}
}

func finishedAs(code, message string, retryable bool) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: taskbridge.Outcome{
		Status:  taskbridge.StatusFailed,
		Failure: taskbridge.Failure{Code: code, Message: message, Retryable: retryable},
	}}
}

// judgeMissing is about a task that no queue has. A deletion for a cancellation
// looks the same; the row tells them apart.
func (e *Executor) judgeMissing(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	switch {
	case task.Submission.State != taskbridge.SubmissionRecorded:
		return known(taskbridge.InspectionAbsent), nil
	case task.Status.Terminal() || !task.Cancellation.RequestedAt.IsZero():
		return known(taskbridge.InspectionGone), nil
	}
	if running, err := e.atWork(ctx, task); running || err != nil {
		return known(taskbridge.InspectionRunning), err
	}
	return finishedAs(CodeDeleted, "asynq has the task no more: somebody deleted it, or Redis has lost it", true), nil
}

// judgeActive is about a task that a worker has, or had when it died. While there
// is a lease, asynq looks after it. One that has lost its lease altogether is
// never run again.
func (e *Executor) judgeActive(ctx context.Context, task taskbridge.Task, info *asynq.TaskInfo) (taskbridge.Inspection, error) {
	leased, err := e.leased(ctx, info.Queue, task.ID)
	if leased || err != nil {
		return known(taskbridge.InspectionRunning), err
	}
	if running, err := e.atWork(ctx, task); running || err != nil {
		return known(taskbridge.InspectionRunning), err
	}
	// It may have moved on between the two looks.
	again, err := e.find(ctx, task)
	if err != nil {
		return taskbridge.Inspection{}, err
	}
	if again == nil || again.State != asynq.TaskStateActive {
		return known(taskbridge.InspectionUnknown), nil
	}
	if leased, err := e.leased(ctx, info.Queue, task.ID); leased || err != nil {
		return known(taskbridge.InspectionRunning), err
	}
	return finishedAs(CodeLeaseExpired, "the worker is gone and so is its lease; asynq does not run the task again", true), nil
}

// leased reports whether there is a lease, ended or not: asynq recovers what has
// one. The key is not part of asynq's interface, but of what all its versions
// since 0.23 share in Redis.
func (e *Executor) leased(ctx context.Context, queue, taskID string) (bool, error) {
	err := e.redis.ZScore(ctx, "asynq:{"+queue+"}:lease", taskID).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the lease: %w", err)
	}
	return true, nil
}

// atWork reports whether a live worker says, as each does every few seconds, that
// it has the task at work, whatever became of it in its queue.
func (e *Executor) atWork(ctx context.Context, task taskbridge.Task) (bool, error) {
	servers, err := inspectorFor(ctx, e.redis).Servers()
	if err != nil {
		return false, fmt.Errorf("list workers: %w", err)
	}
	for _, server := range servers {
		for _, worker := range server.ActiveWorkers {
			if worker.TaskID == task.ID {
				return true, nil
			}
		}
	}
	return false, nil
}

// judgeArchived is about a task that asynq has given up, or somebody with its tools.
func judgeArchived(info *asynq.TaskInfo) taskbridge.Inspection {
	reason := info.LastErr
	if strings.HasPrefix(reason, "panic") {
		reason = "the handler panicked" // without the place in the source that asynq keeps
	}
	switch {
	case info.Retried < info.MaxRetry || reason == "":
		message := "the task was archived in asynq before its retries were used up"
		if reason != "" {
			message += "; the last error: " + reason
		}
		return finishedAs(CodeArchived, message, true)
	case info.LastErr == asynq.ErrLeaseExpired.Error():
		return finishedAs(CodeLeaseExpired, "the worker of the last attempt is gone: its lease ended", true)
	case !info.Deadline.IsZero() && !info.LastFailedAt.Before(info.Deadline):
		return finishedAs(CodeDeadlineExceeded, "the task was not done by its deadline", true)
	}
	return finishedAs(CodeRetriesExhausted, "the last attempt failed: "+reason, true)
}

// judgeCompleted is about a task that a handler returned from without an error,
// while the row has no end: a handler of this package records that first.
func (e *Executor) judgeCompleted(ctx context.Context, task taskbridge.Task, info *asynq.TaskInfo) (taskbridge.Inspection, error) {
	if string(info.Result) != skippedResult {
		// A handler that does not report to the lifecycle has done the work.
		outcome := taskbridge.Outcome{Status: taskbridge.StatusCompleted}
		if json.Valid(info.Result) {
			outcome.Completion.Result = info.Result
		}
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: outcome}, nil
	}
	switch {
	case task.Submission.State != taskbridge.SubmissionRecorded:
		return known(taskbridge.InspectionAbsent), nil // barred, and dropped for that
	case !task.Cancellation.RequestedAt.IsZero():
		return known(taskbridge.InspectionGone), nil
	}
	if running, err := e.atWork(ctx, task); running || err != nil {
		return known(taskbridge.InspectionRunning), err
	}
	return finishedAs(CodeSkipped, "a worker took the task off its queue without running it to an end", true), nil
}
