package podlog

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// state is what the API says of a container.
type state int

const (
	unknown state = iota // the API does not answer
	going                // it runs, or is still to start
	ended
	unborn // it never started and never will
	gone   // the pod is
)

// lookTimeout is how long the API server may take to say what has become of a pod.
const lookTimeout = 30 * time.Second

// look asks for the container's state. That a connection has ended says nothing of it.
func (f *follower) look(ctx context.Context) state {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	pod, err := f.Client.CoreV1().Pods(f.Namespace).Get(ctx, f.Pod, metav1.GetOptions{})
	switch {
	case notThere(err):
		return gone
	case err != nil:
		f.Logger.Debug("pod not found out about", "error", err)
		if f.Away != nil {
			f.Away()
		}
		return unknown
	case pod.UID != f.UID:
		return gone
	}
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	for _, status := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
		switch {
		case status.Name != f.Container:
		case status.State.Terminated != nil:
			return ended
		case over && status.State.Running == nil && status.LastTerminationState.Terminated == nil:
			return unborn
		case over:
			return ended
		default:
			return going
		}
	}
	if over {
		return unborn
	}
	return going
}

// notThere says that the API server has no such object. A proxy that finds nothing
// under an address is no answer of the API server's.
func notThere(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
