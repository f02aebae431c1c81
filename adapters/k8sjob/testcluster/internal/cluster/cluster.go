package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// prefix begins the name of each cluster's folder, and of its control group.
const prefix = "tbk8s-"

// startTime bounds how long a component may take to be ready, on a busy machine.
const startTime = 2 * time.Minute

// Cluster is a running cluster. Its methods may be called concurrently.
type Cluster struct {
	layout   *layout
	state    *state
	lock     *os.File
	cri      *criClient
	launcher launcher
	messages io.Writer
	control  *controlServer
	parts    []*part
	watchers sync.WaitGroup
}

// part is a component with its process.
type part struct {
	component
	mu      sync.Mutex // held while it is started or killed
	process *process
	// expected tells a death that was asked for from one that was not.
	expected chan struct{}
}

// Start starts a cluster and returns once its node is ready and the default
// namespace takes pods. What goes wrong later, and what it waits for, is written to
// messages. Only one cluster can be on a host: Start waits for another one's end.
// What an earlier one left behind because it was killed is removed first. If ctx
// ends before the cluster is ready, that is an error. After an error nothing is left.
func Start(ctx context.Context, messages io.Writer) (c *Cluster, err error) {
	c = &Cluster{messages: messages}
	for _, program := range []string{"containerd", "ctr", "runc", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w (Debian: apt-get install containerd runc)", err)
		}
	}
	if _, err := cniPlugins(); err != nil {
		return nil, err
	}
	if c.lock, err = lock(ctx.Done(), messages); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := clearLeftovers(messages); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	if err := fits(dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	if c.state, err = survey(dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	if err := c.state.write(); err != nil {
		return nil, err
	}
	if c.layout, err = newLayout(dir); err != nil {
		return nil, err
	}
	if err := errors.Join(c.layout.configure(), c.layout.net.connect(), makeCgroups(c.layout.cgroup())); err != nil {
		return nil, err
	}
	if err := c.startComponents(ctx); err != nil {
		return nil, err
	}
	c.control, err = c.serveControl()
	return c, err
}

// clearLeftovers removes what an earlier cluster left.
func clearLeftovers(messages io.Writer) error {
	left, err := readState()
	if err != nil || left == nil {
		return err
	}
	fmt.Fprintf(messages, "testcluster: removing what a cluster that was killed has left (%s)\n", left.Dir)
	if err := left.restore(); err != nil {
		return fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	return nil
}

// startComponents starts all, those at once that don't wait for each other.
func (c *Cluster) startComponents(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if c.cri, err = newCRIClient(c.layout.containerdSocket()); err != nil {
		return err
	}
	c.launcher = newLauncher()
	for _, component := range c.layout.components(self, c.cri) {
		c.parts = append(c.parts, &part{component: component})
	}
	runtime := c.together(ctx, "containerd")
	if err := errors.Join(<-c.together(ctx, "etcd"), <-c.together(ctx, "kube-apiserver"), <-runtime); err != nil {
		return err
	}
	if _, err := c.Load(ctx, c.layout.path("pause.tar")); err != nil {
		return err
	}
	if err := <-c.together(ctx, "kube-controller-manager", "scheduler", "kubelet"); err != nil {
		return err
	}
	return until(ctx, c.part("kube-controller-manager").process, c.serviceAccount)
}

// together starts components of these names at once; the channel gets one error or nil.
func (c *Cluster) together(ctx context.Context, names ...string) <-chan error {
	results := make(chan error, len(names))
	for _, name := range names {
		go func() { results <- c.StartComponent(ctx, name) }()
	}
	all := make(chan error, 1)
	go func() {
		var err error
		for range names {
			err = errors.Join(err, <-results)
		}
		all <- err
	}()
	return all
}

func (c *Cluster) part(name string) *part {
	for _, p := range c.parts {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Errors of StartComponent and KillComponent.
var (
	ErrUnknown = errors.New("there is no such component")
	ErrRunning = errors.New("the component is running")
	ErrStopped = errors.New("the component is not running")
)

// StartComponent starts the component, which is not running, and returns once it is
// ready; the kubelet is once its node is, if the API server can tell.
func (c *Cluster) StartComponent(ctx context.Context, name string) error {
	p := c.part(name)
	if p == nil {
		return fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process.running() {
		return fmt.Errorf("%s: %w", name, ErrRunning)
	}
	log, err := os.OpenFile(c.layout.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment()
	cmd.Dir = c.layout.dir
	process, err := c.launcher.start(cmd)
	if err = errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	p.process, p.expected = process, make(chan struct{})
	c.watchers.Add(1)
	go c.watch(name, process, p.expected)

	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not ready within %s", startTime))
	defer cancel()
	err = until(ctx, process, p.ready)
	if err == nil && name == "kubelet" && c.part("kube-apiserver").running() {
		err = until(ctx, process, c.nodeReady)
	}
	if err != nil {
		return fmt.Errorf("%s does not get ready: %w; %s", name, err, tail(c.layout.log(name)))
	}
	return nil
}

// running says so of a component that nobody starts or kills meanwhile.
func (p *part) running() bool { return p.process.running() }

// watch tells of a component that ends by itself.
func (c *Cluster) watch(name string, process *process, expected <-chan struct{}) {
	defer c.watchers.Done()
	<-process.ended
	select {
	case <-expected:
	default:
		fmt.Fprintf(c.messages, "testcluster: %s ended by itself: %v; %s\n", name, process.err, tail(c.layout.log(name)))
	}
}

// KillComponent sends the component SIGKILL and returns once it is dead.
func (c *Cluster) KillComponent(name string) error {
	p := c.part(name)
	if p == nil {
		return fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.process.running() {
		return fmt.Errorf("%s: %w", name, ErrStopped)
	}
	close(p.expected)
	return p.process.kill()
}

// environment is this one's without what would lead components elsewhere.
func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToUpper(variable), "=")
		if strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "ETCD_") || name == "KUBECONFIG" || name == "NOTIFY_SOCKET" {
			continue
		}
		kept = append(kept, variable)
	}
	return kept
}

// Environment are the variables that tests find the cluster by.
func (c *Cluster) Environment() []string {
	proxied := os.Getenv("NO_PROXY")
	if proxied == "" {
		proxied = os.Getenv("no_proxy")
	}
	without := strings.TrimPrefix(proxied+","+c.layout.net.all().String(), ",")
	return []string{
		"TASKBRIDGE_TEST_KUBECONFIG=" + c.layout.kubeconfig(),
		"TASKBRIDGE_TEST_CLUSTER_CONTROL=" + c.layout.control(),
		"TASKBRIDGE_TEST_NODE_ADDRESS=" + c.layout.net.Node.String(),
		"NO_PROXY=" + without, "no_proxy=" + without,
	}
}

// Logs is the folder with a log a component.
func (c *Cluster) Logs() string { return c.layout.path("logs") }

// get reads an object from the API server into v.
func (c *Cluster) get(ctx context.Context, path string, v any) error {
	authority, err := os.ReadFile(c.layout.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.layout.apiserver()+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.layout.adminToken)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, v)
}

// nodeReady is nil once pods can be scheduled to the node.
func (c *Cluster) nodeReady(ctx context.Context) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key, Effect string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+NodeName, &node); err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		// Without its controller a taint stays.
		if strings.HasPrefix(taint.Key, "node.kubernetes.io/") && c.part("kube-controller-manager").running() {
			return fmt.Errorf("the node has the taint %s:%s", taint.Key, taint.Effect)
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
	}
	return errors.New("the node has told nothing of itself yet")
}

// serviceAccount is nil once the default namespace takes pods.
func (c *Cluster) serviceAccount(ctx context.Context) error {
	var any struct{}
	return errors.Join(
		c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", &any),
		c.get(ctx, "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", &any),
	)
}

// Stop stops the cluster, removes all that it made and puts the host's settings
// back. It is to be called once.
func (c *Cluster) Stop() error {
	var failed error
	if c.control != nil {
		failed = c.control.close()
	}
	for _, p := range c.parts {
		if err := c.KillComponent(p.name); err != nil && !errors.Is(err, ErrStopped) {
			failed = errors.Join(failed, err)
		}
	}
	c.watchers.Wait()
	if c.cri != nil {
		failed = errors.Join(failed, c.cri.conn.Close())
	}
	if c.launcher != nil {
		close(c.launcher)
	}
	if c.state != nil {
		failed = errors.Join(failed, c.state.restore())
	}
	return errors.Join(failed, c.lock.Close())
}
