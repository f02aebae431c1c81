package k8sjob

import (
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestClusterRunsTheWorkOfTheTests(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	template := c.podTemplate([]string{"print=hello", "get=" + g.URL, "progress=2", "termination=bye", "exit=3"}, nil)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: template.Template.Spec}
	pods := c.client.CoreV1().Pods(c.namespace)
	_, err := pods.Create(c.ctx, pod, metav1.CreateOptions{})
	must(t, err)
	await(t, "the pod waits at the gate", g.arrived)
	g.open()
	until(t, "the pod has failed", func() bool {
		pod, err = pods.Get(c.ctx, "work", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodFailed
	})
	if end := pod.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 3 || end.Message != "bye" {
		t.Errorf("the container's end is %+v", end)
	}
	stream, err := pods.GetLogs("work", &corev1.PodLogOptions{}).Stream(c.ctx)
	must(t, err)
	said, err := io.ReadAll(stream)
	must(t, err)
	must(t, stream.Close())
	want := "hello\n::taskbridge {\"message\":\"1\",\"progress\":50}\n::taskbridge {\"message\":\"2\",\"progress\":100}\n"
	if string(said) != want {
		t.Errorf("it said %q, want %q", said, strings.TrimSpace(want))
	}
}
