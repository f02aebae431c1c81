package k8sjob

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// chance has a task, its Job and those who watch it go through what may happen, in an
// order that a seed decides.
type chance struct {
	*scene
	rand      *rand.Rand
	watching  []*Executor
	pods      int    // made so far
	state     string // of the last pod: "", "waits", "runs", "failed", "succeeded", "gone"
	suspended bool
	cancelled bool
	final     batchv1.JobConditionType
	deleted   bool
	told      []string // what happened
}

// outputOf is how many reports each pod makes.
const outputOf = 3

func (c *chance) podName() string { return fmt.Sprintf("p%d", c.pods) }

func (c *chance) set(change func(*corev1.Pod), state string) {
	c.scene.pod(c.podName(), change)
	c.state = state
}

// goOn is what the cluster does next by itself.
func (c *chance) goOn() {
	if c.final != "" || c.deleted || c.suspended {
		return
	}
	switch c.state {
	case "", "failed", "gone":
		c.pass(time.Duration(2+c.rand.IntN(20)) * time.Second)
		c.pods++
		held := make(chan struct{})
		c.says(c.podName(), output{progress: outputOf, held: held, said: said{Result: fmt.Appendf(nil, "%d", c.pods)}})
		time.AfterFunc(time.Duration(c.rand.IntN(90))*time.Second, func() { close(held) })
		c.set(waits("ContainerCreating"), "waits")
	case "waits":
		c.set(runs, "runs")
	case "runs":
		if c.rand.IntN(2) == 0 {
			c.set(ends(1, ""), "failed")
		} else {
			c.set(ends(0, ""), "succeeded")
		}
	case "succeeded":
		c.end(batchv1.JobComplete, "")
	}
}

func (c *chance) end(final batchv1.JobConditionType, reason string) {
	c.final = final
	c.scene.final(final, reason)
}

func (c *chance) removePod() {
	if c.state == "" || c.state == "gone" {
		return
	}
	c.deletePod(c.podName())
	c.state = "gone"
}

// obey is what the cluster does because it was told to by an executor.
func (c *chance) obey() {
	job, err := c.client.BatchV1().Jobs("ns").Get(c.t.Context(), jobName(defaultInstance, c.task.ID), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.deleted = true
		c.removePod()
	case err == nil && c.final == "" && value(job.Spec.ActiveDeadlineSeconds) == 1:
		if c.state == "runs" {
			c.set(ends(143, ""), "failed")
		}
		c.end(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded)
	}
}

// step is one thing that happens.
func (c *chance) step() {
	faults := []*atomic.Bool{&c.faults.rows, &c.faults.start, &c.faults.settle, &c.faults.notice}
	n := c.rand.IntN(20)
	c.told = append(c.told, fmt.Sprintf("%d/%s", n, c.state))
	switch {
	case n < 8:
		c.goOn()
	case n < 11:
		fault := faults[c.rand.IntN(len(faults))]
		fault.Store(!fault.Load())
	case n < 13:
		c.pass(time.Duration(c.rand.IntN(120)) * time.Second)
	case n < 15:
		i := c.rand.IntN(len(c.watching))
		c.close(c.watching[i])
		c.watching[i] = c.watch(nil)
	case n < 16:
		c.removePod()
	case n < 17 && c.final == "" && !c.deleted:
		c.suspended = !c.suspended
		status := corev1.ConditionFalse
		if c.suspended {
			status = corev1.ConditionTrue
			if c.state == "waits" || c.state == "runs" {
				c.removePod()
			}
		}
		c.job(func(job *batchv1.Job) {
			job.Spec.Suspend = new(c.suspended)
			job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: status, LastTransitionTime: metav1.Now()}}
		})
	case n < 18:
		c.cancelled = c.cancelled || !c.row().Status.Terminal()
		_, _, err := c.bridge.Cancellation.CancelTask(c.t.Context(), owner, c.task.ID, "enough")
		must(c.t, err)
		if row := c.row(); !row.Status.Terminal() {
			_ = c.watching[0].RequestCancellation(c.t.Context(), row, "enough") // the reconciler repeats it
		}
	case n < 19 && !c.deleted && c.rand.IntN(3) == 0:
		c.deleteJob()
		c.deleted = true
		c.removePod()
	}
	c.obey()
}

