package k8sjob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// scene is a cluster that does only what a test does to it, and one task over stores
// in memory. All of it is in a bubble of simulated time.
type scene struct {
	t         *testing.T
	client    *fake.Clientset
	store     *memory.Store
	lifecycle *taskbridge.LocalLifecycle
	bridge    *taskbridge.Bridge
	task      taskbridge.Task
	options   TypeOptions
	log       logBuffer
	faults    faults
	closed    []*Executor

	mu      sync.Mutex
	outputs map[string]output // by pod
	reads   map[string]int    // how often each was begun to be read
}

// output is what a pod says: the reports under ordinals from 1, then the rest, with
// the end when that is set.
type output struct {
	progress int // reports of progress, of 1, 2, … percent
	said     said
	away     time.Duration // for how long the API server does not answer, after the reports
	held     chan struct{} // nil, or closed when the output ends
	err      error         // of its reading, after the reports
}

var errFault = errors.New("a fault")

// faults are of the store and what is over it.
type faults struct {
	rows, start, settle, notice atomic.Bool
}

func (f *faults) of(on *atomic.Bool) error {
	if on.Load() {
		return errFault
	}
	return nil
}

type faultyLifecycle struct {
	*taskbridge.LocalLifecycle
	faults *faults
}

func (l faultyLifecycle) Start(ctx context.Context, id string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if err := l.faults.of(&l.faults.start); err != nil {
		return nil, err
	}
	return l.LocalLifecycle.Start(ctx, id, claim)
}

func (l faultyLifecycle) Settle(ctx context.Context, id string, outcome taskbridge.Outcome) error {
	if err := l.faults.of(&l.faults.settle); err != nil {
		return err
	}
	return l.LocalLifecycle.Settle(ctx, id, outcome)
}

func (l faultyLifecycle) NoticeOnce(ctx context.Context, id, source string, ordinal int64, message taskbridge.Message) error {
	if err := l.faults.of(&l.faults.notice); err != nil {
		return err
	}
	return l.LocalLifecycle.NoticeOnce(ctx, id, source, ordinal, message)
}

type faultyRows struct {
	*memory.Store
	faults *faults
}

func (r faultyRows) GetTask(ctx context.Context, id string) (taskbridge.Task, error) {
	if err := r.faults.of(&r.faults.rows); err != nil {
		return taskbridge.Task{}, err
	}
	return r.Store.GetTask(ctx, id)
}

// taken is an executor that takes everything and does nothing.
type taken struct{}

func (taken) SubmitTask(context.Context, taskbridge.Task) error                  { return nil }
func (taken) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

const sceneTemplate = `{"kind": "Pod", "apiVersion": "v1", "spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "work"}]}}`

// play runs a test in a bubble.
func play(t *testing.T, test func(*scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{
			t: t, client: fake.NewClientset(), store: memory.NewStore(memory.Options{}),
			outputs: map[string]output{}, reads: map[string]int{},
			options: TypeOptions{Template: []byte(sceneTemplate)},
		}
		stores := taskbridge.Stores{Tasks: s.store, Events: s.store}
		var err error
		s.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
		must(t, err)
		router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"work": taken{}})
		must(t, err)
		s.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
		must(t, err)
		created, err := s.bridge.Creation.CreateTask(t.Context(), owner, taskbridge.CreateTaskRequest{ClientRequestID: "a", TaskType: "work"})
		must(t, err)
		s.task = created.Task
		test(s)
		for _, e := range s.closed {
			must(t, e.Close())
		}
		s.bridge.Subscription.Close()
		must(t, s.store.Close())
		if t.Failed() {
			t.Logf("log:\n%s", s.log.String())
		}
	})
}

