package k8sjob

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// What the tests get from the environment; KUBECONFIG is never looked at: it may be
// of somebody's production.
const (
	envKubeconfig = "TASKBRIDGE_TEST_KUBECONFIG"
	// envControl is a socket, of the test cluster in testcluster: components are
	// killed and started, and images imported, by HTTP over it.
	envControl = "TASKBRIDGE_TEST_CLUSTER_CONTROL"
	// envAddress is an address of this machine that pods reach.
	envAddress = "TASKBRIDGE_TEST_NODE_ADDRESS"
	// envImage is an image of internal/testwork, for a cluster without control.
	envImage = "TASKBRIDGE_TEST_IMAGE"
)

// patience is how long a test waits for something that must come.
const patience = 3 * time.Minute

// cluster is a namespace of a test's own on the cluster.
type cluster struct {
	t         testing.TB
	ctx       context.Context // of the test
	client    kubernetes.Interface
	namespace string
	image     string // of internal/testwork
}

// newCluster makes a namespace, which is deleted when the test ends.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	if name := t.Name(); !strings.HasPrefix(name, "TestCluster") && !strings.HasPrefix(name, "BenchmarkCluster") {
		t.Fatalf("a test on a cluster is called TestCluster…: see leaveOut")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	c := &cluster{t: t, ctx: ctx, namespace: "test-" + strings.ToLower(newName()), image: workImage(t)}
	c.client = c.newClient()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace, Labels: map[string]string{"taskbridge.dev/test": "true"}}}
	_, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(c.remove)
	until(t, "the namespace has a service account", func() bool {
		_, err := c.client.CoreV1().ServiceAccounts(c.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	return c
}

// remove deletes the namespace without waiting for that.
func (c *cluster) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	until(c.t, "the namespace is deleted", func() bool {
		err := c.client.CoreV1().Namespaces().Delete(ctx, c.namespace, metav1.DeleteOptions{})
		return err == nil || errors.IsNotFound(err) || errors.IsConflict(err)
	})
}

// newClient makes a client with connections of its own.
func (c *cluster) newClient() kubernetes.Interface {
	c.t.Helper()
	client, err := NewClient(ClientOptions{Kubeconfig: os.Getenv(envKubeconfig)})
	must(c.t, err)
	c.t.Cleanup(func() { closeConnections(client) })
	return client
}

// closed are the clients whose connections have been closed.
var closed struct {
	sync.Mutex
	clients []kubernetes.Interface
}

// closeConnections closes what a client keeps for later. What is on the way just then
// is kept: closeRemaining closes that.
func closeConnections(client kubernetes.Interface) {
	closed.Lock()
	defer closed.Unlock()
	closed.clients = append(closed.clients, client)
	closeIdle(client)
}

// closeRemaining closes what clients whose connections were closed have kept since.
func closeRemaining() {
	closed.Lock()
	defer closed.Unlock()
	for _, client := range closed.clients {
		closeIdle(client)
	}
}

func closeIdle(client kubernetes.Interface) {
	if r, ok := client.CoreV1().RESTClient().(*rest.RESTClient); ok && r.Client != nil {
		utilnet.CloseIdleConnectionsFor(r.Client.Transport)
	}
}

// kill ends a component of the cluster as a power cut would; it is started again when
// the test ends if the test does not. Only for tests called TestClusterFault…, which
// are not parallel.
func (c *cluster) kill(component string) {
	c.t.Helper()
	if !strings.HasPrefix(c.t.Name(), "TestClusterFault") {
		c.t.Fatalf("a test that kills a component is called TestClusterFault…: see leaveOut")
	}
	if status, text := c.control("/components/"+component+"/kill", nil); status != http.StatusNoContent {
		c.t.Fatalf("kill %s: %d %s", component, status, text)
	}
	c.t.Cleanup(func() { c.start(component) })
}

// start starts a component that was killed and returns once it is ready. One that
// runs is left alone.
func (c *cluster) start(component string) {
	c.t.Helper()
	if status, text := c.control("/components/"+component+"/start", nil); status != http.StatusNoContent && status != http.StatusConflict {
		c.t.Errorf("start %s: %d %s", component, status, text)
	}
}

func (c *cluster) control(path string, body io.Reader) (status int, text string) {
	c.t.Helper()
	status, text, err := control(path, body)
	must(c.t, err)
	return status, text
}

// control asks the test cluster for something.
func control(path string, body io.Reader) (status int, text string, err error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv(envControl))
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control"+path, body)
	if err != nil {
		return 0, "", err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, "", err
	}
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, string(answer), cmp.Or(err, response.Body.Close())
}

// serve serves HTTP to the pods and returns its address, as in "http://10.0.0.1:1234".
func (c *cluster) serve(handler http.Handler) string {
	c.t.Helper()
	address := os.Getenv(envAddress)
	if address == "" {
		c.t.Fatalf("%s is not set: the address at which pods reach this machine", envAddress)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	must(c.t, err)
	server := httptest.NewUnstartedServer(handler)
	must(c.t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	c.t.Cleanup(server.Close)
	return server.URL
}

// network is the way of a client to the API server, which can be cut.
type network struct {
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// newNetwork makes one, and a client that uses it.
func (c *cluster) newNetwork() (*network, kubernetes.Interface) {
	c.t.Helper()
	n := &network{conns: map[net.Conn]bool{}}
	config, err := restConfig(ClientOptions{Kubeconfig: os.Getenv(envKubeconfig)})
	must(c.t, err)
	config.Dial = n.dial
	client, err := kubernetes.NewForConfig(config)
	must(c.t, err)
	c.t.Cleanup(func() { closeConnections(client) })
	return n, client
}

func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return nil, cmp.Or(conn.Close(), fmt.Errorf("dial %s: the test has cut the network", address))
	}
	n.conns[conn] = true
	return conn, nil
}

// cut breaks the connections that there are; nothing is reached any more.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	for conn := range n.conns {
		_ = conn.Close() // it may be closed already
	}
	clear(n.conns)
}

// mend makes the API server reachable again.
func (n *network) mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}

// gate is something that pods wait for, by the step "get=URL".
type gate struct {
	URL     string
	arrived chan struct{} // closed when a pod waits
	opened  chan struct{}
	once    sync.Once
}

// newGate makes a gate that is closed.
func (c *cluster) newGate() *gate {
	c.t.Helper()
	g := &gate{arrived: make(chan struct{}), opened: make(chan struct{})}
	var arrived sync.Once
	g.URL = c.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived.Do(func() { close(g.arrived) })
		select {
		case <-g.opened:
		case <-r.Context().Done():
		}
	}))
	c.t.Cleanup(g.open) // before the server is closed
	return g
}

// open lets the pods through.
func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// template is a pod template, as YAML, whose container "work" takes the steps of
// internal/testwork. change may be nil.
func (c *cluster) template(steps []string, change func(*corev1.PodTemplate)) []byte {
	c.t.Helper()
	return marshalYAML(c.t, c.podTemplate(steps, change))
}

func (c *cluster) podTemplate(steps []string, change func(*corev1.PodTemplate)) *corev1.PodTemplate {
	template := &corev1.PodTemplate{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodTemplate"},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(5)),
			AutomountServiceAccountToken:  new(false),
			Containers: []corev1.Container{{
				Name: "work", Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: steps,
			}},
		}},
	}
	if change != nil {
		change(template)
	}
	return template
}

// await waits for a channel to be closed.
func await(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("not in time: %s", what)
	}
}

// until looks again and again: for what has no event.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newName returns a name that no other test has, of this run or another one.
func newName() string {
	return fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
}
