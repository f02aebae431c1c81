package k8sjob

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// annotationDefaultContainer names the container of a pod that people mean; see
// kubectl.
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

// refusals gathers what is wrong with a template.
type refusals []string

func (r *refusals) add(wrong bool, format string, args ...any) {
	if wrong {
		*r = append(*r, fmt.Sprintf(format, args...))
	}
}

func (r *refusals) err() error {
	if len(*r) == 0 {
		return nil
	}
	return errors.New(strings.Join(*r, "; "))
}

// checkTemplate refuses what does not go with one task a Job and one pod at a time.
func checkTemplate(job *batchv1.Job, instance string) error {
	var r refusals
	spec, pod := &job.Spec, &job.Spec.Template
	r.add(!equalEmpty(job.Status), "has a status: remove what a cluster has added")
	r.checkMetadata("metadata", job.ObjectMeta, instance)
	r.checkMetadata("the pod's metadata", pod.ObjectMeta, instance)
	r.add(pod.Namespace != "", "has a namespace in the pod's metadata: it belongs into the Job's")
	r.add(spec.Parallelism != nil && *spec.Parallelism != 1, "has parallelism %d: a task is one pod at a time", value(spec.Parallelism))
	r.add(spec.Completions != nil && *spec.Completions != 1, "has completions %d: a task completes once", value(spec.Completions))
	r.add(value(spec.CompletionMode) != "" && *spec.CompletionMode != batchv1.NonIndexedCompletion, "has completionMode %s: a task is one pod, which needs no index", value(spec.CompletionMode))
	r.add(spec.SuccessPolicy != nil || spec.BackoffLimitPerIndex != nil || spec.MaxFailedIndexes != nil,
		"has successPolicy, backoffLimitPerIndex or maxFailedIndexes, which are of indexed Jobs: a task is one pod")
	r.add(spec.Selector != nil || value(spec.ManualSelector), "has a selector: each Job chooses its own pods")
	r.add(spec.ManagedBy != nil, "has managedBy: the cluster's own Job controller must run the Jobs")
	r.add(spec.PodReplacementPolicy != nil && *spec.PodReplacementPolicy != batchv1.Failed,
		"has podReplacementPolicy %s: two pods of a task would run at once; it must be Failed", value(spec.PodReplacementPolicy))
	r.add(pod.Spec.RestartPolicy != "" && pod.Spec.RestartPolicy != corev1.RestartPolicyNever,
		"has restartPolicy %s: it must be Never, since each pod is an attempt of its own; backoffLimit says how many there may be", pod.Spec.RestartPolicy)
	r.add(len(pod.Spec.Containers) == 0, "has no containers")
	for _, container := range pod.Spec.Containers {
		r.add(container.RestartPolicy != nil && *container.RestartPolicy != corev1.ContainerRestartPolicyNever || len(container.RestartPolicyRules) > 0,
			"has restartPolicy or restartPolicyRules in the container %q: each pod is one attempt, and its containers run once", container.Name)
	}
	for _, container := range pod.Spec.InitContainers {
		r.add(slices.ContainsFunc(container.RestartPolicyRules, func(rule corev1.ContainerRestartRule) bool {
			return rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		}), "has a rule in the init container %q that restarts all containers: each pod is one attempt, and its containers run once", container.Name)
	}
	for _, volume := range pod.Spec.Volumes {
		r.add(volume.Name == volumeName, "has a volume named %q: that is the adapter's own", volumeName)
	}
	return r.err()
}

// checkMetadata refuses names, what belongs to objects that exist, and labels and
// annotations that are the adapter's.
func (r *refusals) checkMetadata(where string, meta metav1.ObjectMeta, instance string) {
	r.add(meta.Name != "" || meta.GenerateName != "", "has a name in %s: the adapter names each Job by its task", where)
	rest := meta
	rest.Name, rest.GenerateName, rest.Namespace, rest.Labels, rest.Annotations = "", "", "", nil, nil
	r.add(!equalEmpty(rest), "has more in %s than namespace, labels and annotations: remove what a cluster has added, and owners and finalizers", where)
	for key, own := range map[string]string{labelManagedBy: managedBy, labelInstance: instance} {
		set, ok := meta.Labels[key]
		r.add(ok && set != own, "sets the label %s, which is the adapter's own: %q", key, own)
	}
	for _, keys := range []map[string]string{meta.Labels, meta.Annotations} {
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			r.add(strings.HasPrefix(key, ownPrefix), "sets %s: keys that begin with %s are the adapter's own", key, ownPrefix)
		}
	}
}

