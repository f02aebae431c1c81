package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// missing is reconcile for a Job that the cache does not have.
func (t *term) missing(ctx context.Context, key string) error {
	t.mu.Lock()
	tr := t.tracks[key]
	if tr != nil && tr.lastJob != nil && (tr.job == nil || tr.job.uid == tr.lastJob.uid) {
		tr.job = tr.lastJob
	}
	t.mu.Unlock()
	if tr == nil {
		return nil // nothing was ever seen of it
	}
	if tr.job == nil || tr.recorded || !tr.job.ours(t.Instance) {
		t.forget(tr)
		return nil
	}
	now := t.Clock.Now()
	row, err := t.Rows.GetTask(ctx, tr.job.taskID)
	switch {
	case errors.Is(err, taskbridge.ErrTaskNotFound), err == nil && row.Status.Terminal():
		t.forget(tr) // it left the cache since its end was recorded, or was never ours
		return nil
	case err != nil:
		return fmt.Errorf("read the task's row: %w", err)
	}
	// Absence from a cache is no proof.
	live, err := t.Client.BatchV1().Jobs(tr.job.namespace).Get(ctx, tr.job.name, metav1.GetOptions{})
	switch {
	case err == nil && live.UID == tr.job.uid:
		t.later(tr, stepTimeout) // no cache will tell of it
		return t.look(ctx, tr, levelOfJob(live))
	case err == nil:
		t.forget(tr) // made anew: its own look comes with its event
		return nil
	case !notThere(err):
		return fmt.Errorf("look for the Job: %w", err)
	}
	return t.deleted(ctx, tr, row, now)
}

// deleted ends the task of a Job that is gone.
func (t *term) deleted(ctx context.Context, tr *track, row taskbridge.Task, now time.Time) error {
	if tr.gone.IsZero() {
		tr.gone = now
	}
	pods := t.podsOf(tr)
	if ready, err := t.attend(ctx, tr, pods, now); err != nil || !ready && !tr.ended {
		return err
	}
	if !tr.ended {
		// Its pods are told to stop, as a rule: what they still say is heard.
		pod, output, ready, err := t.output(ctx, tr, pods, now, tr.gone.Add(t.OutputTimeout))
		if err != nil || !ready {
			return err
		}
		var outcome taskbridge.Outcome
		switch {
		case tr.job.final != "":
			outcome = ofIntent(row, tr.job, outcomeOf(tr.job, pod, output, t.limits(tr.job).TailLines))
		case row.Submission.State != taskbridge.SubmissionRecorded && row.Attempt == 0 && pod == nil && row.Cancellation.RequestedAt.IsZero():
			t.forget(tr) // who submits it asks for it, and submits it again
			return nil
		default:
			outcome = ofIntent(row, nil, failed(taskbridge.Failure{
				Code: CodeDeleted, Retryable: true,
				Message: withTail("the Job was deleted before it ended", tailOf(pod, output, t.limits(tr.job).TailLines)),
			}))
		}
		if err := t.settle(ctx, tr, outcome); err != nil {
			return err
		}
	}
	t.forget(tr)
	return nil
}
