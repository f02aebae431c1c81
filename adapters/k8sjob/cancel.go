package k8sjob

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// RequestCancellation notes the intent on the Job, and has it stopped. A Job whose
// work has begun runs out of its time at once: its pod gets SIGTERM and its grace,
// and the Job stays to be read. One whose work never began, or that is suspended, is
// deleted, and a task that never ran settled once it is gone. What cannot be seen
// within a second, or still has its pods' output to be heard, is left to the watching.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, reason string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	job, err := e.jobOf(ctx, task)
	if err == nil && job != nil && pending(job) {
		err = e.cancelJob(ctx, task, job, reason)
	}
	if err != nil {
		return fmt.Errorf("k8sjob: cancel: %w", err)
	}
	return nil
}

// jobOf returns the task's Job, nil if there is none.
func (e *Executor) jobOf(ctx context.Context, task taskbridge.Task) (*batchv1.Job, error) {
	namespace := cmp.Or(e.Types[task.Type].Namespace, e.Namespace)
	job, err := e.Client.BatchV1().Jobs(namespace).Get(ctx, jobName(e.Instance, task.ID), metav1.GetOptions{})
	switch {
	case notThere(err), err == nil && !e.owns(job, task.ID):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get the Job: %w", err)
	}
	return job, nil
}

func (e *Executor) cancelJob(ctx context.Context, task taskbridge.Task, job *batchv1.Job, reason string) error {
	if job.Annotations[annotationCancelRequested] == "" {
		at := task.Cancellation.RequestedAt
		if at.IsZero() {
			at = e.Clock.Now()
		}
		marked, err := e.patchJob(ctx, job, map[string]any{"metadata": map[string]any{"annotations": map[string]string{
			annotationCancelRequested: at.UTC().Format(time.RFC3339), annotationCancelReason: cut(reason, maxNotedReason),
		}}})
		if gone(err) {
			return nil
		}
		switch {
		case err == nil:
			job = marked
		case mayNot(err): // the row has the intent, and what else there is to do may be allowed
			e.Logger.Warn("a cancellation cannot be noted on its Job", "taskId", task.ID, "job", job.Name, "error", err)
		default:
			return fmt.Errorf("note the intent: %w", err)
		}
	}
	deleted, err := e.stopJobOf(ctx, job)
	if err != nil || !deleted || task.Attempt > 0 {
		return err // who hears what its pods still say records the end
	}
	if vanished, err := e.awaitGone(ctx, job); err != nil || !vanished {
		return err
	}
	return e.settleCancelled(ctx, task, "the Job was taken back before it ran")
}

func (e *Executor) settleCancelled(ctx context.Context, task taskbridge.Task, message string) error {
	err := e.Lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
	if err == nil || errors.Is(err, taskbridge.ErrTaskFinished) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		return nil
	}
	return fmt.Errorf("record the end: %w", err) // the next inspection ends it
}

// notThere reports whether the API server says that an object is not there. What a
// proxy before it says, which may not find the API server, proves nothing.
func notThere(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// isAnother reports whether a patch was refused since the object has another UID.
func isAnother(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// mayNot says that a role or a policy is in the way of a request, or will be for long.
func mayNot(err error) bool { return apierrors.IsForbidden(err) || refused(err) || denied(err) }

// gone says that a request was for a Job that is not there any more.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || isAnother(err)
}

// patchJob merges the patch into the Job if it still is the same.
func (e *Executor) patchJob(ctx context.Context, job *batchv1.Job, patch map[string]any) (*batchv1.Job, error) {
	metadata, _ := patch["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"] = job.UID // of another Job of this name the API server says that it may not be changed
	patch["metadata"] = metadata
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	return e.Client.BatchV1().Jobs(job.Namespace).Patch(ctx, job.Name, types.MergePatchType, body, metav1.PatchOptions{})
}

// stopTime is what makes a Job run out of its time at once: the least that the API
// documents, in seconds.
const stopTime = 1

// maxNotedReason is how much of a client's reason is noted on the Job, in bytes: the
// annotations of an object are bounded. The row has all of it.
const maxNotedReason = 16 << 10

// maxLooks bounds how often a Job that changes under our hands is looked at again.
const maxLooks = 5

// halt stops the Job of that UID, as a cancellation does: for the watching, where a
// task has ended or may not run. It does nothing about a Job that is not there, is
// being deleted or has ended.
func (e *Executor) halt(ctx context.Context, namespace, name string, uid types.UID) error {
	job, err := e.Client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && job.UID != uid:
		return nil
	case err != nil:
		return fmt.Errorf("get the Job: %w", err)
	}
	_, err = e.stopJobOf(ctx, job)
	return err
}

