package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskbridge/taskbridge/core/client"
)

// The names that the manifests give.
const (
	serverNamespace = "taskbridge"
	jobsNamespace   = "taskbridge-jobs"
	serverSelector  = "app.kubernetes.io/name=taskbridge"
)

// deployed is the server in a pod, deployed by deploy/kubernetes/base with other task
// types.
type deployed struct {
	*cluster
	service *service
	key     string // of an API key
}

// overlay is what somebody who deploys the server writes: an image, task types, a
// setting by the environment.
const overlay = `
resources: [%[1]s]
images:
  - {name: taskbridge, newName: taskbridge.test/taskbridge, newTag: e2e}
configMapGenerator:
  - {name: taskbridge, namespace: taskbridge, behavior: merge, files: [taskbridge.yaml, lines.yaml, report.yaml]}
patches:
  - target: {kind: Deployment, name: taskbridge}
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/env
        value: [{name: TASKBRIDGE_WORKER_URL, value: %[2]s}]
`

// taskTypes are added to those of the base.
const taskTypes = `
  lines: {executor: jobs, template: lines.yaml}
  report: {executor: jobs, template: report.yaml, reports: worker, input: configmap}
`

// linesTemplate and reportTemplate are Jobs that wait, at each of their steps, until a
// gate of the test opens.
const linesTemplate = `
apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      terminationGracePeriodSeconds: 2
      automountServiceAccountToken: false
      containers:
        - name: work
          image: taskbridge.test/shell:e2e
          args:
            - -euc
            - |
              trap 'exit 143' TERM
              gate=$(sed -n 's/.*"gate":"\([^"]*\)".*/\1/p' "$TASKBRIDGE_INPUT_FILE")
              for i in 1 2 3; do
                echo "::taskbridge {\"progress\": $((i * 25)), \"message\": \"step $i\"}"
                wget -q -O /dev/null "$gate/$i" & wait $!
              done
              echo '::taskbridge {"result": {"steps": 3}}'
`

const reportTemplate = `
apiVersion: v1
kind: PodTemplate
template:
  spec:
    terminationGracePeriodSeconds: 2
    automountServiceAccountToken: false
    containers:
      - name: work
        image: taskbridge.test/shell:e2e
        args:
          - -euc
          - |
            gate=$(taskbridge report input | sed -n 's/.*"gate":"\([^"]*\)".*/\1/p')
            for i in 1 2 3; do
              taskbridge report progress $((i * 25)) --message "step $i" --timeout 2m
              wget -q -O /dev/null "$gate/$i"
            done
            taskbridge report result '{"steps": 3}' --timeout 2m
`

// deploy makes images, applies the manifests and waits until the server is ready.
func deploy(t *testing.T) *deployed {
	t.Helper()
	d := &deployed{cluster: newCluster(t)}
	d.namespaces(t, serverNamespace, jobsNamespace)
	program := build(t, "server", "cmd/taskbridge")
	d.importImage(t, "taskbridge.test/taskbridge:e2e", "--binary", program, "--user", "65532")
	d.importImage(t, "busybox:1.37", busybox("sh", "sed", "sleep")...)
	d.importImage(t, "taskbridge.test/shell:e2e", append([]string{"--file", program + ":/bin/taskbridge"}, busybox("sh", "sed", "wget")...)...)
	d.service = serve(t)

	dir := t.TempDir()
	base, err := filepath.Rel(dir, root(t, "deploy", "kubernetes", "base"))
	must(t, err)
	configuration, err := os.ReadFile(root(t, "deploy", "kubernetes", "base", "taskbridge.yaml"))
	must(t, err)
	for name, content := range map[string]string{
		"kustomization.yaml": fmt.Sprintf(overlay, base, d.service.url()),
		"taskbridge.yaml":    string(configuration) + taskTypes, // whose last mapping is tasks
		"lines.yaml":         linesTemplate,
		"report.yaml":        reportTemplate,
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	d.createNamespace(t, serverNamespace)
	d.makeKeys(t, program)
	objects := render(t, dir)
	d.apply(t, objects)
	d.bindVolume(t, typed(t, objects, &corev1.PersistentVolumeClaim{}).Name)
	d.awaitServer(t)
	return d
}

// makeKeys makes the Secret that the manifests leave to whoever deploys them.
func (d *deployed) makeKeys(t *testing.T, program string) {
	t.Helper()
	var entry, key bytes.Buffer
	command := exec.CommandContext(d.ctx, program, "keygen", "--subject", "e2e", "--scope", "tasks:read", "--scope", "tasks:write")
	command.Stdout, command.Stderr = &entry, &key
	must(t, command.Run())
	for line := range strings.Lines(key.String()) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			d.key = strings.TrimSpace(text)
		}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "taskbridge-keys"},
		StringData: map[string]string{"keys.yaml": "keys:\n" + entry.String()},
	}
	_, err := d.client.CoreV1().Secrets(serverNamespace).Create(d.ctx, secret, metav1.CreateOptions{})
	must(t, err)
}

