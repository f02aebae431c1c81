package k8sjob

import (
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func TestClusterTheExecutorConforms(t *testing.T) {
	t.Parallel()
	separate := func(*testing.T) taskbridge.Stores {
		return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
	}
	for name, c := range map[string]struct {
		stores func(*testing.T) taskbridge.Stores
		api    bool // what completes reports over the worker API
	}{
		"lines": {}, "worker API, separate stores": {stores: separate, api: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformance.RunExecutor(t, conformance.ExecutorHarness{
				NewStores: c.stores,
				New: func(t *testing.T, stores taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
					return newCluster(t).newRuntime(stores, lifecycle.(*taskbridge.LocalLifecycle), c.api)
				},
				Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":[1,"$x $(HOME) <雪>"]}`), Result: json.RawMessage(`{"a":[1,"$x $(HOME) <雪>"]}`)},
				Fails:     conformance.Work{Type: "fail", Code: "NO_STOCK"},
				RunsOn:    conformance.Work{Type: "wait"},
				Rejected:  conformance.Work{Type: "nonsense"},
			})
		})
	}
}

// newRuntime makes an executor whose pods go to the node only while it has a label of
// their own, and count how often they begin.
//
// Work that only prints lines cannot ask whether it may run: it is started on its
// behalf, and stopped. So what begins is counted only where it asks, by the worker API.
func (c *cluster) newRuntime(stores taskbridge.Stores, lifecycle *taskbridge.LocalLifecycle, api bool) conformance.Runtime {
	c.t.Helper()
	label := "test.taskbridge.dev/" + c.namespace
	c.labelNodes(label, new("open"))
	c.t.Cleanup(func() { c.labelNodes(label, nil) })

	begun := &counts{n: map[string]int{}}
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}})
	must(c.t, err)
	address := c.serve(begun.of(newWorkerHandler(c, lifecycle, signer)))
	arrive := "get=" + address + "/begun/$(TASKBRIDGE_TASK_ID)"
	options := func(steps ...string) TypeOptions {
		return TypeOptions{Template: c.template(steps, func(template *corev1.PodTemplate) {
			template.Template.Spec.NodeSelector = map[string]string{label: "open"}
		})}
	}
	typeOptions := map[string]TypeOptions{
		"echo": options(arrive, "result=$(TASKBRIDGE_INPUT)"), "fail": options(arrive, "fail=NO_STOCK", "exit=1"), "wait": options(arrive, "block"),
	}
	if api {
		echo := options("worker-api=1")
		echo.Reports = ReportWorkerAPI
		typeOptions["echo"] = echo
	}
	executor, err := New(Options{
		Client: c.newClient(), Namespace: c.namespace, Lifecycle: lifecycle, Rows: stores.Tasks,
		WorkerURL: address, Tokens: signer, Types: typeOptions,
	})
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, executor.Close()) })
	must(c.t, executor.CheckTemplates(c.ctx))
	runtime := conformance.Runtime{
		Executor: executor,
		Hold: func() (release func()) {
			c.labelNodes(label, new("closed"))
			return func() { c.labelNodes(label, new("open")) }
		},
	}
	if api {
		runtime.Begun = func(taskID string) int {
			n := begun.get(taskID)
			row, err := stores.Tasks.GetTask(c.ctx, taskID)
			must(c.t, err)
			if n == 0 && row.Type != "echo" && row.Attempt == 1 {
				return 1 // its container ran, and was stopped before the program could say so
			}
			return n
		}
	}
	return runtime
}

func newWorkerHandler(c *cluster, lifecycle *taskbridge.LocalLifecycle, signer *workerapi.Signer) http.Handler {
	c.t.Helper()
	service, err := taskbridge.NewWorkerService(lifecycle)
	must(c.t, err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	must(c.t, err)
	return handler
}

// labelNodes sets a label of all nodes; nil takes it away.
func (c *cluster) labelNodes(label string, value *string) {
	c.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]*string{label: value}}})
	must(c.t, err)
	nodes, err := c.client.CoreV1().Nodes().List(c.ctx, metav1.ListOptions{})
	must(c.t, err)
	for _, node := range nodes.Items {
		_, err := c.client.CoreV1().Nodes().Patch(c.ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		must(c.t, err)
	}
}

// counts counts how often the work of each task has begun.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) get(taskID string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[taskID]
}

func (c *counts) add(taskID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[taskID]++
}

// of counts GET /begun/ID, and what a worker API answers with success to a start.
func (c *counts) of(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if taskID, ok := strings.CutPrefix(r.URL.Path, "/begun/"); ok {
			c.add(taskID)
			return
		}
		answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		api.ServeHTTP(answer, r)
		if path.Base(r.URL.Path) == "start" && answer.status < 300 {
			c.add(path.Base(path.Dir(r.URL.Path)))
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
