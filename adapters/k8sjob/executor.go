package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Executor runs tasks as Jobs. It is safe for concurrent use, and several servers
// may share a namespace and an instance's name. The host closes it.
type Executor struct {
	Options // with its defaults: Types too

	templates map[string]*jobTemplate
	notices   taskbridge.NumberedNoticer
	watcher   *watcher

	mu    sync.Mutex
	ended map[types.UID]sight // by inspections
}

var (
	_ taskbridge.TaskExecutor  = (*Executor)(nil)
	_ taskbridge.TaskInspector = (*Executor)(nil)
	_ taskbridge.HealthChecker = (*Executor)(nil)
)

// Failure codes of tasks that are rejected.
const (
	// CodeUnknownTaskType: the type is not configured.
	CodeUnknownTaskType = "UNKNOWN_TASK_TYPE"
	// CodeInvalid: the API server calls the Job invalid.
	CodeInvalid = "K8SJOB_INVALID"
	// CodeNameTaken: a Job of the same name is there that is not the task's;
	// retryable, since another task has another name.
	CodeNameTaken = "K8SJOB_NAME_TAKEN"
	// CodeInputTooLarge: the input is larger than a Secret or ConfigMap may be.
	CodeInputTooLarge = "K8SJOB_INPUT_TOO_LARGE"
)

// New makes an executor and begins to watch. It does not wait for the cluster: see
// [Executor.CheckHealth] and [Executor.CheckTemplates].
func New(opts Options) (*Executor, error) {
	e, err := newExecutor(opts)
	if err != nil {
		return nil, err
	}
	e.watcher = newWatcher(e)
	return e, nil
}

// newExecutor makes one that does not watch.
func newExecutor(opts Options) (*Executor, error) {
	opts, templates, err := opts.checked()
	if err != nil {
		return nil, fmt.Errorf("k8sjob: %w", err)
	}
	return &Executor{
		Options: opts, templates: templates, notices: opts.Lifecycle.(taskbridge.NumberedNoticer), ended: map[types.UID]sight{},
	}, nil
}

// Close ends the watching and waits for it. Jobs go on where they are.
func (e *Executor) Close() error {
	e.watcher.close()
	return nil
}

// SubmitTask creates the task's Job, and then the Secret or ConfigMap that its pod
// waits for: two requests. A Job that is there already, in whatever state, is left
// as it is, but what its pod waits for is made if it is missing. Rejected are a type
// without options, an input that is too large, and what the API server calls
// invalid. What it forbids may be allowed later: a quota, a policy, a missing role
// or namespace leave the outcome unknown.
func (e *Executor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	options, ok := e.Types[task.Type]
	if !ok {
		return taskbridge.Reject(CodeUnknownTaskType, fmt.Sprintf("no Job template is configured for the task type %q", task.Type), false)
	}
	ctx, cancel := context.WithTimeout(ctx, e.CreateTimeout)
	defer cancel()
	withToken := options.Reports == ReportWorkerAPI && e.Tokens != nil
	token, err := e.token(task.ID, withToken)
	if err != nil {
		return fmt.Errorf("k8sjob: submit: %w", err)
	}
	if err := checkSize(task, options, token); err != nil {
		return err
	}
	job := newJob(task, e.templates[task.Type], options, e.Options, newHandoverName(jobName(e.Instance, task.ID)), withToken)
	made, err := e.create(ctx, task, job)
	if err == nil && pending(made) {
		err = e.hand(ctx, task, made, token)
	}
	var rejected *taskbridge.RejectionError
	if err == nil || errors.As(err, &rejected) {
		return err
	}
	return fmt.Errorf("k8sjob: submit: %w", err)
}

// token makes the submission token, "" where none is wanted.
func (e *Executor) token(taskID string, wanted bool) (string, error) {
	if !wanted || e.Tokens == nil {
		return "", nil
	}
	token, err := e.Tokens.SubmissionToken(taskID)
	if err != nil {
		return "", fmt.Errorf("make the submission token: %w", err)
	}
	return token, nil
}

// create creates the Job, or finds the one that is there.
func (e *Executor) create(ctx context.Context, task taskbridge.Task, job *batchv1.Job) (*batchv1.Job, error) {
	jobs := e.Client.BatchV1().Jobs(job.Namespace)
	made, err := jobs.Create(ctx, job, metav1.CreateOptions{})
	switch {
	case err == nil:
		return made, nil
	case apierrors.IsAlreadyExists(err):
		there, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
		if err != nil { // not found: deleted since, and the next try creates it
			return nil, fmt.Errorf("get Job %s/%s, which is there already: %w", job.Namespace, job.Name, err)
		}
		if !e.owns(there, task.ID) {
			return nil, taskbridge.Reject(CodeNameTaken, fmt.Sprintf("the name %s is taken in the namespace %s by a Job that is not the task's", job.Name, job.Namespace), true)
		}
		return there, nil
	case refused(err):
		return nil, taskbridge.Reject(CodeInvalid, "Kubernetes does not take the Job: "+apiMessage(err), false)
	}
	return nil, fmt.Errorf("create Job %s/%s: %w", job.Namespace, job.Name, err)
}

