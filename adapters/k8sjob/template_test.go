package k8sjob

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	jobKind = `
apiVersion: batch/v1
kind: Job
metadata:
  namespace: reports
  labels: {kueue.x-k8s.io/queue-name: nightly}
  annotations: {example.com/note: job}
spec:
  suspend: true
  activeDeadlineSeconds: 600
  template:
    metadata:
      labels: {team: blue}
      annotations: {example.com/note: pod}
    spec:
      serviceAccountName: batch
      nodeSelector: {disk: ssd}
      containers:
      - {name: work, image: example.com/work:1, resources: {limits: {memory: 64Mi}}}
`
	podTemplateKind = `
apiVersion: v1
kind: PodTemplate
metadata:
  labels: {kueue.x-k8s.io/queue-name: nightly}
template:
  metadata:
    labels: {team: blue}
  spec:
    containers:
    - {name: work, image: example.com/work:1}
`
	podKind = `
apiVersion: v1
kind: Pod
metadata:
  namespace: reports
  labels: {team: blue}
spec:
  containers:
  - {name: work, image: example.com/work:1}
`
	bareKind = `
metadata:
  labels: {team: blue}
spec:
  containers:
  - {name: work, image: example.com/work:1}
`
	jsonKind = `{"spec":{"containers":[{"name":"work","image":"example.com/work:1"}]}}`
)

// read reads a template as an executor of the instance "taskbridge" does.
func read(t *testing.T, text string, change func(*TypeOptions)) (*jobTemplate, error) {
	t.Helper()
	options := TypeOptions{Template: []byte(text), EnvInputLimit: defaultEnvInputLimit}
	if change != nil {
		change(&options)
	}
	return readTemplate(options, Options{Namespace: "default", Instance: "taskbridge"})
}

func mustRead(t *testing.T, text string, change func(*TypeOptions)) *jobTemplate {
	t.Helper()
	template, err := read(t, text, change)
	must(t, err)
	return template
}

func TestATemplateIsAJobAPodTemplateAPodOrABarePodTemplate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, namespace, queue, team string
	}{
		"Job":               {jobKind, "reports", "nightly", "blue"},
		"PodTemplate":       {podTemplateKind, "default", "nightly", "blue"},
		"Pod":               {podKind, "reports", "", "blue"},
		"bare pod template": {bareKind, "default", "", "blue"},
		"JSON":              {jsonKind, "default", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := mustRead(t, c.text, nil)
			job := template.job
			if template.namespace != c.namespace || job.Namespace != c.namespace {
				t.Errorf("the namespace is %q, of the Job %q, want %q", template.namespace, job.Namespace, c.namespace)
			}
			if template.container != "work" {
				t.Errorf("the container is %q", template.container)
			}
			if got := job.Labels["kueue.x-k8s.io/queue-name"]; got != c.queue {
				t.Errorf("the Job's queue is %q, want %q", got, c.queue)
			}
			if got := job.Spec.Template.Labels["team"]; got != c.team {
				t.Errorf("the pod's team is %q, want %q", got, c.team)
			}
			if got := job.Spec.Template.Spec.Containers[0].Image; got != "example.com/work:1" {
				t.Errorf("the image is %q", got)
			}
		})
	}
}

func TestWhatATemplateSaysPassesThrough(t *testing.T) {
	t.Parallel()
	job := mustRead(t, jobKind, nil).job
	if !value(job.Spec.Suspend) {
		t.Error("the Job is not suspended")
	}
	if value(job.Spec.ActiveDeadlineSeconds) != 600 {
		t.Errorf("activeDeadlineSeconds is %v", value(job.Spec.ActiveDeadlineSeconds))
	}
	if job.Annotations["example.com/note"] != "job" || job.Spec.Template.Annotations["example.com/note"] != "pod" {
		t.Errorf("the annotations are %v and %v", job.Annotations, job.Spec.Template.Annotations)
	}
	pod := job.Spec.Template.Spec
	if pod.ServiceAccountName != "batch" || pod.NodeSelector["disk"] != "ssd" || pod.Containers[0].Resources.Limits.Memory().String() != "64Mi" {
		t.Errorf("the pod is %+v", pod)
	}
}

