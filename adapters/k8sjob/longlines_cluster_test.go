package k8sjob

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The runtime writes a line of more than 16 KiB to its file in pieces, and the kubelet
// joins them: with what is next in the file, whosever it is.
func TestClusterALineIsOneLineOfTheLogUnlessTheOtherStreamComesBetween(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: c.podTemplate([]string{
		"long=,20480", "long=,1048576", "raw=" + strings.Repeat("a", 40_000), "sleep=300ms", "stderr=between", "sleep=300ms", "print=b",
	}, nil).Template.Spec}
	pods := c.client.CoreV1().Pods(c.namespace)
	_, err := pods.Create(c.ctx, pod, metav1.CreateOptions{})
	must(t, err)
	until(t, "the pod has ended", func() bool {
		pod, err = pods.Get(c.ctx, "work", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodSucceeded
	})
	stream, err := pods.GetLogs("work", &corev1.PodLogOptions{Timestamps: true}).Stream(c.ctx)
	must(t, err)
	text, err := io.ReadAll(stream)
	must(t, err)
	must(t, stream.Close())
	var got []string
	for line := range strings.Lines(string(text)) {
		_, said, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		size := fmt.Sprint(len(said))
		if said[0] == 'a' {
			size = "some" // where it is broken in two is the runtime's affair
		}
		got = append(got, size+" "+said[max(0, len(said)-8):])
	}
	want := []string{"20480 zzzzzzzz", "1048576 zzzzzzzz", "some abetween", "some aaaaaaab"}
	if !slices.Equal(got, want) {
		t.Errorf("the lines are %q, want %q", got, want)
	}
}

func TestClusterAReportIsOfAsMuchAsItsLineMayHave(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	types := c.newTypes(
		`long=::taskbridge {"message":",20480,"}`, `long=::taskbridge {"result":",60000,"}`,
		`long=::taskbridge {"message":",100000,"}`, `long=::taskbridge {"result":",1048576,"}`, "raw=::taskbridge {\"message\":\"the end\"}\r\n",
	)
	b := c.newBridge(bridgeOptions{types: types})
	task := b.create(`{}`)
	b.wantResult(task, `"`+strings.Repeat("z", 60_000)+`"`)
	got := b.stream(task)
	ignored := func(size int) string {
		return fmt.Sprintf(`MESSAGE {"message":"a report of the container was ignored: it has %d bytes, at most 65536 are read","level":"warning"}`, size)
	}
	want := []string{
		"STARTED {}", `MESSAGE {"message":"` + strings.Repeat("z", 20_480) + `","level":"info"}`,
		ignored(100_027), ignored(1_048_602), `MESSAGE {"message":"the end","level":"info"}`, `COMPLETED {"result":"` + strings.Repeat("z", 60_000) + `"}`,
	}
	if !slices.Equal(got, want) {
		for i, event := range got {
			t.Errorf("event %d has %d bytes: %.150q", i+1, len(event), event)
		}
	}
}
