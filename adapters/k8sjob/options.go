package k8sjob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [New]. Client, Namespace, Lifecycle, Rows and Types are
// required.
type Options struct {
	// Client is the cluster's; [NewClient] makes one with limits that do. It is
	// shared by all that the executor does.
	Client kubernetes.Interface
	// Namespace is that of the types which name none.
	Namespace string
	// Instance names this installation among those that share a namespace, and
	// must differ wherever the tasks do: it begins the names of Jobs and is the
	// label app.kubernetes.io/instance. At most 20 of a-z, 0-9 and hyphens;
	// default "taskbridge".
	Instance string
	// Lifecycle records what happens to the tasks. It must be a
	// [taskbridge.NumberedNoticer], and its runs [taskbridge.NumberedRun] where a
	// claim has an epoch.
	Lifecycle taskbridge.TaskLifecycle
	// Rows reads the rows of tasks: the host's TaskRegistry will do.
	Rows Rows
	// Types are the task types that are taken, by name; a task of another is
	// rejected.
	Types map[string]TypeOptions

	// WorkerURL is the address at which pods find the worker API; required where
	// a type has [ReportWorkerAPI].
	WorkerURL string
	// Tokens makes what a pod may start its task with over the worker API; nil:
	// pods have credentials of their own.
	Tokens taskbridge.SubmissionTokens
	// Election has one of several processes watch and record; nil: this one always
	// does, which is safe however many do it, and only wasteful.
	Election *Election

	// Submission is what the host gives to taskbridge.Options.
	Submission taskbridge.SubmissionOptions
	// CreateTimeout bounds one submission, within the host's own time-out for one;
	// default 3 s. The reconciler goes on with what was not created in time.
	CreateTimeout time.Duration
	// OutputTimeout is for how long the end of a task waits for output of its pod of
	// which nothing comes, since the node does not hand it out; default 2 min. (A
	// quarter of it where the node says that it has none.) Then what was read is all,
	// and a warning in the stream tells of it. While the API server or (for an hour) the
	// store does not answer, the time does not run.
	OutputTimeout time.Duration

	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// Rows reads rows of tasks. A [taskbridge.TaskRegistry] is one.
type Rows interface {
	GetTask(ctx context.Context, taskID string) (taskbridge.Task, error)
}

// Election is the election of the process that watches, over a Lease object.
// LeaseDuration must be above RenewDeadline, and that above RetryPeriod by a fifth
// at least.
type Election struct {
	// Namespace is the Lease's; default Options.Namespace. Name is its name;
	// default Options.Instance.
	Namespace, Name string
	// Identity is this process's, different for each: a pod's name. Required.
	Identity string
	// LeaseDuration is how long the others wait for a leader that is silent,
	// RenewDeadline for how long the leader tries to renew before it stops, and
	// RetryPeriod the time between tries; defaults 15 s, 10 s, 2 s.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// Reports is the way in which work reports.
type Reports string

// The ways of reporting.
const (
	// ReportLines: the work prints lines that begin with
	// [taskbridge.LineReportPrefix] to its standard output or error.
	ReportLines Reports = "lines"
	// ReportWorkerAPI: the work calls the server, as `taskbridge report` does.
	ReportWorkerAPI Reports = "worker-api"
)

// InputIn is the kind of object that holds a task's input.
type InputIn string

// The kinds of object.
const (
	InputSecret    InputIn = "secret"
	InputConfigMap InputIn = "configmap"
)

// TypeOptions is how tasks of a type are run. Template is required.
type TypeOptions struct {
	// Template is YAML or JSON: a batch/v1 Job, a v1 PodTemplate, a v1 Pod, or a pod
	// template without a kind (metadata and spec).
	Template []byte
	// Namespace is where the Jobs are made; default: the template's, then
	// Options.Namespace.
	Namespace string
	// Container is the name of the container that is the work: its output is read
	// and its exit status counts. Default: what the template's annotation
	// kubectl.kubernetes.io/default-container names, then the only container.
	Container string
	// Reports is how the work reports; default [ReportLines].
	Reports Reports
	// PlainLines makes a TASK_MESSAGE of level info of each line of output that is
	// no report; with [ReportLines] only.
	PlainLines bool
	// InputIn is the kind of object that holds the input; default [InputSecret].
	InputIn InputIn
	// EnvInputLimit is the most bytes of input that are handed over in the
	// environment too; default 4 KiB, at most 32 KiB, below 0: never.
	EnvInputLimit int
	// PendingTimeout is how long a pod may have trouble with its start (an image
	// that is not there, no node that takes it, a quota, a broken configuration)
	// before the task fails; default 10 min, below 0: for ever.
	PendingTimeout time.Duration
	// LostTimeout is how long the node of a pod may be lost before the task fails;
	// default 5 min, below 0: for ever.
	LostTimeout time.Duration
	// TTL is how long a finished Job stays once its end is recorded; default: the
	// template's ttlSecondsAfterFinished, then 1 h. At least Options.Submission.Lease,
	// since a submission that is under way recognises the task by its Job; below 0: for ever.
	TTL time.Duration
	// TailLines is how many lines of output a failure's message ends with, of
	// 2 KiB together at most; default 10, below 0: none.
	TailLines int
}

const (
	defaultInstance       = "taskbridge"
	defaultCreateTimeout  = 3 * time.Second
	defaultOutputTimeout  = 2 * time.Minute
	defaultEnvInputLimit  = 4 << 10
	maxEnvInputLimit      = 32 << 10
	defaultPendingTimeout = 10 * time.Minute
	defaultLostTimeout    = 5 * time.Minute
	defaultTTL            = time.Hour
	defaultTailLines      = 10
)

// Check says in a sentence what is wrong with the options, nil if nothing is. It
// does not connect to the cluster.
func (o Options) Check() error {
	_, _, err := o.checked()
	return err
}

// checked fills in the defaults, those that come from the templates included, and
// reads the templates.
func (o Options) checked() (Options, map[string]*jobTemplate, error) {
	switch {
	case o.Client == nil:
		return o, nil, errors.New("Options.Client must not be nil")
	case o.Lifecycle == nil:
		return o, nil, errors.New("Options.Lifecycle must not be nil")
	case o.Rows == nil:
		return o, nil, errors.New("Options.Rows must not be nil")
	case len(o.Types) == 0:
		return o, nil, errors.New("Options.Types must name a task type")
	case o.CreateTimeout < 0 || o.OutputTimeout < 0:
		return o, nil, errors.New("Options.CreateTimeout and OutputTimeout must not be negative")
	}
	if _, ok := o.Lifecycle.(taskbridge.NumberedNoticer); !ok {
		return o, nil, fmt.Errorf("Options.Lifecycle must be a taskbridge.NumberedNoticer, %T is none", o.Lifecycle)
	}
	o.Instance = cmp.Or(o.Instance, defaultInstance)
	o.CreateTimeout = cmp.Or(o.CreateTimeout, defaultCreateTimeout)
	o.OutputTimeout = cmp.Or(o.OutputTimeout, defaultOutputTimeout)
	if err := checkInstance(o.Instance); err != nil {
		return o, nil, fmt.Errorf("Options.Instance %q %w", o.Instance, err)
	}
	if err := checkNamespace(o.Namespace); err != nil {
		return o, nil, fmt.Errorf("Options.Namespace %q %w", o.Namespace, err)
	}
	if o.Election != nil {
		election, err := o.Election.checked(o)
		if err != nil {
			return o, nil, fmt.Errorf("Options.Election: %w", err)
		}
		o.Election = &election
	}
	if o.Clock == nil {
		o.Clock = taskbridge.SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	types, templates := make(map[string]TypeOptions, len(o.Types)), make(map[string]*jobTemplate, len(o.Types))
	for _, name := range slices.Sorted(maps.Keys(o.Types)) {
		if strings.TrimSpace(name) == "" {
			return o, nil, errors.New("a task type must not be blank")
		}
		options, template, err := o.Types[name].checked(o)
		if err != nil {
			return o, nil, fmt.Errorf("task type %q: %w", name, err)
		}
		types[name], templates[name] = options, template
	}
	o.Types = types
	return o, templates, nil
}

func (e Election) checked(o Options) (Election, error) {
	e.Namespace = cmp.Or(e.Namespace, o.Namespace)
	e.Name = cmp.Or(e.Name, o.Instance)
	e.LeaseDuration = cmp.Or(e.LeaseDuration, 15*time.Second)
	e.RenewDeadline = cmp.Or(e.RenewDeadline, 10*time.Second)
	e.RetryPeriod = cmp.Or(e.RetryPeriod, 2*time.Second)
	switch {
	case e.Identity == "":
		return e, errors.New("Identity must not be empty")
	case e.RetryPeriod < 0:
		return e, errors.New("RetryPeriod must not be negative")
	case e.LeaseDuration <= e.RenewDeadline:
		return e, errors.New("LeaseDuration must be above RenewDeadline")
	case float64(e.RenewDeadline) <= 1.2*float64(e.RetryPeriod): // as client-go has it
		return e, errors.New("RenewDeadline must be above RetryPeriod by a fifth")
	case e.LeaseDuration < time.Second:
		return e, errors.New("LeaseDuration must be 1 s or more")
	}
	if err := checkNamespace(e.Namespace); err != nil {
		return e, fmt.Errorf("Namespace %q %w", e.Namespace, err)
	}
	if err := checkObjectName(e.Name); err != nil {
		return e, fmt.Errorf("Name %q %w", e.Name, err)
	}
	return e, nil
}

func (t TypeOptions) checked(o Options) (TypeOptions, *jobTemplate, error) {
	t.Reports = cmp.Or(t.Reports, ReportLines)
	t.InputIn = cmp.Or(t.InputIn, InputSecret)
	t.EnvInputLimit = cmp.Or(t.EnvInputLimit, defaultEnvInputLimit)
	t.PendingTimeout = cmp.Or(t.PendingTimeout, defaultPendingTimeout)
	t.LostTimeout = cmp.Or(t.LostTimeout, defaultLostTimeout)
	t.TailLines = cmp.Or(t.TailLines, defaultTailLines)
	switch {
	case t.Reports != ReportLines && t.Reports != ReportWorkerAPI:
		return t, nil, fmt.Errorf("Reports must be %q or %q", ReportLines, ReportWorkerAPI)
	case t.Reports == ReportWorkerAPI && o.WorkerURL == "":
		return t, nil, fmt.Errorf("Reports is %q, and Options.WorkerURL is empty", ReportWorkerAPI)
	case t.Reports == ReportWorkerAPI && t.PlainLines:
		return t, nil, fmt.Errorf("PlainLines goes with Reports %q only", ReportLines)
	case t.InputIn != InputSecret && t.InputIn != InputConfigMap:
		return t, nil, fmt.Errorf("InputIn must be %q or %q", InputSecret, InputConfigMap)
	case t.EnvInputLimit > maxEnvInputLimit:
		return t, nil, fmt.Errorf("EnvInputLimit must be at most %d", maxEnvInputLimit)
	case len(t.Template) == 0:
		return t, nil, errors.New("Template must not be empty")
	}
	template, err := readTemplate(t, o)
	if err != nil {
		return t, nil, fmt.Errorf("the template %w", err)
	}
	t.Namespace, t.Container, t.TTL = template.namespace, template.container, template.ttl
	if least := cmp.Or(o.Submission.Lease, 30*time.Second); t.TTL >= 0 && t.TTL < least {
		return t, nil, fmt.Errorf("a TTL of %s is too short: for %s a submission may be under way, which recognises the task by its Job", t.TTL, least)
	}
	return t, template, nil
}
