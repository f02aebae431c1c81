package k8sjob

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// impatient has a submission whose outcome is unknown repeated soon.
var impatient = taskbridge.SubmissionOptions{
	Timeout: time.Second, Lease: 2 * time.Second, RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond, Silence: 500 * time.Millisecond,
}

// lossy loses the first request of a kind, or the answer to it.
type lossy struct {
	http.RoundTripper
	resource string
	answer   bool
	once     sync.Once
}

func (c *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	lost := false
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/"+c.resource) {
		c.once.Do(func() { lost = true })
	}
	if !lost {
		return c.RoundTripper.RoundTrip(r)
	}
	if c.answer {
		response, err := c.RoundTripper.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if err := response.Body.Close(); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("connection cut by the test")
}

// WrappedRoundTripper has idle connections closed.
func (c *lossy) WrappedRoundTripper() http.RoundTripper { return c.RoundTripper }

// newLossyClient makes a client on a connection that is cut once.
func (c *cluster) newLossyClient(resource string, answer bool) kubernetes.Interface {
	c.t.Helper()
	config, err := restConfig(ClientOptions{Kubeconfig: os.Getenv(envKubeconfig)})
	must(c.t, err)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &lossy{RoundTripper: next, resource: resource, answer: answer}
	})
	client, err := kubernetes.NewForConfig(config)
	must(c.t, err)
	c.t.Cleanup(func() { closeConnections(client) })
	return client
}

func TestClusterASubmissionThatIsCutAnywhereMakesOneJobThatRuns(t *testing.T) {
	t.Parallel()
	for _, in := range []InputIn{InputSecret, InputConfigMap} {
		for _, resource := range []string{"jobs", string(in) + "s"} {
			for _, answer := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, the answer: %v, input in a %s", resource, answer, in), func(t *testing.T) {
					t.Parallel()
					c := newCluster(t)
					options := c.newTypes("result=$(TASKBRIDGE_INPUT)")["work"]
					options.InputIn = in
					client := c.newLossyClient(resource, answer)
					b := c.newBridge(bridgeOptions{
						types: map[string]TypeOptions{"work": options}, submission: &impatient,
						change: func(o *Options) { o.Client = client },
					})
					task := b.create(`{"a":1}`)
					b.wantResult(task, `{"a":1}`)
					if pods := b.pods(task); len(pods) != 1 {
						t.Errorf("there were %d pods", len(pods))
					}
					jobs, err := b.cluster.client.BatchV1().Jobs(c.namespace).List(c.ctx, metav1.ListOptions{})
					must(t, err)
					if len(jobs.Items) != 1 {
						t.Errorf("there are %d Jobs", len(jobs.Items))
					}
				})
			}
		}
	}
}

func TestClusterANameThatIsTakenFailsTheTaskAndLeavesTheOthersJobAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("exit=0"), unreconciled: true})
	task := taskbridge.Task{ID: taskbridge.NewTaskID("owner", "taken"), Type: "work"}
	other := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: jobName(b.executor.Instance, task.ID)}}
	other.Spec.Template = c.podTemplate([]string{"block"}, nil).Template
	_, err := c.client.BatchV1().Jobs(c.namespace).Create(c.ctx, other, metav1.CreateOptions{})
	must(t, err)
	failure, rejected := rejection(b.executor.SubmitTask(c.ctx, task))
	if !rejected || failure.Code != CodeNameTaken {
		t.Errorf("it is rejected %v with %+v", rejected, failure)
	}
	must(t, b.executor.RequestCancellation(c.ctx, task, "enough"))
	job := b.cluster.job(other.Name)
	if job.DeletionTimestamp != nil || job.Spec.ActiveDeadlineSeconds != nil || len(job.Annotations) > 0 {
		t.Errorf("the other's Job was touched: %+v", job.ObjectMeta)
	}
}

func (c *cluster) job(name string) *batchv1.Job {
	c.t.Helper()
	job, err := c.client.BatchV1().Jobs(c.namespace).Get(c.ctx, name, metav1.GetOptions{})
	must(c.t, err)
	return job
}

