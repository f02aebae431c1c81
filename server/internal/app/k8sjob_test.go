package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

// apiServer answers dry runs of Jobs: it has something against those of the type
// flawed, which it finds in the request in whatever way that is encoded.
// While it is away it answers 503.
type apiServer struct {
	*httptest.Server
	away atomic.Bool
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": http.StatusServiceUnavailable}
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil, s.away.Load():
		case r.Method == http.MethodPost && r.URL.Query().Get("dryRun") == "All":
			if bytes.Contains(body, []byte("flawed")) {
				status["code"], status["reason"], status["message"] = http.StatusUnprocessableEntity, "Invalid", "spec.template: it has a flaw"
				break
			}
			status = map[string]any{"kind": "Job", "apiVersion": "batch/v1", "metadata": map[string]any{"name": "dry"}}
			status["code"] = http.StatusCreated
		}
		code := status["code"].(int)
		delete(status, "code")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(status); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// k8sjobConfig writes a configuration of two task types whose Jobs go to the address.
func k8sjobConfig(t *testing.T, address string, types ...string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"kubeconfig": fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: %q}}]}", address),
		"job.yaml":   "{apiVersion: v1, kind: PodTemplate, template: {spec: {containers: [{name: work, image: a}]}}}",
	}
	settings := "executors: {batch: {kind: k8sjob, namespace: jobs, kubeconfig: kubeconfig}}\ntasks:\n"
	for _, taskType := range types {
		settings += "  " + taskType + ": {executor: batch, template: job.yaml}\n"
	}
	files["taskbridge.yaml"] = settings
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return load(t, "--config", filepath.Join(dir, "taskbridge.yaml"), "--store", "memory")
}

// newK8sJobRuntime makes the runtime of the configuration.
func newK8sJobRuntime(t *testing.T, c *config.Config) (*k8sjobRuntime, error) {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	if err != nil {
		t.Fatal(err)
	}
	runtimes, err := newRuntimes(c, lifecycle, store, workerServer{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	r := runtimes["batch"].(*k8sjobRuntime)
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return r, nil
}

func TestATemplateThatTheClusterRefusesIsToldWithItsFileAndLine(t *testing.T) {
	c := k8sjobConfig(t, newAPIServer(t).URL, "good", "flawed")
	_, err := newK8sJobRuntime(t, c)
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{"line 4: template ", "job.yaml: ", `"flawed"`, "spec.template: it has a flaw"} {
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), `"good"`) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
}

func TestATemplateThatIsNoneIsToldWithItsFileAndLine(t *testing.T) {
	c := k8sjobConfig(t, "http://127.0.0.1:1", "good")
	task := c.Routes["good"].Settings.(*config.K8sJobTask)
	task.Manifest = []byte("{kind: Job, apiVersion: batch/v1, spec: {parallelism: 2, template: {spec: {containers: [{name: work, image: a}]}}}}")
	_, err := newK8sJobRuntime(t, c)
	if err == nil || !strings.Contains(err.Error(), "line 3: template "+task.Template) || !strings.Contains(err.Error(), "parallelism 2") {
		t.Errorf("%v", err)
	}
}

func TestATemplateIsLookedAtOnceTheClusterIsBack(t *testing.T) {
	api := newAPIServer(t)
	api.away.Store(true)
	r, err := newK8sJobRuntime(t, k8sjobConfig(t, api.URL, "good", "flawed"))
	if err != nil {
		t.Fatal(err)
	}
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		r.checkAgain(t.Context(), ticks)
	}()
	tick := func() (ended bool) {
		t.Helper()
		timer := time.NewTimer(time.Minute)
		defer timer.Stop()
		select {
		case ticks <- time.Time{}:
		case <-done:
			return true
		case <-timer.C:
			t.Fatal("it asks no more")
		}
		return false
	}
	tick()
	tick() // taken, so the first one was in vain
	api.away.Store(false)
	for ended := false; !ended; {
		ended = tick()
	}
	if err := r.CheckHealth(t.Context()); err == nil || !strings.Contains(err.Error(), "spec.template: it has a flaw") {
		t.Errorf("%v", err)
	}
}

func TestAServerStartsAndAcceptsTasksWithItsClusterAway(t *testing.T) {
	s := startServer(t, k8sjobConfig(t, "http://127.0.0.1:1", "good"), openStore)
	if task := s.create("away", "good", "{}", http.StatusCreated); task == "" {
		t.Error("the task has no id")
	}
	if body := s.request(http.MethodGet, "/ready", "", http.StatusOK); !strings.Contains(body, `"batch"`) {
		t.Errorf("/ready says %s", body)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.log.String(), "the cluster cannot be asked about the templates") {
		t.Errorf("the log is %s", s.log)
	}
}

func TestOutsideOfAClusterAKubeconfigIsAskedFor(t *testing.T) {
	c := k8sjobConfig(t, "http://127.0.0.1:1", "good")
	c.Executors["batch"].Settings.(*config.K8sJob).Kubeconfig = ""
	if _, err := newK8sJobRuntime(t, c); err == nil || !strings.Contains(err.Error(), "kubeconfig is not set") {
		t.Errorf("%v", err)
	}
}
