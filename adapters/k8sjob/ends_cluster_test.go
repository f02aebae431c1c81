package k8sjob

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// jobType is a type whose Jobs take the steps.
func (c *cluster) jobType(steps []string, change func(*batchv1.Job)) TypeOptions {
	c.t.Helper()
	job := &batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}}
	job.Spec.Template = c.podTemplate(steps, nil).Template
	if change != nil {
		change(job)
	}
	return TypeOptions{Template: marshalYAML(c.t, job)}
}

// wantMarked waits until the cluster has been told that the task's end is recorded.
func (b *bridge) wantMarked(task taskbridge.Task) {
	b.t.Helper()
	until(b.t, "the Job is marked as recorded, and has left the cache", func() bool {
		job := b.job(task)
		ttl := job.Spec.TTLSecondsAfterFinished
		return job.Labels[labelRecorded] == "true" && ttl != nil && *ttl == int32(defaultTTL/time.Second) &&
			b.executor.watcher.job(job.Namespace+"/"+job.Name) == nil
	})
}

func TestClusterEveryEndIsToldAsWhatItWas(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	container := func(change func(*corev1.Container)) func(*batchv1.Job) {
		return func(job *batchv1.Job) { change(&job.Spec.Template.Spec.Containers[0]) }
	}
	for name, test := range map[string]struct {
		steps     []string
		change    func(*batchv1.Job)
		code      string
		retryable bool
		result    string
		message   string // a pattern of the failure's
		stream    string
	}{
		"result": {
			steps: []string{"progress=2", "print=plain", `result={"n":1}`, "progress=1"}, result: `{"n":1}`, stream: "STARTED PROGRESS PROGRESS PROGRESS COMPLETED",
		},
		"termination message": {steps: []string{`termination={"n":2}`}, result: `{"n":2}`, stream: "STARTED COMPLETED"},
		"exit status": {
			steps: []string{"print=one", "stderr=two", "progress=1", "exit=3"}, code: CodeExited,
			// The two come to the runtime on ways of their own.
			message: `^container "work" ended with exit status 3\n(one\ntwo|two\none)$`, stream: "STARTED PROGRESS FAILED",
		},
		"failure that is said": {steps: []string{"fail=NO_STOCK,retryable", "exit=1"}, code: "NO_STOCK", retryable: true, stream: "STARTED FAILED"},
		"out of memory": {
			steps: []string{"progress=1", "oom"}, code: CodeOOMKilled, stream: "STARTED PROGRESS FAILED",
			change: container(func(work *corev1.Container) {
				work.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("48Mi")}
			}),
		},
		"program that is not there": {
			code: CodeConfig, message: "not be started", stream: "FAILED",
			change: container(func(work *corev1.Container) { work.Command = []string{"/nothing"} }),
		},
		"deadline": {
			// The pod goes with its end.
			steps: []string{"progress=1", "sleep=1h"}, code: CodeDeadlineExceeded, retryable: true, stream: "STARTED PROGRESS FAILED",
			change: func(job *batchv1.Job) { job.Spec.ActiveDeadlineSeconds = new(int64(6)) },
		},
		"two attempts": {
			steps: []string{"progress=2", "exit=1"}, code: CodeExited, stream: "STARTED PROGRESS PROGRESS MESSAGE PROGRESS PROGRESS FAILED",
			change: func(job *batchv1.Job) { job.Spec.BackoffLimit = new(int32(1)) },
		},
		"failure policy": {
			steps: []string{"exit=42"}, code: CodePodFailurePolicy, message: "exit code 42", stream: "STARTED FAILED",
			change: func(job *batchv1.Job) {
				job.Spec.BackoffLimit = new(int32(3))
				job.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
					Action: batchv1.PodFailurePolicyActionFailJob,
					OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
						ContainerName: new("work"), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42},
					},
				}}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := *c
			c.t = t
			b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": c.jobType(test.steps, test.change)}, change: func(o *Options) {
				o.Instance = instanceName()
			}})
			task := b.create("")
			row := b.wantEnd(task, test.code, test.retryable)
			if got := b.types(task); !regexp.MustCompile("^" + test.stream + "$").MatchString(got) {
				t.Errorf("the stream is %q, want the types %s", b.stream(task), test.stream)
			}
			if result, _ := row.Result(); string(result) != test.result {
				t.Errorf("the result is %s, want %s", result, test.result)
			}
			if failure, _ := row.Failure(); !regexp.MustCompile(test.message).MatchString(failure.Message) {
				t.Errorf("the message is %q, want %q", failure.Message, test.message)
			}
			b.wantMarked(task)
		})
	}
}

