package k8sjob

import (
	"context"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// pending looks after a Job that has not ended: it tells what keeps it, once each,
// and ends its task when that lasts too long.
func (t *term) pending(ctx context.Context, tr *track, pods []*podLevel, now time.Time) error {
	if err := t.tellSuspension(ctx, tr); err != nil {
		return err
	}
	var newest *podLevel
	var there []*podLevel
	for _, pod := range pods {
		if !t.departed(tr, pod) {
			there = append(there, pod)
			newest = pod
		}
	}
	if newest != nil && newest.lostSince > 0 {
		ended, err := t.mindLostNode(ctx, tr, newest, now)
		if err != nil || ended {
			return err
		}
	}
	var found *trouble
	ordinal := int64(0)
	if newest != nil && !newest.over() {
		found, ordinal = newest.trouble, newest.created
	} else if found = troubleOfCreation(tr.job, there, t.warning(tr.job)); found != nil {
		ordinal = found.since
	}
	if found == nil || tr.job.deleting {
		return nil
	}
	return t.mindTrouble(ctx, tr, found, ordinal, now)
}

// tellSuspension tells that the Job waits because it is suspended, by a queue or by
// hand, or goes on.
func (t *term) tellSuspension(ctx context.Context, tr *track) error {
	job := tr.job
	if job.suspensionChanged == 0 || job.suspended != job.waits {
		return nil // never, or not yet
	}
	text, ordinal := "The Job was resumed.", 2*job.suspensionChanged+1
	if job.waits {
		text, ordinal = "The Job is suspended, and waits to be resumed.", ordinal-1
	}
	return t.notice(ctx, tr, noticeSuspended, ordinal, taskbridge.LevelInfo, text)
}

// mindLostNode tells that the pod's node seems lost, and ends the task when it has
// been for too long.
func (t *term) mindLostNode(ctx context.Context, tr *track, pod *podLevel, now time.Time) (ended bool, err error) {
	since := time.Unix(pod.lostSince, 0)
	if !pod.lost(now) {
		t.later(tr, since.Add(lostQuiet*time.Second).Sub(now))
		return false, nil
	}
	limit := t.limits(tr.job).LostTimeout
	text := fmt.Sprintf("Node %s of pod %s does not answer.", pod.node, pod.name)
	if err := t.notice(ctx, tr, noticeNode, pod.created, taskbridge.LevelWarning, text); err != nil || limit < 0 {
		return false, err
	}
	if wait := since.Add(limit).Sub(now); wait > 0 {
		t.later(tr, wait)
		return false, nil
	}
	return true, t.fail(ctx, tr, now, taskbridge.Failure{
		Code: CodeNodeLost, Retryable: true,
		Message: fmt.Sprintf("node %s of pod %s did not answer for %s", pod.node, pod.name, limit),
	})
}

// mindTrouble tells of a trouble, and ends the task when it lasts too long.
func (t *term) mindTrouble(ctx context.Context, tr *track, found *trouble, ordinal int64, now time.Time) error {
	since := time.Unix(found.since, 0)
	if wait := since.Add(time.Duration(found.quiet) * time.Second).Sub(now); found.quiet > 0 && wait > 0 {
		t.later(tr, wait)
		return nil
	}
	limit := t.limits(tr.job).PendingTimeout
	if err := t.notice(ctx, tr, found.kind, ordinal, taskbridge.LevelWarning, found.text); err != nil || limit < 0 {
		return err
	}
	if wait := since.Add(limit).Sub(now); wait > 0 {
		t.later(tr, wait)
		return nil
	}
	return t.fail(ctx, tr, now, taskbridge.Failure{
		Code: found.code, Retryable: found.retryable,
		Message: fmt.Sprintf("the work had not begun after %s: %s", limit, found.text),
	})
}

// fail ends the task, then stops its Job: a Job that is stopped first would tell of
// that.
func (t *term) fail(ctx context.Context, tr *track, now time.Time, failure taskbridge.Failure) error {
	row, known, err := t.readRow(ctx, tr, now)
	if err != nil || !known {
		return err
	}
	if !tr.ended {
		if err := t.settle(ctx, tr, ofIntent(row, 0, failed(failure))); err != nil {
			return err
		}
	}
	return t.stopJob(ctx, tr, now)
}

// limits are the options of the Job's type; of one that is configured no more, the
// defaults.
func (t *term) limits(job *jobLevel) TypeOptions {
	if options, configured := t.Types[job.taskType]; configured {
		return options
	}
	return TypeOptions{PendingTimeout: defaultPendingTimeout, LostTimeout: defaultLostTimeout, TTL: defaultTTL, TailLines: defaultTailLines}
}
