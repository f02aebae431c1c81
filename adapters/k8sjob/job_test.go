package k8sjob

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const twoContainers = `
apiVersion: v1
kind: PodTemplate
metadata:
  labels: {kueue.x-k8s.io/queue-name: nightly}
template:
  metadata:
    annotations: {kubectl.kubernetes.io/default-container: work}
  spec:
    initContainers:
    - {name: proxy, image: p, restartPolicy: Always}
    containers:
    - {name: side, image: s, env: [{name: TASKBRIDGE_URL, value: own}]}
    - {name: work, image: w, args: [$(TASKBRIDGE_TASK_ID)], env: [{name: OWN, value: $(TASKBRIDGE_TASK_ID)-1}], volumeMounts: [{name: data, mountPath: /data}]}
    volumes: [{name: data, emptyDir: {}}]
`

// makeJob makes the Job of a task; change may be nil.
func makeJob(t *testing.T, text string, task taskbridge.Task, withToken bool, change func(*TypeOptions)) *batchv1.Job {
	t.Helper()
	options := TypeOptions{
		Template: []byte(text), Reports: ReportLines, InputIn: InputSecret, EnvInputLimit: defaultEnvInputLimit,
	}
	if change != nil {
		change(&options)
	}
	o := Options{Namespace: "default", Instance: "taskbridge", WorkerURL: "http://bridge.example/$(A)"}
	template, err := readTemplate(options, o)
	must(t, err)
	return newJob(task, template, options, o, "handed-x", withToken)
}

func envOf(container corev1.Container) map[string]corev1.EnvVar {
	env := map[string]corev1.EnvVar{}
	for _, variable := range container.Env {
		env[variable.Name] = variable
	}
	return env
}

var someTask = taskbridge.Task{
	ID: "1ab-xyz", Type: "Video/Encode $(v2)", Input: json.RawMessage(`{"secret":"of the client"}`), Traceparent: "00-1-2-01",
}

func TestAJobAndItsPodSayWhoseTheyAre(t *testing.T) {
	t.Parallel()
	job := makeJob(t, twoContainers, someTask, true, nil)
	if job.Name != jobName("taskbridge", someTask.ID) || job.Namespace != "default" {
		t.Errorf("it is %s/%s", job.Namespace, job.Name)
	}
	for what, meta := range map[string]struct{ labels, annotations map[string]string }{
		"Job": {job.Labels, job.Annotations}, "pod": {job.Spec.Template.Labels, job.Spec.Template.Annotations},
	} {
		for key, want := range map[string]string{
			"app.kubernetes.io/managed-by": "taskbridge", "app.kubernetes.io/instance": "taskbridge",
			"app.kubernetes.io/name": "Video-Encode---v2", "taskbridge.dev/task": hashOf(someTask.ID),
		} {
			if got := meta.labels[key]; got != want {
				t.Errorf("the %s's label %s is %q, want %q", what, key, got, want)
			}
		}
		for key, want := range map[string]string{
			"taskbridge.dev/task-id": someTask.ID, "taskbridge.dev/task-type": someTask.Type, "taskbridge.dev/traceparent": "00-1-2-01",
		} {
			if got := meta.annotations[key]; got != want {
				t.Errorf("the %s's annotation %s is %q, want %q", what, key, got, want)
			}
		}
	}
	if job.Labels["kueue.x-k8s.io/queue-name"] != "nightly" {
		t.Errorf("the Job's labels are %v", job.Labels)
	}
}

func TestATaskTypeTooLongForALabelIsWholeInItsAnnotation(t *testing.T) {
	t.Parallel()
	task := someTask
	task.Type = strings.Repeat("ä/long.", 36)
	job := makeJob(t, bareKind, task, false, nil)
	if got := job.Labels[labelName]; len(got) > 63 || got == "" {
		t.Errorf("the label is %q", got)
	}
	if job.Annotations[annotationTaskType] != task.Type {
		t.Error("the annotation is not the type")
	}
	task.Type = "雪"
	if name, ok := makeJob(t, bareKind, task, false, nil).Labels[labelName]; ok {
		t.Errorf("a type of which nothing is left in a label has the label %q", name)
	}
}

