package k8sjob

import (
	"errors"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestClusterAnEvictedPodIsReplacedAndFenced(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=3", "get="+g.URL, "result=1")})
	task := b.create("")
	b.awaitStream(task, "STARTED PROGRESS PROGRESS PROGRESS")
	first := b.pods(task)[0]
	claim := levelOfPod(&first, nil).claim()
	run, err := b.lifecycle.Start(c.ctx, task.ID, claim) // joins
	must(t, err)
	t.Cleanup(func() { must(t, run.Close()) })
	must(t, c.client.PolicyV1().Evictions(c.namespace).Evict(c.ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: first.Name},
	}))
	until(t, "another pod runs", func() bool { return b.row(task).Attempt == 2 })
	if row := b.row(task); row.Claim == claim.ID {
		t.Errorf("the claim is still that of pod %s", first.Name)
	}
	if _, err := b.lifecycle.Start(c.ctx, task.ID, claim); !errors.Is(err, taskbridge.ErrStaleAttempt) {
		t.Errorf("a start of the evicted pod says %v", err)
	}
	await(t, "the run of the evicted pod is over", run.Done())
	if err := run.Err(); !errors.Is(err, taskbridge.ErrStaleAttempt) {
		t.Errorf("the run of the evicted pod says %v", err)
	}
	g.open()
	b.wantResult(task, "1")
	b.wantStreamLike(task, "STARTED PROGRESS PROGRESS PROGRESS( MESSAGE)+ PROGRESS PROGRESS PROGRESS COMPLETED")
	b.wantMarked(task)
	if job := b.job(task); job.Status.Failed != 0 && levelOfJob(job).final != batchv1.JobComplete {
		t.Errorf("the Job is %+v", job.Status)
	}
}

func TestClusterACancellationWhileNobodyWatchesIsRecordedByWhoeverWatchesNext(t *testing.T) {
	t.Parallel()
	const reason = "nobody was there"
	for name, test := range map[string]struct {
		// meanwhile is done by a server that is about to go, or has gone.
		meanwhile func(b *bridge, n *network, task taskbridge.Task)
	}{
		"the cluster was told": {func(b *bridge, _ *network, task taskbridge.Task) {
			b.close()
			b.cancel(task, reason)
			until(b.t, "the Job has ended", func() bool { return levelOfJob(b.job(task)).final == batchv1.JobFailed })
		}},
		"only the row has it": {func(b *bridge, n *network, task taskbridge.Task) {
			n.cut()
			b.cancel(task, reason)
			b.close()
			n.mend()
			if job := b.job(task); job.Annotations[annotationCancelRequested] != "" || job.Spec.ActiveDeadlineSeconds != nil {
				b.t.Errorf("the cluster was told: %v", job.Annotations)
			}
		}},
		"its Job was deleted then": {func(b *bridge, _ *network, task taskbridge.Task) {
			b.close()
			b.cancel(task, reason)
			must(b.t, b.cluster.client.BatchV1().Jobs(b.namespace).Delete(b.ctx, b.job(task).Name, metav1.DeleteOptions{
				PropagationPolicy: new(metav1.DeletePropagationBackground),
			}))
			b.jobIsGone(task)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			n, client := c.newNetwork()
			b := c.newBridge(bridgeOptions{types: c.newTypes("progress=2", "sleep=1h"), change: func(o *Options) { o.Client = client }})
			task := b.create("")
			b.awaitStream(task, "STARTED PROGRESS PROGRESS")
			test.meanwhile(b, n, task)
			if status := b.row(task).Status; status.Terminal() {
				t.Errorf("the task is %s", status)
			}
			other := b.another()
			if row := other.wantCancelled(task, reason); row.Attempt != 1 {
				t.Errorf("it had %d attempts", row.Attempt)
			}
			other.wantStreamLike(task, "STARTED PROGRESS PROGRESS( MESSAGE)? CANCELLED")
		})
	}
}

func TestClusterATaskThatIsCancelledBeforeItIsScheduledWhileNobodyWatchesNeverRuns(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	job := func(job *batchv1.Job) { job.Spec.Suspend = new(true) }
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": c.jobType([]string{"progress=1"}, job)}})
	task := b.create("")
	b.close()
	name := b.job(task).Name
	b.cancel(task, "not needed")
	_, err := c.client.BatchV1().Jobs(c.namespace).Patch(c.ctx, name, types.MergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{})
	if err == nil {
		t.Log("the Job was still there, and was resumed while it was being deleted")
	}
	b.jobIsGone(task)
	other := b.another()
	if row := other.wantCancelled(task, "not needed"); row.Attempt != 0 || strings.Contains(other.types(task), "PROGRESS") {
		t.Errorf("it had %d attempts: %q", row.Attempt, other.stream(task))
	}
}
