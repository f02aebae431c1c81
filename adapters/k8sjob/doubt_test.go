package k8sjob

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestTroubleThatOnlyTheCachesTellOfIsNoEnd(t *testing.T) {
	lost := func(pod *corev1.Pod) {
		runs(pod)
		pod.Status.Conditions = []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()},
		}
	}
	for name, trouble := range map[string]func(*corev1.Pod){"image": waits("ErrImagePull"), "node": lost} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.watch(nil)
				s.job(nil)
				s.pod("p1", trouble)
				// Their watch is cut, and they hear no more.
				var away, cut atomic.Bool
				pod, err := s.client.CoreV1().Pods("ns").Get(s.t.Context(), "p1", metav1.GetOptions{})
				must(s.t, err)
				pod = pod.DeepCopy()
				runs(pod)
				pod.Status.Conditions = nil
				cut.Store(true)
				s.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
					if away.Load() {
						return true, nil, errFault
					}
					return cut.Load(), &corev1.PodList{Items: []corev1.Pod{*pod}}, nil
				})
				away.Store(true)
				s.pass(20 * time.Minute)
				away.Store(false)
				s.pass(20 * time.Minute)
				if row := s.row(); row.Status.Terminal() {
					s.t.Errorf("the task ended %s", row.Terminal)
				}
				cut.Store(false)
				s.pass(time.Minute)
				if row := s.row(); !row.Status.Terminal() {
					s.t.Errorf("the stream is %s", s.stream())
				}
			})
		})
	}
}

func TestTheCopyOfAJobIsNoTasks(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, held: make(chan struct{})})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		copied, err := s.client.BatchV1().Jobs("ns").Get(s.t.Context(), jobName(defaultInstance, s.task.ID), metav1.GetOptions{})
		must(s.t, err)
		copied = copied.DeepCopy()
		copied.Name, copied.UID = "once-more", "copy"
		copied.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
		_, err = s.client.BatchV1().Jobs("ns").Create(s.t.Context(), copied, metav1.CreateOptions{})
		must(s.t, err)
		s.pass(time.Hour)
		s.wantStream("STARTED p1:1")
		must(s.t, s.lifecycle.Settle(s.t.Context(), s.task.ID, taskbridge.Outcome{Status: taskbridge.StatusCompleted}))
		s.requests()
		s.pass(time.Hour)
		for _, action := range s.client.Actions() {
			if strings.Contains(fmt.Sprint(action), "once-more") {
				s.t.Errorf("request: %v", action)
			}
		}
	})
}

func TestWhatFailsOnceItWasToldToStopIsCancelledWhateverTheClocks(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
		must(s.t, err)
		s.job(func(job *batchv1.Job) { job.Annotations[annotationCancelRequested] = "2026-01-02T03:04:05Z" })
		s.pod("p1", ends(143, ""))
		s.job(func(job *batchv1.Job) {
			job.Status.Conditions = []batchv1.JobCondition{{
				Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: batchv1.JobReasonDeadlineExceeded,
				LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Minute)),
			}}
		})
		s.wantStream("STARTED CANCELLED")
	})
}

func TestPodsOfLongAgoDoNotFenceTheOneThatRuns(t *testing.T) {
	play(t, func(s *scene) {
		first := s.watch(nil)
		s.job(nil)
		last := taskbridge.MaxPastClaims + 2
		for i := range last {
			name := fmt.Sprintf("p%d", i)
			s.pod(name, runs)
			s.pod(name, ends(1, ""))
			s.pass(10 * time.Second)
		}
		s.pod("last", runs)
		s.close(first)
		s.says("last", output{progress: 1, held: make(chan struct{})})
		s.watch(nil)
		if row := s.row(); types.UID(row.Claim) != "last" || row.Attempt != int64(last+1) {
			s.t.Errorf("attempt %d is that of %s", row.Attempt, row.Claim)
		}
		if stream := s.stream(); !strings.HasSuffix(stream, "warning last:1") {
			s.t.Errorf("the stream ends %q", stream[len(stream)-20:])
		}
	})
}