// settle lets all come to an end.
func (c *chance) settle() {
	for _, fault := range []*atomic.Bool{&c.faults.rows, &c.faults.start, &c.faults.settle, &c.faults.notice} {
		fault.Store(false)
	}
	c.pass(time.Minute)
	c.obey()
	if c.suspended && !c.deleted && c.final == "" {
		c.suspended = false
		c.job(func(job *batchv1.Job) { job.Spec.Suspend = new(false) })
	}
	for c.final == "" && !c.deleted {
		c.goOn()
		c.pass(time.Minute)
		c.obey()
	}
	c.pass(time.Hour)
	if row := c.row(); !row.Status.Terminal() { // the reconciler asks about it
		got, err := c.watching[0].InspectTask(c.t.Context(), row)
		if err != nil || got.Knowledge != taskbridge.InspectionFinished {
			c.t.Fatalf("the row is %s, and an inspection says %+v, %v", row.Status, got, err)
		}
		must(c.t, c.lifecycle.Settle(c.t.Context(), c.task.ID, got.Outcome))
	}
}

// check checks what holds whatever happened.
func (c *chance) check() {
	told := strings.Fields(c.stream())
	reported, ends := map[string]int{}, 0
	for i, event := range told {
		switch pod, percent, isReport := strings.Cut(event, ":"); {
		case isReport:
			if reported[pod]++; percent != fmt.Sprint(reported[pod]) {
				c.t.Errorf("%s comes after %d reports of the pod", event, reported[pod]-1)
			}
		case event == "STARTED":
			if strings.Contains(strings.Join(told[:i], " "), "STARTED") {
				c.t.Error("it started twice")
			}
		case event == "COMPLETED" || event == "FAILED" || event == "CANCELLED":
			if ends++; i != len(told)-1 || event != string(c.row().Status) {
				c.t.Errorf("%s is the end, and the row is %s", event, c.row().Status)
			}
		}
	}
	if ends != 1 {
		c.t.Errorf("it ended %d times", ends)
	}
	row := c.row()
	// Somebody may have deleted the pod before its output was read, and that is told.
	if c.final == batchv1.JobComplete && !c.cancelled && !c.deleted && c.state != "gone" {
		if result, _ := row.Result(); row.Status != taskbridge.StatusCompleted || string(result) != fmt.Sprint(c.pods) || reported[c.podName()] != outputOf {
			c.t.Errorf("the Job is complete, and the row is %s %s", row.Status, row.Terminal)
		}
	}
	if row.Status == taskbridge.StatusCancelled && !c.cancelled {
		c.t.Error("nobody asked for its cancellation")
	}
	if c.final != "" && !c.deleted {
		c.wantRecorded(true)
	}
	if !c.deleted { // at last
		c.deleteJob()
	}
	c.removePod()
	c.pass(time.Hour)
	for _, e := range c.watching {
		if t := e.watcher.term(); len(t.tracks) > 0 || e.watcher.queue.Len() > 0 {
			c.t.Errorf("a watcher remembers %d Jobs", len(t.tracks))
		}
	}
	if c.t.Failed() {
		c.t.Logf("what happened: %s\nthe stream: %s\nthe row: %s %s", strings.Join(c.told, " "), c.stream(), row.Status, row.Terminal)
	}
}

// takeChance plays what the seed decides.
func takeChance(t *testing.T, seed uint64) {
	play(t, func(s *scene) {
		c := &chance{scene: s, rand: rand.New(rand.NewPCG(seed, 7))}
		for range 1 + c.rand.IntN(2) {
			c.watching = append(c.watching, c.watch(nil))
		}
		c.job(nil)
		for range 5 + c.rand.IntN(25) {
			c.step()
		}
		c.settle()
		c.check()
	})
}

func TestWhateverHappensATaskHasOneEndAndItsReportsInTheirOrder(t *testing.T) {
	for seed := range uint64(chances) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { takeChance(t, seed) })
	}
}

// chances is how many orders of things are tried; "make soak" tries more.
const chances = 40
