package k8sjob

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// crowdedJobs is how many Jobs there are.
const crowdedJobs = 10_000

// crowd is an API server with that many copies of a Job of the test cluster that has
// ended, and of its pod: all that differs from one to the next is different. Somebody
// else has its Lease.
type crowd struct {
	job, pod  []byte
	names     []string // what differs: all of the same length in each copy
	recorded  bool     // the Jobs are
	namespace string
}

// newCrowd has a Job run on the cluster.
func newCrowd(c *cluster) *crowd {
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=3", "result=1")})
	task := b.create(`{"n":1}`)
	b.wantResult(task, "1")
	b.wantMarked(task)
	job, pod := b.job(task), b.pods(task)[0]
	delete(job.Labels, labelRecorded)
	job.Spec.TTLSecondsAfterFinished = nil
	job.Kind, job.APIVersion, pod.Kind, pod.APIVersion = "Job", "batch/v1", "Pod", "v1"
	handed, _, _ := handoverNameOf(job)
	crowded := &crowd{namespace: c.namespace, names: []string{
		task.ID, hashOf(task.ID), string(job.UID), string(pod.UID), strings.TrimPrefix(pod.Name, job.Name), strings.TrimPrefix(handed, job.Name),
	}}
	var err error
	crowded.job, err = json.Marshal(job)
	must(c.t, err)
	crowded.pod, err = json.Marshal(pod)
	must(c.t, err)
	return crowded
}

// copyOf is a copy with a number.
func (c *crowd) copyOf(object []byte, i int) string {
	text := string(object)
	for _, name := range c.names {
		// A name's end carries the number.
		number := fmt.Sprintf("%0*d", min(5, len(name)-1), i)
		text = strings.ReplaceAll(text, name, name[:len(name)-len(number)]+number)
	}
	return text
}

// ServeHTTP answers as a crowded API server does: its informers ask for watches that
// begin with what there is.
func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	resource := filepath.Base(r.URL.Path)
	query := r.URL.Query()
	switch {
	case strings.Contains(r.URL.Path, "/leases/"):
		now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
		_, _ = fmt.Fprintf(w, `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":%q,"namespace":%q,"resourceVersion":"1"},`+
			`"spec":{"holderIdentity":"other","leaseDurationSeconds":3600,"acquireTime":%[3]q,"renewTime":%[3]q}}`, resource, c.namespace, now)
		return
	case r.Method != http.MethodGet || query.Get("sendInitialEvents") != "true":
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"BadRequest","code":400}`, http.StatusBadRequest)
		return
	}
	kind, version, object := "Event", "v1", []byte(nil)
	switch resource {
	case "jobs":
		kind, version = "Job", "batch/v1"
		if !c.recorded || !strings.Contains(query.Get("labelSelector"), "!"+labelRecorded) {
			object = c.job
		}
	case "pods":
		kind, object = "Pod", c.pod
	}
	for i := range crowdedJobs {
		if object == nil {
			break
		}
		_, _ = fmt.Fprintf(w, `{"type":"ADDED","object":%s}`+"\n", c.copyOf(object, i))
	}
	_, _ = fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"1000000","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n", kind, version)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// heap is what is in use after garbage has been collected.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// The figure is the memory that a Job takes, with its pod, of 10,000 that have ended:
// while none of their ends is recorded yet, and when all are; in a process that only
// stands by, so that all stay. Beside it is what client-go's own informers take for
// the same objects as they come.
func BenchmarkClusterCaches(bench *testing.B) {
	c := newCluster(bench)
	crowded := newCrowd(c)
	server := httptest.NewServer(crowded)
	bench.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	kubeconfig := filepath.Join(bench.TempDir(), "kubeconfig")
	must(bench, os.WriteFile(kubeconfig, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"x",`+
		`"contexts":[{"name":"x","context":{"cluster":"x"}}],"clusters":[{"name":"x","cluster":{"server":%q}}]}`, server.URL), 0o600))
	newClient := func(b *testing.B) kubernetes.Interface {
		client, err := NewClient(ClientOptions{Kubeconfig: kubeconfig})
		must(b, err)
		return client
	}
	types := c.newTypes("result=1")
	store := memory.NewStore(memory.Options{})
	bench.Cleanup(func() { must(bench, store.Close()) })
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	must(bench, err)
	for _, state := range []string{"unrecorded", "recorded"} {
		bench.Run(state, func(b *testing.B) {
			crowded.recorded = state == "recorded"
			for b.Loop() {
				client := newClient(b)
				before := heap()
				executor, err := New(Options{
					Client: client, Namespace: crowded.namespace, Lifecycle: lifecycle, Rows: store, Types: types,
					Election: &Election{Identity: "stands by"}, Logger: slog.New(slog.DiscardHandler),
				})
				must(b, err)
				n := executor.watcher.namespaces[crowded.namespace]
				until(b, "the caches are there", func() bool { return n.synced() && n.warnings.HasSynced() })
				jobs, pods := len(n.jobs.GetStore().ListKeys()), len(n.pods.GetStore().ListKeys())
				if pods != crowdedJobs || jobs != crowdedJobs && !crowded.recorded {
					b.Fatalf("the caches have %d Jobs and %d pods", jobs, pods)
				}
				b.ReportMetric(float64(heap()-before)/crowdedJobs, "B/job")
				must(b, executor.Close())
				closeConnections(client)
				runtime.KeepAlive(executor)
			}
			b.ReportMetric(untrimmed(b, newClient(b), crowded), "untrimmed-B/job")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// untrimmed is what the objects take in informers without a transform.
func untrimmed(b *testing.B, client kubernetes.Interface, crowded *crowd) float64 {
	b.Helper()
	before := heap()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(crowded.namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.LabelSelector = watchSelector(defaultInstance) + ",!" + labelRecorded
		}))
	jobs, pods := factory.Batch().V1().Jobs().Informer(), factory.Core().V1().Pods().Informer()
	stop := make(chan struct{})
	factory.Start(stop)
	until(b, "the informers have all", func() bool { return jobs.HasSynced() && pods.HasSynced() })
	taken := float64(heap()-before) / crowdedJobs
	for _, object := range pods.GetStore().List()[:1] {
		if _, is := object.(*corev1.Pod); !is {
			b.Fatalf("the informer has a %T", object)
		}
	}
	if list := jobs.GetStore().List(); len(list) > 0 {
		if _, is := list[0].(*batchv1.Job); !is {
			b.Fatalf("the informer has a %T", list[0])
		}
	}
	close(stop)
	factory.Shutdown()
	closeConnections(client)
	return taken
}