func namespaceOf(job *batchv1.Job, t TypeOptions, o Options) (string, error) {
	if t.Namespace != "" && job.Namespace != "" && t.Namespace != job.Namespace {
		return "", fmt.Errorf("is of the namespace %q, and the type's options say %q", job.Namespace, t.Namespace)
	}
	namespace := cmp.Or(t.Namespace, job.Namespace, o.Namespace)
	if err := checkNamespace(namespace); err != nil {
		return "", fmt.Errorf("has the namespace %q, which %w", namespace, err)
	}
	return namespace, nil
}

// containerOf names the container that counts.
func containerOf(pod *corev1.PodTemplateSpec, configured string) (string, error) {
	var names []string
	for _, container := range pod.Spec.Containers {
		names = append(names, container.Name)
	}
	if name := cmp.Or(configured, pod.Annotations[annotationDefaultContainer]); name != "" {
		if !slices.Contains(names, name) {
			return "", fmt.Errorf("has no container %q that could be the work: its containers are %q", name, names)
		}
		return name, nil
	}
	if len(names) > 1 {
		return "", fmt.Errorf("has %d containers (%q): say by the type's Container, or the pod's annotation %s, which of them is the work", len(names), names, annotationDefaultContainer)
	}
	if names[0] == "" {
		return "", errors.New("has a container without a name")
	}
	return names[0], nil
}

// checkContainer refuses what would be in the way of what the adapter adds to the
// container that counts.
func checkContainer(job *batchv1.Job, name string) error {
	var r refusals
	container := containerNamed(&job.Spec.Template.Spec, name)
	for _, env := range container.Env {
		r.add(slices.Contains(ownEnv, env.Name), "sets %s in the container %q: the adapter does", env.Name, name)
	}
	for _, mount := range container.VolumeMounts {
		at := path.Clean(mount.MountPath)
		r.add(at == mountPath || strings.HasPrefix(at, mountPath+"/"), "mounts a volume at %s in the container %q: that is the adapter's place", mount.MountPath, name)
	}
	return r.err()
}

// completeTemplate fills in what the template leaves open, and the adapter's own.
func completeTemplate(job *batchv1.Job, template *jobTemplate, instance string) {
	spec, pod := &job.Spec, &job.Spec.Template
	job.Namespace = template.namespace
	spec.TTLSecondsAfterFinished = nil // until the end is recorded
	spec.Parallelism, spec.Completions = new(int32(1)), new(int32(1))
	setDefault(&spec.BackoffLimit, 0)
	setDefault(&spec.PodReplacementPolicy, batchv1.Failed)
	if spec.PodFailurePolicy == nil {
		// A pod that is evicted or preempted was not the work's fault.
		spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			},
		}}}
	}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	container := containerNamed(&pod.Spec, template.container)
	container.TerminationMessagePolicy = cmp.Or(container.TerminationMessagePolicy, corev1.TerminationMessageFallbackToLogsOnError)
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: volumeName, MountPath: mountPath, ReadOnly: true})
	for _, meta := range []*metav1.ObjectMeta{&job.ObjectMeta, &pod.ObjectMeta} {
		meta.Labels = with(meta.Labels, labelManagedBy, managedBy, labelInstance, instance)
	}
	pod.Annotations = with(pod.Annotations, annotationDefaultContainer, template.container)
}

func containerNamed(spec *corev1.PodSpec, name string) *corev1.Container {
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	return &spec.Containers[i]
}

// with returns a map with the keys and values set, and without those that are "".
func with(set map[string]string, pairs ...string) map[string]string {
	all := maps.Clone(set)
	if all == nil {
		all = map[string]string{}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			all[pairs[i]] = pairs[i+1]
		}
	}
	return all
}

func setDefault[T any](field **T, def T) {
	if *field == nil {
		*field = &def
	}
}

// value is what the pointer points to, the zero value for nil.
func value[T any](pointer *T) (v T) {
	if pointer != nil {
		v = *pointer
	}
	return v
}

func equalEmpty[T any](v T) bool { return reflect.ValueOf(v).IsZero() }