// owns reports whether the Job is that of the task.
func (e *Executor) owns(job *batchv1.Job, taskID string) bool {
	return job.Annotations[annotationTaskID] == taskID && job.Labels[labelManagedBy] == managedBy && job.Labels[labelInstance] == e.Instance
}

// pending reports whether a pod of the Job may still wait for what it is handed.
func pending(job *batchv1.Job) bool {
	return job.DeletionTimestamp == nil && levelOfJob(job).final == ""
}

// hand makes what the Job's pod waits for. What is there was made for this Job: its
// name is in no other.
func (e *Executor) hand(ctx context.Context, task taskbridge.Task, job *batchv1.Job, token string) error {
	if token == "" && needsToken(job) { // it was created under other options
		made, err := e.token(task.ID, true)
		if err != nil {
			return err
		}
		token = made
	}
	handed, err := newHandover(task, job, token)
	if err != nil {
		return err
	}
	if secret := handed.secret; secret != nil {
		_, err := e.Client.CoreV1().Secrets(job.Namespace).Create(ctx, secret, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create Secret %s/%s: %w", job.Namespace, secret.Name, err)
		}
	}
	if configMap := handed.configMap; configMap != nil {
		_, err := e.Client.CoreV1().ConfigMaps(job.Namespace).Create(ctx, configMap, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create ConfigMap %s/%s: %w", job.Namespace, configMap.Name, err)
		}
	}
	return nil
}

// refused reports whether the API server says that the object itself is wrong, so
// that repeating the request is no use.
func refused(err error) bool {
	return (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)) && !denied(err)
}

// denied reports whether it is the cluster's policies that don't take the object, or
// won't look at one that is not to be created. They say so under all kinds of codes,
// which are a webhook's own, and may change.
func denied(err error) bool {
	message := apiMessage(err)
	return strings.Contains(message, `admission webhook "`) || strings.Contains(message, "ValidatingAdmissionPolicy '")
}

// apiMessage is what the API server says.
func apiMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}

// InvalidTemplateError says what the API server has against the Jobs of a type.
type InvalidTemplateError struct {
	TaskType string
	// Message is the API server's.
	Message string
}

func (e *InvalidTemplateError) Error() string {
	return fmt.Sprintf("Kubernetes does not take the Jobs of task type %q: %s", e.TaskType, e.Message)
}

// CheckTemplates has the API server look at a Job of each type without creating it,
// by a request for each. The error joins one for each type that fails: an
// [*InvalidTemplateError] where the template is what is wrong; any other may pass by
// itself.
func (e *Executor) CheckTemplates(ctx context.Context) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(e.Types)) {
		if err := e.checkTemplate(ctx, name); err != nil {
			problems = append(problems, fmt.Errorf("k8sjob: %w", err))
		}
	}
	return errors.Join(problems...)
}

func (e *Executor) checkTemplate(ctx context.Context, taskType string) error {
	options := e.Types[taskType]
	// A name that no task has: ids have their bucket in three digits.
	task := taskbridge.Task{ID: "template-" + hashOf(taskType), Type: taskType}
	withToken := options.Reports == ReportWorkerAPI && e.Tokens != nil
	job := newJob(task, e.templates[taskType], options, e.Options, newHandoverName(jobName(e.Instance, task.ID)), withToken)
	_, err := e.Client.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		return nil
	case refused(err):
		return &InvalidTemplateError{TaskType: taskType, Message: apiMessage(err)}
	}
	return fmt.Errorf("check the template of task type %q in the namespace %s: %w", taskType, job.Namespace, err)
}

// CheckHealth asks the API server, for each namespace, for a Job that is not there,
// which its database must answer, and whether Jobs may be created: two requests.
func (e *Executor) CheckHealth(ctx context.Context) error {
	for _, namespace := range e.namespaces() {
		_, err := e.Client.BatchV1().Jobs(namespace).Get(ctx, e.Instance+"-health", metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("k8sjob: ask for a Job in the namespace %s: %w", namespace, err)
		}
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Group: "batch", Resource: "jobs"},
		}}
		review, err = e.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("k8sjob: ask whether Jobs may be created in the namespace %s: %w", namespace, err)
		}
		if !review.Status.Allowed {
			return fmt.Errorf("k8sjob: no Jobs may be created in the namespace %s: the role lacks jobs/create", namespace)
		}
	}
	return nil
}

// namespaces are those of the types, sorted.
func (e *Executor) namespaces() []string {
	set := map[string]bool{}
	for _, options := range e.Types {
		set[options.Namespace] = true
	}
	return slices.Sorted(maps.Keys(set))
}
