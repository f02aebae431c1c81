package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

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
				// Before anything is asked: the pretended cluster takes no reactors meanwhile.
				var away atomic.Bool
				var cut atomic.Pointer[corev1.Pod]
				s.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
					if away.Load() {
						return true, nil, errFault
					}
					pod := cut.Load()
					if pod == nil {
						return false, nil, nil
					}
					return true, &corev1.PodList{Items: []corev1.Pod{*pod}}, nil
				})
				s.watch(nil)
				s.job(nil)
				s.pod("p1", trouble)
				// Their watch is cut, and they hear no more.
				pod, err := s.client.CoreV1().Pods("ns").Get(s.t.Context(), "p1", metav1.GetOptions{})
				must(s.t, err)
				pod = pod.DeepCopy()
				runs(pod)
				pod.Status.Conditions = nil
				cut.Store(pod)
				away.Store(true)
				s.pass(20 * time.Minute)
				away.Store(false)
				s.pass(20 * time.Minute)
				if row := s.row(); row.Status.Terminal() {
					s.t.Errorf("the task ended %s", row.Terminal)
				}
				cut.Store(nil)
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

func TestAJobThatMayNotBeMarkedIsTriedNowAndThen(t *testing.T) {
	play(t, func(s *scene) {
		mend := atomic.Bool{}
		s.client.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !mend.Load(), nil, apierrors.NewForbidden(jobResource, "", errors.New("the role lacks jobs/patch"))
		})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.requests()
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED COMPLETED")
		s.pass(markInterval - time.Second)
		s.job(func(job *batchv1.Job) { job.Annotations["changed"] = "yes" })
		if got := s.requests(); got != "get jobs, update jobs, patch jobs, get jobs, update jobs" { // two of each are the test's
			s.t.Errorf("requests: %s", got)
		}
		mend.Store(true)
		s.pass(markInterval)
		s.wantRecorded(true)
	})
}

func TestAJobThatChangesWhileItIsMarkedIsMarkedLater(t *testing.T) {
	play(t, func(s *scene) {
		var conflicts atomic.Int64
		s.client.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			return conflicts.Add(1) < 3, nil, apierrors.NewConflict(jobResource, "", errors.New("it was changed"))
		})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.pass(time.Minute)
		s.wantRecorded(true)
	})
}

func TestATTLBeyondWhatTheAPITakesIsItsMost(t *testing.T) {
	play(t, func(s *scene) {
		s.options.TTL = 100 * 365 * 24 * time.Hour
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		job, err := s.client.BatchV1().Jobs("ns").Get(s.t.Context(), jobName(defaultInstance, s.task.ID), metav1.GetOptions{})
		must(s.t, err)
		if got := value(job.Spec.TTLSecondsAfterFinished); got != math.MaxInt32 {
			s.t.Errorf("it is %d", got)
		}
	})
}

func TestADeletedJobThatAFinalizerKeepsEndsItsTask(t *testing.T) {
	for name, test := range map[string]struct {
		cancel bool
		want   string
	}{"by somebody": {false, "STARTED FAILED"}, "by a client": {true, "STARTED CANCELLED"}} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.watch(nil)
				s.watch(nil)
				s.job(nil)
				s.pod("p1", runs)
				if test.cancel {
					_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
					must(s.t, err)
				}
				s.job(func(job *batchv1.Job) {
					job.DeletionTimestamp, job.Finalizers = new(metav1.Now()), []string{"example.com/keep"}
				})
				s.pass(10 * time.Minute)
				s.wantStream("STARTED") // its pod runs
				s.pod("p1", ends(143, ""))
				s.deletePod("p1")
				s.pass(lingerTime*time.Second - 10*time.Second)
				s.wantStream("STARTED")
				s.pass(time.Minute)
				s.wantStream(test.want)
				s.requests()
				s.pass(time.Hour)
				if got := strings.Count(s.requests(), "jobs"); got > 20 {
					s.t.Errorf("%d requests in an hour", got)
				}
				s.job(func(job *batchv1.Job) { job.Finalizers = nil })
				s.pass(time.Minute)
				s.wantStream(test.want)
			})
		})
	}
}

