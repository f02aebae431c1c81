package k8sjob

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Where the work finds what it is handed: the volume and its files, and the
// environment.
const (
	volumeName = "taskbridge"
	mountPath  = "/var/run/taskbridge"
	inputFile  = "input.json"
	tokenFile  = "token"

	envTaskID      = "TASKBRIDGE_TASK_ID"
	envTaskType    = "TASKBRIDGE_TASK_TYPE"
	envClaim       = "TASKBRIDGE_CLAIM"
	envInput       = "TASKBRIDGE_INPUT"
	envInputFile   = "TASKBRIDGE_INPUT_FILE"
	envURL         = "TASKBRIDGE_URL"
	envTokenFile   = "TASKBRIDGE_TOKEN_FILE"
	envTraceparent = "TRACEPARENT" // as OpenTelemetry has it for environments
)

var ownEnv = []string{envTaskID, envTaskType, envClaim, envInput, envInputFile, envURL, envTokenFile, envTraceparent}

// maxObjectBytes is what a Secret or a ConfigMap may hold.
const maxObjectBytes = 1 << 20

// handover is what a task's pod is handed: objects that the Job owns. They are made
// after the Job, and until then the pod waits for its volume.
type handover struct {
	secret    *corev1.Secret    // nil: there is none
	configMap *corev1.ConfigMap // nil: there is none
}

// newJob makes the task's Job from the template of its type. What the pod is handed
// is to be in objects of the name handoverName; see [newHandover].
func newJob(task taskbridge.Task, template *jobTemplate, options TypeOptions, o Options, handoverName string, withToken bool) *batchv1.Job {
	job := template.job.DeepCopy()
	pod := &job.Spec.Template
	job.Name = jobName(o.Instance, task.ID)
	for _, meta := range []*metav1.ObjectMeta{&job.ObjectMeta, &pod.ObjectMeta} {
		meta.Labels = with(meta.Labels, labelTask, hashOf(task.ID), labelName, cmp.Or(meta.Labels[labelName], labelValue(task.Type)))
		meta.Annotations = with(meta.Annotations, annotationTaskID, task.ID, annotationTaskType, task.Type, annotationTraceparent, task.Traceparent)
	}
	container := containerNamed(&pod.Spec, template.container)
	// Ours come first, so that the template's own may refer to them.
	container.Env = append(environment(task, options, o, handoverName, withToken), container.Env...)
	pod.Spec.Volumes = append(pod.Spec.Volumes, volume(options, handoverName, withToken))
	return job
}

func environment(task taskbridge.Task, options TypeOptions, o Options, handoverName string, withToken bool) []corev1.EnvVar {
	env := []corev1.EnvVar{
		{Name: envTaskID, Value: literal(task.ID)},
		{Name: envTaskType, Value: literal(task.Type)},
		{Name: envClaim, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.uid"}}},
		{Name: envInputFile, Value: mountPath + "/" + inputFile},
	}
	if len(task.Input) <= options.EnvInputLimit {
		named := corev1.LocalObjectReference{Name: handoverName}
		source := &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named, Key: inputFile}}
		if options.InputIn == InputConfigMap {
			source = &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named, Key: inputFile}}
		}
		env = append(env, corev1.EnvVar{Name: envInput, ValueFrom: source})
	}
	if options.Reports == ReportWorkerAPI {
		env = append(env, corev1.EnvVar{Name: envURL, Value: literal(o.WorkerURL)})
	}
	if withToken {
		env = append(env, corev1.EnvVar{Name: envTokenFile, Value: mountPath + "/" + tokenFile})
	}
	if task.Traceparent != "" {
		env = append(env, corev1.EnvVar{Name: envTraceparent, Value: literal(task.Traceparent)})
	}
	return env
}

// literal keeps the kubelet from expanding "$(NAME)" in a value.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }

func volume(options TypeOptions, handoverName string, withToken bool) corev1.Volume {
	named := corev1.LocalObjectReference{Name: handoverName}
	inSecret := []corev1.KeyToPath{{Key: inputFile, Path: inputFile}}
	var sources []corev1.VolumeProjection
	if options.InputIn == InputConfigMap {
		sources = append(sources, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named, Items: inSecret}})
		inSecret = nil
	}
	if withToken {
		inSecret = append(inSecret, corev1.KeyToPath{Key: tokenFile, Path: tokenFile})
	}
	if len(inSecret) > 0 {
		sources = append(sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named, Items: inSecret}})
	}
	return corev1.Volume{Name: volumeName, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}
}

// newHandoverName makes the name of what a Job owns. It differs each time: what an
// earlier Job of the same task owned may still be there, about to be collected.
func newHandoverName(job string) string { return job + "-" + strings.ToLower(rand.Text()[:5]) }

// handoverNameOf finds the name in a Job that was made before; "": there is none.
// inSecret and inConfigMap say what its pod waits for.
func handoverNameOf(job *batchv1.Job) (name string, inSecret, inConfigMap []string) {
	keys := func(items []corev1.KeyToPath) (keys []string) {
		for _, item := range items {
			keys = append(keys, item.Key)
		}
		return keys
	}
	for _, volume := range job.Spec.Template.Spec.Volumes {
		if volume.Name != volumeName || volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil {
				name, inSecret = source.Secret.Name, keys(source.Secret.Items)
			}
			if source.ConfigMap != nil {
				name, inConfigMap = source.ConfigMap.Name, keys(source.ConfigMap.Items)
			}
		}
	}
	return name, inSecret, inConfigMap
}

// newHandover makes the objects that the Job's pod waits for, as the Job itself says:
// it may have been made under other options.
func newHandover(task taskbridge.Task, job *batchv1.Job, token string) (handover, error) {
	name, inSecret, inConfigMap := handoverNameOf(job)
	if name == "" {
		return handover{}, fmt.Errorf("Job %s/%s has no volume for what its task is handed", job.Namespace, job.Name)
	}
	meta := metav1.ObjectMeta{
		Name: name, Namespace: job.Namespace,
		Labels: map[string]string{
			labelManagedBy: managedBy, labelInstance: job.Labels[labelInstance], labelTask: job.Labels[labelTask],
		},
		// Without blockOwnerDeletion, which would need another permission.
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID}},
	}
	content := map[string]string{inputFile: string(task.Input), tokenFile: token}
	var made handover
	if len(inSecret) > 0 {
		made.secret = &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, Immutable: new(true), Data: map[string][]byte{}}
		for _, key := range inSecret {
			made.secret.Data[key] = []byte(content[key])
		}
	}
	if len(inConfigMap) > 0 {
		made.configMap = &corev1.ConfigMap{ObjectMeta: *meta.DeepCopy(), Immutable: new(true), Data: map[string]string{}}
		for _, key := range inConfigMap {
			made.configMap.Data[key] = content[key]
		}
	}
	return made, nil
}

// needsToken reports whether the pod of the Job waits for a token.
func needsToken(job *batchv1.Job) bool {
	_, inSecret, _ := handoverNameOf(job)
	for _, key := range inSecret {
		if key == tokenFile {
			return true
		}
	}
	return false
}

// checkSize rejects an input that one object cannot hold, with the token if that is
// in the same.
func checkSize(task taskbridge.Task, options TypeOptions, token string) error {
	size := len(task.Input)
	if options.InputIn == InputSecret {
		size += len(token)
	}
	if size <= maxObjectBytes {
		return nil
	}
	return taskbridge.Reject(CodeInputTooLarge, fmt.Sprintf(
		"the input has %d bytes, more than a %s holds beside its token (%d): hand over a reference to what is large",
		len(task.Input), options.InputIn, maxObjectBytes), false)
}