func TestTheTemplatesOwnNameStays(t *testing.T) {
	t.Parallel()
	named := strings.Replace(twoContainers, "labels: {", "labels: {app.kubernetes.io/name: encoder, ", 1)
	job := makeJob(t, named, someTask, false, nil)
	if job.Labels[labelName] != "encoder" {
		t.Errorf("it is %q", job.Labels[labelName])
	}
}

func TestNothingOfTheInputIsInTheJob(t *testing.T) {
	t.Parallel()
	for _, in := range []InputIn{InputSecret, InputConfigMap} {
		data, err := json.Marshal(makeJob(t, bareKind, someTask, true, func(o *TypeOptions) { o.InputIn = in }))
		must(t, err)
		if strings.Contains(string(data), "of the client") {
			t.Errorf("with a %s it is: %s", in, data)
		}
	}
}

func TestOnlyTheContainerThatCountsIsHandedTheTask(t *testing.T) {
	t.Parallel()
	job := makeJob(t, twoContainers, someTask, true, func(o *TypeOptions) { o.Reports = ReportWorkerAPI })
	pod := job.Spec.Template.Spec
	side, work, proxy := pod.Containers[0], pod.Containers[1], pod.InitContainers[0]
	for name, other := range map[string]corev1.Container{"side": side, "proxy": proxy} {
		if len(other.VolumeMounts) > 0 || len(other.Env) > 1 || other.TerminationMessagePolicy != "" {
			t.Errorf("the container %s is %+v", name, other)
		}
	}
	if envOf(side)["TASKBRIDGE_URL"].Value != "own" {
		t.Errorf("the sidecar's own environment is %v", side.Env)
	}
	mounts := work.VolumeMounts
	if len(mounts) != 2 || mounts[1].Name != "taskbridge" || mounts[1].MountPath != "/var/run/taskbridge" || !mounts[1].ReadOnly {
		t.Errorf("it mounts %+v", mounts)
	}
	if work.Env[len(work.Env)-1].Name != "OWN" {
		t.Errorf("the template's own variables are not the last, and cannot refer to the task's: %v", work.Env)
	}
	if volumes := pod.Volumes; len(volumes) != 2 || volumes[0].Name != "data" || volumes[1].Name != "taskbridge" {
		t.Errorf("the volumes are %+v", volumes)
	}
}

func TestTheEnvironmentOfTheWork(t *testing.T) {
	t.Parallel()
	api := func(o *TypeOptions) { o.Reports = ReportWorkerAPI }
	never := func(o *TypeOptions) { o.EnvInputLimit = -1 }
	untraced := someTask
	untraced.Traceparent = ""
	for name, c := range map[string]struct {
		task      taskbridge.Task
		withToken bool
		change    func(*TypeOptions)
		want      string
	}{
		"lines":                {someTask, false, nil, "ID TYPE CLAIM INPUT_FILE INPUT TRACEPARENT"},
		"untraced":             {untraced, false, nil, "ID TYPE CLAIM INPUT_FILE INPUT"},
		"input never in it":    {untraced, false, never, "ID TYPE CLAIM INPUT_FILE"},
		"worker API":           {untraced, true, api, "ID TYPE CLAIM INPUT_FILE INPUT URL TOKEN_FILE"},
		"worker API, no token": {untraced, false, api, "ID TYPE CLAIM INPUT_FILE INPUT URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for _, variable := range makeJob(t, bareKind, c.task, c.withToken, c.change).Spec.Template.Spec.Containers[0].Env {
				names = append(names, strings.TrimPrefix(strings.TrimPrefix(variable.Name, "TASKBRIDGE_"), "TASK_"))
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("it has %s, want %s", got, c.want)
			}
		})
	}
	env := envOf(makeJob(t, bareKind, someTask, true, api).Spec.Template.Spec.Containers[0])
	for name, want := range map[string]string{
		"TASKBRIDGE_TASK_ID": "1ab-xyz", "TASKBRIDGE_TASK_TYPE": "Video/Encode $$(v2)", "TASKBRIDGE_URL": "http://bridge.example/$$(A)",
		"TASKBRIDGE_INPUT_FILE": "/var/run/taskbridge/input.json", "TASKBRIDGE_TOKEN_FILE": "/var/run/taskbridge/token", "TRACEPARENT": "00-1-2-01",
	} {
		if got := env[name].Value; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := env["TASKBRIDGE_CLAIM"].ValueFrom.FieldRef.FieldPath; got != "metadata.uid" {
		t.Errorf("the claim is %s", got)
	}
	if got := env["TASKBRIDGE_INPUT"].ValueFrom.SecretKeyRef; got.Name != "handed-x" || got.Key != "input.json" {
		t.Errorf("the input is from %+v", got)
	}
}

