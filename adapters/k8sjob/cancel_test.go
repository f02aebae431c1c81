package k8sjob

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// submitted makes a task whose Job is there, and whose cancellation is asked for if
// reason says why.
func (s *stage) submitted(reason string) taskbridge.Task {
	s.t.Helper()
	task := s.task("echo", "{}")
	must(s.t, s.SubmitTask(s.t.Context(), task))
	task.Submission.State = taskbridge.SubmissionRecorded
	if reason != "" {
		task.Cancellation = taskbridge.Cancellation{RequestedAt: time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC), Reason: reason}
	}
	task, err := s.store.UpdateTask(s.t.Context(), task)
	must(s.t, err)
	s.requests()
	return task
}

// change changes the task's Job as another one does.
func (s *stage) change(task taskbridge.Task, change func(*batchv1.Job)) {
	s.t.Helper()
	job := s.job(task)
	change(job)
	must(s.t, s.client.Tracker().Update(batchv1.SchemeGroupVersion.WithResource("jobs"), job, job.Namespace))
}

// pod adds a pod to the task's Job, its container in that state.
func (s *stage) pod(task taskbridge.Task, state corev1.ContainerState) {
	s.t.Helper()
	job := s.job(task)
	pod := &corev1.Pod{ObjectMeta: *job.Spec.Template.ObjectMeta.DeepCopy(), Spec: *job.Spec.Template.Spec.DeepCopy()}
	pod.Name, pod.Namespace, pod.UID = job.Name+"-abcde", job.Namespace, "pod-uid"
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID, Controller: new(true)}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "work", State: state}}
	must(s.t, s.client.Tracker().Add(pod))
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
}

func (s *stage) status(task taskbridge.Task) taskbridge.TaskStatus {
	s.t.Helper()
	row, err := s.store.GetTask(s.t.Context(), task.ID)
	must(s.t, err)
	return row.Status
}

func TestTheIntentIsOnTheJobBeforeAnythingElseIsDone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted(`no "longer" needed <雪>`)
	s.fail("list", "pods", errors.New("connection reset"))
	if err := s.RequestCancellation(t.Context(), task, task.Cancellation.Reason); err == nil {
		t.Error("there is no error")
	}
	annotations := s.job(task).Annotations
	if annotations["taskbridge.dev/cancel-requested"] != "2030-01-02T03:04:05Z" || annotations["taskbridge.dev/cancel-reason"] != `no "longer" needed <雪>` {
		t.Errorf("the annotations are %v", annotations)
	}
}

func TestAJobWhoseWorkHasBegunRunsOutOfItsTimeOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("enough")
	s.pod(task, running())
	must(t, s.RequestCancellation(t.Context(), task, "enough"))
	if got := strings.Join(s.requests(), ", "); got != "get jobs, patch jobs, list pods, patch jobs" {
		t.Errorf("it asked for %s", got)
	}
	if got := value(s.job(task).Spec.ActiveDeadlineSeconds); got != 1 {
		t.Errorf("activeDeadlineSeconds is %d", got)
	}
	s.requests()
	must(t, s.RequestCancellation(t.Context(), task, "enough"))
	if got := strings.Join(s.requests(), ", "); got != "get jobs, list pods" {
		t.Errorf("the second time it asked for %s", got)
	}
	if got := s.status(task); got != taskbridge.StatusAccepted {
		t.Errorf("the task is %s before its Job has ended", got)
	}
}

func TestAJobBetweenTwoAttemptsHasBegun(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("enough")
	s.change(task, func(job *batchv1.Job) { job.Status.Failed = 1 }) // its pod is gone
	must(t, s.RequestCancellation(t.Context(), task, "enough"))
	if got := value(s.job(task).Spec.ActiveDeadlineSeconds); got != 1 {
		t.Errorf("activeDeadlineSeconds is %d", got)
	}
}

func TestAJobWhoseWorkNeverBeganIsDeletedWithWhatWasSeenOfItAndSettled(t *testing.T) {
	t.Parallel()
	waits := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
	for name, prepare := range map[string]func(*stage, taskbridge.Task){
		"without a pod":               func(*stage, taskbridge.Task) {},
		"with a pod that waits":       func(s *stage, task taskbridge.Task) { s.pod(task, waits) },
		"with a pod that has no node": func(s *stage, task taskbridge.Task) { s.pod(task, corev1.ContainerState{}) },
		"suspended": func(s *stage, task taskbridge.Task) {
			s.change(task, func(job *batchv1.Job) { job.Spec.Suspend = new(true) })
		},
		"suspended after it ran": func(s *stage, task taskbridge.Task) {
			s.pod(task, running())
			s.change(task, func(job *batchv1.Job) { job.Spec.Suspend = new(true) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			task := s.submitted("changed my mind")
			prepare(s, task)
			s.change(task, func(job *batchv1.Job) { job.ResourceVersion = "17" })
			uid := s.job(task).UID
			s.client.PrependReactor("delete", "jobs", func(action k8stesting.Action) (bool, runtime.Object, error) {
				options := action.(k8stesting.DeleteActionImpl).DeleteOptions
				if options.Preconditions == nil || *options.Preconditions.UID != uid || options.Preconditions.ResourceVersion == nil {
					t.Errorf("the preconditions are %+v", options.Preconditions)
				}
				if value(options.PropagationPolicy) != metav1.DeletePropagationForeground {
					t.Errorf("the propagation policy is %v", value(options.PropagationPolicy))
				}
				return false, nil, nil
			})
			must(t, s.RequestCancellation(t.Context(), task, "changed my mind"))
			row, err := s.store.GetTask(t.Context(), task.ID)
			must(t, err)
			var end struct{ Reason string }
			must(t, json.Unmarshal(row.Terminal, &end))
			if row.Status != taskbridge.StatusCancelled || end.Reason != "changed my mind" || row.Attempt != 0 {
				t.Errorf("the task is %s %s", row.Status, row.Terminal)
			}
			must(t, s.RequestCancellation(t.Context(), task, "changed my mind"))
		})
	}
}

func TestATaskIsNotSettledWhileItsJobIsStillThere(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("changed my mind")
	s.client.PrependReactor("delete", "jobs", func(k8stesting.Action) (bool, runtime.Object, error) {
		s.change(task, func(job *batchv1.Job) {
			job.DeletionTimestamp, job.Finalizers = new(metav1.Now()), []string{"foregroundDeletion"}
		})
		return true, nil, nil
	})
	must(t, s.RequestCancellation(t.Context(), task, "changed my mind"))
	if got := s.status(task); got != taskbridge.StatusAccepted {
		t.Errorf("it is %s", got)
	}
}

func TestAJobThatBeginsWhileItIsAboutToBeDeletedIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("changed my mind")
	s.client.PrependReactor("delete", "jobs", func(k8stesting.Action) (bool, runtime.Object, error) {
		s.pod(task, running())
		return true, nil, apierrors.NewConflict(jobResource, "", errors.New("the version is another"))
	})
	must(t, s.RequestCancellation(t.Context(), task, "changed my mind"))
	if got := value(s.job(task).Spec.ActiveDeadlineSeconds); got != 1 {
		t.Errorf("activeDeadlineSeconds is %d", got)
	}
}