func TestATemplatesOpenFieldsAreFilledIn(t *testing.T) {
	t.Parallel()
	job := mustRead(t, bareKind, nil).job
	spec, pod := job.Spec, job.Spec.Template.Spec
	switch {
	case value(spec.Parallelism) != 1, value(spec.Completions) != 1:
		t.Error("parallelism and completions are not 1")
	case spec.BackoffLimit == nil || *spec.BackoffLimit != 0:
		t.Errorf("backoffLimit is %v", spec.BackoffLimit)
	case pod.RestartPolicy != corev1.RestartPolicyNever:
		t.Errorf("restartPolicy is %q", pod.RestartPolicy)
	case value(spec.PodReplacementPolicy) != batchv1.Failed:
		t.Errorf("podReplacementPolicy is %q", value(spec.PodReplacementPolicy))
	case spec.TTLSecondsAfterFinished != nil:
		t.Errorf("ttlSecondsAfterFinished is %d", *spec.TTLSecondsAfterFinished)
	case pod.Containers[0].TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError:
		t.Errorf("terminationMessagePolicy is %q", pod.Containers[0].TerminationMessagePolicy)
	}
	rules := spec.PodFailurePolicy.Rules
	if len(rules) != 1 || rules[0].Action != batchv1.PodFailurePolicyActionIgnore || rules[0].OnPodConditions[0].Type != corev1.DisruptionTarget {
		t.Errorf("podFailurePolicy is %+v", rules)
	}
}

func TestATemplatesOwnChoicesAreKept(t *testing.T) {
	t.Parallel()
	template := mustRead(t, `
apiVersion: batch/v1
kind: Job
spec:
  backoffLimit: 3
  parallelism: 1
  completions: 1
  completionMode: NonIndexed
  podReplacementPolicy: Failed
  ttlSecondsAfterFinished: 120
  podFailurePolicy:
    rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]
  template:
    metadata: {labels: {app.kubernetes.io/name: nightly, app.kubernetes.io/managed-by: taskbridge}}
    spec:
      restartPolicy: Never
      containers:
      - {name: work, image: example.com/work:1, terminationMessagePolicy: File, env: [{name: OWN, value: "1"}]}
`, nil)
	spec := template.job.Spec
	container := spec.Template.Spec.Containers[0]
	switch {
	case value(spec.BackoffLimit) != 3:
		t.Errorf("backoffLimit is %d", value(spec.BackoffLimit))
	case spec.PodFailurePolicy.Rules[0].Action != batchv1.PodFailurePolicyActionFailJob:
		t.Errorf("podFailurePolicy is %+v", spec.PodFailurePolicy)
	case container.TerminationMessagePolicy != corev1.TerminationMessageReadFile:
		t.Errorf("terminationMessagePolicy is %q", container.TerminationMessagePolicy)
	case spec.TTLSecondsAfterFinished != nil || template.ttl != 2*time.Minute:
		t.Errorf("ttlSecondsAfterFinished is %v, the TTL %s: it is for later", spec.TTLSecondsAfterFinished, template.ttl)
	case container.Env[0].Name != "OWN":
		t.Errorf("the environment is %v", container.Env)
	}
}

