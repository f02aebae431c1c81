package temporaladapter

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [New]. Client, Lifecycle and Types are required.
type Options struct {
	// Client is connected, or will be when it is first used, to the namespace of
	// the workflows. The host closes it, after the executor.
	Client client.Client
	// Namespace is the client's; default "default".
	Namespace string
	// Lifecycle records the ends that are seen from outside.
	Lifecycle taskbridge.TaskLifecycle
	// Rows reads the rows of tasks for the sweep and the first looks: the host's
	// TaskRegistry will do. nil: there are none of these, and what no worker reported
	// is found only by the inspection of silent tasks.
	Rows Rows
	// Types are the task types that are taken, by name; a task of another is
	// rejected.
	Types map[string]TypeOptions

	// Prefix begins the ids of workflows and activities, before the task's id;
	// default "taskbridge-". What begins with it belongs to this executor. The
	// worker's plugin must have the same one where activities stand alone.
	Prefix string
	// WorkerURL is the address at which workers find the server; it is handed to
	// them with each task. Optional.
	WorkerURL string
	// Tokens makes what a worker elsewhere may start the task with; nil: workers
	// have credentials of their own, or a lifecycle that asks for none.
	Tokens taskbridge.SubmissionTokens
	// DataConverter is the client's, where it has one of its own: results are read
	// with it and sizes measured.
	DataConverter converter.DataConverter
	// MaxPayload is the most bytes that the arguments of a task's work and its memo may
	// have, encoded and together; default 2 MiB, Temporal's own limit of either. A task
	// over it is rejected.
	MaxPayload int

	// StartTimeout bounds one start, within the host's own time-out for a submission:
	// Temporal's client repeats itself while the service is away, and the creation
	// of a task waits for it; default 3 s. The reconciler goes on with what was not
	// started.
	StartTimeout time.Duration

	// FirstLook is when a task is looked at first after its submission, if no worker
	// has told of it by then: so TASK_STARTED comes, of workers without the plugin.
	// While the work waits for a worker it is looked at again after twice, four
	// times, ... up to sixteen times as long, and then as a silent task; default 1 s.
	FirstLook time.Duration

	// SweepInterval is the time between two looks at what has closed; default
	// 15 s.
	SweepInterval time.Duration
	// SweepOverlap is how far each look reaches back before the one before it, since
	// Temporal's lists are eventually consistent; default 1 min. Times are those of
	// Temporal's clock, whatever the server's own shows.
	SweepOverlap time.Duration

	// Submission is what the host gives to taskbridge.Options. Temporal must
	// remember a task's id for as long as a submission may be repeated;
	// [Executor.CheckHealth] checks it.
	Submission taskbridge.SubmissionOptions

	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// TypeOptions is how tasks of a type are started. TaskQueue is required, and
// StartToCloseTimeout or ScheduleToCloseTimeout for an Activity.
type TypeOptions struct {
	TaskQueue string
	// Workflow is the type of the workflow; default: the task type. Activity is that
	// of an activity which stands alone, for work without orchestration; only one
	// of the two is set.
	Workflow, Activity string

	// ExecutionTimeout bounds a workflow with all its runs, RunTimeout one run,
	// TaskTimeout one workflow task; 0: Temporal's defaults (none, none, 10 s).
	ExecutionTimeout, RunTimeout, TaskTimeout time.Duration
	// StartToCloseTimeout bounds one attempt of an activity, ScheduleToCloseTimeout
	// all of them, HeartbeatTimeout the time between two heartbeats.
	StartToCloseTimeout, ScheduleToCloseTimeout, HeartbeatTimeout time.Duration
	// RetryPolicy is of the workflow or the activity; nil: no retry of a workflow,
	// and Temporal's default for an activity, which is unlimited.
	RetryPolicy *temporal.RetryPolicy
	// Memo and SearchAttributes are called for each task; nil: none. The key
	// "taskbridge" of the memo is the adapter's own. Activities have no memo.
	Memo             func(taskbridge.Task) (map[string]any, error)
	SearchAttributes func(taskbridge.Task) (temporal.SearchAttributes, error)
	// Input makes the arguments; nil: one [Input]. An activity that stands alone
	// needs an [Input], or what embeds one, as its first.
	Input func(taskbridge.Task, Input) ([]any, error)
	// Cancel says how a workflow is cancelled; an activity is always asked to.
	Cancel Cancel
}

// Cancel is how the cancellation of a task reaches its workflow.
type Cancel struct {
	// Signal is the name of a signal to send instead of Temporal's own
	// cancellation, with a [CancelSignal] as its argument; "": Temporal's own.
	Signal string
	// TerminateAfter is for how long work may go on after a client has asked for
	// the cancellation; then it is terminated. 0: it is never. It is looked at when
	// the reconciler repeats the request, so it may be exceeded by the longest
	// pause between two of these (SubmissionOptions.RetryMax).
	TerminateAfter time.Duration
}

// CancelSignal is the argument of the signal of [Cancel].
type CancelSignal struct {
	TaskID string `json:"taskId"`
	Reason string `json:"reason"`
}

const (
	defaultPrefix     = "taskbridge-"
	defaultMaxPayload = 2 << 20
)

// Check says in a sentence what is wrong with the options, nil if nothing is. It
// does not connect to Temporal.
func (o Options) Check() error {
	_, err := o.checked()
	return err
}

func (o Options) checked() (Options, error) {
	switch {
	case o.Client == nil:
		return o, errors.New("Options.Client must not be nil")
	case o.Lifecycle == nil:
		return o, errors.New("Options.Lifecycle must not be nil")
	case len(o.Types) == 0:
		return o, errors.New("Options.Types must name a task type")
	case o.MaxPayload < 0 || o.StartTimeout < 0 || o.FirstLook < 0 || o.SweepInterval < 0 || o.SweepOverlap < 0:
		return o, errors.New("Options.MaxPayload, StartTimeout, FirstLook, SweepInterval and SweepOverlap must not be negative")
	case o.Submission.Deadline < 0 || o.Submission.UnknownLimit < 0:
		return o, errors.New("Options.Submission must not be negative")
	case strings.ContainsAny(o.Prefix, "'\"`\\%") || !validName(o.Prefix) || len(o.Prefix) > 200:
		return o, errors.New("Options.Prefix must be text of at most 200 bytes without quotes")
	}
	types := make(map[string]TypeOptions, len(o.Types))
	for _, name := range slices.Sorted(maps.Keys(o.Types)) {
		if strings.TrimSpace(name) == "" {
			return o, errors.New("a task type must not be blank")
		}
		checked, err := o.Types[name].checked(name)
		if err != nil {
			return o, fmt.Errorf("task type %q: %w", name, err)
		}
		types[name] = checked
	}
	o.Types = types
	o.Namespace = cmp.Or(o.Namespace, client.DefaultNamespace)
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.MaxPayload = cmp.Or(o.MaxPayload, defaultMaxPayload)
	o.StartTimeout = cmp.Or(o.StartTimeout, 3*time.Second)
	o.FirstLook = cmp.Or(o.FirstLook, time.Second)
	o.SweepInterval = cmp.Or(o.SweepInterval, 15*time.Second)
	o.SweepOverlap = cmp.Or(o.SweepOverlap, time.Minute)
	if o.DataConverter == nil {
		o.DataConverter = converter.GetDefaultDataConverter()
	}
	if o.Clock == nil {
		o.Clock = taskbridge.SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func (t TypeOptions) checked(name string) (TypeOptions, error) {
	for what, d := range map[string]time.Duration{
		"ExecutionTimeout": t.ExecutionTimeout, "RunTimeout": t.RunTimeout, "TaskTimeout": t.TaskTimeout,
		"StartToCloseTimeout": t.StartToCloseTimeout, "ScheduleToCloseTimeout": t.ScheduleToCloseTimeout,
		"HeartbeatTimeout": t.HeartbeatTimeout, "Cancel.TerminateAfter": t.Cancel.TerminateAfter,
	} {
		if d < 0 {
			return t, fmt.Errorf("%s must not be negative", what)
		}
	}
	if strings.TrimSpace(t.TaskQueue) == "" {
		return t, errors.New("TaskQueue must be set: the queue that the workers poll")
	}
	for what, name := range map[string]string{"TaskQueue": t.TaskQueue, "Workflow": t.Workflow, "Activity": t.Activity} {
		if !validName(name) {
			return t, fmt.Errorf("%s must be text of at most %d bytes", what, maxNameBytes)
		}
	}
	if t.Activity == "" {
		if t.StartToCloseTimeout != 0 || t.ScheduleToCloseTimeout != 0 || t.HeartbeatTimeout != 0 {
			return t, errors.New("StartToCloseTimeout, ScheduleToCloseTimeout and HeartbeatTimeout are of an Activity, and none is set")
		}
		t.Workflow = cmp.Or(t.Workflow, name)
		return t, nil
	}
	switch {
	case t.Workflow != "":
		return t, errors.New("Workflow and Activity must not both be set")
	case t.ExecutionTimeout != 0 || t.RunTimeout != 0 || t.TaskTimeout != 0:
		return t, errors.New("ExecutionTimeout, RunTimeout and TaskTimeout are of a workflow, not of an Activity")
	case t.StartToCloseTimeout == 0 && t.ScheduleToCloseTimeout == 0:
		return t, errors.New("an Activity needs a StartToCloseTimeout or a ScheduleToCloseTimeout")
	case t.Memo != nil:
		return t, errors.New("an Activity has no Memo")
	case t.Cancel.Signal != "":
		return t, errors.New("an Activity takes no signal")
	}
	return t, nil
}

// maxNameBytes is Temporal's own limit.
const maxNameBytes = 1000

// validName reports whether Temporal takes a name: one that cannot be sent would be
// tried again and again.
func validName(name string) bool {
	return len(name) <= maxNameBytes && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// remember is for how long Temporal must know the id of what it has closed.
func (o Options) remember() time.Duration {
	const defaultLimit = 15 * time.Minute // of both, in taskbridge.SubmissionOptions
	return cmp.Or(o.Submission.Deadline, defaultLimit) + cmp.Or(o.Submission.UnknownLimit, defaultLimit)
}
