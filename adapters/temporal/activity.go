package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// typeStopped and typeNotRunnable are the types of the errors with which the plugin
// has Temporal close an activity that stands alone.
const (
	typeStopped     = "TaskBridgeStopped"
	typeNotRunnable = "TaskBridgeNotRunnable"
)

// activityInbound is around each attempt of an activity.
type activityInbound struct {
	interceptor.ActivityInboundInterceptorBase
	plugin *plugin
}

func (a *activityInbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	if info.ActivityType.Name == recordActivity || a.plugin.Lifecycle == nil {
		return a.Next.ExecuteActivity(ctx, in)
	}
	if info.WorkflowExecution.ID == "" {
		if taskID, ours := strings.CutPrefix(info.ActivityID, a.plugin.Prefix); ours && taskbridge.ValidTaskID(taskID) {
			return a.alone(ctx, in, info, taskID)
		}
		return a.Next.ExecuteActivity(ctx, in)
	}
	t, ok := readTag(interceptor.Header(ctx), a.plugin.DataConverter)
	if !ok || t.Claim == "" {
		return a.Next.ExecuteActivity(ctx, in)
	}
	var before handedOn
	if payload := interceptor.Header(ctx)[numberingKey]; payload == nil || a.plugin.DataConverter.FromPayload(payload, &before) != nil {
		before = handedOn{}
	}
	reporter := &Reporter{plugin: a.plugin, taskID: t.TaskID, info: info, claim: taskbridge.Claim{ID: t.Claim, Token: t.Token}}
	reporter.name(before.Turn)
	reporter.steps.since = before.Since
	defer reporter.close()
	return a.Next.ExecuteActivity(context.WithValue(ctx, reporterKey{}, reporter), in)
}

// alone runs an attempt of an activity that is a task: each attempt of the one is
// an attempt of the other.
func (a *activityInbound) alone(ctx context.Context, in *interceptor.ExecuteActivityInput, info activity.Info, taskID string) (any, error) {
	var input Input
	if len(in.Args) > 0 {
		if with, ok := in.Args[0].(tasked); ok {
			input = with.TaskInput()
		}
	}
	claim := attemptClaim(info.ActivityRunID, info.Attempt)
	claim.Token = input.Token
	left := heartbeatDetails(ctx)
	waited := keepAlive(ctx, info, func() []any { return left })
	run, err := a.start(ctx, taskID, claim)
	waited()
	if over, _ := judged(err); over.Over {
		return nil, temporal.NewNonRetryableApplicationError("the task is not to be run: "+over.Refused, typeNotRunnable, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("start task %s: %w", taskID, err)
	}
	reporter := &Reporter{plugin: a.plugin, taskID: taskID, info: info, run: run, alone: true}
	reporter.steps.claim = taskbridge.Claim{ID: claim.ID, Token: claim.Token, Producer: stepProducer}
	reporter.steps.formerly = stepProducer
	defer reporter.close()
	work, stop := taskbridge.WorkContext(ctx, run)
	defer stop()
	result, err := a.Next.ExecuteActivity(context.WithValue(work, reporterKey{}, reporter), in)
	if errors.Is(err, activity.ErrResultPending) {
		return result, err // its end is seen from outside
	}
	defer keepAlive(ctx, info, func() []any { return reporter.details(left) })()
	return result, a.ended(ctx, run, info, input, result, err)
}

// name names the producers of an activity that a workflow has called.
func (r *Reporter) name(turn uint32) {
	r.steps.claim = r.claim
	r.steps.formerly = sharedProducer(stepProducer, r.info.ActivityID, stepReporters)
	if turn == 0 {
		r.claim.Producer = sharedProducer("activity", r.info.ActivityID, formerActivityProducers)
		r.steps.claim.Producer = r.steps.formerly
		return
	}
	r.claim.Producer = producerOf("activity", turn-1, activityProducers)
	r.steps.claim.Producer = producerOf(stepProducer, turn-1, stepReporters)
}

// replacedAttempts is how many attempts before it an attempt is said to replace.
const replacedAttempts = 16

// attemptClaim is the claim of an attempt of an activity that stands alone. The start
// of an earlier one, which its worker or a server was held up with, comes to nothing.
func attemptClaim(runID string, attempt int32) taskbridge.Claim {
	claim := taskbridge.Claim{ID: fmt.Sprintf("%s/%d", runID, attempt)}
	for before := max(1, attempt-replacedAttempts); before < attempt; before++ {
		claim.Replaces = append(claim.Replaces, fmt.Sprintf("%s/%d", runID, before))
	}
	return claim
}

// start begins the attempt, and tries again while the lifecycle is away: an error
// would use up one of Temporal's attempts for nothing.
func (a *activityInbound) start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	const first, most = 50 * time.Millisecond, 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, a.plugin.Patience)
	defer cancel()
	for pause := first; ; pause = min(2*pause, most) {
		run, err := a.plugin.recorder.start(ctx, taskID, claim)
		if err == nil {
			return run, nil
		}
		if _, passing := judged(err); passing == nil || ctx.Err() != nil {
			return nil, err
		}
		a.plugin.Logger.Warn("attempt not started, trying again", "taskId", taskID, "error", err)
		timer := a.plugin.Clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// ended records the end of an attempt that certainly is that of the task, before
// Temporal does: a completion, a cancellation, an error that is not tried again.
// What Temporal tries again ends by its last attempt, or is seen from outside. It
// returns what Temporal is told.
func (a *activityInbound) ended(ctx context.Context, run taskbridge.Run, info activity.Info, input Input, result any, err error) error {
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.plugin.Patience)
	defer cancel()
	var outcome taskbridge.Outcome
	stopped := false
	select {
	case <-run.CancelRequested():
		stopped = err != nil
	default:
	}
	var application *temporal.ApplicationError
	final := errors.As(err, &application) && application.NonRetryable() || input.MaxAttempts > 0 && info.Attempt >= input.MaxAttempts
	answer := err
	switch {
	case err == nil:
		outcome.Status = taskbridge.StatusCompleted
		var encoding error
		if outcome.Completion.Result, encoding = encodeResult(result); encoding != nil {
			outcome.Completion.Message = "the result is no JSON"
		}
	case stopped:
		outcome.Status = taskbridge.StatusCancelled
		// Temporal takes a cancellation only from where it was asked for one, which
		// may be yet to come.
		answer = temporal.NewNonRetryableApplicationError("cancelled by a client of TaskBridge", typeStopped, nil)
	case run.Err() != nil: // fenced, or ended otherwise
		return temporal.NewNonRetryableApplicationError("the task is not to be run: "+run.Err().Error(), typeNotRunnable, err)
	case final && ctx.Err() == nil:
		outcome.Status, outcome.Failure = taskbridge.StatusFailed, failureOf(err)
	default:
		return err
	}
	if recording := end(record, run, outcome); recording != nil {
		a.plugin.Logger.Warn("end of task not recorded by its activity", "taskId", run.Task().ID, "error", recording)
		if over, _ := judged(recording); over.Over && err == nil {
			return nil // it ended otherwise, and the work is done all the same
		}
	}
	return answer
}
