package smoke

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/cluster"
)

func TestAJobRunsAnImageOfOnesOwn(t *testing.T) {
	ns := newNamespace(t)
	ns.create(job("whoami", "whoami"))
	ns.completes("whoami", "user 65532")
}

func TestAPodReachesAServerOnTheHost(t *testing.T) {
	ns := newNamespace(t)
	ns.create(job("get", "get", gate(t, nil)))
	ns.completes("get", "200 OK hello")
}

func TestAPodReachesTheAPIServerAsItsServiceAccountMay(t *testing.T) {
	ns := newNamespace(t)
	pods := "/api/v1/namespaces/" + ns.name + "/pods"
	ns.create(job("forbidden", "api", pods))
	ns.completes("forbidden", "403 Forbidden")

	ctx := t.Context()
	role := &rbac.Role{ObjectMeta: meta.ObjectMeta{Name: "reader"}, Rules: []rbac.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	}}
	if _, err := client.RbacV1().Roles(ns.name).Create(ctx, role, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbac.RoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: "reader"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: "reader"},
		Subjects:   []rbac.Subject{{Kind: rbac.ServiceAccountKind, Name: "default", Namespace: ns.name}},
	}
	if _, err := client.RbacV1().RoleBindings(ns.name).Create(ctx, binding, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ns.create(job("allowed", "api", pods))
	ns.completes("allowed", "200 OK")
}

func TestAJobOutlivesTheComponents(t *testing.T) {
	for _, component := range []string{"kubelet", "containerd", "kube-apiserver", "etcd", "kube-controller-manager", "scheduler"} {
		t.Run(component, func(t *testing.T) {
			ns := newNamespace(t)
			open := make(chan struct{})
			arrived := make(chan struct{}, 1)
			ns.create(job("through", "get", gate(t, func() { arrived <- struct{}{}; <-open })))
			receive(t, arrived, "the pod's request")

			if status := control(t, "/components/"+component+"/start"); status != http.StatusConflict {
				t.Fatalf("starting %s, which runs: status %d", component, status)
			}
			if status := control(t, "/components/"+component+"/kill"); status != http.StatusNoContent {
				t.Fatalf("killing %s: status %d", component, status)
			}
			close(open)
			if status := control(t, "/components/"+component+"/start"); status != http.StatusNoContent {
				t.Fatalf("starting %s again: status %d", component, status)
			}
			ns.completes("through", "200 OK hello")
		})
	}
}

func TestALostNodeIsNoticedAndComesBack(t *testing.T) {
	ns := newNamespace(t)
	open := make(chan struct{})
	arrived := make(chan struct{}, 1)
	ns.create(job("lost", "get", gate(t, func() { arrived <- struct{}{}; <-open })))
	receive(t, arrived, "the pod's request")

	if status := control(t, "/components/kubelet/kill"); status != http.StatusNoContent {
		t.Fatalf("killing the kubelet: status %d", status)
	}
	wait(t, "the pod to be evicted", func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods(ns.name).List(ctx, meta.ListOptions{})
		return err == nil && len(pods.Items) == 1 && pods.Items[0].DeletionTimestamp != nil, err
	})
	if status := control(t, "/components/kubelet/start"); status != http.StatusNoContent {
		t.Fatalf("starting the kubelet again: status %d", status)
	}
	close(open)
	node, err := client.CoreV1().Nodes().Get(t.Context(), cluster.NodeName, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(node.Spec.Taints) > 0 {
		t.Errorf("%s is tainted still: %v", node.Name, node.Spec.Taints)
	}
}

func TestTheControlSocketRefusesWhatItDoesNotKnow(t *testing.T) {
	if status := control(t, "/components/nothing/kill"); status != http.StatusNotFound {
		t.Errorf("killing what is not there: status %d", status)
	}
	if status, answer := post(t, "/images", http.NoBody); status != http.StatusBadRequest {
		t.Errorf("an empty image: %d %s", status, answer)
	}
}

// job is a Job of one pod that runs the workload.
func job(name string, args ...string) *batch.Job {
	return &batch.Job{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: batch.JobSpec{
			BackoffLimit: new(int32),
			Template: core.PodTemplateSpec{Spec: core.PodSpec{
				RestartPolicy: core.RestartPolicyNever,
				Containers: []core.Container{{
					Name: "workload", Image: imageName, ImagePullPolicy: core.PullNever, Args: args,
				}},
			}},
		},
	}
}

// gate is the address of a server for pods that says hello after hold has returned.
func gate(t *testing.T, hold func()) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("TASKBRIDGE_TEST_NODE_ADDRESS"), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hold != nil {
			hold()
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "hello")
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return fmt.Sprintf("http://%s/", listener.Addr())
}
