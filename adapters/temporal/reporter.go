package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Reporter reports from an attempt of an activity for the task of its workflow, or
// for the task that the activity is. It is safe for concurrent use and lasts as
// long as the attempt. A nil Reporter reports nothing.
//
// An attempt that Temporal has replaced is refused: taskbridge.ErrStaleAttempt.
type Reporter struct {
	plugin *plugin
	taskID string
	info   activity.Info
	claim  taskbridge.Claim
	alone  bool // the activity is the task, and the run its attempt

	mu        sync.Mutex
	run       taskbridge.Run // nil until something is reported
	announced bool           // that tokens come again
	closed    bool
	steps     stepState
}

type reporterKey struct{}

// ReporterFromContext returns the reporter of an activity; nil for one that
// nothing of TaskBridge has called, or on a worker without the plugin.
func ReporterFromContext(ctx context.Context) *Reporter {
	reporter, _ := ctx.Value(reporterKey{}).(*Reporter)
	return reporter
}

// Progress reports progress; see [taskbridge.Run].
func (r *Reporter) Progress(ctx context.Context, progress taskbridge.Progress) error {
	return r.report(ctx, func(run taskbridge.Run) error { return run.Progress(ctx, progress) })
}

// Message reports a message; see [taskbridge.Run].
func (r *Reporter) Message(ctx context.Context, message taskbridge.Message) error {
	return r.report(ctx, func(run taskbridge.Run) error { return run.Message(ctx, message) })
}

// Token reports a piece of text; see [taskbridge.Run]. Where a later attempt begins
// its text again, a message of level warning says so first, and nothing of the
// earlier attempt comes after it.
func (r *Reporter) Token(ctx context.Context, text string) error {
	return r.report(ctx, func(run taskbridge.Run) error {
		if !r.announced && !r.alone && r.info.Attempt > 1 {
			again := fmt.Sprintf("attempt %d of %s begins its text again", r.info.Attempt, r.info.ActivityType.Name)
			if err := run.Message(ctx, taskbridge.Message{Level: taskbridge.LevelWarning, Text: again}); err != nil {
				return err
			}
			if err := flush(ctx, run); err != nil {
				return err
			}
		}
		r.announced = true
		return run.Token(ctx, text)
	})
}

// report makes a report on the run, which is opened by the first one. Activities
// that share a producer take it from each other: one that lost it without having
// been replaced takes it back.
func (r *Reporter) report(ctx context.Context, do func(taskbridge.Run) error) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reportLocked(ctx, do)
}

// reportLocked is report for whoever has the lock.
func (r *Reporter) reportLocked(ctx context.Context, do func(taskbridge.Run) error) error {
	for {
		if r.closed {
			return taskbridge.ErrClosed
		}
		if r.run == nil {
			run, err := r.plugin.Lifecycle.Start(ctx, r.taskID, r.claim)
			if err != nil {
				return err
			}
			r.run = run
		}
		err := do(r.run)
		if !errors.Is(err, taskbridge.ErrStaleProducer) || r.alone {
			return err
		}
		if current, asking := r.current(ctx); asking != nil || !current {
			return errors.Join(taskbridge.ErrStaleAttempt, asking)
		}
		r.release()
	}
}

// current asks Temporal whether this attempt of the activity still is the one that
// counts.
func (r *Reporter) current(ctx context.Context) (bool, error) {
	if r.info.IsLocalActivity {
		return true, nil
	}
	execution := r.info.WorkflowExecution
	description, err := activity.GetClient(ctx).DescribeWorkflowExecution(ctx, execution.ID, execution.RunID)
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask whether the attempt was replaced: %w", err)
	}
	for _, pending := range description.GetPendingActivities() {
		if pending.GetActivityId() == r.info.ActivityID {
			return pending.GetAttempt() == r.info.Attempt, nil
		}
	}
	return false, nil
}

// release gives the run back.
func (r *Reporter) release() {
	if r.run == nil {
		return
	}
	if err := r.run.Close(); err != nil && !errors.Is(err, taskbridge.ErrStaleProducer) {
		r.plugin.Logger.Warn("last reports of an activity not recorded", "taskId", r.taskID, "activity", r.info.ActivityType.Name, "error", err)
	}
	r.run = nil
}

func (r *Reporter) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release()
	r.steps.release()
	r.closed = true
}
