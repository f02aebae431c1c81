package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
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
	api      *apiClient
	launcher launcher
	messages io.Writer
	control  *controlServer
	parts    []*part
	watchers sync.WaitGroup
	witness  *witness
}

// part is a component with its process.
type part struct {
	component
	mu      sync.Mutex // held while it is started or killed
	process atomic.Pointer[process]
	// expected tells a death that was asked for from one that was not.
	expected chan struct{}
}

// Start starts a cluster and returns once its node is ready and the default
// namespace takes pods. What goes wrong later, and what it waits for, is written to
// messages. Only one cluster can be on a host: Start waits for another one's end.
// What an earlier one left behind because it was killed is removed first. If ctx
// ends before the cluster is ready, that is an error. After an error nothing is left.
func Start(ctx context.Context, messages io.Writer) (*Cluster, error) {
	if err := findPrograms(); err != nil {
		return nil, err
	}
	lock, err := lock(ctx.Done(), messages)
	if err != nil {
		return nil, err
	}
	c := &Cluster{messages: messages, lock: lock}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// findPrograms is an error where one is missing that is not this one's own.
func findPrograms() error {
	for _, program := range []string{"containerd", "ctr", "runc", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w (Debian: apt-get install containerd runc)", err)
		}
	}
	_, err := cniPlugins()
	return err
}

// start makes all that there is; what it has made when it fails is for Stop.
func (c *Cluster) start(ctx context.Context) error {
	if err := clearLeftovers(c.messages); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return err
	}
	if err := fits(dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	if c.state, err = survey(dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	if err := c.state.write(); err != nil {
		return err
	}
	if c.layout, err = newLayout(dir); err != nil {
		return err
	}
	if err := errors.Join(c.layout.configure(), c.layout.net.connect(), makeCgroups(c.layout.cgroup())); err != nil {
		return err
	}
	if err := c.startComponents(ctx); err != nil {
		return err
	}
	c.control, err = c.serveControl()
	return err
}

// clearLeftovers removes what an earlier cluster left.
func clearLeftovers(messages io.Writer) error {
	left, err := readState()
	if err != nil || left == nil {
		return err
	}
	say(messages, "testcluster: removing what a cluster that was killed has left (%s)\n", left.Dir)
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
	if c.api, err = newAPIClient(c.layout); err != nil {
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
	manager := c.part("kube-controller-manager").process.Load()
	if err := until(ctx, manager, c.serviceAccount); err != nil {
		return fmt.Errorf("the default namespace does not take pods: %w", err)
	}
	if err := until(ctx, manager, c.registerWitness); err != nil {
		return fmt.Errorf("register the node %s: %w", WitnessName, err)
	}
	c.witness = c.startWitness()
	return nil
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

// say tells whoever is there: if nobody reads it, the cluster goes on.
func say(to io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(to, format, args...)
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
	if p.running() {
		return fmt.Errorf("%s: %w", name, ErrRunning)
	}
	if err := ctx.Err(); err != nil {
		return err
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
	p.process.Store(process)
	p.expected = make(chan struct{})
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

// running says whether its process is there.
func (p *part) running() bool { return p.process.Load().running() }

// watch tells of a component that ends by itself.
func (c *Cluster) watch(name string, process *process, expected <-chan struct{}) {
	defer c.watchers.Done()
	<-process.ended
	select {
	case <-expected:
	default:
		say(c.messages, "testcluster: %s ended by itself: %v; %s\n", name, process.err, tail(c.layout.log(name)))
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
	if !p.running() {
		return fmt.Errorf("%s: %w", name, ErrStopped)
	}
	close(p.expected)
	return p.process.Load().kill()
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

// Stop stops the cluster, removes all that it made and puts the host's settings
// back. It is to be called once.
func (c *Cluster) Stop() error {
	var failed error
	if c.control != nil {
		failed = c.control.close()
	}
	if c.witness != nil {
		c.witness.stop()
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
