package k8sjob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// stage is an executor that does not watch, over a fake clientset, which neither
// fills in nor checks what it is given.
type stage struct {
	*Executor
	t      *testing.T
	client *fake.Clientset
	store  *memory.Store
}

// newStage makes a stage with the types "echo", over lines, and "api", over the worker
// API; change may be nil.
func newStage(t *testing.T, change func(*Options)) *stage {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	t.Cleanup(func() { must(t, store.Close()) })
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	must(t, err)
	s := &stage{t: t, client: fake.NewClientset(), store: store}
	// As an API server, which gives every object a UID.
	number := 0
	s.client.PrependReactor("create", "jobs", func(action k8stesting.Action) (bool, runtime.Object, error) {
		number++
		action.(k8stesting.CreateAction).GetObject().(*batchv1.Job).UID = uidOf(number)
		return false, nil, nil
	})
	options := Options{
		Client: s.client, Namespace: "default", Lifecycle: lifecycle, Rows: store,
		WorkerURL: "http://bridge.example", Tokens: tokens{}, Types: map[string]TypeOptions{
			"echo": {Template: []byte(bareKind)},
			"api":  {Template: []byte(bareKind), Reports: ReportWorkerAPI},
		},
		OutputTimeout: time.Millisecond, // its pods have none
	}
	if change != nil {
		change(&options)
	}
	s.Executor, err = newExecutor(options)
	must(t, err)
	return s
}

func uidOf(number int) types.UID { return types.UID(fmt.Sprintf("uid-%d", number)) }

// tokens makes tokens that tell their task.
type tokens struct{ err error }

func (s tokens) SubmissionToken(taskID string) (string, error) { return "token-of-" + taskID, s.err }

// task makes the row of an accepted task whose submission is under way.
func (s *stage) task(taskType, input string) taskbridge.Task {
	s.t.Helper()
	id := taskbridge.NewTaskID("owner", newName())
	row, created, err := s.store.CreateTask(s.t.Context(), taskbridge.Task{
		ID: id, Owner: "owner", ClientRequestID: id, Type: taskType, Input: json.RawMessage(input), Metadata: json.RawMessage("{}"),
		Status: taskbridge.StatusAccepted, CreatedAt: s.Clock.Now(), UpdatedAt: s.Clock.Now(),
		Submission: taskbridge.Submission{State: taskbridge.SubmissionClaimed},
	})
	must(s.t, err)
	if !created {
		s.t.Fatal("the task was there")
	}
	return row
}

// job returns the task's Job. It may be called while a request is answered.
func (s *stage) job(task taskbridge.Task) *batchv1.Job {
	s.t.Helper()
	job, err := s.client.Tracker().Get(batchv1.SchemeGroupVersion.WithResource("jobs"), "default", jobName(s.Instance, task.ID))
	must(s.t, err)
	return job.(*batchv1.Job)
}

func (s *stage) secrets() []corev1.Secret {
	s.t.Helper()
	list, err := s.client.CoreV1().Secrets("default").List(s.t.Context(), metav1.ListOptions{})
	must(s.t, err)
	return list.Items
}

// requests returns what was asked of the API since the last call, as in "create jobs".
func (s *stage) requests() []string {
	var all []string
	for _, action := range s.client.Actions() {
		all = append(all, action.GetVerb()+" "+action.GetResource().Resource)
	}
	s.client.ClearActions()
	return all
}

// fail has requests fail until mend is called.
func (s *stage) fail(verb, resource string, failure error) (mend func()) {
	var mended atomic.Bool
	s.client.PrependReactor(verb, resource, func(k8stesting.Action) (bool, runtime.Object, error) {
		return !mended.Load(), nil, failure
	})
	return func() { mended.Store(true) }
}

func rejection(err error) (taskbridge.Failure, bool) {
	var rejected *taskbridge.RejectionError
	if errors.As(err, &rejected) {
		return rejected.Failure, true
	}
	return taskbridge.Failure{}, false
}

var jobResource = schema.GroupResource{Group: "batch", Resource: "jobs"}

