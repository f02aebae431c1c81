package k8sjob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// settle records the end of the Job's task. One that has ended already is left as it
// is.
func (t *term) settle(ctx context.Context, tr *track, outcome taskbridge.Outcome) error {
	err := t.Lifecycle.Settle(ctx, tr.job.taskID, outcome)
	if errors.Is(err, taskbridge.ErrInvalidArgument) && outcome.Status == taskbridge.StatusCompleted {
		err = t.Lifecycle.Settle(ctx, tr.job.taskID, taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{
			Message: "the result cannot be recorded: " + err.Error(),
		}})
	}
	switch {
	case err == nil:
		t.Logger.Info("task ended", "taskId", tr.job.taskID, "job", tr.key, "status", outcome.Status, "code", outcome.Failure.Code)
	case errors.Is(err, taskbridge.ErrTaskFinished), errors.Is(err, taskbridge.ErrTaskNotFound):
	default:
		return fmt.Errorf("record the end: %w", err)
	}
	tr.ended = true
	return nil
}

// ofIntent is the outcome of a task of which a client may have asked that it be
// cancelled: what failed after that is CANCELLED. job is what has ended, nil: not
// known. One that the intent is noted on ended after it; else times tell, by the clocks
// of several machines.
func ofIntent(row taskbridge.Task, job *jobLevel, outcome taskbridge.Outcome) taskbridge.Outcome {
	intent := row.Cancellation.RequestedAt
	before := job != nil && !job.cancelled && job.finished > 0 && job.finished < intent.Unix()
	if intent.IsZero() || outcome.Status != taskbridge.StatusFailed || before {
		return outcome
	}
	message, _, _ := strings.Cut(outcome.Failure.Message, "\n")
	return taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message}
}

// notice makes a message once: of a source, an ordinal that rises, and the same
// whoever sees what it tells.
func (t *term) notice(ctx context.Context, tr *track, source string, ordinal int64, level taskbridge.MessageLevel, text string) error {
	if ordinal <= tr.noticed[source] {
		return nil
	}
	err := t.notices.NoticeOnce(ctx, tr.job.taskID, source, max(ordinal, 1), taskbridge.Message{Text: text, Level: level})
	switch {
	case err == nil:
	case errors.Is(err, taskbridge.ErrTaskFinished), errors.Is(err, taskbridge.ErrTaskNotFound), errors.Is(err, taskbridge.ErrStreamFull):
	case errors.Is(err, taskbridge.ErrInvalidArgument), errors.Is(err, taskbridge.ErrPayloadTooLarge):
		t.Logger.Error("a notice was refused", "taskId", tr.job.taskID, "source", source, "error", err)
	default:
		return fmt.Errorf("tell of %s: %w", source, err)
	}
	tr.noticed[source] = ordinal
	return nil
}

// markRecorded tells the cluster that the Job's end is recorded: it leaves the
// caches, and may be deleted when its time is over. A Job that is gone is done.
func (t *term) markRecorded(ctx context.Context, tr *track) error {
	now := t.Clock.Now()
	if wait := tr.refused.Add(markInterval).Sub(now); !tr.refused.IsZero() && wait > 0 {
		t.later(tr, wait)
		return nil
	}
	ttl := t.limits(tr.job).TTL
	patch := map[string]any{
		// Of another Job of this name the API server says that it may not be changed.
		"metadata": map[string]any{"uid": tr.job.uid, "labels": map[string]string{labelRecorded: "true"}},
	}
	if ttl >= 0 {
		patch["spec"] = map[string]any{"ttlSecondsAfterFinished": int32(min(ttl/time.Second, math.MaxInt32))}
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = t.Client.BatchV1().Jobs(tr.job.namespace).Patch(ctx, tr.job.name, types.MergePatchType, body, metav1.PatchOptions{})
	switch {
	case err == nil, apierrors.IsNotFound(err), isAnother(err):
		tr.recorded = true
	case mayNot(err):
		// A role or a policy is in the way, of each Job that ends: that takes its time.
		t.Logger.Error("a Job whose end is recorded may not be marked, and stays", "job", tr.key, "error", err)
		tr.refused = now
		t.later(tr, markInterval)
	default:
		return fmt.Errorf("mark the Job as recorded: %w", err)
	}
	return nil
}