// instanceName is the name of an instance that no other test has.
func instanceName() string {
	return "i" + hashOf(newName())[:12]
}

func TestClusterTroubleWithTheStartIsToldAndEndsTheTask(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change    func(*batchv1.Job)
		prepare   func(*cluster)
		code      string
		retryable bool
	}{
		"image": {
			code:   CodeImage,
			change: func(job *batchv1.Job) { job.Spec.Template.Spec.Containers[0].Image = "example.test/nothing:1" },
		},
		"image that may not be fetched": {
			code: CodeImage,
			change: func(job *batchv1.Job) {
				work := &job.Spec.Template.Spec.Containers[0]
				work.Image, work.ImagePullPolicy = "example.test/nothing:1", corev1.PullNever
			},
		},
		"unschedulable": {
			code: CodeUnschedulable, retryable: true,
			change: func(job *batchv1.Job) {
				job.Spec.Template.Spec.NodeSelector = map[string]string{"taskbridge.dev/nothing": "there"}
			},
		},
		"configuration": {
			code: CodeConfig,
			change: func(job *batchv1.Job) {
				job.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{
					SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "nothing"}, Key: "x"},
				}}}
			},
		},
		"quota": {
			code: CodeQuota, retryable: true,
			prepare: func(c *cluster) {
				quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}}
				quota.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
				_, err := c.client.CoreV1().ResourceQuotas(c.namespace).Create(c.ctx, quota, metav1.CreateOptions{})
				must(c.t, err)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			if test.prepare != nil {
				test.prepare(c)
			}
			work := c.jobType([]string{"progress=1"}, test.change)
			work.PendingTimeout = 5 * time.Second
			b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": work}})
			task := b.create("")
			b.wantEnd(task, test.code, test.retryable)
			b.wantStream(task, "MESSAGE FAILED")
			until(t, "the Job is gone", func() bool {
				jobs, err := c.client.BatchV1().Jobs(c.namespace).List(c.ctx, metav1.ListOptions{})
				must(t, err)
				return len(jobs.Items) == 0
			})
		})
	}
}

func TestClusterAJobThatSomebodyDeletesFailsItsTask(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=1", "sleep=1h")})
	task := b.create("")
	b.awaitStream(task, "STARTED PROGRESS")
	must(t, c.client.BatchV1().Jobs(c.namespace).Delete(c.ctx, b.job(task).Name, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationBackground),
	}))
	b.wantEnd(task, CodeDeleted, true)
	b.wantStream(task, "STARTED PROGRESS FAILED")
}

func TestClusterASuspendedJobWaitsAndGoesOnWithANewPod(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	b := c.newBridge(bridgeOptions{types: c.newTypes("get="+g.URL, "result=1")})
	task := b.create("")
	await(t, "the work has begun", g.arrived)
	b.awaitStream(task, "STARTED")
	suspend := func(suspended string) {
		_, err := c.client.BatchV1().Jobs(c.namespace).Patch(c.ctx, b.job(task).Name, types.MergePatchType, []byte(`{"spec":{"suspend":`+suspended+`}}`), metav1.PatchOptions{})
		must(t, err)
	}
	suspend("true")
	until(t, "its pod is gone", func() bool { return len(b.pods(task)) == 0 })
	suspend("false")
	until(t, "another pod runs", func() bool { return b.row(task).Attempt == 2 })
	g.open()
	b.wantResult(task, "1")
	stream := strings.Join(b.stream(task), "\n")
	order := regexp.MustCompile(`(?s)^STARTED .*The Job is suspended.*The Job was resumed.*\nCOMPLETED [^\n]*$`)
	if !order.MatchString(stream) || strings.Count(stream, "suspended") != 1 || strings.Count(stream, "resumed.") != 2 {
		t.Errorf("the stream is\n%s", stream)
	}
}

func TestClusterAJobThatEndsWhileNobodyWatchesIsRecordedWhole(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=5", "get="+g.URL, "progress=5", `result="late"`)})
	task := b.create("")
	b.awaitStream(task, "STARTED"+strings.Repeat(" PROGRESS", 5))
	b.close()
	g.open()
	until(t, "the Job has ended", func() bool { return levelOfJob(b.job(task)).final != "" })
	other := b.another()
	other.wantResult(task, `"late"`)
	other.wantStream(task, "STARTED"+strings.Repeat(" PROGRESS", 10)+" COMPLETED")
	other.wantMarked(task)
}

