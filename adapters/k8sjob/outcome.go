package k8sjob

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Failure codes of this package. A message is a sentence of what happened, then the
// end of the output.
const (
	// CodeExited: the work ended with an exit status other than 0; not retryable.
	CodeExited = "K8SJOB_EXITED"
	// CodeSignalled: a signal ended the work that nobody here has sent; not retryable.
	CodeSignalled = "K8SJOB_SIGNALLED"
	// CodeOOMKilled: the work needed more memory than its limit; not retryable.
	CodeOOMKilled = "K8SJOB_OOM_KILLED"
	// CodeEvicted: the cluster took the pod from its node, for want of room or for
	// another pod; retryable.
	CodeEvicted = "K8SJOB_EVICTED"
	// CodeDeadlineExceeded: the Job, or its pod, ran longer than its
	// activeDeadlineSeconds; retryable.
	CodeDeadlineExceeded = "K8SJOB_DEADLINE_EXCEEDED"
	// CodePodFailurePolicy: a rule of the Job's podFailurePolicy ended it; not
	// retryable.
	CodePodFailurePolicy = "K8SJOB_POD_FAILURE_POLICY"
	// CodeBackoffLimitExceeded: the Job gave up, and nothing is known of its last
	// pod; retryable.
	CodeBackoffLimitExceeded = "K8SJOB_BACKOFF_LIMIT_EXCEEDED"
	// CodeNodeLost: the node of the pod is gone, or was for longer than
	// TypeOptions.LostTimeout; retryable.
	CodeNodeLost = "K8SJOB_NODE_LOST"
	// CodeDeleted: somebody deleted the Job before it ended; retryable.
	CodeDeleted = "K8SJOB_DELETED"
	// CodeImage: an image could not be had within TypeOptions.PendingTimeout; not
	// retryable.
	CodeImage = "K8SJOB_IMAGE"
	// CodeUnschedulable: no node took the pod within TypeOptions.PendingTimeout, or
	// one turned it down; retryable.
	CodeUnschedulable = "K8SJOB_UNSCHEDULABLE"
	// CodeQuota: the namespace's quota had no room for the pod within
	// TypeOptions.PendingTimeout; retryable.
	CodeQuota = "K8SJOB_QUOTA"
	// CodeConfig: the pod or its container could not be made (within
	// TypeOptions.PendingTimeout), or its program could not be started; not
	// retryable.
	CodeConfig = "K8SJOB_CONFIG"
)

// codePrefix begins all of them.
const codePrefix = "K8SJOB_"

// Reasons of containers that the API has no names for.
const (
	reasonOOMKilled     = "OOMKilled"
	reasonStartError    = "StartError"
	reasonCannotRun     = "ContainerCannotRun"
	reasonUnknownStatus = "ContainerStatusUnknown"
)

// outcomeOf says how a task ends whose Job has ended. pod is the last one, nil if
// none is known; output is what it said. tailLines bounds the end of the output.
//
// A failure that the work said of itself counts, however its process ended. The
// result is the one that was said, else the container's termination message if that
// is JSON; a message that is not becomes the completion's message.
func outcomeOf(job *jobLevel, pod *podLevel, output said, tailLines int) taskbridge.Outcome {
	if output.Fail != nil {
		return failed(*output.Fail)
	}
	if job.final == batchv1.JobComplete {
		completion := taskbridge.Completion{Result: output.Result}
		if completion.Result == nil && pod != nil && pod.end != nil && !pod.end.init {
			completion.Result, completion.Message = resultOf(pod.end.message)
		}
		return taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: completion}
	}
	failure := failureOf(job, pod)
	failure.Message = withTail(failure.Message, tailOf(pod, output, tailLines))
	return failed(failure)
}

func failed(failure taskbridge.Failure) taskbridge.Outcome {
	return taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: failure}
}

// failureOf says what failed, without the output.
func failureOf(job *jobLevel, pod *podLevel) taskbridge.Failure {
	switch job.reason {
	case batchv1.JobReasonDeadlineExceeded:
		if job.cancelled { // the deadline is that of runOut
			return taskbridge.Failure{Code: CodeDeadlineExceeded, Message: stoppedWork(pod), Retryable: true}
		}
		return taskbridge.Failure{Code: CodeDeadlineExceeded, Message: sentence("the Job ran out of its time", job.message), Retryable: true}
	case batchv1.JobReasonPodFailurePolicy:
		return taskbridge.Failure{Code: CodePodFailurePolicy, Message: sentence("the Job's podFailurePolicy ended it", job.message)}
	}
	if pod != nil {
		if failure, known := failureOfPod(pod); known {
			return failure
		}
	}
	return taskbridge.Failure{
		Code: CodeBackoffLimitExceeded, Retryable: true,
		Message: sentence("the Job failed, and nothing is known of its last pod", job.message),
	}
}

// stoppedWork says how the work ended that was told to, as far as that is known.
func stoppedWork(pod *podLevel) string {
	const stopped = "the work was stopped"
	if pod == nil || pod.end == nil || pod.end.init {
		return stopped
	}
	return stopped + ": " + failureOfContainer(pod.end).Message
}

// endKnown reports whether the node has told how the container that counts ended.
func (p *podLevel) endKnown() bool {
	return p.end != nil && !p.end.init && p.end.reason != reasonUnknownStatus
}

