package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/taskbridge/taskbridge/core/client"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kill ends the server's process as a crash would, from outside of its pod, and
// returns once another one is ready.
func (d *deployed) kill(t *testing.T) {
	t.Helper()
	pod := d.awaitServer(t)
	before := restarts(pod)
	process, err := os.FindProcess(processOf(t, pod))
	must(t, err)
	must(t, process.Signal(syscall.SIGKILL))
	until(t, "the server runs again", func() (bool, string) {
		pods := d.pods(t, serverNamespace, serverSelector)
		return len(pods) == 1 && restarts(pods[0]) > before, d.describe(pods[0])
	})
	d.awaitServer(t)
}

func restarts(pod corev1.Pod) int32 {
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// processOf finds the server among the processes of this machine, which is the node:
// its control group has the pod's UID in its name.
func processOf(t *testing.T, pod corev1.Pod) int {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, folder := range folders {
		groups, groupsErr := os.ReadFile(filepath.Join(folder, "cgroup"))
		command, commandErr := os.ReadFile(filepath.Join(folder, "cmdline"))
		if groupsErr != nil || commandErr != nil || !strings.HasPrefix(string(command), "/taskbridge\x00") {
			continue // or it has ended meanwhile
		}
		uid := string(pod.UID)
		if strings.Contains(string(groups), uid) || strings.Contains(string(groups), strings.ReplaceAll(uid, "-", "_")) {
			pid, err := strconv.Atoi(filepath.Base(folder))
			must(t, err)
			return pid
		}
	}
	t.Fatalf("no process belongs to the pod %s", pod.Name)
	return 0
}

func TestClusterAServerInAPodEndsEachTaskOnceThroughCrashAndRestart(t *testing.T) {
	d := deploy(t)
	c, g := d.newClient(t), newGates(t)

	// The task type that the manifests come with.
	outcome, err := c.Do(d.ctx, client.CreateRequest{TaskType: "hello", Input: map[string]string{"name": "cluster"}}, nil)
	if err != nil || string(outcome.Result) != `{"greeting":"Hello, cluster"}` {
		t.Fatalf("%s, %v\n%s", outcome.Result, err, d.describe(d.awaitServer(t)))
	}

	steps := func(number int) string {
		return fmt.Sprintf(`TASK_PROGRESS {"progress":%d,"message":"step %d"`, number*25, number)
	}
	whole := []string{"TASK_STARTED", steps(1), steps(2), steps(3), `TASK_COMPLETED {"result":{"steps":3}`}

	// A task that is cancelled while it runs, in both ways of reporting.
	for _, taskType := range []string{"lines", "report"} {
		running := follow(d.ctx, t, c, taskType, "cancelled-"+taskType, g.input("cancelled-"+taskType))
		running.await(t, "step 1")
		_, err := c.Cancel(d.ctx, running.task, "changed my mind")
		must(t, err)
		expect(t, "cancelled "+taskType, told(running.end(t)), "TASK_STARTED", steps(1), `TASK_CANCELLED {"reason":"changed my mind"`)
	}

	lines := follow(d.ctx, t, c, "lines", "lines", g.input("lines"))
	report := follow(d.ctx, t, c, "report", "report", g.input("report"))
	for _, f := range []*follower{lines, report} {
		f.await(t, "step 1")
	}
	d.kill(t)
	g.open("lines", 1)
	g.open("report", 1)
	for _, f := range []*follower{lines, report} {
		f.await(t, "step 2")
	}

	// The server is away while the work goes on, and for one of them to its end.
	d.scale(t, 0)
	g.open("lines", 2, 3)
	g.open("report", 2, 3)
	until(t, "the Job ends without a server", func() (bool, string) {
		jobs, err := d.client.BatchV1().Jobs(jobsNamespace).List(d.ctx, metav1.ListOptions{})
		must(t, err)
		for _, job := range jobs.Items {
			if job.Annotations["taskbridge.dev/task-id"] == lines.task {
				return job.Status.Succeeded == 1, fmt.Sprintf("%+v", job.Status)
			}
		}
		return false, "it is not there"
	})
	d.scale(t, 1)
	d.awaitServer(t)
	expect(t, "lines", lines.end(t), whole...)
	expect(t, "report", report.end(t), whole...)

	// The streams as somebody reads them who comes later.
	for _, f := range []*follower{lines, report} {
		if again := replay(t, d, c, f.task); strings.Join(again, "\n") != strings.Join(f.end(t), "\n") {
			t.Errorf("task %s reads as\n%s", f.task, strings.Join(again, "\n"))
		}
	}
	if deployment := d.deployment(t); deployment.Status.ReadyReplicas != 1 {
		t.Errorf("the Deployment says %+v", deployment.Status)
	}
}

// replay reads a stream from its beginning.
func replay(t *testing.T, d *deployed, c *client.Client, task string) (lines []string) {
	t.Helper()
	for event, err := range c.Follow(d.ctx, task, client.FollowOptions{}) {
		must(t, err)
		lines = append(lines, fmt.Sprintf("%s %s", event.Type, event.Payload))
	}
	return lines
}