func TestOnlyASmallInputIsInTheEnvironment(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]bool{2: true, 100: true, 101: false} {
		task := someTask
		task.Input = json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)
		job := makeJob(t, bareKind, task, false, func(o *TypeOptions) { o.EnvInputLimit = 100 })
		if _, got := envOf(job.Spec.Template.Spec.Containers[0])["TASKBRIDGE_INPUT"]; got != want {
			t.Errorf("an input of %d bytes is in the environment: %v", size, got)
		}
	}
}

func TestThePodWaitsForExactlyWhatItIsHanded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in                    InputIn
		withToken             bool
		inSecret, inConfigMap []string
	}{
		"Secret":                {InputSecret, false, []string{"input.json"}, nil},
		"Secret with a token":   {InputSecret, true, []string{"input.json", "token"}, nil},
		"ConfigMap":             {InputConfigMap, false, nil, []string{"input.json"}},
		"ConfigMap and a token": {InputConfigMap, true, []string{"token"}, []string{"input.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := makeJob(t, bareKind, someTask, c.withToken, func(o *TypeOptions) { o.InputIn = c.in })
			job.UID = "uid-1"
			name, inSecret, inConfigMap := handoverNameOf(job)
			if name != "handed-x" || !slices.Equal(inSecret, c.inSecret) || !slices.Equal(inConfigMap, c.inConfigMap) {
				t.Fatalf("it waits for %s: %v, %v", name, inSecret, inConfigMap)
			}
			made, err := newHandover(someTask, job, "a-token")
			must(t, err)
			if (made.secret != nil) != (c.inSecret != nil) || (made.configMap != nil) != (c.inConfigMap != nil) {
				t.Fatalf("it is handed %+v", made)
			}
			contents := map[string]string{"input.json": string(someTask.Input), "token": "a-token"}
			for _, key := range c.inSecret {
				if got := string(made.secret.Data[key]); got != contents[key] || made.secret.OwnerReferences[0].UID != "uid-1" || !value(made.secret.Immutable) {
					t.Errorf("the Secret is %+v", made.secret)
				}
			}
			for _, key := range c.inConfigMap {
				if got := made.configMap.Data[key]; got != contents[key] || made.configMap.OwnerReferences[0].UID != "uid-1" || !value(made.configMap.Immutable) {
					t.Errorf("the ConfigMap is %+v", made.configMap)
				}
			}
		})
	}
	if _, err := newHandover(someTask, &batchv1.Job{}, ""); err == nil {
		t.Error("a Job without the volume is taken")
	}
}

func TestJobsOfATypeShareNothing(t *testing.T) {
	t.Parallel()
	template := mustRead(t, twoContainers, nil)
	o := Options{Namespace: "default", Instance: "taskbridge"}
	jobOf := func(id string) *batchv1.Job {
		return newJob(taskbridge.Task{ID: id, Type: "t"}, template, TypeOptions{InputIn: InputSecret}, o, "handed-"+id, false)
	}
	a, b := jobOf("000-a"), jobOf("000-b")
	a.Labels["x"], a.Spec.Template.Annotations["x"] = "y", "y"
	a.Spec.Template.Spec.Containers[1].Env[0].Value = "changed"
	if b.Labels["x"] != "" || b.Spec.Template.Annotations["x"] != "" || b.Spec.Template.Spec.Containers[1].Env[0].Value != "000-b" {
		t.Errorf("a change of one is in the other: %+v", b)
	}
	if again := jobOf("000-b"); again.Labels["x"] != "" || len(again.Spec.Template.Spec.Volumes) != 2 {
		t.Errorf("a change of one is in the template: %+v", again)
	}
}
