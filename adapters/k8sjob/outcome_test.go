package k8sjob

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// epoch is a time of the objects that these tests make.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds int) metav1.Time {
	return metav1.NewTime(epoch.Add(time.Duration(seconds) * time.Second))
}

// endedJobOf is a Job with the final condition.
func endedJobOf(final batchv1.JobConditionType, reason, message string) *batchv1.Job {
	return &batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{
		{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, Reason: "CompletionsReached"},
		{Type: final, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: at(60)},
	}}}
}

// podOf is a pod with a container "work", and a sidecar beside it that is no matter.
func podOf(phase corev1.PodPhase, state corev1.ContainerState) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod", CreationTimestamp: at(0)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "sidecar"}, {Name: "work"}}, NodeName: "node"},
		Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "sidecar", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 99, StartedAt: at(1), Message: `"sidecar"`}}},
			{Name: "work", State: state},
		}},
	}
}

func exited(status int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: status, Reason: reason, Message: message, StartedAt: at(1), FinishedAt: at(50),
	}}
}

func TestTheOutcomeSaysWhatBecameOfTheJob(t *testing.T) {
	complete := endedJobOf(batchv1.JobComplete, "CompletionsReached", "")
	backoff := endedJobOf(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	cancelled := endedJobOf(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	cancelled.Annotations = map[string]string{annotationCancelRequested: "2026-01-02T03:04:05Z"}
	failure := func(code, message string, retryable bool) taskbridge.Outcome {
		return failed(taskbridge.Failure{Code: code, Message: message, Retryable: retryable})
	}
	completed := func(result, message string) taskbridge.Outcome {
		completion := taskbridge.Completion{Message: message}
		if result != "" {
			completion.Result = json.RawMessage(result)
		}
		return taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: completion}
	}
	disrupted := func(pod *corev1.Pod, reason, message string) *corev1.Pod {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason})
		pod.Status.Message = message
		return pod
	}
	becauseOf := func(pod *corev1.Pod, reason, message string) *corev1.Pod {
		pod.Status.Reason, pod.Status.Message = reason, message
		return pod
	}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
	initFailed := podOf(corev1.PodFailed, waiting)
	initFailed.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "fetch", State: exited(2, "Error", "no such host")}}
	killedSidecar := podOf(corev1.PodFailed, waiting)
	killedSidecar.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}, {Name: "fetch"}}
	killedSidecar.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "proxy", State: exited(137, "Error", "")}, {Name: "fetch", State: exited(2, "Error", "")},
	}
	notStarted := podOf(corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 128, Reason: "StartError", Message: `exec: "nothing": not found`, StartedAt: metav1.Unix(0, 0),
	}})

	for name, test := range map[string]struct {
		job    *batchv1.Job
		pod    *corev1.Pod
		output said
		want   taskbridge.Outcome
	}{
		"nothing said": {job: complete, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", "")), want: completed("", "")},
		"termination message": {
			job: complete, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", " {\"n\": 1}\n")), want: completed(`{"n": 1}`, ""),
		},
		"termination message that is no JSON": {
			job: complete, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", "all well\xff")), want: completed("", "all well\uFFFD"),
		},
		"a result that was said comes before a termination message": {
			job: complete, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", "1")), output: said{Result: json.RawMessage("2")}, want: completed("2", ""),
		},
		"a failure that was said comes before exit status 0": {
			job: complete, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", "1")),
			output: said{Fail: &taskbridge.Failure{Code: "NO_INPUT", Message: "m", Retryable: true}, Tail: "tail"},
			want:   failure("NO_INPUT", "m", true),
		},
		"complete without a pod": {job: complete, want: completed("", "")},
		"exit status": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(3, "Error", "")), output: said{Tail: "one\ntwo"},
			want: failure(CodeExited, "container \"work\" ended with exit status 3\none\ntwo", false),
		},
		"a failure that was said comes before an exit status": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(3, "Error", "")),
			output: said{Fail: &taskbridge.Failure{Code: "BAD", Message: "m"}}, want: failure("BAD", "m", false),
		},
		"the termination message where no output was read": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(3, "Error", "a\nb\n::taskbridge {\"progress\":1}\nc\n")),
			want: failure(CodeExited, "container \"work\" ended with exit status 3\nb\nc", false),
		},
		"signal as a shell tells it": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(137, "Error", "")),
			want: failure(CodeSignalled, `container "work" was ended by signal 9 (SIGKILL), exit status 137`, false),
		},
		"exit status that is no signal": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(255, "Error", "")),
			want: failure(CodeExited, `container "work" ended with exit status 255`, false),
		},
		"out of memory": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(137, "OOMKilled", "")),
			want: failure(CodeOOMKilled, `container "work" was killed: it needed more memory than its limit`, false),
		},
		"program that is not there": {
			job: backoff, pod: notStarted,
			want: failure(CodeConfig, "container \"work\" could not be started\nexec: \"nothing\": not found", false),
		},
		"init container": {
			job: backoff, pod: initFailed,
			want: failure(CodeExited, "init container \"fetch\" ended with exit status 2\nno such host", false),
		},
		"init container after a sidecar that was killed": {
			job: backoff, pod: killedSidecar, want: failure(CodeExited, "init container \"fetch\" ended with exit status 2", false),
		},
		"status that the node has lost": {
			job: backoff, pod: podOf(corev1.PodFailed, exited(137, "ContainerStatusUnknown", "")),
			want: failure(CodeNodeLost, `the node does not know how container "work" ended`, true),
		},
		"evicted by the kubelet": {
			job: backoff, pod: becauseOf(podOf(corev1.PodFailed, exited(137, "Error", "")), "Evicted", "The node was low on resource: memory."),
			want: failure(CodeEvicted, "the pod was evicted: The node was low on resource: memory.", true),
		},
		"evicted over the API": {
			job: backoff, pod: disrupted(podOf(corev1.PodFailed, exited(143, "Error", "")), "EvictionByEvictionAPI", "Eviction API: evicting"),
			want: failure(CodeEvicted, "the pod was taken from its node (EvictionByEvictionAPI): Eviction API: evicting", true),
		},
		"preempted": {
			job: backoff, pod: disrupted(podOf(corev1.PodFailed, exited(143, "Error", "")), "PreemptionByScheduler", ""),
			want: failure(CodeEvicted, "the pod was taken from its node (PreemptionByScheduler)", true),
		},
		"node that is gone": {
			job: backoff, pod: disrupted(podOf(corev1.PodFailed, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(1)}}), "DeletionByPodGC", ""),
			want: failure(CodeNodeLost, "the pod's node is gone (DeletionByPodGC)", true),
		},
		"turned down by the node": {
			job: backoff, pod: becauseOf(podOf(corev1.PodFailed, waiting), "OutOfcpu", "Pod was rejected"),
			want: failure(CodeUnschedulable, "the node turned the pod down: OutOfcpu: Pod was rejected", true),
		},
		"deadline of the pod": {
			job: backoff, pod: becauseOf(podOf(corev1.PodFailed, exited(143, "Error", "")), "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),
			want: failure(CodeDeadlineExceeded, "the pod ran out of its time: Pod was active on the node longer than the specified deadline", true),
		},
		"deadline of the Job": {
			job:  endedJobOf(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"),
			pod:  podOf(corev1.PodFailed, exited(143, "Error", "")),
			want: failure(CodeDeadlineExceeded, "the Job ran out of its time: Job was active longer than specified deadline", true),
		},
		"deadline that is a cancellation's, and a signal": {
			job: cancelled, pod: podOf(corev1.PodFailed, exited(143, "Error", "")),
			want: failure(CodeDeadlineExceeded, `the work was stopped: container "work" was ended by signal 15 (SIGTERM), exit status 143`, true),
		},
		"deadline that is a cancellation's, and an exit": {
			job: cancelled, pod: podOf(corev1.PodSucceeded, exited(0, "Completed", "")),
			want: failure(CodeDeadlineExceeded, `the work was stopped: container "work" ended with exit status 0`, true),
		},
		"deadline that is a cancellation's, and nothing known": {
			job: cancelled, want: failure(CodeDeadlineExceeded, "the work was stopped", true),
		},
		"failure policy": {
			job:  endedJobOf(batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy, "Container work for pod x failed with exit code 42 matching FailJob rule at index 0"),
			pod:  podOf(corev1.PodFailed, exited(42, "Error", "")),
			want: failure(CodePodFailurePolicy, "the Job's podFailurePolicy ended it: Container work for pod x failed with exit code 42 matching FailJob rule at index 0", false),
		},
		"failed without a pod": {
			job:  backoff,
			want: failure(CodeBackoffLimitExceeded, "the Job failed, and nothing is known of its last pod: Job has reached the specified backoff limit", true),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var pod *podLevel
			if test.pod != nil {
				pod = levelOfPod(test.pod, map[string]TypeOptions{"": {Container: "work"}})
			}
			got := outcomeOf(levelOfJob(test.job), pod, test.output, 2)
			if wanted, is := asJSON(t, test.want), asJSON(t, got); wanted != is {
				t.Errorf("outcome\n%s, want\n%s", is, wanted)
			}
		})
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatFailsAfterACancellationWasAskedForIsCancelled(t *testing.T) {
	intent := taskbridge.Task{Cancellation: taskbridge.Cancellation{RequestedAt: epoch, Reason: "enough"}}
	failure := failed(taskbridge.Failure{Code: CodeExited, Message: "it ended\ntail"})
	completion := taskbridge.Outcome{Status: taskbridge.StatusCompleted}
	for name, test := range map[string]struct {
		row     taskbridge.Task
		job     *jobLevel
		outcome taskbridge.Outcome
		want    taskbridge.TaskStatus
	}{
		"failed after":     {intent, &jobLevel{finished: epoch.Unix() + 1}, failure, taskbridge.StatusCancelled},
		"failed then":      {intent, &jobLevel{finished: epoch.Unix()}, failure, taskbridge.StatusCancelled},
		"failed some time": {intent, nil, failure, taskbridge.StatusCancelled},
		"failed before":    {intent, &jobLevel{finished: epoch.Unix() - 1}, failure, taskbridge.StatusFailed},
		"failed after it was told to stop, before by the clock": {
			intent, &jobLevel{finished: epoch.Unix() - 60, cancelled: true}, failure, taskbridge.StatusCancelled,
		},
		"completed": {intent, &jobLevel{finished: epoch.Unix() + 1}, completion, taskbridge.StatusCompleted},
		"not asked": {taskbridge.Task{}, &jobLevel{finished: epoch.Unix(), cancelled: true}, failure, taskbridge.StatusFailed},
	} {
		t.Run(name, func(t *testing.T) {
			got := ofIntent(test.row, test.job, test.outcome)
			if got.Status != test.want {
				t.Errorf("%s, want %s", got.Status, test.want)
			}
			if got.Status == taskbridge.StatusCancelled && got.Message != "it ended" {
				t.Errorf("message %q", got.Message)
			}
		})
	}
}

func TestTheLastPodIsTheOneWhoseEndIsTheJobs(t *testing.T) {
	pod := func(name string, phase corev1.PodPhase) *podLevel {
		return &podLevel{identity: identity{name: name}, phase: phase}
	}
	succeeded, lost, running := pod("succeeded", corev1.PodSucceeded), pod("failed", corev1.PodFailed), pod("running", corev1.PodRunning)
	for name, test := range map[string]struct {
		final batchv1.JobConditionType
		pods  []*podLevel
		want  *podLevel
	}{
		"none":                         {batchv1.JobFailed, nil, nil},
		"the newest that is over":      {batchv1.JobFailed, []*podLevel{pod("older", corev1.PodFailed), lost, running}, lost},
		"the one that succeeded":       {batchv1.JobComplete, []*podLevel{lost, succeeded, pod("newer", corev1.PodFailed)}, succeeded},
		"one that is not known to end": {batchv1.JobFailed, []*podLevel{running}, running},
	} {
		if got := lastPod(&jobLevel{final: test.final}, test.pods); got != test.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestATailIsBoundedInLinesAndBytes(t *testing.T) {
	pod := &podLevel{end: &containerEnd{message: "first\n" + strings.Repeat("ä", maxTailBytes) + "\x00\nlast"}}
	if got := tailOf(pod, said{}, 1); got != "last" {
		t.Errorf("one line: %q", got)
	}
	got := tailOf(pod, said{}, 10)
	if len(got) > maxTailBytes+len("… ") || !strings.HasPrefix(got, "… ä") || !strings.HasSuffix(got, "ä\nlast") {
		t.Errorf("%d bytes: %.20q…%q", len(got), got, got[len(got)-10:])
	}
	if got := tailOf(pod, said{}, -1); got != "" {
		t.Errorf("no tail wanted: %q", got)
	}
	if got := tailOf(pod, said{Tail: "read"}, 1); got != "read" {
		t.Errorf("%q", got)
	}
}