func TestClusterTwoThatActAtOnceTellEverythingOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": c.jobType([]string{"progress=50,5ms", "exit=1"}, func(job *batchv1.Job) {
		job.Spec.BackoffLimit = new(int32(1))
	})}})
	b.another()
	tasks := []taskbridge.Task{b.create(""), b.create("")}
	for _, task := range tasks {
		b.wantEnd(task, CodeExited, false)
		b.wantStream(task, "STARTED"+strings.Repeat(" PROGRESS", 50)+" MESSAGE"+strings.Repeat(" PROGRESS", 50)+" FAILED")
		wantCounted(t, b.stream(task)[51+1:102])
	}
}

// wantCounted checks that the reports of progress are counted from 1.
func wantCounted(t *testing.T, events []string) {
	t.Helper()
	for i, event := range events {
		if !strings.Contains(event, `"message":"`+strconv.Itoa(i+1)+`"`) {
			t.Fatalf("event %d is %s", i+1, event)
		}
	}
}

func TestClusterALeaderThatStopsIsFollowedInTheMiddleOfTheOutput(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	elected := func(identity string) bridgeOptions {
		return bridgeOptions{types: c.newTypes("progress=300,2ms", "get="+g.URL, "result=1"), change: func(o *Options) {
			o.Election = &Election{Identity: identity, LeaseDuration: 5 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 500 * time.Millisecond}
		}}
	}
	first := c.newBridge(elected("first"))
	until(t, "the first leads", func() bool { return first.executor.watcher.term() != nil })
	opts := elected("second")
	opts.store = first.store
	second := c.newBridge(opts)
	task := first.create("")
	until(t, "some of it is told", func() bool { return len(first.stream(task)) > 20 })
	if second.executor.watcher.term() != nil {
		t.Error("both lead")
	}
	first.close()
	until(t, "the second leads", func() bool { return second.executor.watcher.term() != nil })
	g.open()
	second.wantResult(task, "1")
	second.wantStream(task, "STARTED"+strings.Repeat(" PROGRESS", 300)+" COMPLETED")
	wantCounted(t, second.stream(task)[1:301])
}

func TestClusterATaskTakesThreeRequests(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := c.newClient()
	requests := countRequests(t, client)
	b := c.newBridge(bridgeOptions{
		types: c.newTypes("progress=3", "result=1"), change: func(o *Options) { o.Client = client },
		submission: &taskbridge.SubmissionOptions{Silence: time.Hour}, // inspections are for what is silent
	})
	until(t, "the caches are there", func() bool { return b.executor.watcher.namespaces[c.namespace].synced() })
	requests.take()
	task := b.create(`{"n":1}`)
	b.wantResult(task, "1")
	b.wantMarked(task)
	var counted []string
	for _, request := range requests.take() {
		// The reading of a log asks whether its pod has ended, too.
		if !strings.Contains(request, "watch=") && !strings.Contains(request, "/pods/") {
			counted = append(counted, request)
		}
	}
	if len(counted) != 3 {
		t.Errorf("requests:\n%s", strings.Join(counted, "\n"))
	}
}

// requestCounter counts what a client asks for.
type requestCounter struct {
	next http.RoundTripper
	mu   sync.Mutex
	made []string
}

// countRequests counts the client's requests from now on.
func countRequests(t testing.TB, client kubernetes.Interface) *requestCounter {
	t.Helper()
	// All typed clients of one share it.
	shared, ok := client.CoreV1().RESTClient().(*rest.RESTClient)
	if !ok {
		t.Fatalf("%T is no client of a cluster", client)
	}
	counter := &requestCounter{next: shared.Client.Transport}
	shared.Client.Transport = counter
	return counter
}

func (c *requestCounter) RoundTrip(request *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.made = append(c.made, request.Method+" "+request.URL.String())
	c.mu.Unlock()
	return c.next.RoundTrip(request)
}

// WrappedRoundTripper has idle connections closed.
func (c *requestCounter) WrappedRoundTripper() http.RoundTripper { return c.next }

// take returns what was asked for since it was called last.
func (c *requestCounter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made
	c.made = nil
	return made
}