// bindVolume gives a folder of this machine to the claim: what a storage class does,
// of which the test cluster has none.
func (d *deployed) bindVolume(t *testing.T, claimName string) {
	t.Helper()
	folder, err := os.MkdirTemp(built.dir, "data") //nolint:usetesting // the server is there for longer than the cleanup of the test would leave it
	must(t, err)
	must(t, os.Chown(folder, 65532, 65532)) // fsGroup does nothing to a folder of the host
	claims, volumes := d.client.CoreV1().PersistentVolumeClaims(serverNamespace), d.client.CoreV1().PersistentVolumes()
	claim, err := claims.Get(d.ctx, claimName, metav1.GetOptions{})
	must(t, err)
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "taskbridge-e2e-"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}, AccessModes: claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder}},
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: serverNamespace, Name: claimName, UID: claim.UID},
		},
	}
	volume, err = volumes.Create(d.ctx, volume, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := volumes.Delete(context.Background(), volume.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	claim.Spec.VolumeName = volume.Name
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
	claim, err = claims.Update(d.ctx, claim, metav1.UpdateOptions{})
	must(t, err)
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: volume.Spec.AccessModes, Capacity: volume.Spec.Capacity}
	_, err = claims.UpdateStatus(d.ctx, claim, metav1.UpdateOptions{})
	must(t, err)
}

// awaitServer waits for the server's pod to be ready and leads the service to it.
func (d *deployed) awaitServer(t *testing.T) (pod corev1.Pod) {
	t.Helper()
	until(t, "a server is ready", func() (bool, string) {
		pods := d.pods(t, serverNamespace, serverSelector)
		if len(pods) != 1 {
			return false, fmt.Sprintf("there are %d pods", len(pods))
		}
		pod = pods[0]
		if pod.DeletionTimestamp != nil {
			return false, "the old pod is still there"
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true, ""
			}
		}
		state := d.describe(pod)
		if restarts(pod) > 3 {
			t.Fatalf("the server does not start: %s", state)
		}
		return false, state
	})
	d.service.lead(net.JoinHostPort(pod.Status.PodIP, "8080"))
	return pod
}

// describe says how the server's pod fares, with what the server says.
func (d *deployed) describe(pod corev1.Pod) string {
	logs, err := d.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: new(int64(20))}).DoRaw(d.ctx)
	if err != nil {
		logs = []byte(err.Error())
	}
	state := string(pod.Status.Phase)
	for _, condition := range pod.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			state += fmt.Sprintf("; not %s: %s", condition.Type, condition.Message)
		}
	}
	return fmt.Sprintf("%s; %d restarts; it says\n%s", state, restarts(pod), logs)
}

// scale sets the number of servers, and waits until there are none if it is none.
func (d *deployed) scale(t *testing.T, replicas int32) {
	t.Helper()
	scale := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "taskbridge", Namespace: serverNamespace}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas},
	}
	_, err := d.client.AppsV1().Deployments(serverNamespace).UpdateScale(d.ctx, "taskbridge", scale, metav1.UpdateOptions{})
	must(t, err)
	if replicas > 0 {
		return
	}
	until(t, "the server is gone", func() (bool, string) {
		pods := d.pods(t, serverNamespace, serverSelector)
		return len(pods) == 0, fmt.Sprintf("%d pods", len(pods))
	})
}

// newClient makes a client that comes by way of the service.
func (d *deployed) newClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: d.service.url(), Token: d.key})
	must(t, err)
	return c
}

// service is an address that stays while pods come and go: what a Service is, which
// the test cluster does not route.
type service struct {
	listener net.Listener
	target   atomic.Pointer[string]
	serving  sync.WaitGroup
}

func serve(t *testing.T) *service {
	t.Helper()
	s := &service{listener: listen(t)}
	var open sync.Map
	s.serving.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			open.Store(conn, nil)
			s.serving.Go(func() {
				s.pass(conn)
				open.Delete(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = s.listener.Close() // ends the accepting, whatever it says
		open.Range(func(conn, _ any) bool {
			_ = conn.(net.Conn).Close()
			return true
		})
		s.serving.Wait()
	})
	return s
}

func (s *service) url() string { return "http://" + s.listener.Addr().String() }

func (s *service) lead(address string) { s.target.Store(&address) }

// pass connects a caller with the pod of the moment, until either of them ends it.
func (s *service) pass(caller net.Conn) {
	defer func() { _ = caller.Close() }()
	target := s.target.Load()
	if target == nil {
		return
	}
	pod, err := (&net.Dialer{Timeout: patience}).Dial("tcp", *target)
	if err != nil {
		return // the caller sees a connection that is closed
	}
	defer func() { _ = pod.Close() }()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{caller, pod}, {pod, caller}} {
		s.serving.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // however it ends, it ends both
			_ = caller.Close()
			_ = pod.Close()
			ended <- struct{}{}
		})
	}
	<-ended
	<-ended
}

// deployment returns the server's Deployment as the cluster has it.
func (d *deployed) deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	deployment, err := d.client.AppsV1().Deployments(serverNamespace).Get(d.ctx, "taskbridge", metav1.GetOptions{})
	must(t, err)
	return deployment
}
