package k8sjob

import (
	"slices"
	"strings"
	"time"
	"unique"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// The caches hold levels in the place of the API's objects: what reconciliation looks
// at, in a tenth of the memory. A level does not change once made. Its times are
// seconds of Unix time, as the API has them; 0: there is none.

// identity is what names an object. Caches ask it for nothing else.
type identity struct {
	namespace, name, resourceVersion string
	uid                              types.UID
}

// GetObjectMeta makes it a [metav1.ObjectMetaAccessor].
func (i *identity) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: i.namespace, Name: i.name, UID: i.uid, ResourceVersion: i.resourceVersion}
}

func identityOf(object metav1.Object) identity {
	return identity{
		namespace: shared(object.GetNamespace()), name: object.GetName(),
		resourceVersion: object.GetResourceVersion(), uid: object.GetUID(),
	}
}

// shared returns a text that many have with one copy of its bytes.
func shared(text string) string { return unique.Make(text).Value() }

// jobLevel is the level of a Job.
type jobLevel struct {
	identity
	taskID, taskType string
	created, started int64
	// deleting: it is told to go, since deletion, and no more pods are made.
	deleting  bool
	deletion  int64
	suspended bool
	// cancelled: a cancellation is noted on it, and it was told to stop.
	cancelled bool
	// waits is whether the cluster has taken notice of the suspension, and
	// suspensionChanged when it last did, 0: the Job was never suspended.
	waits             bool
	suspensionChanged int64
	// final is the condition that ended it, reason and message that condition's.
	final           batchv1.JobConditionType
	reason, message string
	finished        int64
	// succeeded and failed count pods.
	succeeded, failed int32
}

// key is what the queue has.
func (j *jobLevel) key() string { return j.namespace + "/" + j.name }

func levelOfJob(job *batchv1.Job) *jobLevel {
	level := &jobLevel{
		identity:  identityOf(job),
		taskID:    job.Annotations[annotationTaskID],
		taskType:  shared(job.Annotations[annotationTaskType]),
		created:   unix(&job.CreationTimestamp),
		started:   unix(job.Status.StartTime),
		deleting:  job.DeletionTimestamp != nil,
		deletion:  unix(job.DeletionTimestamp),
		suspended: job.Spec.Suspend != nil && *job.Spec.Suspend,
		cancelled: job.Annotations[annotationCancelRequested] != "",
		succeeded: job.Status.Succeeded,
		failed:    job.Status.Failed,
	}
	for _, condition := range job.Status.Conditions {
		switch condition.Type {
		case batchv1.JobComplete, batchv1.JobFailed:
			// FailureTarget and SuccessCriteriaMet come before: the pods are not done then.
			if condition.Status == corev1.ConditionTrue {
				level.final, level.finished = condition.Type, unix(&condition.LastTransitionTime)
				level.reason, level.message = shared(condition.Reason), cut(condition.Message, maxReasonBytes)
			}
		case batchv1.JobSuspended:
			level.waits = condition.Status == corev1.ConditionTrue
			level.suspensionChanged = unix(&condition.LastTransitionTime)
		}
	}
	return level
}

// podLevel is the level of a Job's pod, with that of the container that counts.
type podLevel struct {
	identity
	jobName           string
	jobUID            types.UID
	taskType          string
	created, deletion int64
	node              string
	phase             corev1.PodPhase
	// reason and message are those of the whole pod: Evicted, say.
	reason, message string
	// disruption is the reason of its condition DisruptionTarget.
	disruption string
	// container is the name of the one that counts, and startedAt when it began, 0:
	// it never did.
	container string
	startedAt int64
	end       *containerEnd
	trouble   *trouble
	// lostSince is since when its node seems lost.
	lostSince int64
}

// containerEnd is how the container that counts has ended; or, where it never began,
// how an init container failed.
type containerEnd struct {
	container        string
	init             bool
	exitCode, signal int32
	reason, message  string
	finished         int64
}

// over: nothing in the pod runs any more, or ever will.
func (p *podLevel) over() bool {
	return p.phase == corev1.PodSucceeded || p.phase == corev1.PodFailed
}

// ended: what counts has ended.
func (p *podLevel) ended() bool { return p.over() || p.end != nil && !p.end.init }

// object is the pod as far as its output's reader needs it.
func (p *podLevel) object() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.namespace, Name: p.name, UID: p.uid,
			CreationTimestamp: metav1.NewTime(time.Unix(p.created, 0)),
		},
		Spec:   corev1.PodSpec{NodeName: p.node},
		Status: corev1.PodStatus{Phase: p.phase},
	}
}