// apiErrors are answers of an API server, by what they say.
func apiErrors() map[string]error {
	name := "taskbridge-abc"
	return map[string]error{
		"invalid":      apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, name, nil),
		"bad request":  apierrors.NewBadRequest("strict decoding error"),
		"too large":    apierrors.NewRequestEntityTooLargeError("limit is 3145728"),
		"unauthorized": apierrors.NewUnauthorized("no"),
		"forbidden":    apierrors.NewForbidden(jobResource, name, errors.New("exceeded quota")),
		"not found":    apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "default"),
		"denied by a webhook": &apierrors.StatusError{ErrStatus: metav1.Status{
			Code: http.StatusBadRequest, Message: `admission webhook "policy.example.com" denied the request: no root`,
		}},
		"not tried by a webhook": apierrors.NewBadRequest(`admission webhook "policy.example.com" does not support dry run`),
		"denied by a policy": &apierrors.StatusError{ErrStatus: metav1.Status{
			Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Message: `jobs.batch "` + name + `" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no root`,
		}},
		"conflict":         apierrors.NewConflict(jobResource, name, errors.New("no")),
		"too many":         apierrors.NewTooManyRequests("slow down", 1),
		"internal":         apierrors.NewInternalError(errors.New("etcd")),
		"unavailable":      apierrors.NewServiceUnavailable("no"),
		"server time-out":  apierrors.NewServerTimeout(jobResource, "create", 1),
		"gateway time-out": apierrors.NewTimeoutError("no", 1),
		"unknown status":   &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusTeapot, Message: "no"}},
		"no answer":        errors.New("dial tcp: connection refused"),
		"context":          context.DeadlineExceeded,
	}
}

func TestASubmissionIsTwoRequestsAndNoMore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		taskType string
		change   func(*Options)
		want     string
	}{
		"lines":                     {"echo", nil, "create jobs, create secrets"},
		"worker API":                {"api", nil, "create jobs, create secrets"},
		"ConfigMap":                 {"echo", inConfigMap, "create jobs, create configmaps"},
		"ConfigMap and a token":     {"api", inConfigMap, "create jobs, create secrets, create configmaps"},
		"ConfigMap without a token": {"api", func(o *Options) { inConfigMap(o); o.Tokens = nil }, "create jobs, create configmaps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, c.change)
			must(t, s.SubmitTask(t.Context(), s.task(c.taskType, `{"a":1}`)))
			if got := strings.Join(s.requests(), ", "); got != c.want {
				t.Errorf("the requests are %s, want %s", got, c.want)
			}
		})
	}
}

func inConfigMap(o *Options) {
	for name, options := range o.Types {
		options.InputIn = InputConfigMap
		o.Types[name] = options
	}
}

func TestWhatThePodIsHandedBelongsToItsJobAndNeverChanges(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.task("api", `{"a":1}`)
	must(t, s.SubmitTask(t.Context(), task))
	job, secrets := s.job(task), s.secrets()
	if len(secrets) != 1 {
		t.Fatalf("there are %d Secrets", len(secrets))
	}
	secret := secrets[0]
	if got := string(secret.Data["input.json"]); got != `{"a":1}` {
		t.Errorf("the input is %s", got)
	}
	if got := string(secret.Data["token"]); got != "token-of-"+task.ID {
		t.Errorf("the token is %s", got)
	}
	if !value(secret.Immutable) {
		t.Error("the Secret may be changed")
	}
	owner := secret.OwnerReferences
	if len(owner) != 1 || owner[0].UID != job.UID || owner[0].Kind != "Job" || owner[0].Name != job.Name || owner[0].APIVersion != "batch/v1" {
		t.Errorf("the Secret belongs to %+v", owner)
	}
	if name, _, _ := handoverNameOf(job); name != secret.Name {
		t.Errorf("the Secret is %q, the pod waits for %q", secret.Name, name)
	}
}

func TestASubmissionThatIsRepeatedAfterACrashAnywhereEndsTheSame(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ verb, resource string }{
		"before the Job": {"create", "jobs"}, "between the Job and its Secret": {"create", "secrets"},
		"between the Job, the Secret and its ConfigMap": {"create", "configmaps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(o *Options) {
				if c.resource == "configmaps" {
					inConfigMap(o)
				}
			})
			task := s.task("api", `{"a":1}`)
			mend := s.fail(c.verb, c.resource, errors.New("connection reset"))
			err := s.SubmitTask(t.Context(), task)
			if _, rejected := rejection(err); err == nil || rejected {
				t.Fatalf("the first submission's error is %v, want an unknown outcome", err)
			}
			mend()
			must(t, s.SubmitTask(t.Context(), task))
			must(t, s.SubmitTask(t.Context(), task)) // and once more, for nothing
			job := s.job(task)
			if secrets := s.secrets(); len(secrets) != 1 || secrets[0].OwnerReferences[0].UID != job.UID {
				t.Errorf("the Secrets are %+v", secrets)
			}
			if job.UID != uidOf(1) && job.UID != uidOf(2) {
				t.Errorf("the Job is %s", job.UID)
			}
		})
	}
}