// stopJobOf has a Job run out of its time, or deletes it where its work never began.
// deleted says that it is on its way, and its pods before it.
func (e *Executor) stopJobOf(ctx context.Context, job *batchv1.Job) (deleted bool, err error) {
	jobs, uid := e.Client.BatchV1().Jobs(job.Namespace), job.UID
	for range maxLooks {
		if !pending(job) {
			return job.DeletionTimestamp != nil, nil
		}
		begun, err := e.workBegan(ctx, job)
		if err != nil {
			return false, err
		}
		if begun && !value(job.Spec.Suspend) {
			return e.runOut(ctx, job)
		}
		// With the version that was looked at: who unsuspends it, or takes note of a
		// pod, was there first. Its pods go before it does.
		err = jobs.Delete(ctx, job.Name, metav1.DeleteOptions{
			Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &job.ResourceVersion},
			PropagationPolicy: new(metav1.DeletePropagationForeground),
		})
		switch {
		case err == nil:
			return true, nil
		case apierrors.IsNotFound(err):
			return true, nil
		case !apierrors.IsConflict(err):
			return false, fmt.Errorf("delete the Job: %w", err)
		}
		if job, err = jobs.Get(ctx, job.Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return true, nil
		} else if err != nil {
			return false, fmt.Errorf("get the Job: %w", err)
		}
		if job.UID != uid {
			return true, nil
		}
	}
	return false, errors.New("the Job keeps changing") // the next request goes on
}

// runOut has the Job run out of its time.
func (e *Executor) runOut(ctx context.Context, job *batchv1.Job) (deleted bool, err error) {
	if deadline := job.Spec.ActiveDeadlineSeconds; deadline != nil && *deadline <= stopTime {
		return false, nil // it was asked before
	}
	_, err = e.patchJob(ctx, job, map[string]any{"spec": map[string]any{"activeDeadlineSeconds": stopTime}})
	switch {
	case err == nil:
		return false, nil
	case gone(err):
		return true, nil
	case !mayNot(err):
		return false, fmt.Errorf("end the Job's time: %w", err)
	}
	// A role or a policy has a say in deadlines. The pod gets its grace here, too.
	err = e.Client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &job.UID},
		PropagationPolicy: new(metav1.DeletePropagationForeground),
	})
	if err != nil && !gone(err) {
		return false, fmt.Errorf("delete the Job: %w", err)
	}
	return true, nil
}

// workBegan asks the API server whether the work of any pod of the Job has begun.
func (e *Executor) workBegan(ctx context.Context, job *batchv1.Job) (bool, error) {
	pods, err := e.podsOf(ctx, job)
	if err != nil {
		return false, err
	}
	for _, pod := range pods {
		if pod.startedAt > 0 {
			return true, nil
		}
	}
	// One that has ended may be gone.
	return job.Status.Succeeded > 0 || job.Status.Failed > 0, nil
}

// podsOf asks the API server for the Job's pods, the oldest first.
func (e *Executor) podsOf(ctx context.Context, job *batchv1.Job) ([]*podLevel, error) {
	list, err := e.Client.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: watchSelector(e.Instance) + "," + labelTask + "=" + job.Labels[labelTask],
	})
	if err != nil {
		return nil, fmt.Errorf("list the pods: %w", err)
	}
	return levelsOf(list.Items, job.UID, e.Types), nil
}

func levelsOf(pods []corev1.Pod, job types.UID, configured map[string]TypeOptions) []*podLevel {
	var levels []*podLevel
	for i := range pods {
		if level := levelOfPod(&pods[i], configured); level.jobUID == job {
			levels = append(levels, level)
		}
	}
	oldestFirst(levels)
	return levels
}

// awaitGone looks for up to a second whether a Job that is being deleted is gone.
func (e *Executor) awaitGone(ctx context.Context, job *batchv1.Job) (bool, error) {
	for pause := 15 * time.Millisecond; pause < 500*time.Millisecond; pause *= 2 {
		live, err := e.Client.BatchV1().Jobs(job.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
		switch {
		case notThere(err), err == nil && live.UID != job.UID:
			return true, nil
		case err != nil:
			return false, fmt.Errorf("look whether the Job is gone: %w", err)
		}
		timer := e.Clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return false, nil // it is on its way
		}
	}
	return false, nil
}
