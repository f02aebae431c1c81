package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestATemplateIsReadFromBesideTheConfigurationFile(t *testing.T) {
	file := writeFile(t, `
executors:
  batch: {kind: k8sjob, namespace: jobs, kubeconfig: cluster.yaml, context: test, instance: nightly, leaderElection: true, leaseName: bridge}
tasks:
  render:
    executor: batch
    template: jobs/render.yaml
    namespace: gpu
    container: main
    plainLines: true
    input: configmap
    pendingTimeout: 5m
    lostTimeout: never
    ttl: 10m
    tailLines: 0
  plain: {executor: batch, template: jobs/render.yaml}
`)
	dir := filepath.Dir(file)
	template := filepath.Join(dir, "jobs", "render.yaml")
	if err := os.MkdirAll(filepath.Dir(template), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(template, []byte("kind: Job\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := load(t, []string{"--config", file}, nil)
	none := 0
	wantExecutor := &K8sJob{
		Namespace: "jobs", Kubeconfig: filepath.Join(dir, "cluster.yaml"), Context: "test", Instance: "nightly", LeaderElection: true, LeaseName: "bridge",
	}
	wantTask := &K8sJobTask{
		Template: template, Namespace: "gpu", Container: "main", PlainLines: true, Input: JobInputConfigMap, PendingTimeout: Wait(5 * time.Minute),
		LostTimeout: -1, TTL: Wait(10 * time.Minute), TailLines: &none, Manifest: []byte("kind: Job\n"), Line: 7,
	}
	if diff := cmp.Diff(wantExecutor, c.Executors["batch"].Settings) + cmp.Diff(wantTask, c.Routes["render"].Settings); diff != "" {
		t.Error(diff)
	}
	wantPlain := &K8sJobTask{Template: template, Manifest: []byte("kind: Job\n"), Line: 16}
	if diff := cmp.Diff(wantPlain, c.Routes["plain"].Settings); diff != "" {
		t.Error(diff)
	}
}

func TestPodsMustBeToldOfAnAddressThatTheyCanReach(t *testing.T) {
	template := writeFile(t, "kind: Job\n")
	file := writeFile(t, "executors: {x: {kind: k8sjob, namespace: a}}\ntasks:\n  a:\n    executor: x\n    template: "+template+"\n    reports: worker\n")
	for _, listen := range []string{"127.0.0.1:8080", "localhost:0", "[::1]:0"} {
		_, err := Load([]string{"--config", file, "--listen", listen}, nil)
		if err == nil || !strings.Contains(err.Error(), "tasks.a (from "+file+") reports to the worker API (line 6), and its pods cannot come to "+listen) {
			t.Errorf("%s: %v", listen, err)
		}
	}
	if c := load(t, []string{"--config", file, "--worker-url", "http://10.0.0.7:8080"}, nil); c.Routes["a"].Settings.(*K8sJobTask).Reports != JobReportsWorker {
		t.Errorf("the route is %+v", c.Routes["a"])
	}
}

func TestAMistakeInTheSettingsOfJobsIsToldWithItsLine(t *testing.T) {
	const cluster = "executors:\n  x:\n    kind: k8sjob\n    namespace: a\n"
	task := "executors: {x: {kind: k8sjob, namespace: a}}\ntasks:\n  a:\n    executor: x\n    template: " + writeFile(t, "kind: Job\n") + "\n"
	for _, test := range []struct{ name, file, want string }{
		{"no namespace", "executors:\n  x:\n    kind: k8sjob", "line 3: executors.x.namespace must be set"},
		{"a namespace that is none", "executors:\n  x:\n    kind: k8sjob\n    namespace: Jobs", "line 4: executors.x.namespace must be a name of at most 63"},
		{"a context of nothing", cluster + "    context: test", "line 5: executors.x.context is one of a kubeconfig"},
		{"an instance that is too long", cluster + "    instance: " + strings.Repeat("a", 21), "line 5: executors.x.instance must be at most 20"},
		{"a lease without an election", cluster + "    leaseName: b", "line 5: executors.x.leaseName is for leaderElection"},
		{"a lease that is none", cluster + "    leaderElection: true\n    leaseName: b/c", "line 6: executors.x.leaseName must be a name"},
		{"an unknown setting", cluster + "    cluster: b", "line 5: executors.x.cluster is no setting here; there are kind, namespace, kubeconfig"},
		{"no template", "executors: {x: {kind: k8sjob, namespace: a}}\ntasks:\n  a:\n    executor: x", "line 4: tasks.a.template must be set"},
		{"a template that is not there", "executors: {x: {kind: k8sjob, namespace: a}}\ntasks:\n  a:\n    executor: x\n    template: none.yaml", "line 5: tasks.a.template cannot be read: open "},
		{"reports of no kind", task + "    reports: http", `line 6: tasks.a.reports must be lines or worker, not "http"`},
		{"plain lines that nobody reads", task + "    reports: worker\n    plainLines: true", "line 7: tasks.a.plainLines is for reports: lines"},
		{"input in no kind", task + "    input: file", `line 6: tasks.a.input must be secret or configmap, not "file"`},
		{"a wait without a unit", task + "    pendingTimeout: 5", `line 6: tasks.a.pendingTimeout must be a duration with its unit, as "1m30s" or "250ms", not "5"; or never`},
		{"a time to live in parts of a second", task + "    ttl: 1500ms", "line 6: tasks.a.ttl must be whole seconds, not 1.5s"},
		{"a tail without lines", task + "    tailLines: -1", "line 6: tasks.a.tailLines must be from 0 to 1000, not -1"},
		{"a container without a name", task + "    container: The Main", "line 6: tasks.a.container must be the name of a container"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := writeFile(t, test.file)
			_, err := Load([]string{"--config", file}, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("%v\nwant the file and %q", err, test.want)
			}
		})
	}
}
