//go:build linux

// Package lifecycle proves that a cluster leaves its host as it found it, however it
// ends.
package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/image"
)

// binary is the program that is tested.
var binary = os.Getenv("TASKBRIDGE_K8S_TESTCLUSTER")

func TestMain(m *testing.M) {
	if binary == "" {
		fmt.Println("TASKBRIDGE_K8S_TESTCLUSTER names no testcluster: its lifecycle is NOT tested. make test-k8sjob does it.")
		return
	}
	// What an earlier cluster has left would vanish in the middle of a test.
	if first := testcluster("run", "--", "true"); first.Run() != nil {
		fmt.Println("no cluster can be started:", first.Stderr)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestRunEndsAsItsCommandDoesAndLeavesNothing(t *testing.T) {
	before := look(t)
	command := testcluster("run", "--", "sh", "-c",
		`test -S "$TASKBRIDGE_TEST_CLUSTER_CONTROL" && test -f "$TASKBRIDGE_TEST_KUBECONFIG" && exit 7`)
	err := command.Run()
	if code := command.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit status %d (%v), want the command's 7: %s", code, err, command.Stderr)
	}
	before.same(t)
}

func TestAnInterruptedRunEndsItsCommandAndLetsTheNextOneStart(t *testing.T) {
	before := look(t)
	first := begin(t)
	startPod(t, first.kubeconfig)

	second := testcluster("run", "--", "true")
	waits := make(lineWatch, 1)
	second.Stderr = waits
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	if line := <-waits; !strings.Contains(line, "another cluster runs on this host") {
		t.Errorf("a second cluster says %q", line)
	}
	if err := first.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-first.ended; err == nil {
		t.Error("a cluster that is stopped ends as if its command had succeeded")
	}
	if code := first.command.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit status %d after SIGTERM: %s", code, first.command.Stderr)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the second cluster: %v", err)
	}
	before.same(t)
}

func TestTheNextRunRemovesWhatAKilledOneLeft(t *testing.T) {
	before := look(t)
	killed := begin(t)
	startPod(t, killed.kubeconfig)
	if err := killed.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-killed.ended; err == nil {
		t.Error("a killed cluster ended by itself")
	}
	if now := look(t); now.text == before.text {
		t.Error("nothing is left by a killed cluster, so nothing would be proven")
	}
	next := testcluster("run", "--", "true")
	if err := next.Run(); err != nil {
		t.Errorf("the next cluster: %v: %s", err, next.Stderr)
	}
	if said := fmt.Sprint(next.Stderr); !strings.Contains(said, "removing what a cluster that was killed has left") {
		t.Errorf("the next cluster says %q", said)
	}
	before.same(t)
}

func TestAComponentThatDoesNotStartIsNamedWithItsLogAndNothingIsLeft(t *testing.T) {
	before := look(t)
	broken := t.TempDir()
	script := "#!/bin/sh\necho 'the disk is on fire' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(broken, "containerd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	command := testcluster("run", "--", "true")
	command.Env = append(os.Environ(), "PATH="+broken+":"+os.Getenv("PATH"))
	err := command.Run()
	if code := command.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d (%v)", code, err)
	}
	said := fmt.Sprint(command.Stderr)
	for _, want := range []string{"containerd does not get ready: it ended: exit status 1", "the disk is on fire"} {
		if !strings.Contains(said, want) {
			t.Errorf("it doesn't say %q but: %s", want, said)
		}
	}
	before.same(t)
}

// testcluster is the program, with a buffer as its standard error.
func testcluster(args ...string) *exec.Cmd {
	command := exec.Command(binary, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	command.Stderr = new(bytes.Buffer)
	return command
}

// running is a cluster whose command waits for ever.
type running struct {
	command    *exec.Cmd
	kubeconfig string
	ended      <-chan error
}

// begin returns once the cluster's command runs.
func begin(t *testing.T) running {
	t.Helper()
	command := testcluster("run", "--", "sh", "-c", `echo "$TASKBRIDGE_TEST_KUBECONFIG"; exec sleep 1000000`)
	lines := make(lineWatch, 1)
	command.Stdout = lines
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case line := <-lines:
		return running{command, strings.TrimSpace(line), ended}
	case err := <-ended:
		t.Fatalf("the cluster does not start: %v: %s", err, command.Stderr)
		return running{}
	}
}

// lineWatch is a writer that hands over what is first written.
type lineWatch chan string

func (w lineWatch) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}

// startPod returns once a pod runs, with all that the kubelet mounts for it.
func startPod(t *testing.T, kubeconfig string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := client.CoreV1().Pods("default")
	pod := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: "left"},
		Spec: core.PodSpec{Containers: []core.Container{
			{Name: "pause", Image: image.PauseName, ImagePullPolicy: core.PullNever},
		}},
	}
	if _, err := pods.Create(t.Context(), pod, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	watch, err := pods.Watch(t.Context(), meta.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "left").String()})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		if seen, ok := event.Object.(*core.Pod); ok && seen.Status.Phase == core.PodRunning {
			return
		}
	}
	t.Fatal("the watch of the pod ended")
}

// host is what clusters change on a host, as text.
type host struct{ text string }

// same fails where the host is not as it was.
func (h host) same(t *testing.T) {
	t.Helper()
	now := look(t)
	if now.text == h.text {
		return
	}
	for line := range strings.Lines(now.text) {
		if !strings.Contains(h.text, line) {
			t.Error("new on the host: ", line)
		}
	}
	for line := range strings.Lines(h.text) {
		if !strings.Contains(now.text, line) {
			t.Error("no more on the host: ", line)
		}
	}
	t.Error("the host is not as it was")
}

func look(t *testing.T) host {
	t.Helper()
	var text strings.Builder
	for _, name := range []string{
		"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
		"vm/overcommit_memory", "net/ipv4/ip_forward",
	} {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		fmt.Fprintln(&text, name, strings.TrimSpace(string(value)), err)
	}
	for _, pattern := range []string{
		"/sys/class/net/*", "/sys/fs/cgroup/tbk8s-*", "/sys/fs/cgroup/*/tbk8s-*", filepath.Join(os.TempDir(), "tbk8s-*"),
		"/var/lib/kubelet", "/var/lib/kubelet/*", "/var/log/containers/*", "/var/log/pods/*", "/var/lib/cni/*/*",
		"/run/containerd/*", "/run/containerd/s/*", "/run/netns/*", "/opt/containerd", "/etc/cni/net.d/*",
		"/run/taskbridge-testcluster/state*", "/usr/libexec/kubernetes",
	} {
		files, err := filepath.Glob(pattern)
		fmt.Fprintln(&text, pattern, files, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		fmt.Fprintln(&text, "mount", strings.Fields(line)[4])
	}
	fmt.Fprintln(&text, err)
	for _, program := range []string{"containerd", "containerd-shim", "pause", filepath.Base(binary)} {
		fmt.Fprintln(&text, program, processes(t, program))
	}
	routes, err := os.ReadFile("/proc/net/route")
	fmt.Fprintln(&text, string(routes), err)
	return host{text.String()}
}

// processes are the command lines of those with that name.
func processes(t *testing.T, program string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		line, err := os.ReadFile(entry)
		if err != nil { // it has ended
			continue
		}
		name, _, _ := strings.Cut(string(line), "\x00")
		if strings.HasPrefix(filepath.Base(name), program) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}
