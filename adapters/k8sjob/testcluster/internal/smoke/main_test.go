// Package smoke proves what tests may count on in a cluster that testcluster runs.
package smoke

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/image"
)

const imageName = "taskbridge.test/smoke:1"

// patience bounds each wait; a busy machine needs some of it.
const patience = 90 * time.Second

var client kubernetes.Interface

func TestMain(m *testing.M) {
	if os.Getenv("TASKBRIDGE_TEST_CLUSTER_CONTROL") == "" {
		// They would say nothing about a cluster that others run.
		fmt.Println("No cluster of testcluster's: its smoke tests are NOT run. make test-k8sjob runs them.")
		return
	}
	if err := prepare(); err != nil {
		fmt.Println("prepare the smoke tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// prepare connects, and gives the cluster the image.
func prepare() error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("TASKBRIDGE_TEST_KUBECONFIG"))
	if err != nil {
		return err
	}
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "smoke-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "workload")
	build := exec.Command("go", "build", "-o", binary, "./workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the workload: %w: %s", err, output)
	}
	var archive bytes.Buffer
	im := image.Image{
		Name: imageName, User: "65532",
		Files:      []image.File{{Path: "/workload", Host: binary}},
		Entrypoint: []string{"/workload"},
	}
	if err := im.Write(&archive); err != nil {
		return err
	}
	response, err := controlClient.Post("http://testcluster/images", "application/x-tar", &archive)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if closed := response.Body.Close(); err == nil {
		err = closed
	}
	if want := `["` + imageName + `"]`; err == nil && strings.TrimSpace(string(answer)) != want {
		err = fmt.Errorf("the image is not taken: %s %s", response.Status, answer)
	}
	return err
}

var controlClient = &http.Client{
	Timeout: patience,
	Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", os.Getenv("TASKBRIDGE_TEST_CLUSTER_CONTROL"))
	}},
}

// control posts to the control socket and returns the status.
func control(t *testing.T, path string) int {
	t.Helper()
	status, answer := post(t, path, nil)
	if status == http.StatusInternalServerError {
		t.Fatal(answer)
	}
	return status
}

func post(t *testing.T, path string, body io.Reader) (status int, answer string) {
	t.Helper()
	response, err := controlClient.Post("http://testcluster"+path, "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// namespace is one for a test, deleted after it.
type namespace struct {
	t    *testing.T
	name string
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	made, err := client.CoreV1().Namespaces().Create(t.Context(),
		&core.Namespace{ObjectMeta: meta.ObjectMeta{GenerateName: "smoke-"}}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns := namespace{t, made.Name}
	t.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(context.Background(), ns.name, meta.DeleteOptions{}); err != nil {
			t.Errorf("delete the namespace: %v", err)
		}
	})
	wait(t, "the namespace to take pods", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(ns.name).Get(ctx, "default", meta.GetOptions{})
		return err == nil, err
	})
	return ns
}

func (ns namespace) create(job *batch.Job) {
	ns.t.Helper()
	if _, err := client.BatchV1().Jobs(ns.name).Create(ns.t.Context(), job, meta.CreateOptions{}); err != nil {
		ns.t.Fatal(err)
	}
}

// completes waits until the Job has, and looks at what its one pod has to say.
func (ns namespace) completes(name, message string) {
	ns.t.Helper()
	wait(ns.t, "the Job "+name+" to complete", func(ctx context.Context) (bool, error) {
		job, err := client.BatchV1().Jobs(ns.name).Get(ctx, name, meta.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range job.Status.Conditions {
			if condition.Status == core.ConditionTrue && condition.Type == batch.JobFailed {
				ns.t.Fatalf("the Job %s failed: %s; its pods said %q", name, condition.Message, ns.messages(name))
			}
			if condition.Status == core.ConditionTrue && condition.Type == batch.JobComplete {
				return true, nil
			}
		}
		return false, fmt.Errorf("its status is %+v", job.Status)
	})
	if got := ns.messages(name); len(got) != 1 || got[0] != message {
		ns.t.Errorf("the pods of %s said %q, want %q once", name, got, message)
	}
}

// messages are the termination messages of a Job's pods.
func (ns namespace) messages(job string) []string {
	ns.t.Helper()
	pods, err := client.CoreV1().Pods(ns.name).List(ns.t.Context(), meta.ListOptions{LabelSelector: batch.JobNameLabel + "=" + job})
	if err != nil {
		ns.t.Fatal(err)
	}
	var messages []string
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Terminated != nil {
				messages = append(messages, status.State.Terminated.Message)
			}
		}
	}
	return messages
}

// wait asks until it is done. An error is taken for a server that is away.
func wait(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s; at last: %v", patience, what, err)
		}
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-from:
	case <-ctx.Done():
		t.Fatalf("waited %s for %s", patience, what)
	}
}