func levelOfPod(pod *corev1.Pod, configured map[string]TypeOptions) *podLevel {
	level := &podLevel{
		identity: identityOf(pod),
		taskType: shared(pod.Annotations[annotationTaskType]),
		created:  unix(&pod.CreationTimestamp),
		deletion: unix(pod.DeletionTimestamp),
		node:     shared(pod.Spec.NodeName),
		phase:    pod.Status.Phase,
		reason:   shared(pod.Status.Reason),
		message:  cut(pod.Status.Message, maxReasonBytes),
	}
	for _, owner := range pod.OwnerReferences {
		if owner.Controller != nil && *owner.Controller && owner.Kind == "Job" {
			level.jobName, level.jobUID = owner.Name, owner.UID
		}
	}
	level.container = countingContainer(pod, configured[level.taskType].Container)
	level.startedAt, level.end = containerLevel(pod, level.container)
	if condition := podCondition(pod, corev1.DisruptionTarget); condition != nil && condition.Status == corev1.ConditionTrue {
		level.disruption = shared(condition.Reason)
	}
	if !level.over() {
		level.lostSince = lostSince(pod, level.startedAt > 0 && level.end == nil)
		done := level.ended()
		if level.deletion == 0 && (level.startedAt == 0 || done) {
			level.trouble = troubleOfPod(pod)
		}
		if done && level.trouble != nil {
			level.trouble.endless = true
		}
	}
	return level
}

// countingContainer is the name of the container that counts: the type's, if the pod
// has it, since the type may have been changed after the pod was made.
func countingContainer(pod *corev1.Pod, configured string) string {
	for _, name := range []string{configured, pod.Annotations["kubectl.kubernetes.io/default-container"]} {
		if slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name }) {
			return shared(name)
		}
	}
	if len(pod.Spec.Containers) > 0 {
		return shared(pod.Spec.Containers[0].Name)
	}
	return shared(configured)
}

// containerLevel says when the container began and how it has ended.
func containerLevel(pod *corev1.Pod, name string) (startedAt int64, end *containerEnd) {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name != name {
			continue
		}
		switch state := status.State; {
		case state.Running != nil:
			return max(unix(&state.Running.StartedAt), 1), nil
		case state.Terminated != nil:
			end = endOf(name, state.Terminated)
			if began(state.Terminated) {
				startedAt = unix(&state.Terminated.StartedAt)
			}
			return startedAt, end
		}
	}
	for _, status := range pod.Status.InitContainerStatuses {
		if terminated := status.State.Terminated; terminated != nil && terminated.ExitCode != 0 && !isSidecar(pod, status.Name) {
			end = endOf(status.Name, terminated)
			end.init = true
			return 0, end
		}
	}
	return 0, nil
}

// isSidecar reports whether an init container goes on beside the others. How it ends
// is no matter: it is started again, or killed with the pod.
func isSidecar(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && value(c.RestartPolicy) == corev1.ContainerRestartPolicyAlways
	})
}

func endOf(name string, t *corev1.ContainerStateTerminated) *containerEnd {
	return &containerEnd{
		container: shared(name), exitCode: t.ExitCode, signal: t.Signal, reason: shared(t.Reason),
		message: t.Message, finished: unix(&t.FinishedAt),
	}
}

// began reports whether a container that has ended was ever at work: one whose
// program could not be started has the beginning of time there, or nothing.
func began(t *corev1.ContainerStateTerminated) bool {
	return unix(&t.StartedAt) > 0 && t.Reason != reasonStartError && t.Reason != reasonCannotRun
}

func podCondition(pod *corev1.Pod, wanted corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == wanted {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// eventLevel is the level of a warning about a Job: that its pods cannot be made.
type eventLevel struct {
	identity
	jobName string
	jobUID  types.UID
	message string
	last    int64
}

func levelOfEvent(event *corev1.Event) *eventLevel {
	last := max(unix(&event.LastTimestamp), unix(&event.FirstTimestamp), event.EventTime.Unix())
	if event.Series != nil {
		last = max(last, event.Series.LastObservedTime.Unix())
	}
	return &eventLevel{
		identity: identityOf(event), jobName: event.InvolvedObject.Name, jobUID: event.InvolvedObject.UID,
		message: cut(event.Message, maxReasonBytes), last: last,
	}
}

// oldestFirst sorts pods by when they were made; those of the same second by when
// their work began.
func oldestFirst(pods []*podLevel) {
	slices.SortFunc(pods, func(a, b *podLevel) int {
		switch {
		case a.created != b.created:
			return int(a.created - b.created)
		case a.startedAt == b.startedAt:
			return strings.Compare(string(a.uid), string(b.uid))
		case a.startedAt == 0:
			return 1
		case b.startedAt == 0:
			return -1
		}
		return int(a.startedAt - b.startedAt)
	})
}

// ours reports whether the Job is a task's: one under another name, with all that a
// task's Job says of itself, is a copy that somebody has made of it.
func (j *jobLevel) ours(instance string) bool {
	return taskbridge.ValidTaskID(j.taskID) && j.name == jobName(instance, j.taskID)
}

func unix(t *metav1.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// maxReasonBytes bounds what is kept of the cluster's own explanations.
const maxReasonBytes = 512