// jobIsGone waits until the task has no Job and no pod any more.
func (b *bridge) jobIsGone(task taskbridge.Task) {
	b.t.Helper()
	until(b.t, "the Job and its pods are gone", func() bool {
		_, err := b.cluster.client.BatchV1().Jobs(b.namespace).Get(b.ctx, jobName(b.executor.Instance, task.ID), metav1.GetOptions{})
		return apierrors.IsNotFound(err) && len(b.pods(task)) == 0
	})
}

func TestClusterTemplatesAreCheckedByTheAPIServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	good, bad := c.newTypes("exit=0")["work"], c.newTypes("exit=0")["work"]
	bad.Template = c.template(nil, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "missing", MountPath: "/data"}}
	})
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"good": good}})
	must(t, b.executor.CheckTemplates(c.ctx))
	must(t, b.executor.CheckHealth(c.ctx))
	if jobs, err := c.client.BatchV1().Jobs(c.namespace).List(c.ctx, metav1.ListOptions{}); err != nil || len(jobs.Items) > 0 {
		t.Errorf("the check left %d Jobs, %v", len(jobs.Items), err)
	}

	b = c.newBridge(bridgeOptions{types: map[string]TypeOptions{"good": good, "bad": bad}})
	err := b.executor.CheckTemplates(c.ctx)
	var invalid *InvalidTemplateError
	if !errors.As(err, &invalid) || invalid.TaskType != "bad" || !strings.Contains(invalid.Message, `volumeMounts[0].name: Not found: "missing"`) {
		t.Errorf("the error is %v", err)
	}
	_, err = b.Creation.CreateTask(c.ctx, owner, taskbridge.CreateTaskRequest{ClientRequestID: "1", TaskType: "bad"})
	if failure, rejected := rejection(err); !rejected || failure.Code != CodeInvalid {
		t.Errorf("the creation of a task says %v", err)
	}

	elsewhere := good
	elsewhere.Namespace = "no-such-namespace"
	b = c.newBridge(bridgeOptions{types: map[string]TypeOptions{"elsewhere": elsewhere}, unreconciled: true})
	if err := b.executor.CheckTemplates(c.ctx); err == nil || errors.As(err, &invalid) || !strings.Contains(err.Error(), "no-such-namespace") {
		t.Errorf("without the namespace the error is %v", err)
	}
}

func TestClusterAQuotaOfJobsOnlyDelaysATask(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	quotas := c.client.CoreV1().ResourceQuotas(c.namespace)
	quota, err := quotas.Create(c.ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "no-jobs"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/jobs.batch": resource.MustParse("0")}},
	}, metav1.CreateOptions{})
	must(t, err)
	until(t, "the quota is in force", func() bool {
		quota, err = quotas.Get(c.ctx, quota.Name, metav1.GetOptions{})
		return err == nil && len(quota.Status.Hard) > 0
	})
	b := c.newBridge(bridgeOptions{types: c.newTypes("exit=0"), submission: &impatient})
	err = b.executor.CheckTemplates(c.ctx)
	var invalid *InvalidTemplateError
	if errors.As(err, &invalid) {
		t.Errorf("a quota makes the template invalid: %v", err)
	}
	task := b.create("")
	until(t, "the submission was tried again", func() bool { return b.row(task).Submission.Tries > 1 })
	if status := b.row(task).Status; status != taskbridge.StatusAccepted {
		t.Errorf("the task is %s", status)
	}
	must(t, quotas.Delete(c.ctx, quota.Name, metav1.DeleteOptions{}))
	b.wantEnd(task, "", false)
}

func TestClusterATaskThatCannotBeScheduledIsTakenBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": {
		Template: c.template([]string{"exit=0"}, func(template *corev1.PodTemplate) {
			template.Template.Spec.NodeSelector = map[string]string{"no": "node"}
		}),
	}}})
	task := b.create("")
	until(t, "its pod waits", func() bool { return len(b.pods(task)) == 1 })
	b.cancel(task, "changed my mind")
	if row := b.wantCancelled(task, "changed my mind"); row.Attempt != 0 {
		t.Errorf("it had %d attempts", row.Attempt)
	}
	b.jobIsGone(task)
	b.cancel(task, "again")
}

