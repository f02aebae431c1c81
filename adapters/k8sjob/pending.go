package k8sjob

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// pending looks after a Job that has not ended: it tells what keeps it, once each,
// and ends its task when that lasts too long.
func (t *term) pending(ctx context.Context, tr *track, pods []*podLevel, now time.Time) error {
	if err := t.tellSuspension(ctx, tr); err != nil {
		return err
	}
	var there, left []*podLevel
	for _, pod := range pods {
		if t.departed(tr, pod) {
			left = append(left, pod)
		} else {
			there = append(there, pod)
		}
	}
	if n := len(there); n > 0 && there[n-1].lostSince > 0 {
		ended, err := t.mindLostNode(ctx, tr, there[n-1], now)
		if err != nil || ended {
			return err
		}
	}
	if tr.job.deleting {
		return t.mindDeletion(ctx, tr, pods, there, now)
	}
	found, ordinal := t.troubleOf(tr.job, there, left)
	if found == nil {
		return nil
	}
	holds := func(job *jobLevel, there []*podLevel) bool {
		live, _ := t.troubleOf(job, there, left)
		return live != nil && live.code == found.code && live.since <= found.since
	}
	return t.mindTrouble(ctx, tr, found, ordinal, holds, now)
}

// troubleOf says what keeps the Job's work from beginning, nil if nothing does, and
// the ordinal of its notice. there are its pods, left those that are there no more.
func (t *term) troubleOf(job *jobLevel, there, left []*podLevel) (found *trouble, ordinal int64) {
	if n := len(there); n > 0 && !there[n-1].over() {
		return there[n-1].trouble, there[n-1].created
	}
	if found = troubleOfCreation(job, there, left, t.warning(job)); found != nil {
		ordinal = found.since
	}
	return found, ordinal
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
	holds := func(_ *jobLevel, there []*podLevel) bool {
		return slices.ContainsFunc(there, func(live *podLevel) bool {
			return live.uid == pod.uid && live.lostSince > 0 && live.lostSince <= pod.lostSince
		})
	}
	return true, t.fail(ctx, tr, holds, now, taskbridge.Failure{
		Code: CodeNodeLost, Retryable: true,
		Message: fmt.Sprintf("node %s of pod %s did not answer for %s", pod.node, pod.name, limit),
	})
}

// looksTheSame says whether live levels are in the trouble that the caches tell of.
type looksTheSame func(job *jobLevel, there []*podLevel) bool

// mindTrouble tells of a trouble, and ends the task when it lasts too long.
func (t *term) mindTrouble(ctx context.Context, tr *track, found *trouble, ordinal int64, holds looksTheSame, now time.Time) error {
	since := time.Unix(found.since, 0)
	if wait := since.Add(time.Duration(found.quiet) * time.Second).Sub(now); found.quiet > 0 && wait > 0 {
		t.later(tr, wait)
		return nil
	}
	limit := t.limits(tr.job).PendingTimeout
	if err := t.notice(ctx, tr, found.kind, ordinal, taskbridge.LevelWarning, found.text); err != nil || limit < 0 || found.endless {
		return err
	}
	if wait := since.Add(limit).Sub(now); wait > 0 {
		t.later(tr, wait)
		return nil
	}
	return t.fail(ctx, tr, holds, now, taskbridge.Failure{
		Code: found.code, Retryable: found.retryable,
		Message: fmt.Sprintf("the work had not begun after %s: %s", limit, found.text),
	})
}

// fail ends the task, then stops its Job: a Job that is stopped first would tell of
// that. It does so if the trouble is there by the API server, too: a cache whose watch
// is cut would have it for ever.
func (t *term) fail(ctx context.Context, tr *track, holds looksTheSame, now time.Time, failure taskbridge.Failure) error {
	row, known, err := t.readRow(ctx, tr, now)
	if err != nil || !known {
		return err
	}
	if !tr.ended {
		same, err := t.confirm(ctx, tr, holds)
		if err != nil {
			return err
		}
		if !same {
			t.later(tr, stepTimeout) // the cache hears of it before, as a rule
			return nil
		}
		if err := t.settle(ctx, tr, ofIntent(row, nil, failed(failure))); err != nil {
			return err
		}
	}
	return t.stopJob(ctx, tr, now)
}

// confirm asks the API server whether it is so.
func (t *term) confirm(ctx context.Context, tr *track, holds looksTheSame) (bool, error) {
	job, err := t.Client.BatchV1().Jobs(tr.job.namespace).Get(ctx, tr.job.name, metav1.GetOptions{})
	switch {
	case notThere(err), err == nil && (job.UID != tr.job.uid || !pending(job)):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("get the Job: %w", err)
	}
	there, err := t.Executor.podsOf(ctx, job)
	return err == nil && holds(levelOfJob(job), there), err
}

// limits are the options of the Job's type; of one that is configured no more, the
// defaults.
func (t *term) limits(job *jobLevel) TypeOptions {
	if options, configured := t.Types[job.taskType]; configured {
		return options
	}
	return TypeOptions{PendingTimeout: defaultPendingTimeout, LostTimeout: defaultLostTimeout, TTL: defaultTTL, TailLines: defaultTailLines}
}