func TestAJobThatChangesAllTheTimeIsLeftToTheNextRequest(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("changed my mind")
	s.fail("delete", "jobs", apierrors.NewConflict(jobResource, "", errors.New("the version is another")))
	if err := s.RequestCancellation(t.Context(), task, "changed my mind"); err == nil {
		t.Error("there is no error")
	}
	if got := len(s.requests()); got > 3+3*maxLooks {
		t.Errorf("it took %d requests", got)
	}
}

func TestAJobThatMayNotBeGivenADeadlineOrANoteIsDeleted(t *testing.T) {
	t.Parallel()
	webhook := &apierrors.StatusError{ErrStatus: metav1.Status{Code: 400, Message: `admission webhook "policy" denied the request: no deadlines`}}
	for name, failure := range map[string]error{
		"invalid": apiErrors()["invalid"], "forbidden": apiErrors()["forbidden"], "denied": webhook,
	} {
		for _, what := range []string{"activeDeadlineSeconds", "metadata"} {
			s := newStage(t, nil)
			task := s.submitted("enough")
			s.pod(task, running())
			s.client.PrependReactor("patch", "jobs", func(action k8stesting.Action) (bool, runtime.Object, error) {
				return strings.Contains(string(action.(k8stesting.PatchAction).GetPatch()), what), nil, failure
			})
			must(t, s.RequestCancellation(t.Context(), task, "enough"))
			if got := s.requests(); !strings.Contains(strings.Join(got, ", "), "delete jobs") {
				t.Errorf("%s, %s: it asked for %v", name, what, got)
			}
		}
	}
}

func TestWhatTheAPIAnswersToACancellationIsPassedOnUnlessTheJobIsGone(t *testing.T) {
	t.Parallel()
	for _, request := range []struct{ verb, resource string }{{"get", "jobs"}, {"patch", "jobs"}, {"list", "pods"}, {"delete", "jobs"}} {
		for name, failure := range apiErrors() {
			if name == "conflict" {
				continue // has tests of its own
			}
			s := newStage(t, nil)
			task := s.submitted("enough")
			s.fail(request.verb, request.resource, failure)
			err := s.RequestCancellation(t.Context(), task, "enough")
			absent := name == "not found" && request.resource == "jobs"
			if request.verb == "patch" && mayNot(failure) {
				absent = true // has tests of its own
			}
			if absent != (err == nil) || err != nil && !errors.Is(err, failure) {
				t.Errorf("%s %s, %s: the error is %v", request.verb, request.resource, name, err)
			}
		}
	}
}

func TestTheCancellationOfATaskWithoutAJobHasNoEffect(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.task("echo", "{}")
	must(t, s.RequestCancellation(t.Context(), task, "enough"))
	if got := s.status(task); got != taskbridge.StatusAccepted {
		t.Errorf("the task is %s", got)
	}
}

func TestOnlyTheJobThatWasMeantIsHalted(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("")
	s.pod(task, running())
	job := s.job(task)
	must(t, s.halt(t.Context(), job.Namespace, job.Name, "another"))
	if s.job(task).Spec.ActiveDeadlineSeconds != nil {
		t.Error("another Job of the name is stopped")
	}
	must(t, s.halt(t.Context(), job.Namespace, job.Name, job.UID))
	if got := value(s.job(task).Spec.ActiveDeadlineSeconds); got != 1 {
		t.Errorf("activeDeadlineSeconds is %d", got)
	}
	must(t, s.halt(t.Context(), job.Namespace, "missing", job.UID))
}

func TestALongReasonIsNotedInPart(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	reason := strings.Repeat("why ", maxNotedReason)
	task := s.submitted(reason)
	s.pod(task, running())
	must(t, s.RequestCancellation(t.Context(), task, reason))
	if got := len(s.job(task).Annotations[annotationCancelReason]); got < maxNotedReason || got > maxNotedReason+10 {
		t.Errorf("%d bytes are noted", got)
	}
}