func TestTheTTLIsTheOptionsThenTheTemplatesThenAnHour(t *testing.T) {
	t.Parallel()
	with := "apiVersion: batch/v1\nkind: Job\nspec:\n  ttlSecondsAfterFinished: 120\n  template: " + jsonKind
	for name, c := range map[string]struct {
		text string
		set  time.Duration
		want time.Duration
	}{
		"neither":  {jsonKind, 0, time.Hour},
		"template": {with, 0, 2 * time.Minute},
		"options":  {with, 5 * time.Minute, 5 * time.Minute},
		"for ever": {with, -1, -1},
	} {
		if got := mustRead(t, c.text, func(o *TypeOptions) { o.TTL = c.set }).ttl; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// job makes a template of a Job with more in its spec, its pod's spec and its metadata.
func jobWith(metadata, spec, podMetadata, podSpec string) string {
	return `{"apiVersion":"batch/v1","kind":"Job","metadata":{` + metadata + `},"spec":{` + spec + join(spec) +
		`"template":{"metadata":{` + podMetadata + `},"spec":{` + podSpec + join(podSpec) + `"containers":[{"name":"work","image":"w"}]}}}}`
}

func join(before string) string {
	if before == "" {
		return ""
	}
	return ","
}

func TestATemplateThatDoesNotGoWithTasksIsRefusedInASentence(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"has parallelism 2":                                    jobWith("", `"parallelism":2`, "", ""),
		"has parallelism 0":                                    jobWith("", `"parallelism":0`, "", ""),
		"has completions 3":                                    jobWith("", `"completions":3`, "", ""),
		"has completionMode Indexed":                           jobWith("", `"completionMode":"Indexed"`, "", ""),
		"has successPolicy":                                    jobWith("", `"successPolicy":{"rules":[{"succeededCount":1}]}`, "", ""),
		"backoffLimitPerIndex or":                              jobWith("", `"backoffLimitPerIndex":1`, "", ""),
		"or maxFailedIndexes":                                  jobWith("", `"maxFailedIndexes":1`, "", ""),
		"has a selector":                                       jobWith("", `"selector":{"matchLabels":{"a":"b"}}`, "", ""),
		"has a selector: each":                                 jobWith("", `"manualSelector":true`, "", ""),
		"has managedBy":                                        jobWith("", `"managedBy":"example.com/other"`, "", ""),
		"has podReplacementPolicy TerminatingOrFailed":         jobWith("", `"podReplacementPolicy":"TerminatingOrFailed"`, "", ""),
		"has restartPolicy OnFailure":                          jobWith("", "", "", `"restartPolicy":"OnFailure"`),
		"has restartPolicy Always":                             jobWith("", "", "", `"restartPolicy":"Always"`),
		"has a name in metadata":                               jobWith(`"name":"mine"`, "", "", ""),
		"has a name in metadata: the":                          jobWith(`"generateName":"mine-"`, "", "", ""),
		"has a name in the pod's metadata":                     jobWith("", "", `"name":"mine"`, ""),
		"has a namespace in the pod's metadata":                jobWith("", "", `"namespace":"mine"`, ""),
		"has more in metadata than":                            jobWith(`"uid":"1-2-3"`, "", "", ""),
		"has more in metadata":                                 jobWith(`"finalizers":["example.com/mine"]`, "", "", ""),
		"has more in the pod's metadata":                       jobWith("", "", `"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"a","uid":"1"}]`, ""),
		"sets the label app.kubernetes.io/managed-by":          jobWith(`"labels":{"app.kubernetes.io/managed-by":"helm"}`, "", "", ""),
		"sets the label app.kubernetes.io/instance":            jobWith("", "", `"labels":{"app.kubernetes.io/instance":"other"}`, ""),
		"sets taskbridge.dev/task:":                            jobWith(`"labels":{"taskbridge.dev/task":"x"}`, "", "", ""),
		"sets taskbridge.dev/task-id":                          jobWith("", "", `"annotations":{"taskbridge.dev/task-id":"x"}`, ""),
		`has a volume named "taskbridge"`:                      jobWith("", "", "", `"volumes":[{"name":"taskbridge","emptyDir":{}}]`),
		"has a status":                                         `{"apiVersion":"batch/v1","kind":"Job","spec":{"template":` + jsonKind + `},"status":{"active":1}}`,
		"has a status: remove":                                 `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"work"}]},"status":{"phase":"Running"}}`,
		`restartPolicyRules in the container "a"`:              `{"spec":{"containers":[{"name":"a","restartPolicy":"OnFailure"}]}}`,
		`in the container "b": each pod is one attempt`:        `{"metadata":{"annotations":{"kubectl.kubernetes.io/default-container":"a"}},"spec":{"containers":[{"name":"a"},{"name":"b","restartPolicy":"Never","restartPolicyRules":[{"action":"Restart"}]}]}}`,
		`has a rule in the init container "i"`:                 `{"spec":{"initContainers":[{"name":"i","restartPolicyRules":[{"action":"RestartAllContainers"}]}],"containers":[{"name":"a"}]}}`,
		"has no containers":                                    `{"spec":{}}`,
		"has a container without a name":                       `{"spec":{"containers":[{"image":"w"}]}}`,
		`has 2 containers (["a" "b"])`:                         `{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`,
		`has no container "c"`:                                 `{"metadata":{"annotations":{"kubectl.kubernetes.io/default-container":"c"}},"spec":{"containers":[{"name":"a"}]}}`,
		`sets TASKBRIDGE_CLAIM in the container "a"`:           `{"spec":{"containers":[{"name":"a","env":[{"name":"TASKBRIDGE_CLAIM","value":"x"}]}]}}`,
		`sets TASKBRIDGE_INPUT in the container "a"`:           `{"spec":{"containers":[{"name":"a","env":[{"name":"TASKBRIDGE_INPUT","value":"x"}]}]}}`,
		"mounts a volume at /var/run/taskbridge/ in":           `{"spec":{"containers":[{"name":"a","volumeMounts":[{"name":"v","mountPath":"/var/run/taskbridge/"}]}]}}`,
		"mounts a volume at /var/run/taskbridge/more in":       `{"spec":{"containers":[{"name":"a","volumeMounts":[{"name":"v","mountPath":"/var/run/taskbridge/more"}]}]}}`,
		`has the namespace "No", which must be`:                `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"No"},"spec":{"containers":[{"name":"a"}]}}`,
		`is of kind "Deployment", apiVersion "apps/v1"`:        `{"apiVersion":"apps/v1","kind":"Deployment"}`,
		`is of kind "Job", apiVersion ""`:                      `{"kind":"Job","spec":{}}`,
		`is of kind "Job", apiVersion "batch/v1beta1"`:         `{"apiVersion":"batch/v1beta1","kind":"Job","spec":{}}`,
		"has more than one document":                           jsonKind + "\n---\n" + jsonKind,
		"is empty":                                             "# nothing\n",
		"must be an object":                                    "[1]",
		"cannot be read: yaml: ":                               "a: [",
		`key "spec" already set in map`:                        "spec: {containers: []}\nspec: {}\n",
		"cannot unmarshal string into Go struct field JobSpec": `{"apiVersion":"batch/v1","kind":"Job","spec":{"backoffLimit":"three"}}`,
	} {
		template, err := read(t, text, nil)
		if err == nil {
			t.Errorf("%s is taken: %+v", text, template.job)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is refused with %q, want it to contain %q", text, err, want)
		}
	}
}

func TestAllThatIsWrongWithATemplateIsToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := read(t, jobWith(`"name":"mine"`, `"parallelism":2`, "", `"restartPolicy":"Always"`), nil)
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{"has a name", "has parallelism 2", "has restartPolicy Always"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not contain %q", err, want)
		}
	}
}

