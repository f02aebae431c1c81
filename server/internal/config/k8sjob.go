package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// KindK8sJob hands tasks to a Kubernetes cluster, as Jobs.
const KindK8sJob ExecutorKind = "k8sjob"

// K8sJob is a namespace of a Kubernetes cluster.
type K8sJob struct {
	// Namespace is where the Jobs of types are that name none themselves.
	Namespace string `yaml:"namespace"`
	// Kubeconfig is a file, and Context one of its contexts (empty: its current
	// one); without a file the server is in a pod of the cluster and takes what
	// Kubernetes gives to it.
	Kubeconfig string `yaml:"kubeconfig"`
	Context    string `yaml:"context"`
	// Instance tells the Jobs of this installation from those of another in the same
	// namespace; empty: the adapter's default.
	Instance string `yaml:"instance"`
	// LeaderElection: of several servers over one store one watches the Jobs, by the
	// Lease of that name in Namespace. Without it each of them does, which is safe.
	LeaderElection bool   `yaml:"leaderElection"`
	LeaseName      string `yaml:"leaseName"`
}

// K8sJobTask is a task type whose work is done by Jobs. Zero fields mean the
// adapter's defaults.
type K8sJobTask struct {
	// Template is a file, its path relative to the configuration file.
	Template  string `yaml:"template"`
	Namespace string `yaml:"namespace"`
	// Container is the one whose end and output count.
	Container  string     `yaml:"container"`
	Reports    JobReports `yaml:"reports"`
	PlainLines bool       `yaml:"plainLines"`
	Input      JobInput   `yaml:"input"`

	PendingTimeout Wait `yaml:"pendingTimeout"`
	LostTimeout    Wait `yaml:"lostTimeout"`
	TTL            Wait `yaml:"ttl"`
	// TailLines are those of a failed pod's output that are told; nil: the adapter's
	// number.
	TailLines *int `yaml:"tailLines"`

	// Manifest is what the template's file holds.
	Manifest []byte `yaml:"-"`
	// Line is where the template stands in the file, and ReportsLine the key "reports".
	Line, ReportsLine int `yaml:"-"`
}

// JobReports says how the work of a Job reports.
type JobReports string

// The ways; none means lines.
const (
	JobReportsLines  JobReports = "lines"  // printed by the container
	JobReportsWorker JobReports = "worker" // sent to the worker API
)

// JobInput says what holds the input of a Job.
type JobInput string

// The choices; none means a Secret.
const (
	JobInputSecret    JobInput = "secret"
	JobInputConfigMap JobInput = "configmap"
)

// dnsLabel is what Kubernetes takes as the name of a namespace or a container.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// instanceName is the beginning of Jobs' names.
var instanceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$`)

func readK8sJob(m mapping) (any, error) {
	k := new(K8sJob)
	if err := m.decode(k, "kind"); err != nil {
		return nil, err
	}
	switch {
	case k.Namespace == "":
		return nil, m.errorf("namespace", "must be set: where the Jobs are to be")
	case !dnsLabel.MatchString(k.Namespace):
		return nil, m.errorf("namespace", "must be a name of at most 63 small letters, digits and hyphens")
	case k.Context != "" && k.Kubeconfig == "":
		return nil, m.errorf("context", "is one of a kubeconfig, and there is none")
	case k.Instance != "" && !instanceName.MatchString(k.Instance):
		return nil, m.errorf("instance", "must be at most 20 small letters, digits and hyphens")
	case k.LeaseName != "" && !k.LeaderElection:
		return nil, m.errorf("leaseName", "is for leaderElection, which is off")
	case k.LeaseName != "" && !dnsLabel.MatchString(k.LeaseName):
		return nil, m.errorf("leaseName", "must be a name of at most 63 small letters, digits and hyphens")
	}
	return k, nil
}

func readK8sJobTask(m mapping) (any, error) {
	t := &K8sJobTask{Line: m.lines["template"], ReportsLine: m.lines["reports"]}
	if err := m.decode(t, "executor"); err != nil {
		return nil, err
	}
	switch {
	case t.Template == "":
		return nil, m.errorf("template", "must be set: the file of a Job, a pod or a pod template")
	case t.Namespace != "" && !dnsLabel.MatchString(t.Namespace):
		return nil, m.errorf("namespace", "must be a name of at most 63 small letters, digits and hyphens")
	case t.Container != "" && !dnsLabel.MatchString(t.Container):
		return nil, m.errorf("container", "must be the name of a container")
	case !slices.Contains([]JobReports{"", JobReportsLines, JobReportsWorker}, t.Reports):
		return nil, m.errorf("reports", "must be lines or worker, not %q", t.Reports)
	case t.Reports == JobReportsWorker && t.PlainLines:
		return nil, m.errorf("plainLines", "is for reports: lines")
	case !slices.Contains([]JobInput{"", JobInputSecret, JobInputConfigMap}, t.Input):
		return nil, m.errorf("input", "must be secret or configmap, not %q", t.Input)
	case t.TTL > 0 && time.Duration(t.TTL)%time.Second != 0:
		return nil, m.errorf("ttl", "must be whole seconds, not %s", time.Duration(t.TTL))
	case t.TailLines != nil && (*t.TailLines < 0 || *t.TailLines > 1000):
		return nil, m.errorf("tailLines", "must be from 0 to 1000, not %d", *t.TailLines)
	}
	return t, nil
}

// beside returns the path as seen from the folder of the configuration file.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// readTemplates reads what the settings of Jobs name beside the configuration file.
func readTemplates(file string, executors map[string]Executor, routes map[string]Route) error {
	for _, executor := range executors {
		if k, ok := executor.Settings.(*K8sJob); ok && k.Kubeconfig != "" {
			k.Kubeconfig = beside(file, k.Kubeconfig)
		}
	}
	for taskType, route := range routes {
		t, ok := route.Settings.(*K8sJobTask)
		if !ok {
			continue
		}
		t.Template = beside(file, t.Template)
		var err error
		if t.Manifest, err = os.ReadFile(t.Template); err != nil {
			return fmt.Errorf("line %d: %s.%s.template cannot be read: %w", t.Line, tasksKey, taskType, err)
		}
	}
	return nil
}

// checkK8sJob refuses types that report to an address which no pod can reach.
func (c *Config) checkK8sJob() error {
	if c.Worker.URL != "" || !onLoopback(c.Listen) {
		return nil
	}
	for _, taskType := range c.TaskTypes() {
		if t, ok := c.Routes[taskType].Settings.(*K8sJobTask); ok && t.Reports == JobReportsWorker {
			return c.invalid(tasksKey+"."+taskType, fmt.Errorf("reports to the worker API (line %d), and its pods cannot come to %s: worker.url must say where they reach this server",
				t.ReportsLine, c.Listen))
		}
	}
	return nil
}

// onLoopback reports whether the address, host:port, is one of loopback. What is wrong
// with it says checkListen.
func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host == "localhost" {
		return err == nil
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}
