package k8sjob

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestClusterAPatchThatWasMeantForAnotherJobOfTheNameChangesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("block")})
	task := b.create("")
	b.awaitStream(task, "STARTED")
	job := b.job(task)
	another := job.DeepCopy()
	another.UID = types.UID("00000000-0000-4000-8000-000000000000")
	_, err := b.executor.patchJob(b.ctx, another, map[string]any{"spec": map[string]any{"activeDeadlineSeconds": 1}})
	if !gone(err) || b.job(task).Spec.ActiveDeadlineSeconds != nil {
		t.Errorf("the API server says %v", err)
	}
	b.cancel(task, "")
	b.end(task)
}