// watch makes an executor that watches, and waits until it has nothing more to do.
func (s *scene) watch(change func(*Options)) *Executor {
	s.t.Helper()
	options := Options{
		Client: s.client, Namespace: "ns", Lifecycle: faultyLifecycle{s.lifecycle, &s.faults}, Rows: faultyRows{s.store, &s.faults},
		Types: map[string]TypeOptions{"work": s.options}, WorkerURL: "http://bridge",
		Logger: slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	if change != nil {
		change(&options)
	}
	e, err := newExecutor(options)
	must(s.t, err)
	e.watcher = startWatcher(e, s.follow)
	s.closed = append(s.closed, e)
	s.pass(2 * time.Second) // the caches look now and then whether they are there
	return e
}

// close closes an executor before the test ends.
func (s *scene) close(e *Executor) {
	s.t.Helper()
	must(s.t, e.Close())
	s.closed = slices.DeleteFunc(s.closed, func(other *Executor) bool { return other == e })
}

// pass lets time pass, and all be done that is to be done then.
func (s *scene) pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

// follow is in the place of the following of a log.
func (s *scene) follow(ctx context.Context, pod *corev1.Pod, _ string, _ TypeOptions, run taskbridge.NumberedRun) (said, error) {
	s.mu.Lock()
	output := s.outputs[pod.Name]
	s.reads[pod.Name]++
	s.mu.Unlock()
	for i := range output.progress {
		report := taskbridge.Report{Ordinal: int64(i + 1), Progress: &taskbridge.Progress{Percent: float64(i + 1), Message: pod.Name}}
		if _, err := run.Report(ctx, []taskbridge.Report{report}); err != nil {
			return said{}, err
		}
	}
	for back := time.Now().Add(output.away); time.Now().Before(back); {
		run.(*heardRun).hold()
		if err := sleep(ctx, taskbridge.SystemClock{}, 10*time.Second); err != nil {
			return said{Tail: "as far as it was read"}, err
		}
	}
	if output.held != nil {
		select {
		case <-output.held:
		case <-ctx.Done():
			return said{Tail: "as far as it was read"}, ctx.Err()
		}
	}
	return output.said, output.err
}

func (s *scene) says(pod string, o output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[pod] = o
}

// job makes the task's Job, or changes it.
func (s *scene) job(change func(*batchv1.Job)) {
	s.t.Helper()
	jobs := s.client.BatchV1().Jobs("ns")
	name := jobName(defaultInstance, s.task.ID)
	job, err := jobs.Get(s.t.Context(), name, metav1.GetOptions{})
	if err == nil {
		job = job.DeepCopy()
		if change != nil {
			change(job)
		}
		_, err = jobs.Update(s.t.Context(), job, metav1.UpdateOptions{})
	} else {
		job = &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "ns", UID: "job", CreationTimestamp: metav1.Now(), Labels: s.labels(),
			Annotations: map[string]string{annotationTaskID: s.task.ID, annotationTaskType: "work"},
		}}
		if change != nil {
			change(job)
		}
		_, err = jobs.Create(s.t.Context(), job, metav1.CreateOptions{})
	}
	must(s.t, err)
	synctest.Wait()
}

func (s *scene) labels() map[string]string {
	return map[string]string{labelManagedBy: managedBy, labelInstance: defaultInstance, labelTask: hashOf(s.task.ID)}
}

// final ends the Job.
func (s *scene) final(kind batchv1.JobConditionType, reason string) {
	s.t.Helper()
	s.job(func(job *batchv1.Job) {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{
			Type: kind, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: metav1.Now(),
		})
	})
}

// pod makes a pod of the Job, or changes it.
func (s *scene) pod(name string, change func(*corev1.Pod)) {
	s.t.Helper()
	pods := s.client.CoreV1().Pods("ns")
	pod, err := pods.Get(s.t.Context(), name, metav1.GetOptions{})
	if err == nil {
		pod = pod.DeepCopy()
		change(pod)
		_, err = pods.Update(s.t.Context(), pod, metav1.UpdateOptions{})
	} else {
		pod = &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: "ns", UID: types.UID(name), CreationTimestamp: metav1.Now(), Labels: s.labels(),
				Annotations: map[string]string{annotationTaskID: s.task.ID, annotationTaskType: "work"},
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "batch/v1", Kind: "Job", Name: jobName(defaultInstance, s.task.ID), UID: "job", Controller: new(true),
				}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "work"}}, NodeName: "node"},
		}
		change(pod)
		_, err = pods.Create(s.t.Context(), pod, metav1.CreateOptions{})
	}
	must(s.t, err)
	synctest.Wait()
}

