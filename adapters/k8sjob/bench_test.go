package k8sjob

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// quantile is the least value that no more than the part 1-q of them exceed.
func quantile(values []time.Duration, q float64) time.Duration {
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

// bareWatch notes when a watch of pods, with a client of its own and nothing else to
// do, sees the container of a task run.
type bareWatch struct {
	mu      sync.Mutex
	running map[string]time.Time // by task
	done    chan struct{}
}

func (c *cluster) newBareWatch() *bareWatch {
	c.t.Helper()
	w := &bareWatch{running: map[string]time.Time{}, done: make(chan struct{})}
	stream, err := c.newClient().CoreV1().Pods(c.namespace).Watch(c.ctx, metav1.ListOptions{})
	must(c.t, err)
	go func() {
		defer close(w.done)
		for event := range stream.ResultChan() {
			w.note(event, time.Now())
		}
	}()
	c.t.Cleanup(func() {
		stream.Stop()
		<-w.done
	})
	return w
}

func (w *bareWatch) note(event watch.Event, at time.Time) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok || len(pod.Status.ContainerStatuses) == 0 {
		return
	}
	if state := pod.Status.ContainerStatuses[0].State; state.Running == nil && state.Terminated == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if task := pod.Annotations[annotationTaskID]; w.running[task].IsZero() {
		w.running[task] = at
	}
}

// at waits until the task's container has been seen.
func (w *bareWatch) at(t testing.TB, task taskbridge.Task) (at time.Time) {
	t.Helper()
	until(t, "the bare watch sees it", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		at = w.running[task.ID]
		return !at.IsZero()
	})
	return at
}

// startedAt follows the task's stream until it has begun.
func (b *bridge) startedAt(task taskbridge.Task) time.Time {
	b.t.Helper()
	subscription, err := b.Subscription.Subscribe(b.ctx, owner, taskbridge.SubscribeRequest{TaskID: task.ID})
	must(b.t, err)
	defer subscription.Close()
	for {
		frames, err := subscription.Next(b.ctx, time.Minute)
		must(b.t, err)
		for _, frame := range frames {
			if strings.Contains(string(frame.Envelope), string(taskbridge.EventStarted)) {
				return time.Now()
			}
		}
	}
}

// The figure is how long after a bare watch of the same pod has seen it run a client
// that follows the task's stream has TASK_STARTED; the limit is the bare watch's own
// time from the creation on.
func BenchmarkClusterStart(bench *testing.B) {
	c := newCluster(bench)
	b := c.newBridge(bridgeOptions{types: c.newTypes("sleep=1s")})
	bare := c.newBareWatch()
	until(bench, "the caches are there", func() bool { return b.executor.watcher.namespaces[c.namespace].synced() })
	var after, limit []time.Duration
	for bench.Loop() {
		created := time.Now()
		task := b.create("")
		started := b.startedAt(task)
		running := bare.at(bench, task)
		after, limit = append(after, started.Sub(running)), append(limit, running.Sub(created))
		b.wantEnd(task, "", false)
	}
	report := func(name string, d time.Duration) { bench.ReportMetric(float64(d)/float64(time.Millisecond), name) }
	report("p50-after-ms", quantile(after, 0.5))
	report("p99-after-ms", quantile(after, 0.99))
	report("p50-limit-ms", quantile(limit, 0.5))
	report("p99-limit-ms", quantile(limit, 0.99))
	bench.ReportMetric(0, "ns/op") // what the work takes
}

// The figure is how many requests a task takes from its creation until its Job is
// marked as recorded, with three lines of progress and a result; the limit is what
// there is to write: the Job, its input, and the mark. What its log takes is counted
// apart, and watches are all tasks' together.
func BenchmarkClusterRequests(bench *testing.B) {
	c := newCluster(bench)
	client := c.newClient()
	requests := countRequests(bench, client)
	b := c.newBridge(bridgeOptions{
		types: c.newTypes("progress=3,10ms", "result=1"), change: func(o *Options) { o.Client = client },
		submission: &taskbridge.SubmissionOptions{}, // as a server has it
	})
	until(bench, "the caches are there", func() bool { return b.executor.watcher.namespaces[c.namespace].synced() })
	requests.take()
	counted, kinds, tasks := map[string]int{}, map[string]int{}, 0
	for bench.Loop() {
		const together = 10
		var created []taskbridge.Task
		for range together {
			created = append(created, b.create(`{"n":1}`))
		}
		for _, task := range created {
			b.wantResult(task, "1")
			b.wantMarked(task)
		}
		tasks += together
	}
	for _, request := range requests.take() {
		kind, what := kindOfRequest(request)
		counted[kind]++
		kinds[what]++
	}
	per := func(kind string) float64 { return float64(counted[kind]) / float64(tasks) }
	bench.ReportMetric(per("task"), "requests/task")
	bench.ReportMetric(per("log"), "log-requests/task")
	bench.ReportMetric(3, "limit/task")
	bench.ReportMetric(0, "ns/op")
	bench.Logf("%d tasks: %v", tasks, kinds)
}

// kindOfRequest says what a request is for, and its method and resource.
func kindOfRequest(request string) (kind, what string) {
	method, url, _ := strings.Cut(request, " ")
	path, query, _ := strings.Cut(url, "?")
	_, path, _ = strings.Cut(path, "/namespaces/")
	parts := strings.Split(path, "/") // namespace, resource, name, subresource
	resource := "other"
	if len(parts) > 1 {
		resource = parts[1]
	}
	switch {
	case strings.Contains(query, "watch="):
		return "watch", "watch " + resource
	case method == http.MethodGet && resource == "pods" && len(parts) == 3:
		return "log", "GET pod, for the log's end"
	case resource == "pods" && len(parts) > 3:
		return "log", "GET pods/" + parts[3]
	}
	return "task", method + " " + resource
}