func TestARepetitionMakesWhatTheFirstJobsPodWaitsForNotWhatItWouldHaveMade(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.task("api", `{"a":1}`)
	mend := s.fail("create", "secrets", errors.New("connection reset"))
	if err := s.SubmitTask(t.Context(), task); err == nil {
		t.Fatal("the Secret was made")
	}
	// The server is started anew, with other options.
	mend()
	options := s.Types["api"]
	options.Reports, options.InputIn = ReportLines, InputConfigMap
	s.Types["api"] = options
	must(t, s.SubmitTask(t.Context(), task))
	if secrets := s.secrets(); len(secrets) != 1 || string(secrets[0].Data["token"]) != "token-of-"+task.ID || string(secrets[0].Data["input.json"]) != `{"a":1}` {
		t.Errorf("the Secrets are %+v", secrets)
	}
}

func TestWhatTheAPIAnswersToAJobIsARejectionOnlyWhereTheJobIsWrong(t *testing.T) {
	t.Parallel()
	wrong := map[string]bool{"invalid": true, "bad request": true, "too large": true}
	for name, failure := range apiErrors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			s.fail("create", "jobs", failure)
			err := s.SubmitTask(t.Context(), s.task("echo", "{}"))
			got, rejected := rejection(err)
			switch {
			case err == nil:
				t.Error("there is no error")
			case rejected != wrong[name]:
				t.Errorf("the error is %v", err)
			case rejected && (got.Code != CodeInvalid || got.Retryable):
				t.Errorf("the failure is %+v", got)
			case !rejected && !errors.Is(err, failure):
				t.Errorf("the error %v hides the API's", err)
			}
		})
	}
}

func TestWhatTheAPIAnswersToASecretIsNeverARejectionSinceTheJobIsThere(t *testing.T) {
	t.Parallel()
	for name, failure := range apiErrors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			s.fail("create", "secrets", failure)
			err := s.SubmitTask(t.Context(), s.task("echo", "{}"))
			if _, rejected := rejection(err); err == nil || rejected {
				t.Errorf("the error is %v, want an unknown outcome", err)
			}
		})
	}
}

func TestAJobOfTheSameNameThatIsNotTheTasksIsARejection(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*batchv1.Job){
		"another task's":      func(job *batchv1.Job) { job.Annotations[annotationTaskID] = "000-other" },
		"nobody's":            func(job *batchv1.Job) { job.Annotations, job.Labels = nil, nil },
		"another instance's":  func(job *batchv1.Job) { job.Labels[labelInstance] = "other" },
		"not managed by this": func(job *batchv1.Job) { job.Labels[labelManagedBy] = "helm" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			task := s.task("echo", "{}")
			must(t, s.SubmitTask(t.Context(), task))
			job := s.job(task)
			spoil(job)
			_, err := s.client.BatchV1().Jobs("default").Update(t.Context(), job, metav1.UpdateOptions{})
			must(t, err)
			failure, rejected := rejection(s.SubmitTask(t.Context(), task))
			if !rejected || failure.Code != CodeNameTaken || !failure.Retryable {
				t.Errorf("it is rejected %v with %+v", rejected, failure)
			}
			s.requests()
			must(t, s.RequestCancellation(t.Context(), task, "enough"))
			if got := strings.Join(s.requests(), ", "); got != "get jobs" {
				t.Errorf("its cancellation asked for %s: the Job is not ours to touch", got)
			}
		})
	}
}

func TestAJobThatHasEndedOrIsBeingDeletedIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*batchv1.Job){
		"deleted": func(job *batchv1.Job) { job.DeletionTimestamp = new(metav1.Now()); job.Finalizers = []string{"a/b"} },
		"complete": func(job *batchv1.Job) {
			job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
		},
		"failed": func(job *batchv1.Job) {
			job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			task := s.task("echo", "{}")
			must(t, s.SubmitTask(t.Context(), task))
			job := s.job(task)
			change(job)
			must(t, s.client.Tracker().Update(batchv1.SchemeGroupVersion.WithResource("jobs"), job, "default"))
			s.requests()
			must(t, s.SubmitTask(t.Context(), task))
			if got := strings.Join(s.requests(), ", "); got != "create jobs, get jobs" {
				t.Errorf("the submission asked for %s", got)
			}
			must(t, s.RequestCancellation(t.Context(), task, "enough"))
			if got := strings.Join(s.requests(), ", "); got != "get jobs" {
				t.Errorf("the cancellation asked for %s", got)
			}
		})
	}
}

