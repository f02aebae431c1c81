package k8sjob

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAJobThatEndedWhileNobodyWatchedIsRecordedWhole(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2})
		s.job(nil)
		s.pod("p1", ends(0, `{"n":1}`))
		s.final(batchv1.JobComplete, "")
		s.requests()
		s.watch(nil)
		s.wantStream("STARTED p1:1 p1:2 COMPLETED")
		if result, _ := s.row().Result(); string(result) != `{"n":1}` {
			s.t.Errorf("the result is %s", result)
		}
		if got := s.requests(); got != "patch jobs" {
			s.t.Errorf("requests: %s", got)
		}
		s.wantRecorded(true)
	})
}

func TestWhatHappensWhileItIsWatchedIsToldAsItHappens(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", waits("ContainerCreating"))
		s.wantStream("")
		held := make(chan struct{})
		s.says("p1", output{progress: 1, held: held, said: said{Tail: "the tail"}})
		s.pod("p1", runs)
		s.wantStream("STARTED p1:1")
		s.pod("p1", ends(3, ""))
		s.final(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded)
		s.wantStream("STARTED p1:1") // all that it says comes first
		close(held)
		s.pass(0)
		s.wantStream("STARTED p1:1 FAILED")
		s.wantFailure(CodeExited)
		s.wantRecorded(true)
	})
}

func TestPodsOfABackOffAreAttemptsInTheirOrder(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1})
		s.says("p2", output{progress: 1})
		s.job(nil)
		s.pod("p1", ends(1, ""))
		s.pass(10 * time.Second)
		s.pod("p2", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.watch(nil)
		s.wantStream("STARTED p1:1 warning p2:1 COMPLETED")
		if row := s.row(); row.Attempt != 2 || row.Claim != "p2" {
			s.t.Errorf("attempt %d of %s", row.Attempt, row.Claim)
		}
	})
}

func TestAPodOfBeforeDoesNotFenceTheOneAfterIt(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1})
		s.says("p2", output{progress: 1, held: make(chan struct{})})
		s.job(nil)
		s.pod("p1", ends(1, ""))
		s.pass(10 * time.Second)
		s.pod("p2", runs)
		first := s.watch(nil)
		s.wantStream("STARTED p1:1 warning p2:1")
		s.close(first)
		s.watch(nil)
		s.wantStream("STARTED p1:1 warning p2:1")
		if row := s.row(); row.Claim != "p2" || row.Status.Terminal() {
			s.t.Errorf("%s, of %s", row.Status, row.Claim)
		}
		if s.reads["p1"] != 1 || s.reads["p2"] != 2 {
			s.t.Errorf("reads: %v", s.reads)
		}
	})
}

func TestTheNextPodBeginsWhenAllIsKnownOfTheOneBefore(t *testing.T) {
	play(t, func(s *scene) {
		held := make(chan struct{})
		s.says("p1", output{progress: 1, held: held})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(1, ""))
		s.pass(10 * time.Second)
		s.pod("p2", runs)
		s.wantStream("STARTED p1:1")
		close(held)
		s.pass(0)
		s.wantStream("STARTED p1:1 warning")
	})
}

func TestTheNextPodFencesOneThatStillRuns(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, held: make(chan struct{})})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pass(10 * time.Second)
		s.pod("p2", runs)
		s.wantStream("STARTED p1:1 warning")
	})
}

func TestOutputOfWhichNothingComesIsNotWaitedForForEver(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, held: make(chan struct{})})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(3, ""))
		s.final(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded)
		s.pass(defaultOutputTimeout - time.Second)
		s.wantStream("STARTED p1:1")
		s.pass(2 * time.Second)
		s.wantStream("STARTED p1:1 warning FAILED")
		if failure, _ := s.row().Failure(); failure.Message != "container \"work\" ended with exit status 3\nas far as it was read" {
			s.t.Errorf("%q", failure.Message)
		}
		s.wantRecorded(true)
	})
}

func TestOutputIsWaitedForWhileTheAPIServerIsAway(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, away: 10 * defaultOutputTimeout, said: said{Result: []byte("7")}})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.pass(9 * defaultOutputTimeout)
		s.wantStream("STARTED p1:1")
		s.pass(2 * defaultOutputTimeout)
		s.wantStream("STARTED p1:1 COMPLETED")
		if result, _ := s.row().Result(); string(result) != "7" {
			s.t.Errorf("the result is %s", result)
		}
	})
}

