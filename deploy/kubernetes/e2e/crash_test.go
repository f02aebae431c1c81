package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// crashWork answers with its input.
const crashWork = `
spec:
  containers:
  - name: work
    image: example.test/crash:1
    imagePullPolicy: Never
    args: ["-c", 'echo "::taskbridge {\"progress\":50}"; echo "::taskbridge {\"result\":$(cat $TASKBRIDGE_INPUT_FILE)}"']
`

const crashConfig = `
executors: {jobs: {kind: k8sjob, namespace: %s, kubeconfig: kubeconfig}}
tasks: {work: {executor: jobs, template: work.yaml}}
submission: {timeout: 1s, lease: 2s, retryMin: 50ms, retryMax: 500ms, silence: 1s}
reconcileInterval: 100ms
`

// deadlyWay is the way of a server to the API server, on which it is killed by a
// request: before the API server has it, or after, without the answer.
type deadlyWay struct {
	url   string
	proxy *httputil.ReverseProxy
	hit   chan struct{} // closed once the server is dead

	mu     sync.Mutex
	deadly func(*http.Request) bool // nil: none is
	after  bool
	victim *local
}

func newDeadlyWay(t *testing.T, c *cluster) *deadlyWay {
	t.Helper()
	target, err := url.Parse(c.config.Host)
	must(t, err)
	transport, err := rest.TransportFor(c.config)
	must(t, err)
	w := &deadlyWay{hit: make(chan struct{})}
	w.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(w)
	w.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return w
}

// arm has the server die at the first request of that kind.
func (w *deadlyWay) arm(victim *local, deadly func(*http.Request) bool, after bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.victim, w.deadly, w.after = victim, deadly, after
}

// ServeHTTP passes a request on, or kills.
func (w *deadlyWay) ServeHTTP(writer http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	deadly, after, victim := w.deadly != nil && w.deadly(r), w.after, w.victim
	if deadly {
		w.deadly = nil
	}
	w.mu.Unlock()
	if !deadly {
		w.proxy.ServeHTTP(writer, r)
		return
	}
	if after {
		w.proxy.ServeHTTP(httptest.NewRecorder(), r)
	}
	victim.kill()
	close(w.hit)
	panic(http.ErrAbortHandler)
}

func TestClusterAServerThatIsKilledAtAnyRequestMakesOneJobThatEndsItsTaskOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.importImage(t, "example.test/crash:1", busybox("sh", "cat")...)
	kind := func(method, end string) func(*http.Request) bool {
		return func(r *http.Request) bool {
			return r.Method == method && strings.Contains(r.URL.Path+"$", end) && r.URL.Query().Get("dryRun") == ""
		}
	}
	for i, test := range []struct {
		name   string
		deadly func(*http.Request) bool
		after  bool
	}{
		{"the row is there and no Job", kind(http.MethodPost, "/jobs$"), false},
		{"the Job is there", kind(http.MethodPost, "/jobs$"), true},
		{"the Job is there, its input about to be", kind(http.MethodPost, "/secrets$"), false},
		{"the input is there, the submission is not recorded", kind(http.MethodPost, "/secrets$"), true},
		{"the work has begun", kind(http.MethodGet, "/log$"), false},
		{"the end is recorded, and the cluster not told", kind(http.MethodPatch, "/jobs/"), false},
		{"the cluster is told of the end", kind(http.MethodPatch, "/jobs/"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			namespace := fmt.Sprintf("taskbridge-crash-%d", i)
			c.namespaces(t, namespace)
			c.createNamespace(t, namespace)
			way, dir := newDeadlyWay(t, c), t.TempDir()
			s := startServer(t, dir, map[string]string{
				"taskbridge.yaml": fmt.Sprintf(crashConfig, namespace), "work.yaml": crashWork,
				"kubeconfig": fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x"}}],"clusters":[{"name":"x","cluster":{"server":%q}}]}`, way.url),
			}, false)
			way.arm(s, test.deadly, test.after)
			post(c.ctx, t, s.url+"/api/v1/tasks", `{"clientRequestId":"once","taskType":"work","input":{"n":1}}`)
			timer := time.NewTimer(patience)
			defer timer.Stop()
			select {
			case <-way.hit:
			case <-timer.C:
				t.Fatalf("the server was not killed:\n%s", s.log.String())
			}

			s = startServer(t, dir, nil, false)
			f := follow(c.ctx, t, s.client(t), "work", "once", map[string]int{"n": 1})
			expect(t, "the task", f.end(t), "TASK_STARTED", `TASK_PROGRESS {"progress":50`, `TASK_COMPLETED {"result":{"n":1}`)
			until(t, "the Job is marked as recorded", func() (bool, string) {
				jobs, err := c.client.BatchV1().Jobs(namespace).List(c.ctx, metav1.ListOptions{})
				must(t, err)
				if len(jobs.Items) != 1 {
					t.Fatalf("there are %d Jobs", len(jobs.Items))
				}
				return jobs.Items[0].Labels["taskbridge.dev/recorded"] == "true", fmt.Sprintf("%+v", jobs.Items[0].ObjectMeta)
			})
			if pods := c.pods(t, namespace, ""); len(pods) != 1 {
				t.Errorf("there were %d pods", len(pods))
			}
			secrets, err := c.client.CoreV1().Secrets(namespace).List(c.ctx, metav1.ListOptions{})
			must(t, err)
			if len(secrets.Items) != 1 {
				t.Errorf("there are %d Secrets", len(secrets.Items))
			}
			if log := s.log.String(); strings.Contains(log, "level=ERROR") {
				t.Errorf("the server says:\n%s", log)
			}
		})
	}
}

// post sends a request whose answer may not come.
func post(ctx context.Context, t *testing.T, address, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err == nil {
		must(t, response.Body.Close())
	}
}
