package e2e

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
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long a test waits for something that must come.
const patience = 3 * time.Minute

// cluster is the test cluster, with an administrator's rights.
type cluster struct {
	ctx     context.Context // of the test
	config  *rest.Config
	client  kubernetes.Interface
	objects dynamic.Interface
	mapper  meta.RESTMapper
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(envKubeconfig))
	must(t, err)
	config.QPS, config.Burst = 100, 200
	c := &cluster{ctx: ctx, config: config}
	c.client, err = kubernetes.NewForConfig(config)
	must(t, err)
	c.objects, err = dynamic.NewForConfig(config)
	must(t, err)
	resources, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(config))
	must(t, err)
	c.mapper = restmapper.NewDiscoveryRESTMapper(resources)
	return c
}

// namespaces makes sure that none of them is there, now and when the test ends.
func (c *cluster) namespaces(t *testing.T, names ...string) {
	t.Helper()
	remove := func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, name := range names {
			until(t, "the namespace "+name+" is gone", func() (bool, string) {
				// What is being deleted with a grace holds it up, and a claim does for
				// good: it has a finalizer, whose controller the test cluster has not.
				c.releaseClaims(ctx, name)
				err := c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
				return apierrors.IsNotFound(err), fmt.Sprint(err)
			})
		}
	}
	remove()
	t.Cleanup(remove)
}

// releaseClaims takes the finalizers from the claims of a namespace without pods.
func (c *cluster) releaseClaims(ctx context.Context, namespace string) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(pods.Items) > 0 {
		return // until the next look
	}
	claims := c.client.CoreV1().PersistentVolumeClaims(namespace)
	list, err := claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, claim := range list.Items {
		_, _ = claims.Patch(ctx, claim.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}) // until the next look
	}
}

// createNamespace makes a namespace and waits until pods can be made in it.
func (c *cluster) createNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := c.client.CoreV1().Namespaces().Create(c.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		must(t, err)
	}
	until(t, "the namespace "+name+" has a service account", func() (bool, string) {
		_, err := c.client.CoreV1().ServiceAccounts(name).Get(c.ctx, "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
}

// apply applies objects as kubectl apply --server-side does.
func (c *cluster) apply(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range objects {
		kind := object.GroupVersionKind()
		mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		must(t, err)
		var resource dynamic.ResourceInterface = c.objects.Resource(mapping.Resource)
		if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
			resource = c.objects.Resource(mapping.Resource).Namespace(object.GetNamespace())
		}
		if _, err := resource.Apply(c.ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "e2e"}); err != nil {
			t.Fatalf("apply %s %s/%s: %v", kind.Kind, object.GetNamespace(), object.GetName(), err)
		}
	}
}

// importImage makes an image of a name by the test cluster's program, which takes the
// rest of the arguments, and has the cluster import it.
func (c *cluster) importImage(t *testing.T, name string, args ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	command := exec.CommandContext(c.ctx, os.Getenv(envProgram), append([]string{"image", "--name", name, "--out", path}, args...)...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("make the image %s: %v\n%s", name, err, output)
	}
	archive, err := os.Open(path)
	must(t, err)
	defer func() { _ = archive.Close() }() // only read from
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv(envControl))
	}}}
	request, err := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://control/images", archive)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	var answer bytes.Buffer
	_, err = io.Copy(&answer, response.Body)
	must(t, err)
	must(t, response.Body.Close())
	if response.StatusCode != http.StatusOK {
		t.Fatalf("import the image %s: %s: %s", name, response.Status, answer.String())
	}
}

// busybox is what an image with a shell is made of: Debian's busybox-static.
func busybox(applets ...string) []string {
	args := []string{"--file", "/bin/busybox:/bin/busybox"}
	for _, applet := range applets {
		args = append(args, "--link", "/bin/busybox:/bin/"+applet)
	}
	return append(args, "--entrypoint", "/bin/sh")
}

// pods returns the pods that a label selector names.
func (c *cluster) pods(t *testing.T, namespace, selector string) []corev1.Pod {
	t.Helper()
	list, err := c.client.CoreV1().Pods(namespace).List(c.ctx, metav1.ListOptions{LabelSelector: selector})
	must(t, err)
	return list.Items
}

// listen listens on the address at which pods reach this machine.
func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv(envAddress), "0"))
	must(t, err)
	return listener
}

// until asks again and again: for what has no event. The text says how things stand.
func until(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		ok, state := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s; %s", what, state)
		}
	}
}