func TestOutputWhosePodWasGoneIsWholeIfItsContainerHadEnded(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*corev1.Pod) // the last that is seen of the pod
		want string
	}{
		"it had":            {ends(143, ""), "STARTED p1:1 FAILED"},
		"its node was lost": {func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }, "STARTED p1:1 warning FAILED"},
		"its node does not know": {func(pod *corev1.Pod) {
			ends(137, "")(pod)
			pod.Status.ContainerStatuses[0].State.Terminated.Reason = reasonUnknownStatus
		}, "STARTED p1:1 warning FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.says("p1", output{progress: 1, said: said{Unproven: true}})
				s.watch(nil)
				s.watch(nil)
				s.job(nil)
				s.pod("p1", runs)
				s.wantStream("STARTED p1:1")
				s.pod("p1", test.end)
				s.deletePod("p1")
				s.final(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded)
				s.pass(time.Minute)
				s.wantStream(test.want)
			})
		})
	}
}

func TestAReadingThatFailsIsRepeatedAndGivenUpInTheEnd(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2, err: errFault})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.pass(2 * defaultOutputTimeout)
		s.wantStream("STARTED p1:1 p1:2 warning COMPLETED")
		if s.reads["p1"] < 3 {
			s.t.Errorf("read %d times", s.reads["p1"])
		}
	})
}

func TestAStoreThatIsAwayForAWhileLosesNothing(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1})
		s.faults.start.Store(true)
		s.faults.rows.Store(true)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.watch(nil)
		s.pass(10 * time.Minute)
		s.wantStream("")
		s.faults.rows.Store(false)
		s.pass(time.Minute)
		s.wantStream("")
		s.faults.settle.Store(true)
		s.faults.start.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED p1:1")
		s.wantRecorded(false)
		s.faults.settle.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED p1:1 COMPLETED")
		s.wantRecorded(true)
	})
}

func TestACacheOfPodsThatIsBehindIsWaitedFor(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.final(batchv1.JobComplete, "")
		s.pass(time.Second)
		s.wantStream("STARTED")
		s.pod("p1", ends(0, "42"))
		s.wantStream("STARTED COMPLETED")
		if result, _ := s.row().Result(); string(result) != "42" {
			s.t.Errorf("the result is %s", result)
		}
	})
}

func TestAPodThatIsGoneCountsAsItWasLastSeen(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(0, "42"))
		s.deletePod("p1")
		s.job(func(job *batchv1.Job) { job.Status.Succeeded = 1 })
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED COMPLETED")
		if result, _ := s.row().Result(); string(result) != "42" {
			s.t.Errorf("the result is %s", result)
		}
	})
}

func TestACompletionWhosePodNobodySawSaysSo(t *testing.T) {
	play(t, func(s *scene) {
		s.job(func(job *batchv1.Job) { job.Status.Succeeded = 1 })
		s.final(batchv1.JobComplete, "")
		s.requests()
		s.watch(nil)
		s.pass(time.Minute)
		s.wantStream("warning STARTED COMPLETED")
		if got := s.requests(); got != "list pods, patch jobs" {
			s.t.Errorf("requests: %s", got)
		}
	})
}

func TestASuspendedJobIsToldAndHasNoEnd(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.watch(nil)
		suspend := func(suspended bool) {
			s.job(func(job *batchv1.Job) {
				status := corev1.ConditionFalse
				if suspended {
					status = corev1.ConditionTrue
				}
				job.Spec.Suspend = new(suspended)
				job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: status, LastTransitionTime: metav1.Now()}}
			})
		}
		s.job(nil)
		s.pod("p1", runs)
		suspend(true)
		s.deletePod("p1")
		s.wantStream("STARTED info")
		s.pass(time.Hour)
		suspend(false)
		s.wantStream("STARTED info info")
		s.pod("p2", runs)
		s.wantStream("STARTED info info warning")
	})
}

func TestAResultCountsWhereTheClockHasGoneBackBetweenPods(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2})
		s.says("p2", output{progress: 2, said: said{Result: []byte("2")}})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(1, ""))
		s.pod("p2", func(pod *corev1.Pod) {
			runs(pod)
			pod.CreationTimestamp = metav1.NewTime(pod.CreationTimestamp.Add(time.Second))
		})
		s.wantStream("STARTED p1:1 p1:2 warning p2:1 p2:2")
		s.deletePod("p2")
		s.pod("p3", func(pod *corev1.Pod) {
			runs(pod)
			pod.CreationTimestamp = metav1.NewTime(pod.CreationTimestamp.Add(-time.Hour))
		})
		s.says("p3", output{progress: 2, said: said{Result: []byte("3")}})
		s.pod("p3", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED p1:1 p1:2 warning p2:1 p2:2 warning COMPLETED")
	})
}

func TestWorkThatCompletedBeforeAnybodySawACancellationIsCompleted(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2, said: said{Result: []byte("1")}})
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
		must(s.t, err)
		s.watch(nil)
		s.wantStream("STARTED COMPLETED")
		if result, _ := s.row().Result(); string(result) != "1" {
			s.t.Errorf("the result is %s", result)
		}
		s.wantRecorded(true)
	})
}