func TestASubmissionIsRejectedBeforeAnythingIsAsked(t *testing.T) {
	t.Parallel()
	large := `"` + strings.Repeat("x", maxObjectBytes-2) + `"`
	for name, c := range map[string]struct {
		taskType, input string
		change          func(*Options)
		want            string // "" is taken
	}{
		"unknown type":                              {"other", "{}", nil, CodeUnknownTaskType},
		"input as large as a Secret":                {"echo", large, nil, ""},
		"input larger than a Secret":                {"echo", large + " ", nil, CodeInputTooLarge},
		"input that leaves no room for its token":   {"api", large, nil, CodeInputTooLarge},
		"input as large as a ConfigMap, its token":  {"api", large, inConfigMap, ""},
		"input that is larger than a ConfigMap may": {"api", large + " ", inConfigMap, CodeInputTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, c.change)
			task := taskbridge.Task{ID: "000-a", Type: c.taskType, Input: json.RawMessage(c.input)}
			err := s.SubmitTask(t.Context(), task)
			if c.want == "" {
				must(t, err)
				return
			}
			if failure, rejected := rejection(err); !rejected || failure.Code != c.want || failure.Retryable {
				t.Errorf("the error is %v, want a rejection %s", err, c.want)
			}
			if got := s.requests(); got != nil {
				t.Errorf("it asked for %v", got)
			}
		})
	}
}

func TestATokenThatCannotBeMadeLeavesTheOutcomeOpenAndAsksForNothing(t *testing.T) {
	t.Parallel()
	broken := errors.New("no key")
	s := newStage(t, func(o *Options) { o.Tokens = tokens{broken} })
	err := s.SubmitTask(t.Context(), s.task("api", "{}"))
	if _, rejected := rejection(err); !errors.Is(err, broken) || rejected {
		t.Errorf("the error is %v", err)
	}
	if got := s.requests(); got != nil {
		t.Errorf("it asked for %v", got)
	}
	must(t, s.SubmitTask(t.Context(), s.task("echo", "{}"))) // which needs none
}

func TestACallWhoseContextHasEndedAsksForNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	task := s.task("echo", "{}")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.SubmitTask(ctx, task); !errors.Is(err, context.Canceled) {
		t.Errorf("SubmitTask: %v", err)
	}
	if err := s.RequestCancellation(ctx, task, "enough"); !errors.Is(err, context.Canceled) {
		t.Errorf("RequestCancellation: %v", err)
	}
	if _, err := s.InspectTask(ctx, task); !errors.Is(err, context.Canceled) {
		t.Errorf("InspectTask: %v", err)
	}
	if got := s.requests(); got != nil {
		t.Errorf("they asked for %v", got)
	}
}

func TestTemplatesAreCheckedByADryRunOfEachType(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.client.PrependReactor("create", "jobs", func(action k8stesting.Action) (bool, runtime.Object, error) {
		create := action.(k8stesting.CreateActionImpl)
		if got := create.CreateOptions.DryRun; len(got) != 1 || got[0] != metav1.DryRunAll {
			t.Errorf("the dry run is %v", got)
		}
		if create.Object.(*batchv1.Job).Annotations[annotationTaskType] == "api" {
			return true, nil, apierrors.NewBadRequest("no such thing")
		}
		return true, create.Object, nil
	})
	err := s.CheckTemplates(t.Context())
	var invalid *InvalidTemplateError
	if !errors.As(err, &invalid) || invalid.TaskType != "api" || invalid.Message != "no such thing" {
		t.Errorf("the error is %v", err)
	}
	if got := len(s.requests()); got != 2 {
		t.Errorf("it took %d requests", got)
	}
}

func TestATemplateCheckThatDidNotHappenIsNoInvalidTemplate(t *testing.T) {
	t.Parallel()
	wrong := map[string]bool{"invalid": true, "bad request": true, "too large": true}
	for name, failure := range apiErrors() {
		s := newStage(t, nil)
		s.fail("create", "jobs", failure)
		err := s.CheckTemplates(t.Context())
		var invalid *InvalidTemplateError
		if err == nil || errors.As(err, &invalid) != wrong[name] {
			t.Errorf("%s: the error is %v", name, err)
		}
		if !strings.Contains(err.Error(), `"api"`) || !strings.Contains(err.Error(), `"echo"`) {
			t.Errorf("%s: the error does not name the types: %v", name, err)
		}
	}
}

func TestHealthIsAnAPIServerThatAnswersAndLetsJobsBeCreated(t *testing.T) {
	t.Parallel()
	allow := func(s *stage, allowed bool) {
		s.client.PrependReactor("create", "selfsubjectaccessreviews", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: allowed}}, nil
		})
	}
	s := newStage(t, nil)
	allow(s, true)
	must(t, s.CheckHealth(t.Context()))
	if got := strings.Join(s.requests(), ", "); got != "get jobs, create selfsubjectaccessreviews" {
		t.Errorf("it asked for %s", got)
	}
	allow(s, false)
	if err := s.CheckHealth(t.Context()); err == nil || !strings.Contains(err.Error(), `namespace default`) {
		t.Errorf("without the permission the error is %v", err)
	}
	s = newStage(t, nil)
	away := errors.New("connection refused")
	s.fail("get", "jobs", away)
	if err := s.CheckHealth(t.Context()); !errors.Is(err, away) {
		t.Errorf("without a server the error is %v", err)
	}
}
