package k8sjob

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// trouble keeps a Job's work from beginning. It may pass by itself, so that the task
// fails only after TypeOptions.PendingTimeout.
type trouble struct {
	// kind is the source of its notice: one for each pod, or for each try to make one.
	kind      string
	code      string
	text      string // a sentence
	retryable bool
	since     int64
	// quiet is for how many seconds it is nothing out of the ordinary.
	quiet int64
	// endless: the work has ended, and another container keeps the pod; that is told,
	// and no end.
	endless bool
}

// The kinds of what is told once, as the sources of notices.
const (
	noticeImage         = "k8s-image"
	noticeUnschedulable = "k8s-unschedulable"
	noticeQuota         = "k8s-quota"
	noticeConfig        = "k8s-config"
	noticeSuspended     = "k8s-suspended"
	noticeNode          = "k8s-node"
	noticeOutput        = "k8s-output"
)

// mountQuiet is how long a pod's volumes and sandbox may take, in seconds, before
// it is told.
const mountQuiet = 60

// troubleOfPod says what keeps the pod's work from beginning, nil if nothing does.
// The pod has not begun and is not being deleted.
func troubleOfPod(pod *corev1.Pod) *trouble {
	since := max(unix(&pod.CreationTimestamp), unix(pod.Status.StartTime))
	if scheduled := podCondition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
		if scheduled.Reason != corev1.PodReasonUnschedulable {
			return nil // gated: a queue has it, and its time
		}
		return &trouble{
			kind: noticeUnschedulable, code: CodeUnschedulable, retryable: true,
			text:  sentence("no node takes the pod", scheduled.Message),
			since: max(since, unix(&scheduled.LastTransitionTime)),
		}
	}
	// Containers before this one may have been at work for hours.
	if initialized := podCondition(pod, corev1.PodInitialized); initialized != nil && initialized.Status == corev1.ConditionTrue {
		since = max(since, unix(&initialized.LastTransitionTime))
	}
	creating := pod.Status.StartTime != nil
	var found *trouble
	for i, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch state := status.State; {
		case state.Terminated != nil:
			since = max(since, unix(&state.Terminated.FinishedAt))
			creating = false
		case state.Running != nil:
			creating = false
			if i < len(pod.Status.InitContainerStatuses) && !isSidecar(pod, status.Name) {
				return nil // what waits beside it is a sidecar, and holds up nothing
			}
		case state.Waiting != nil && found == nil:
			found = troubleOfContainer(status.Name, state.Waiting)
		}
	}
	if found != nil {
		found.since = since
		return found
	}
	ready := podCondition(pod, corev1.PodReadyToStartContainers)
	if creating && ready != nil && ready.Status == corev1.ConditionFalse {
		return &trouble{
			kind: noticeConfig, code: CodeConfig, since: since, quiet: mountQuiet,
			text: "the pod's containers cannot be made yet: a volume (a Secret, ConfigMap or claim that is not there, say) or its network is not ready",
		}
	}
	return nil
}

func troubleOfContainer(name string, waiting *corev1.ContainerStateWaiting) *trouble {
	about := sentence(fmt.Sprintf("%s of container %q", waiting.Reason, name), waiting.Message)
	switch waiting.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
		"RegistryUnavailable", "SignatureValidationFailed":
		return &trouble{kind: noticeImage, code: CodeImage, text: "the image cannot be had: " + about}
	case "CreateContainerConfigError", "CreateContainerError", "CreatePodSandboxError", "RunContainerError", "CrashLoopBackOff":
		return &trouble{kind: noticeConfig, code: CodeConfig, text: "the container cannot be made: " + about}
	}
	return nil
}

// troubleOfCreation says what keeps the Job's pod from being made, by the last
// warning about it. It counts from when the Job was started, or lost the pod before,
// one of there, or of those that have left.
func troubleOfCreation(job *jobLevel, there, left []*podLevel, warning *eventLevel) *trouble {
	if warning == nil || job.suspended || job.deleting || job.started == 0 {
		return nil // of what is not started yet the warning would be told once more then
	}
	since := job.started
	if slices.ContainsFunc(there, func(pod *podLevel) bool { return !pod.over() }) {
		return nil
	}
	for _, pod := range slices.Concat(there, left) {
		since = max(since, pod.created)
		if pod.end != nil {
			since = max(since, pod.end.finished)
		}
	}
	if warning.last < since {
		return nil // of a pod that was made in the end
	}
	if strings.Contains(warning.message, "exceeded quota") {
		return &trouble{kind: noticeQuota, code: CodeQuota, retryable: true, since: since, text: sentence("the pod waits for the namespace's quota", warning.message)}
	}
	return &trouble{kind: noticeConfig, code: CodeConfig, since: since, text: sentence("the pod cannot be made", warning.message)}
}

// lostSince is since when the pod's node seems lost, 0: it does not.
func lostSince(pod *corev1.Pod, running bool) int64 {
	var since int64
	earliest := func(t int64) {
		if t > 0 && (since == 0 || t < since) {
			since = t
		}
	}
	ready, containers := podCondition(pod, corev1.PodReady), podCondition(pod, corev1.ContainersReady)
	// The node controller says that the pod is not ready, and nothing of its
	// containers. The kubelet would say both, or give a reason.
	if running && ready != nil && containers != nil &&
		ready.Status == corev1.ConditionFalse && containers.Status == corev1.ConditionTrue && ready.Reason == "" {
		earliest(unix(&ready.LastTransitionTime))
	}
	// Its time to stop has passed, and nobody stopped it. (The time has the grace in it.)
	if pod.DeletionTimestamp != nil && pod.Spec.NodeName != "" {
		earliest(unix(pod.DeletionTimestamp))
	}
	return since
}

// lost reports whether the node of a pod seems lost at the time. A pod that is told
// to stop is no sign before its time is over and some more.
func (p *podLevel) lost(now time.Time) bool {
	return p.lostSince > 0 && now.Unix() >= p.lostSince+lostQuiet
}

// lostQuiet is how many seconds late a kubelet may be.
const lostQuiet = 30

// sentence joins what happened and the cluster's own words, which may be none.
func sentence(what, why string) string {
	why = strings.TrimSpace(why)
	if why == "" {
		return what
	}
	return what + ": " + cut(why, maxReasonBytes)
}

// cut returns the text as valid UTF-8 of at most limit bytes and an ellipsis.
func cut(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return strings.Clone(text)
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}