func TestClusterAJobOfAQueueIsLeftSuspendedUntilTheQueueLetsItGo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	job := &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kueue.x-k8s.io/queue-name": "nightly"}},
		Spec:       batchv1.JobSpec{Suspend: new(true), Template: c.podTemplate([]string{`result="done"`}, nil).Template},
	}
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": {Template: marshalYAML(t, job)}}})
	waits, goes := b.create(""), b.create("")
	for _, task := range []taskbridge.Task{waits, goes} {
		until(t, "its Job is known to be suspended", func() bool {
			conditions := b.job(task).Status.Conditions
			return len(conditions) == 1 && conditions[0].Type == batchv1.JobSuspended
		})
		if job := b.job(task); !value(job.Spec.Suspend) || job.Labels["kueue.x-k8s.io/queue-name"] != "nightly" {
			t.Errorf("the Job is %+v", job)
		}
	}
	b.cancel(waits, "changed my mind")
	if row := b.wantCancelled(waits, "changed my mind"); row.Attempt != 0 {
		t.Errorf("it had %d attempts", row.Attempt)
	}
	b.jobIsGone(waits)

	// The queue's turn.
	_, err := c.client.BatchV1().Jobs(c.namespace).Patch(c.ctx, b.job(goes).Name, types.MergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{})
	must(t, err)
	b.wantResult(goes, `"done"`)
}

func TestClusterRunningWorkIsStoppedOnceHoweverOftenItIsAsked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps []string
		how   string // a pattern
	}{
		"handles SIGTERM and fails":    {[]string{"trap=143", "progress=1", "block"}, `was ended by signal 15 \(SIGTERM\), exit status 143`},
		"handles SIGTERM and succeeds": {[]string{"trap=0", "progress=1", "block"}, "ended with exit status 0"},
		"does nothing about SIGTERM":   {[]string{"progress=1", "block"}, `ended with exit status 2|was ended by signal`},
		"ignores SIGTERM":              {[]string{"ignore", "progress=1", "block"}, `was ended by signal 9 \(SIGKILL\), exit status 137`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			b := c.newBridge(bridgeOptions{types: c.newTypes(test.steps...)})
			task := b.create("")
			b.awaitStream(task, "STARTED PROGRESS")
			for range 3 {
				b.cancel(task, "no longer needed")
			}
			row := b.wantCancelled(task, "no longer needed")
			if row.Attempt != 1 {
				t.Errorf("it had %d attempts", row.Attempt)
			}
			b.wantStream(task, "STARTED PROGRESS CANCELLED") // nothing is missing
			pattern := `^\{"reason":"no longer needed","message":"the work was stopped: container \\"work\\" (` + test.how + `)"\}$`
			if !regexp.MustCompile(pattern).Match(row.Terminal) {
				t.Errorf("the end is %s, want %s", row.Terminal, pattern)
			}
			until(t, "no pod runs", func() bool {
				for _, pod := range b.pods(task) {
					if pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodPending {
						return false
					}
				}
				return true
			})
			job := b.job(task)
			if annotations := job.Annotations; annotations[annotationCancelReason] != "no longer needed" || annotations[annotationCancelRequested] == "" {
				t.Errorf("the Job's annotations are %v", annotations)
			}
			if final := levelOfJob(job).final; final != batchv1.JobFailed {
				t.Errorf("the Job is %q", final)
			}
		})
	}
}

func TestClusterACancellationOfWorkThatHasJustEndedComesTooLate(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	b := c.newBridge(bridgeOptions{types: c.newTypes("get="+g.URL, "result=1")})
	task := b.create("")
	b.awaitStream(task, "STARTED")
	b.close() // nobody sees it end
	g.open()
	until(t, "the Job is complete", func() bool { return levelOfJob(b.job(task)).final == batchv1.JobComplete })
	b.cancel(task, "too late")
	if job := b.job(task); job.Annotations[annotationCancelRequested] != "" || job.Spec.ActiveDeadlineSeconds != nil {
		t.Errorf("the Job was touched: %v", job.Annotations)
	}
	b.another().wantResult(task, "1")
}
