package k8sjob

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestAJobThatSomebodyDeletesFailsItsTask(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, said: said{Tail: "the tail"}})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.deleteJob()
		s.wantStream("STARTED p1:1 FAILED")
		s.wantFailure(CodeDeleted)
		if failure, _ := s.row().Failure(); !failure.Retryable || failure.Message != "the Job was deleted before it ended\nthe tail" {
			s.t.Errorf("%+v", failure)
		}
	})
}

func TestADeletedJobWhoseCancellationWasAskedForIsCancelled(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
		must(s.t, err)
		s.deleteJob()
		s.wantStream("STARTED CANCELLED")
	})
}

func TestADeletedJobCountsAsItWasLastSeen(t *testing.T) {
	play(t, func(s *scene) {
		s.faults.settle.Store(true)
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, "42"))
		s.final(batchv1.JobComplete, "")
		s.pass(time.Second)
		s.deletePod("p1")
		s.deleteJob()
		s.faults.settle.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED COMPLETED")
		if result, _ := s.row().Result(); string(result) != "42" {
			s.t.Errorf("the result is %s", result)
		}
	})
}

func TestAJobThatItsCacheDoesNotHaveIsLookedForBeforeItsTaskEnds(t *testing.T) {
	play(t, func(s *scene) {
		var away, there atomic.Bool
		away.Store(true)
		there.Store(true)
		name := jobName(defaultInstance, s.task.ID)
		s.client.PrependReactor("get", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			switch {
			case away.Load():
				return true, nil, errFault
			case there.Load():
				return true, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
					Name: name, Namespace: "ns", UID: "job", Annotations: map[string]string{annotationTaskID: s.task.ID, annotationTaskType: "work"},
				}}, nil
			}
			return false, nil, nil
		})
		s.watch(nil)
		away.Store(false)
		there.Store(false)
		s.job(nil)
		s.pod("p1", runs)
		away.Store(true)
		there.Store(true)
		must(s.t, s.client.BatchV1().Jobs("ns").Delete(s.t.Context(), name, metav1.DeleteOptions{}))
		s.pass(10 * time.Minute)
		s.wantStream("STARTED") // the API server does not answer
		away.Store(false)
		s.pass(10 * time.Minute)
		s.wantStream("STARTED") // it has the Job
		there.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED FAILED")
	})
}

func TestAJobThatWasNeverRecordedAsSubmittedIsLeftToItsSubmitter(t *testing.T) {
	play(t, func(s *scene) {
		row := s.row()
		row.Submission.State = taskbridge.SubmissionClaimed
		_, err := s.store.UpdateTask(s.t.Context(), row)
		must(s.t, err)
		s.watch(nil)
		s.job(nil)
		s.deleteJob()
		s.pass(time.Hour)
		s.wantStream("")
	})
}

func TestForeignJobsAreToldOnceAndLeftAlone(t *testing.T) {
	for name, id := range map[string]string{"no task's": "nonsense", "another store's": "3c7-aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.task.ID = id
				s.job(nil)
				s.pod("p1", ends(0, ""))
				s.final(batchv1.JobComplete, "")
				s.requests()
				s.watch(nil)
				s.pass(3 * time.Hour)
				s.deleteJob()
				s.pass(time.Hour)
				if got := s.requests(); got != "delete jobs" {
					s.t.Errorf("requests: %s", got)
				}
				if told := strings.Count(s.log.String(), "left alone"); told != 1 {
					s.t.Errorf("told %d times:\n%s", told, s.log.String())
				}
			})
		})
	}
}

