package k8sjob

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// finish records the end of a task whose Job has ended.
func (t *term) finish(ctx context.Context, tr *track, pods []*podLevel, now time.Time) error {
	if !tr.listed && t.behind(tr, pods) {
		if tr.behind.IsZero() {
			tr.behind = now
		}
		if wait := tr.behind.Add(behindLimit).Sub(now); wait > 0 {
			t.later(tr, wait)
			return nil
		}
		if err := t.listPods(ctx, tr); err != nil {
			return err
		}
		t.later(tr, 0)
		return nil
	}
	pod, output, ready, err := t.output(ctx, tr, pods, now, time.Time{})
	if err != nil || !ready {
		return err
	}
	row, known, err := t.readRow(ctx, tr, now)
	if err != nil || !known {
		return err
	}
	if !tr.ended {
		if pod == nil && tr.job.final == batchv1.JobComplete {
			if err := t.notice(ctx, tr, noticeOutput, tr.job.created, taskbridge.LevelWarning,
				"The Job's pod was gone before its output and its result were read."); err != nil {
				return err
			}
		}
		outcome := ofIntent(row, tr.job, outcomeOf(tr.job, pod, output, t.limits(tr.job).TailLines))
		if err := t.settle(ctx, tr, outcome); err != nil {
			return err
		}
	}
	t.release(tr)
	return t.markRecorded(ctx, tr)
}

// output returns the pod whose end is the Job's and what it said, once that is known.
func (t *term) output(ctx context.Context, tr *track, pods []*podLevel, now, hard time.Time) (pod *podLevel, output said, ready bool, err error) {
	pod = lastPod(tr.job, pods)
	if pod == nil {
		return nil, said{}, true, nil
	}
	a := tr.attempts[pod.uid]
	if a == nil {
		return pod, said{}, true, nil // its work never began
	}
	wait, err := t.await(ctx, tr, a, now, hard)
	if err != nil {
		return pod, said{}, false, err
	}
	if wait > 0 {
		t.later(tr, wait)
		return pod, said{}, false, nil
	}
	return pod, a.said, true, nil
}

// behind reports whether the pods cannot be all that a final Job speaks of: the caches
// are filled by watches of their own.
func (t *term) behind(tr *track, pods []*podLevel) bool {
	over, succeeded := int32(0), int32(0)
	for _, pod := range pods {
		if pod.over() {
			over++
		} else if pod.deletion == 0 && !t.departed(tr, pod) {
			return true
		}
		if pod.phase == corev1.PodSucceeded {
			succeeded++
		}
	}
	return succeeded < tr.job.succeeded || over < tr.job.succeeded+tr.job.failed
}

// listPods makes up for a cache that is behind: what the API server does not have
// now is gone.
func (t *term) listPods(ctx context.Context, tr *track) error {
	list, err := t.Client.CoreV1().Pods(tr.job.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: watchSelector(t.Instance) + "," + labelTask + "=" + hashOf(tr.job.taskID),
	})
	if err != nil {
		return fmt.Errorf("list the pods: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range list.Items {
		pod := levelOfPod(&list.Items[i], t.Types)
		if pod.jobUID != tr.job.uid {
			continue
		}
		// It counts as one that has left the cache, until the cache has it.
		same := func(last *podLevel) bool { return last.uid == pod.uid }
		tr.lastPods = append(slices.DeleteFunc(tr.lastPods, same), pod)
	}
	tr.listed = true
	return nil
}
