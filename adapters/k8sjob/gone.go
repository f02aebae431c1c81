package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// lingerTime is how long a Job that was told to go may linger without a pod at work,
// in seconds: until then its end is its absence.
const lingerTime = 60

// mindDeletion ends the task of a Job that is told to go and does not, since somebody
// has a finalizer on it: no work is left, and none will be begun. there are those of
// its pods that have not left.
func (t *term) mindDeletion(ctx context.Context, tr *track, pods, there []*podLevel, now time.Time) error {
	isAtWork := func(pod *podLevel) bool { return !pod.over() }
	if slices.ContainsFunc(there, isAtWork) {
		return nil
	}
	since := tr.job.deletion
	for _, pod := range pods {
		if pod.end != nil {
			since = max(since, pod.end.finished)
		}
	}
	if wait := time.Unix(since+lingerTime, 0).Sub(now); wait > 0 {
		t.later(tr, wait)
		return nil
	}
	job, err := t.Client.BatchV1().Jobs(tr.job.namespace).Get(ctx, tr.job.name, metav1.GetOptions{})
	switch {
	case notThere(err), err == nil && job.UID != tr.job.uid:
		t.later(tr, stepTimeout) // the cache hears of it before, as a rule
		return nil
	case err != nil:
		return fmt.Errorf("look for the Job: %w", err)
	}
	there, err = t.Executor.podsOf(ctx, job)
	if err != nil {
		return err
	}
	row, known, err := t.readRow(ctx, tr, now)
	if err != nil || !known {
		return err
	}
	notRecorded := row.Submission.State != taskbridge.SubmissionRecorded && row.Cancellation.RequestedAt.IsZero()
	if tr.ended || notRecorded || slices.ContainsFunc(there, isAtWork) {
		t.later(tr, rowInterval)
		return nil
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
			what := "the Job was deleted before it ended"
			if tr.job.cancelled {
				what = "the Job was taken back before it ended"
			}
			outcome = ofIntent(row, nil, failed(taskbridge.Failure{
				Code: CodeDeleted, Retryable: true,
				Message: withTail(what, tailOf(pod, output, t.limits(tr.job).TailLines)),
			}))
		}
		if err := t.settle(ctx, tr, outcome); err != nil {
			return err
		}
	}
	t.forget(tr)
	return nil
}