func TestAJobWhoseTaskEndedOtherwiseIsStopped(t *testing.T) {
	end := taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: taskbridge.CodeSubmissionFailed}}
	for name, test := range map[string]struct {
		runs bool
		want string // of requests
	}{
		"its pod waits": {false, "get jobs, list pods, delete jobs"},
		"its pod runs":  {true, "get jobs, list pods, patch jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.watch(nil)
				s.job(nil)
				s.pod("p1", waits("ContainerCreating"))
				if test.runs {
					s.pod("p1", runs)
				}
				s.faults.rows.Store(true)
				s.pass(10 * time.Minute)
				s.requests()
				s.pass(10 * time.Minute)
				if got := s.requests(); got != "" {
					s.t.Errorf("requests while the store is away: %s", got)
				}
				s.faults.rows.Store(false)
				must(s.t, s.lifecycle.Settle(s.t.Context(), s.task.ID, end))
				s.pass(2 * time.Minute)
				if got := s.requests(); got != test.want {
					s.t.Errorf("requests: %s, want %s", got, test.want)
				}
			})
		})
	}
}

func TestAPodOfATaskThatMayNotRunIsStopped(t *testing.T) {
	play(t, func(s *scene) {
		s.watch(nil)
		s.job(nil)
		_, _, err := s.bridge.Cancellation.CancelTask(s.t.Context(), owner, s.task.ID, "enough")
		must(s.t, err)
		s.requests()
		s.pod("p1", runs)
		if row := s.row(); row.Status != taskbridge.StatusCancelled {
			s.t.Errorf("the row is %s", row.Status)
		}
		if got := s.requests(); !strings.HasSuffix(got, "get jobs, list pods, patch jobs") {
			s.t.Errorf("requests: %s", got)
		}
	})
}

func TestAPodWhoseSubmissionIsBarredWaitsForTheReconciler(t *testing.T) {
	play(t, func(s *scene) {
		row := s.row()
		row.Submission.State, row.Submission.Barred = taskbridge.SubmissionClaimed, true
		row, err := s.store.UpdateTask(s.t.Context(), row)
		must(s.t, err)
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pass(time.Minute)
		s.wantStream("")
		row.Submission.Barred = false
		_, err = s.store.UpdateTask(s.t.Context(), row)
		must(s.t, err)
		s.pass(barredInterval)
		s.wantStream("STARTED")
	})
}

func TestAPodThatReportedItsOwnEndMayCleanUp(t *testing.T) {
	play(t, func(s *scene) {
		s.options.Reports = ReportWorkerAPI
		s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		run, err := s.lifecycle.Start(s.t.Context(), s.task.ID, taskbridge.Claim{ID: "p1", Producer: "worker"})
		must(s.t, err)
		must(s.t, run.Complete(s.t.Context(), taskbridge.Completion{Result: []byte("1")}))
		s.requests()
		s.pass(cleanupTime - 10*time.Second)
		if got := s.requests(); got != "" {
			s.t.Errorf("requests: %s", got)
		}
		s.pass(20 * time.Second)
		if got := s.requests(); got != "get jobs, list pods, patch jobs" {
			s.t.Errorf("requests: %s", got)
		}
		s.pod("p1", ends(143, ""))
		s.final(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded)
		s.wantStream("STARTED COMPLETED")
		s.wantRecorded(true)
		if s.reads["p1"] != 0 {
			s.t.Error("its output was read")
		}
	})
}

func TestAnInspectionLeavesTheEndOfADeletedJobToWhoeverSawIt(t *testing.T) {
	play(t, func(s *scene) {
		s.faults.settle.Store(true)
		e := s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, "42"))
		s.final(batchv1.JobComplete, "")
		s.deletePod("p1")
		s.deleteJob()
		s.pass(time.Minute)
		want := func(knowledge taskbridge.Knowledge) {
			s.t.Helper()
			if got, err := e.InspectTask(s.t.Context(), s.row()); err != nil || got.Knowledge != knowledge {
				s.t.Errorf("an inspection says %+v, %v", got, err)
			}
		}
		want(taskbridge.InspectionRunning)
		s.faults.settle.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED COMPLETED")
		want(taskbridge.InspectionGone)
	})
}
