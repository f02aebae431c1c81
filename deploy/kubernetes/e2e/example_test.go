package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// library is a site with texts; what is asked for below /wait/ waits for its gate.
func library(t *testing.T, g *gates, texts map[string]string) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/wait/") {
			select {
			case <-g.at(r.URL.Path):
			case <-r.Context().Done():
				return
			}
		}
		text, ok := texts[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if _, err := w.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	}))
	must(t, server.Listener.Close())
	server.Listener = listen(t)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

func TestClusterTheExampleWorksAsItsFolderHasIt(t *testing.T) {
	c := newCluster(t)
	const namespace = "words" // as taskbridge.yaml has it
	c.namespaces(t, namespace)
	c.createNamespace(t, namespace)
	c.importImage(t, "example.test/words:1", "--binary", build(t, "examples/k8sjob", "."))
	g := newGates(t)
	site := library(t, g, map[string]string{"/1": "One fish, two fish;\nred fish", "/2": "blue fish"})

	files := map[string]string{}
	for _, name := range []string{"taskbridge.yaml", "job.yaml"} {
		content, err := os.ReadFile(root(t, "examples", "k8sjob", name))
		must(t, err)
		files[name] = string(content)
	}
	admin, err := os.ReadFile(os.Getenv(envKubeconfig))
	must(t, err)
	files["kubeconfig"] = string(admin)
	s := startServer(t, t.TempDir(), files, false)
	client := s.client(t)

	type input struct {
		URLs []string `json:"urls"`
	}
	counted := follow(c.ctx, t, client, "words", "counted", input{[]string{site + "/1", site + "/2"}})
	cancelled := follow(c.ctx, t, client, "words", "cancelled", input{[]string{site + "/1", site + "/wait/1"}})
	expect(t, "counted", counted.end(t),
		"TASK_STARTED",
		`TASK_PROGRESS {"progress":50,"message":"1 of 2 texts"`,
		`TASK_PROGRESS {"progress":100,"message":"2 of 2 texts"`,
		`TASK_COMPLETED {"result":{"documents":2,"words":8,"distinct":5,"top":[{"word":"fish","count":4},{"word":"blue","count":1},`)
	cancelled.await(t, "1 of 2 texts")
	_, err = client.Cancel(c.ctx, cancelled.task, "enough")
	must(t, err)
	expect(t, "cancelled", told(cancelled.end(t)), "TASK_STARTED", "TASK_PROGRESS", `TASK_CANCELLED {"reason":"enough"`)

	// Its own failures: one that another pod is not tried for, and one that it is.
	invalid := follow(c.ctx, t, client, "words", "invalid", input{})
	expect(t, "invalid", invalid.end(t), "TASK_STARTED", `TASK_FAILED {"code":"INVALID_INPUT"`)
	unavailable := follow(c.ctx, t, client, "words", "unavailable", input{[]string{site + "/none"}})
	lines := unavailable.end(t)
	var failed struct {
		Code, Message string
		Retryable     bool
	}
	must(t, json.Unmarshal([]byte(strings.TrimPrefix(lines[len(lines)-1], "TASK_FAILED ")), &failed))
	if failed.Code != "UNAVAILABLE" || !failed.Retryable || !strings.Contains(failed.Message, "/none answered 404") {
		t.Errorf("the task ended with %+v", failed)
	}
	for _, want := range []struct {
		task string
		pods int
	}{{invalid.task, 1}, {unavailable.task, 2}} {
		pods := podsOf(c.pods(t, namespace, ""), want.task)
		if len(pods) != want.pods {
			t.Errorf("task %s had %d pods", want.task, len(pods))
		}
	}
}

// podsOf picks the pods of a task.
func podsOf(pods []corev1.Pod, task string) (own []corev1.Pod) {
	for _, pod := range pods {
		if pod.Annotations["taskbridge.dev/task-id"] == task {
			own = append(own, pod)
		}
	}
	return own
}

func TestClusterATemplateThatTheClusterRefusesEndsTheStartWithASentence(t *testing.T) {
	c := newCluster(t)
	const namespace = "taskbridge-refused"
	c.namespaces(t, namespace)
	c.createNamespace(t, namespace)
	dir := t.TempDir()
	admin, err := os.ReadFile(os.Getenv(envKubeconfig))
	must(t, err)
	for name, content := range map[string]string{
		"kubeconfig": string(admin),
		"good.yaml":  neverTemplate,
		"bad.yaml":   strings.Replace(neverTemplate, "name: work", "name: Work_1", 1),
		"taskbridge.yaml": "executors: {jobs: {kind: k8sjob, namespace: " + namespace + ", kubeconfig: kubeconfig}}\n" +
			"tasks:\n  good: {executor: jobs, template: good.yaml}\n  bad:\n    executor: jobs\n    template: bad.yaml\n",
	} {
		must(t, os.WriteFile(dir+"/"+name, []byte(content), 0o600))
	}
	command := exec.CommandContext(c.ctx, build(t, "server", "cmd/taskbridge"), "serve", "--config", dir+"/taskbridge.yaml", "--data", dir+"/data", "--listen", "127.0.0.1:0")
	output, err := command.CombinedOutput()
	for _, want := range []string{"line 6", "bad.yaml", `task type \"bad\"`, "Work_1"} {
		if err == nil || !strings.Contains(string(output), want) {
			t.Errorf("the server ended with %v, and says without %q:\n%s", err, want, output)
		}
	}
	jobs, err := c.client.BatchV1().Jobs(namespace).List(c.ctx, metav1.ListOptions{})
	must(t, err)
	if len(jobs.Items) > 0 {
		t.Errorf("it left %d Jobs behind", len(jobs.Items))
	}
}