func TestAnUnknownFieldIsRefusedByItsNameAndLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"of a Job": {
			"apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      containerz: []\n",
			`has the unknown field "spec.template.spec.containerz" in line 6`,
		},
		"in a list": {
			"spec:\n  containers:\n  - name: work\n    image: w\n  - name: side\n    imagePullPolicie: Never\n",
			`has the unknown field "spec.containers[1].imagePullPolicie" in line 6`,
		},
		"at the top": {"spec: {}\ncontainers: []\n", `has the unknown field "containers" in line 2`},
		"by its case": {
			"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - Name: work\n", `has the unknown field "spec.containers[0].Name" in line 5`,
		},
		"under an alias": {
			"metadata: {annotations: {a: b}}\nspec:\n  containers:\n  - &base\n    name: a\n    extra: 1\n  - *base\n",
			`has the unknown field "spec.containers[0].extra" in line 6; has the unknown field "spec.containers[1].extra" in line 6`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := read(t, c.text, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestTheContainerThatCountsIsNamedByOptionsAnnotationOrBeingAlone(t *testing.T) {
	t.Parallel()
	two := `{"metadata":{"annotations":{%s}},"spec":{"initContainers":[{"name":"proxy","restartPolicy":"Always"}],"containers":[{"name":"a"},{"name":"b"}]}}`
	annotated := strings.Replace(two, "%s", `"kubectl.kubernetes.io/default-container":"b"`, 1)
	plain := strings.Replace(two, "%s", "", 1)
	for name, c := range map[string]struct{ text, set, want string }{
		"alone":                   {jsonKind, "", "work"},
		"annotation":              {annotated, "", "b"},
		"options over annotation": {annotated, "a", "a"},
		"options":                 {plain, "b", "b"},
	} {
		template := mustRead(t, c.text, func(o *TypeOptions) { o.Container = c.set })
		if template.container != c.want {
			t.Errorf("%s: it is %q, want %q", name, template.container, c.want)
		}
		if got := template.job.Spec.Template.Annotations[annotationDefaultContainer]; got != c.want {
			t.Errorf("%s: the pod's annotation says %q, want %q", name, got, c.want)
		}
	}
	if _, err := read(t, plain, func(o *TypeOptions) { o.Container = "proxy" }); err == nil {
		t.Error("a sidecar is taken for the work")
	}
}

func TestANamespaceThatIsSaidTwiceMustBeTheSame(t *testing.T) {
	t.Parallel()
	if got := mustRead(t, bareKind, func(o *TypeOptions) { o.Namespace = "other" }).namespace; got != "other" {
		t.Errorf("the namespace is %q, want that of the options", got)
	}
	mustRead(t, jobKind, func(o *TypeOptions) { o.Namespace = "reports" })
	if _, err := read(t, jobKind, func(o *TypeOptions) { o.Namespace = "other" }); err == nil {
		t.Error("two namespaces are taken")
	}
}

func FuzzATemplateIsReadOrRefused(f *testing.F) {
	for _, text := range []string{jobKind, podTemplateKind, podKind, bareKind, jsonKind, "a: [", "---\n---\n", "&a [*a]", "spec: &x {containers: *x}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		template, err := readTemplate(TypeOptions{Template: []byte(text)}, Options{Namespace: "default", Instance: "taskbridge"})
		if err == nil && (template.container == "" || template.namespace == "") {
			t.Errorf("it is read as %+v", template)
		}
	})
}
