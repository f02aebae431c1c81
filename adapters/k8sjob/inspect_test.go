package k8sjob

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// ended has the Job end with the condition, so long ago.
func ended(condition batchv1.JobConditionType, ago time.Duration) func(*batchv1.Job) {
	return func(job *batchv1.Job) {
		job.Status.Conditions = []batchv1.JobCondition{{
			Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Add(-ago)),
		}}
	}
}

func TestAnInspectionSaysWhatTheClusterKnows(t *testing.T) {
	t.Parallel()
	recorded := func(change func(*batchv1.Job)) func(*batchv1.Job) {
		return func(job *batchv1.Job) {
			change(job)
			job.Labels[labelRecorded] = "true"
		}
	}
	started := func(task *taskbridge.Task) { task.Attempt = 1 }
	asked := func(task *taskbridge.Task) { task.Cancellation.RequestedAt = time.Now().Add(-time.Minute) }
	over := func(task *taskbridge.Task) { task.Status = taskbridge.StatusCompleted }
	deleted := func(job *batchv1.Job) { job.DeletionTimestamp, job.Finalizers = new(metav1.Now()), []string{"a/b"} }
	for name, c := range map[string]struct {
		job    func(*batchv1.Job)
		row    func(*taskbridge.Task)
		state  *corev1.ContainerState
		want   taskbridge.Knowledge
		status taskbridge.TaskStatus
		code   string
	}{
		"not begun":                       {want: taskbridge.InspectionWaiting},
		"a pod is ready":                  {job: func(job *batchv1.Job) { job.Status.Ready = new(int32(1)) }, want: taskbridge.InspectionRunning},
		"a pod has failed":                {job: func(job *batchv1.Job) { job.Status.Failed = 1 }, want: taskbridge.InspectionRunning},
		"its start is recorded":           {row: started, want: taskbridge.InspectionRunning},
		"being deleted":                   {job: deleted, want: taskbridge.InspectionRunning},
		"ended just now":                  {job: ended(batchv1.JobComplete, 0), want: taskbridge.InspectionRunning},
		"ended long ago, not watched yet": {job: ended(batchv1.JobComplete, time.Hour), want: taskbridge.InspectionRunning},
		"ended and recorded":              {job: recorded(ended(batchv1.JobComplete, 0)), row: over, want: taskbridge.InspectionGone},
		"recorded, and the row is older": {
			job: recorded(ended(batchv1.JobComplete, 0)), row: started, want: taskbridge.InspectionFinished, status: taskbridge.StatusCompleted,
		},
		"failed, recorded, the row is older": {
			job: recorded(ended(batchv1.JobFailed, 0)), row: started,
			state: &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, StartedAt: metav1.Now()}},
			want:  taskbridge.InspectionFinished, status: taskbridge.StatusFailed, code: CodeExited,
		},
		"failed after it was cancelled, recorded, the row is older": {
			job: recorded(ended(batchv1.JobFailed, 0)), row: asked, want: taskbridge.InspectionFinished, status: taskbridge.StatusCancelled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			task := s.submitted("")
			if c.state != nil {
				s.pod(task, *c.state)
			}
			if c.job != nil {
				s.change(task, c.job)
			}
			if c.row != nil {
				c.row(&task)
			}
			got, err := s.InspectTask(t.Context(), task)
			must(t, err)
			if got.Knowledge != c.want || got.Outcome.Status != c.status || got.Outcome.Failure.Code != c.code {
				t.Errorf("it says %+v", got)
			}
			for _, request := range s.requests() {
				if verb, _, _ := strings.Cut(request, " "); verb != "get" && verb != "list" {
					t.Errorf("it asked to %s", request)
				}
			}
		})
	}
}

func TestTheEndOfAJobIsReadFromItsStatusWhenNobodyHasWatchedForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		task := s.submitted("")
		s.pod(task, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: metav1.Now(), Message: `{"pages":3}`}})
		s.change(task, ended(batchv1.JobComplete, time.Hour))
		inspect := func(after time.Duration) taskbridge.Inspection {
			timer := time.NewTimer(after)
			<-timer.C
			got, err := s.InspectTask(t.Context(), task)
			must(t, err)
			return got
		}
		// The API server or the store may have been away since then, for us and for whoever
		// watches: who looks once and again has not seen that nobody watches.
		for i, after := range []time.Duration{0, 2 * endTime, time.Second, endPause} {
			want := taskbridge.InspectionRunning
			if i == 3 {
				want = taskbridge.InspectionFinished
			}
			if got := inspect(after); got.Knowledge != want {
				t.Errorf("look %d says %+v", i, got)
			}
		}
		if got := inspect(0); string(got.Outcome.Completion.Result) != `{"pages":3}` {
			t.Errorf("it says %+v", got)
		}
		if inspect(25 * time.Hour); len(s.ended) != 1 {
			t.Errorf("it remembers %v", s.ended)
		}
		if got := inspect(0); got.Knowledge != taskbridge.InspectionRunning {
			t.Errorf("what is forgotten says %+v", got)
		}
	})
}

