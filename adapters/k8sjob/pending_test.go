package k8sjob

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTroubleIsToldOnceAndEndsTheTaskAfterItsTime(t *testing.T) {
	unscheduled := func(pod *corev1.Pod) {
		pod.Spec.NodeName, pod.Status.Phase = "", corev1.PodPending
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, LastTransitionTime: metav1.Now(),
		}}
	}
	for code, trouble := range map[string]func(*corev1.Pod){
		CodeImage: waits("ErrImagePull"), CodeConfig: waits("CreateContainerConfigError"), CodeUnschedulable: unscheduled,
	} {
		t.Run(code, func(t *testing.T) {
			play(t, func(s *scene) {
				s.watch(nil)
				other := s.watch(nil)
				s.job(nil)
				s.pod("p1", trouble)
				s.wantStream("warning")
				s.pod("p1", func(pod *corev1.Pod) { pod.Annotations["changed"] = "yes" })
				s.pass(5 * time.Minute)
				s.close(other)
				s.watch(nil)
				s.pass(5*time.Minute - 3*time.Second)
				s.wantStream("warning")
				s.requests()
				s.pass(time.Second)
				s.wantStream("warning FAILED")
				s.wantFailure(code)
			})
		})
	}
}

func TestAJobWithTroubleIsStoppedAfterItsTaskHasEnded(t *testing.T) {
	play(t, func(s *scene) {
		s.options.PendingTimeout = time.Minute
		s.watch(nil)
		s.job(nil)
		s.pod("p1", waits("ImagePullBackOff"))
		s.requests()
		s.faults.settle.Store(true)
		s.pass(2 * time.Minute)
		if got := s.requests(); strings.ReplaceAll(got+", ", "get jobs, list pods, ", "") != "" {
			s.t.Errorf("requests before the end is recorded: %s", got)
		}
		s.faults.settle.Store(false)
		s.pass(time.Minute)
		s.wantFailure(CodeImage)
		if got := s.requests(); got != "get jobs, list pods, get jobs, list pods, delete jobs" {
			s.t.Errorf("requests: %s", got)
		}
	})
}

func TestTroubleThatPassesIsNoEnd(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", waits("ErrImagePull"))
		s.pass(9 * time.Minute)
		s.pod("p1", runs)
		s.pass(time.Hour)
		s.wantStream("warning STARTED")
	})
}

func TestATypeMayWaitForEver(t *testing.T) {
	play(t, func(s *scene) {
		s.options.PendingTimeout = -1
		s.watch(nil)
		s.job(nil)
		s.pod("p1", waits("ErrImagePull"))
		s.pass(48 * time.Hour)
		s.wantStream("warning")
	})
}

func TestAQuotaIsToldByTheEventsOfTheJob(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(func(job *batchv1.Job) { job.Status.StartTime = new(metav1.Now()) })
		_, err := s.client.CoreV1().Events("ns").Create(s.t.Context(), &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "ns"}, Type: corev1.EventTypeWarning, Reason: "FailedCreate",
			InvolvedObject: corev1.ObjectReference{Kind: "Job", Namespace: "ns", Name: jobName(defaultInstance, s.task.ID), UID: "job"},
			Message:        `Error creating: pods "p" is forbidden: exceeded quota: q`, LastTimestamp: metav1.Now(), FirstTimestamp: metav1.Now(),
		}, metav1.CreateOptions{})
		must(s.t, err)
		s.pass(time.Second)
		s.wantStream("warning")
		s.pass(10 * time.Minute)
		s.wantFailure(CodeQuota)
	})
}

func TestANodeThatIsLostForTooLongEndsTheTask(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{
				{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
				{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()},
			}
		})
		s.wantStream("STARTED")
		s.pass(lostQuiet*time.Second + time.Second)
		s.wantStream("STARTED warning")
		s.requests()
		s.pass(defaultLostTimeout)
		s.wantStream("STARTED warning FAILED")
		s.wantFailure(CodeNodeLost)
	})
}

func TestANodeThatComesBackIsNoEnd(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		ready := func(status corev1.ConditionStatus) {
			s.pod("p1", func(pod *corev1.Pod) {
				pod.Status.Conditions = []corev1.PodCondition{
					{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
					{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()},
				}
			})
		}
		ready(corev1.ConditionFalse)
		s.pass(4 * time.Minute)
		ready(corev1.ConditionTrue)
		s.pass(time.Hour)
		s.wantStream("STARTED warning")
	})
}