func TestAContainerThatKeepsThePodAfterTheWorkIsToldAndNoEnd(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", func(pod *corev1.Pod) {
			ends(0, "1")(pod)
			pod.Status.Phase = corev1.PodPending
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: "helper", State: waitingFor("ErrImagePull", "")})
		})
		s.pass(time.Hour)
		s.wantStream("STARTED warning")
		s.pod("p1", ends(0, "1"))
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED warning COMPLETED")
	})
}

func TestASuspendedTaskThatIsCancelledIsHeardToTheEnd(t *testing.T) {
	play(t, func(s *scene) {
		held := make(chan struct{})
		s.says("p1", output{progress: 1, held: held})
		e := s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(143, ""))
		s.job(func(job *batchv1.Job) { job.Spec.Suspend = new(true) })
		_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
		must(s.t, err)
		must(s.t, e.RequestCancellation(s.t.Context(), s.row(), "enough"))
		s.pass(time.Minute)
		s.wantStream("STARTED p1:1")
		if got, err := e.InspectTask(s.t.Context(), s.row()); err != nil || got.Knowledge != taskbridge.InspectionRunning {
			s.t.Errorf("an inspection says %+v, %v", got, err)
		}
		close(held)
		s.pass(time.Second)
		s.wantStream("STARTED p1:1 CANCELLED")
		if end := string(s.row().Terminal); end != `{"reason":"enough","message":"the Job was taken back before it ended"}` {
			s.t.Errorf("the end is %s", end)
		}
	})
}

func TestAJobWhoseDeletionNobodySawEndsItsTask(t *testing.T) {
	play(t, func(s *scene) {
		e := s.watch(nil)
		s.job(nil)
		job, err := s.client.BatchV1().Jobs("ns").Get(s.t.Context(), jobName(defaultInstance, s.task.ID), metav1.GetOptions{})
		must(s.t, err)
		level := levelOfJob(job)
		// The watch was cut, and the Job gone when the cache was filled again.
		must(s.t, e.watcher.namespaces["ns"].jobs.GetIndexer().Delete(level))
		e.watcher.removed(cache.DeletedFinalStateUnknown{Key: level.key(), Obj: level})
		s.pass(time.Minute)
		s.wantStream("") // the API server has it
		must(s.t, s.client.Tracker().Delete(batchv1.SchemeGroupVersion.WithResource("jobs"), "ns", job.Name))
		e.watcher.removed(cache.DeletedFinalStateUnknown{Key: level.key(), Obj: level})
		e.watcher.removed(cache.DeletedFinalStateUnknown{Key: level.key()})
		s.pass(time.Minute)
		s.wantFailure(CodeDeleted)
		if tracks := e.watcher.term().tracks; len(tracks) > 0 {
			s.t.Errorf("it remembers %v", tracks)
		}
	})
}

// deaf records nothing: it hangs until it is given up.
type deaf struct{ taskbridge.NumberedRun }

func (deaf) Report(ctx context.Context, _ []taskbridge.Report) (taskbridge.Reported, error) {
	<-ctx.Done()
	return taskbridge.Reported{}, ctx.Err()
}

func TestAStoreThatHangsHoldsUpAnEndAndNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := &hearing{}
		run := &heardRun{deaf{}, taskbridge.SystemClock{}, heard, false}
		begin := time.Now()
		for time.Since(begin) < 2*maxHold {
			ctx, cancel := context.WithTimeout(t.Context(), reportTimeout)
			if _, err := run.Report(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if held := time.Unix(0, heard.at.Load()).Sub(begin); held < maxHold || held > maxHold+2*reportTimeout {
			t.Errorf("it holds up for %s", held)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		heard.failing.Store(0)
		if _, err := run.Report(ctx, nil); !errors.Is(err, context.Canceled) || heard.failing.Load() != 0 {
			t.Errorf("what was given up counts: %v", err)
		}
	})
}