// failureOfPod says why a pod failed, if it tells.
func failureOfPod(pod *podLevel) (failure taskbridge.Failure, known bool) {
	about := pod.message
	switch pod.reason {
	case "Evicted":
		return taskbridge.Failure{Code: CodeEvicted, Message: sentence("the pod was evicted", about), Retryable: true}, true
	case batchv1.JobReasonDeadlineExceeded:
		return taskbridge.Failure{Code: CodeDeadlineExceeded, Message: sentence("the pod ran out of its time", about), Retryable: true}, true
	case "NodeLost":
		return taskbridge.Failure{Code: CodeNodeLost, Message: sentence("the pod's node was lost", about), Retryable: true}, true
	}
	switch pod.disruption {
	case "":
	case corev1.PodReasonTerminationByKubelet, corev1.PodReasonPreemptionByScheduler, "EvictionByEvictionAPI", "DeletionByTaintManager":
		if pod.end == nil || pod.end.exitCode != 0 {
			return taskbridge.Failure{Code: CodeEvicted, Message: sentence("the pod was taken from its node ("+pod.disruption+")", about), Retryable: true}, true
		}
	default: // DeletionByPodGC: its node is not there any more
		return taskbridge.Failure{Code: CodeNodeLost, Message: sentence("the pod's node is gone ("+pod.disruption+")", about), Retryable: true}, true
	}
	if end := pod.end; end != nil && (end.exitCode != 0 || end.signal != 0) {
		return failureOfContainer(end), true
	}
	if pod.startedAt == 0 && pod.reason != "" { // OutOfcpu, NodeAffinity, UnexpectedAdmissionError, …
		return taskbridge.Failure{
			Code: CodeUnschedulable, Message: sentence("the node turned the pod down: "+pod.reason, about), Retryable: true,
		}, true
	}
	return failure, false
}

func failureOfContainer(end *containerEnd) taskbridge.Failure {
	what := fmt.Sprintf("container %q", end.container)
	if end.init {
		what = "init " + what
	}
	switch {
	case end.reason == reasonOOMKilled:
		return taskbridge.Failure{Code: CodeOOMKilled, Message: fmt.Sprintf("%s was killed: it needed more memory than its limit", what)}
	case end.reason == reasonStartError, end.reason == reasonCannotRun:
		return taskbridge.Failure{Code: CodeConfig, Message: what + " could not be started"}
	case end.reason == reasonUnknownStatus:
		return taskbridge.Failure{Code: CodeNodeLost, Message: "the node does not know how " + what + " ended", Retryable: true}
	}
	// The runtime tells a signal as a shell does.
	signal := end.signal
	if signal == 0 && end.exitCode > 128 && end.exitCode <= 128+64 {
		signal = end.exitCode - 128
	}
	if signal != 0 {
		return taskbridge.Failure{
			Code: CodeSignalled, Message: fmt.Sprintf("%s was ended by signal %s, exit status %d", what, signalName(signal), end.exitCode),
		}
	}
	return taskbridge.Failure{Code: CodeExited, Message: fmt.Sprintf("%s ended with exit status %d", what, end.exitCode)}
}

// signalName names the signals of Linux that end work, whatever this runs on.
func signalName(signal int32) string {
	names := map[int32]string{
		1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
		9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
		24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
	}
	if name, ok := names[signal]; ok {
		return fmt.Sprintf("%d (%s)", signal, name)
	}
	return fmt.Sprint(signal)
}

// resultOf reads a termination message: JSON is a result, anything else a message.
func resultOf(text string) (result json.RawMessage, message string) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, ""
	case utf8.ValidString(text) && json.Valid([]byte(text)):
		return json.RawMessage(text), ""
	}
	return nil, strings.ToValidUTF8(text, "\uFFFD")
}

// maxTailBytes bounds the end of the output in a failure's message.
const maxTailBytes = 2 << 10

// tailOf is the end of the output: what was read of it, else the termination
// message, which is the end of a failed container's log where it wrote none. Reports
// are no part of it.
func tailOf(pod *podLevel, output said, lines int) string {
	if output.Tail != "" || lines < 0 || pod == nil || pod.end == nil {
		return output.Tail
	}
	text := strings.TrimSpace(strings.ToValidUTF8(strings.ReplaceAll(pod.end.message, "\x00", ""), "\uFFFD"))
	kept := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, taskbridge.LineReportPrefix) })
	kept = kept[max(0, len(kept)-lines):]
	tail := strings.Join(kept, "\n")
	if excess := len(tail) - maxTailBytes; excess > 0 {
		for excess < len(tail) && !utf8.RuneStart(tail[excess]) {
			excess++
		}
		tail = "… " + tail[excess:]
	}
	return tail
}

func withTail(text, tail string) string {
	if tail == "" {
		return text
	}
	return text + "\n" + tail
}

// lastPod is the pod whose end is the Job's: of a Complete one the newest that
// succeeded, else the newest that is over, else the newest. nil: there is none.
func lastPod(job *jobLevel, pods []*podLevel) *podLevel {
	var newest, over, succeeded *podLevel
	for _, pod := range pods { // the oldest first
		newest = pod
		if pod.over() {
			over = pod
		}
		if pod.phase == corev1.PodSucceeded {
			succeeded = pod
		}
	}
	switch {
	case job.final == batchv1.JobComplete && succeeded != nil:
		return succeeded
	case over != nil:
		return over
	}
	return newest
}