func TestAJobThatIsNotThereWasNeverMadeOrWasDeleted(t *testing.T) {
	t.Parallel()
	asked := taskbridge.Cancellation{RequestedAt: time.Now(), Reason: "enough"}
	for name, c := range map[string]struct {
		task   taskbridge.Task
		want   taskbridge.Knowledge
		status taskbridge.TaskStatus
	}{
		"never submitted":      {taskbridge.Task{}, taskbridge.InspectionAbsent, ""},
		"submission under way": {taskbridge.Task{Submission: taskbridge.Submission{State: taskbridge.SubmissionClaimed}}, taskbridge.InspectionAbsent, ""},
		"submitted":            {taskbridge.Task{Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded}}, taskbridge.InspectionFinished, taskbridge.StatusFailed},
		"started":              {taskbridge.Task{Attempt: 1, Submission: taskbridge.Submission{State: taskbridge.SubmissionClaimed}}, taskbridge.InspectionFinished, taskbridge.StatusFailed},
		"submitted, cancelled": {taskbridge.Task{Cancellation: asked, Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded}}, taskbridge.InspectionFinished, taskbridge.StatusCancelled},
		"ended":                {taskbridge.Task{Status: taskbridge.StatusCompleted, Attempt: 1}, taskbridge.InspectionGone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			c.task.ID, c.task.Type = "000-a", "echo"
			got, err := s.InspectTask(t.Context(), c.task)
			must(t, err)
			if got.Knowledge != c.want || got.Outcome.Status != c.status {
				t.Errorf("it says %+v", got)
			}
			if c.status == taskbridge.StatusFailed && (got.Outcome.Failure.Code != CodeDeleted || !got.Outcome.Failure.Retryable) {
				t.Errorf("the failure is %+v", got.Outcome.Failure)
			}
		})
	}
}

func TestAnInspectionGoesOnWithASubmissionThatDiedBeforeTheSecret(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.task("api", `{"a":1}`)
	mend := s.fail("create", "secrets", errors.New("connection reset"))
	if err := s.SubmitTask(t.Context(), task); err == nil {
		t.Fatal("the Secret was made")
	}
	if got, err := s.InspectTask(t.Context(), task); err == nil {
		t.Errorf("while it cannot be made the inspection says %+v", got)
	}
	cancelled := task
	cancelled.Cancellation = taskbridge.Cancellation{RequestedAt: time.Now(), Reason: "enough"}
	got, err := s.InspectTask(t.Context(), cancelled)
	must(t, err)
	if got.Knowledge != taskbridge.InspectionWaiting {
		t.Errorf("of one that is cancelled it says %+v", got)
	}
	mend()
	for range 2 {
		got, err := s.InspectTask(t.Context(), task)
		must(t, err)
		if got.Knowledge != taskbridge.InspectionWaiting {
			t.Errorf("it says %+v", got)
		}
	}
	if secrets := s.secrets(); len(secrets) != 1 || string(secrets[0].Data["token"]) != "token-of-"+task.ID {
		t.Errorf("the Secrets are %+v", secrets)
	}
}

func TestAProxyThatDoesNotFindTheAPIServerIsNoProofThatAJobIsGone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.submitted("enough")
	lost := apierrors.NewGenericServerResponse(404, "get", jobResource, "", "404 page not found", 0, true)
	s.fail("get", "jobs", lost)
	if got, err := s.InspectTask(t.Context(), task); !errors.Is(err, lost) {
		t.Errorf("it says %+v, %v", got, err)
	}
	if err := s.RequestCancellation(t.Context(), task, "enough"); !errors.Is(err, lost) {
		t.Errorf("the cancellation says %v", err)
	}
}

func TestAnAPIServerThatIsAwayKnowsNothing(t *testing.T) {
	t.Parallel()
	for name, failure := range apiErrors() {
		if name == "not found" {
			continue
		}
		s := newStage(t, nil)
		task := s.submitted("")
		s.fail("get", "jobs", failure)
		if got, err := s.InspectTask(t.Context(), task); !errors.Is(err, failure) || got.Knowledge != taskbridge.InspectionUnknown {
			t.Errorf("%s: it says %+v, %v", name, got, err)
		}
	}
}
