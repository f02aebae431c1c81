package k8sjob

import (
	"regexp"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// wantStreamLike checks the types of the events against a pattern.
func (b *bridge) wantStreamLike(task taskbridge.Task, pattern string) {
	b.t.Helper()
	if got := b.types(task); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		b.t.Errorf("the stream is %q, want the types %s", b.stream(task), pattern)
	}
}

// told counts the events with the text.
func (b *bridge) told(task taskbridge.Task, text string) (n int) {
	b.t.Helper()
	for _, event := range b.stream(task) {
		if strings.Contains(event, text) {
			n++
		}
	}
	return n
}

// tolerant has pods stay on a node that does not answer.
func tolerant(template *corev1.PodTemplate) {
	for _, key := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
		template.Template.Spec.Tolerations = append(template.Template.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
		})
	}
}

func TestClusterFaultALostNodeEndsTheTaskThatHasWaitedLongEnoughAndNoOther(t *testing.T) {
	c := newCluster(t)
	stays, replaced := c.newGate(), c.newGate()
	steps := func(g *gate) []string { return []string{"progress=2", "get=" + g.URL, "progress=2", "result=1"} }
	types := map[string]TypeOptions{
		"lost":     {Template: c.template(steps(c.newGate()), nil), LostTimeout: 35 * time.Second},
		"stays":    {Template: c.template(steps(stays), tolerant)},
		"replaced": {Template: c.template(steps(replaced), nil)},
	}
	b := c.newBridge(bridgeOptions{types: types})
	tasks := map[string]taskbridge.Task{}
	for name := range types {
		tasks[name] = b.createOf(name, "")
		b.awaitStream(tasks[name], "STARTED PROGRESS PROGRESS")
	}
	c.kill("kubelet")
	lost := tasks["lost"]
	b.wantEnd(lost, CodeNodeLost, true)
	b.wantStream(lost, "STARTED PROGRESS PROGRESS MESSAGE FAILED")
	for _, name := range []string{"stays", "replaced"} {
		until(t, "it is told that the node does not answer", func() bool { return b.told(tasks[name], "does not answer") == 1 })
		if row := b.row(tasks[name]); row.Status != taskbridge.StatusRunning || row.Attempt != 1 {
			t.Errorf("%s is %s in attempt %d while its node is away", name, row.Status, row.Attempt)
		}
	}
	c.start("kubelet")

	stays.open()
	b.wantResult(tasks["stays"], "1")
	b.wantStream(tasks["stays"], "STARTED PROGRESS PROGRESS MESSAGE PROGRESS PROGRESS COMPLETED")

	until(t, "the pod that was taken from the node has another one in its place", func() bool { return b.row(tasks["replaced"]).Attempt == 2 })
	replaced.open()
	b.wantResult(tasks["replaced"], "1")
	b.wantStreamLike(tasks["replaced"], "STARTED PROGRESS PROGRESS MESSAGE( MESSAGE)* PROGRESS PROGRESS PROGRESS PROGRESS COMPLETED")

	until(t, "the Job of the task that has failed is over", func() bool { return levelOfJob(b.job(lost)).final == batchv1.JobFailed })
	b.wantMarked(lost)
	b.wantStream(lost, "STARTED PROGRESS PROGRESS MESSAGE FAILED")
	for _, pod := range b.pods(lost) {
		if pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodPending {
			t.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
		}
	}
}

func TestClusterFaultWorkThatEndsWhileTheKubeletIsDownIsRecordedWhole(t *testing.T) {
	c := newCluster(t)
	begins, ends := c.newGate(), c.newGate()
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": {Template: c.template(
		[]string{"progress=100", "get=" + begins.URL, "progress=100", "get=" + ends.URL, `result="late"`}, tolerant)}}})
	task := b.create("")
	b.awaitEvents(task, 101)
	c.kill("kubelet")
	begins.open()
	await(t, "the work has said what it has to say", ends.arrived)
	ends.open()
	c.start("kubelet")
	b.wantResult(task, `"late"`)
	b.wantStream(task, "STARTED"+strings.Repeat(" PROGRESS", 200)+" COMPLETED")
	stream := b.stream(task)
	wantCounted(t, stream[1:101])
	wantCounted(t, stream[101:201])
	b.wantMarked(task)
}

func TestClusterFaultWhatHappensWhileTheAPIServerIsDownIsMadeUpFor(t *testing.T) {
	c := newCluster(t)
	g, said := c.newGate(), c.newGate()
	types := map[string]TypeOptions{
		"ends":      {Template: c.template([]string{"progress=5", "get=" + g.URL, "progress=5", "get=" + said.URL, "result=1"}, nil)},
		"cancelled": {Template: c.template([]string{"trap=0", "progress=1", "sleep=1h"}, nil)},
		"created":   {Template: c.template([]string{"result=$(TASKBRIDGE_INPUT)"}, nil)},
	}
	b := c.newBridge(bridgeOptions{types: types, submission: &impatient})
	ends, cancelled := b.createOf("ends", ""), b.createOf("cancelled", "")
	b.awaitStream(ends, "STARTED"+strings.Repeat(" PROGRESS", 5))
	b.awaitStream(cancelled, "STARTED PROGRESS")
	c.kill("kube-apiserver")
	g.open()
	await(t, "the work has gone on", said.arrived)
	said.open()
	b.cancel(cancelled, "while it is down")
	created := b.createOf("created", `{"n":1}`)
	until(t, "its submission was tried again", func() bool { return b.row(created).Submission.Tries > 1 })
	for _, task := range []taskbridge.Task{ends, cancelled, created} {
		if status := b.row(task).Status; status.Terminal() {
			t.Errorf("task %s is %s, and nobody can know", task.Type, status)
		}
	}
	c.start("kube-apiserver")

	b.wantResult(ends, "1")
	b.wantStream(ends, "STARTED"+strings.Repeat(" PROGRESS", 10)+" COMPLETED")
	b.wantCancelled(cancelled, "while it is down")
	b.wantStreamLike(cancelled, "STARTED PROGRESS( MESSAGE)? CANCELLED")
	b.wantResult(created, `{"n":1}`)
	b.wantStream(created, "STARTED COMPLETED")
	jobs, err := c.client.BatchV1().Jobs(c.namespace).List(c.ctx, metav1.ListOptions{})
	must(t, err)
	if len(jobs.Items) != 3 {
		t.Errorf("there are %d Jobs, want 3", len(jobs.Items))
	}
	if pods := b.pods(created); len(pods) != 1 {
		t.Errorf("there were %d pods", len(pods))
	}
}