// runs has the work of a pod begin.
func runs(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "work", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
}

// ends has the work of a pod end.
func ends(status int32, message string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodSucceeded
		if status != 0 {
			pod.Status.Phase = corev1.PodFailed
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "work", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: status, Message: message, StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
			}},
		}}
	}
}

// waits has the work of a pod wait for something.
func waits(reason string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Phase, pod.Status.StartTime = corev1.PodPending, new(metav1.Now())
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "work", State: waitingFor(reason, "")}}
	}
}

func (s *scene) deleteJob() {
	s.t.Helper()
	must(s.t, s.client.BatchV1().Jobs("ns").Delete(s.t.Context(), jobName(defaultInstance, s.task.ID), metav1.DeleteOptions{}))
	synctest.Wait()
}

func (s *scene) deletePod(name string) {
	s.t.Helper()
	must(s.t, s.client.CoreV1().Pods("ns").Delete(s.t.Context(), name, metav1.DeleteOptions{}))
	synctest.Wait()
}

func (s *scene) row() taskbridge.Task {
	s.t.Helper()
	row, err := s.store.GetTask(s.t.Context(), s.task.ID)
	must(s.t, err)
	return row
}

// stream is the events, as in "STARTED PROGRESS:1/pod COMPLETED".
func (s *scene) stream() string {
	s.t.Helper()
	events, err := s.store.ReadEvents(s.t.Context(), s.task.ID, 0, 1000)
	must(s.t, err)
	var told []string
	for _, event := range events {
		kind := strings.TrimPrefix(string(event.Type), "TASK_")
		switch event.Type {
		case taskbridge.EventProgress:
			var p struct {
				Progress float64
				Message  string
			}
			must(s.t, json.Unmarshal(event.Payload, &p))
			kind = p.Message + ":" + strconv.Itoa(int(p.Progress))
		case taskbridge.EventMessage:
			var m struct{ Level string }
			must(s.t, json.Unmarshal(event.Payload, &m))
			kind = m.Level
		}
		told = append(told, kind)
	}
	return strings.Join(told, " ")
}

func (s *scene) wantStream(want string) {
	s.t.Helper()
	if got := s.stream(); got != want {
		s.t.Errorf("the stream is %q, want %q; the row ends %s", got, want, s.row().Terminal)
	}
}

func (s *scene) wantFailure(code string) {
	s.t.Helper()
	if failure, is := s.row().Failure(); !is || failure.Code != code {
		s.t.Errorf("the row is %s %s, want %s", s.row().Status, s.row().Terminal, code)
	}
}

// wantRecorded checks whether the Job is marked as recorded.
func (s *scene) wantRecorded(want bool) {
	s.t.Helper()
	job, err := s.client.BatchV1().Jobs("ns").Get(s.t.Context(), jobName(defaultInstance, s.task.ID), metav1.GetOptions{})
	must(s.t, err)
	ttl := job.Spec.TTLSecondsAfterFinished
	if is := job.Labels[labelRecorded] == "true" && ttl != nil && *ttl == 3600; is != want {
		s.t.Errorf("marked as recorded: %v, want %v; labels %v", is, want, job.Labels)
	}
}

// requests are those that were made since it was called last, but for the caches'
// own and the test's reads, as in "patch jobs".
func (s *scene) requests() string {
	var made []string
	for _, action := range s.client.Actions() {
		if action.GetVerb() == "watch" || action.GetVerb() == "list" && !strings.Contains(fmt.Sprint(action), labelTask) {
			continue
		}
		made = append(made, action.GetVerb()+" "+action.GetResource().Resource)
	}
	s.client.ClearActions()
	return strings.Join(made, ", ")
}
