package k8sjob

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// plainLifecycle is one that cannot recognise a notice.
type plainLifecycle struct{ taskbridge.TaskLifecycle }

// someOptions are options that will do.
func someOptions(t *testing.T) Options {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	t.Cleanup(func() { must(t, store.Close()) })
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	must(t, err)
	return Options{
		Client: fake.NewClientset(), Namespace: "default", Lifecycle: lifecycle, Rows: store,
		Types: map[string]TypeOptions{"work": {Template: []byte(bareKind)}},
	}
}

func TestOptionsThatCannotBeAreRefusedInASentence(t *testing.T) {
	t.Parallel()
	ofType := func(change func(*TypeOptions)) func(*Options) {
		return func(o *Options) {
			options := o.Types["work"]
			change(&options)
			o.Types["work"] = options
		}
	}
	elected := func(change func(*Election)) func(*Options) {
		return func(o *Options) {
			o.Election = &Election{Identity: "me"}
			change(o.Election)
		}
	}
	for want, change := range map[string]func(*Options){
		"Options.Client must not be nil":                            func(o *Options) { o.Client = nil },
		"Options.Lifecycle must not be nil":                         func(o *Options) { o.Lifecycle = nil },
		"must be a taskbridge.NumberedNoticer":                      func(o *Options) { o.Lifecycle = plainLifecycle{o.Lifecycle} },
		"Options.Rows must not be nil":                              func(o *Options) { o.Rows = nil },
		"Options.Types must name a task type":                       func(o *Options) { o.Types = nil },
		"a task type must not be blank":                             func(o *Options) { o.Types[" "] = TypeOptions{} },
		"Options.CreateTimeout and OutputTimeout must not":          func(o *Options) { o.CreateTimeout = -1 },
		`Options.Namespace "" must be the name of a namespace`:      func(o *Options) { o.Namespace = "" },
		`Options.Namespace "a.b" must be`:                           func(o *Options) { o.Namespace = "a.b" },
		`Options.Instance "A" must have`:                            func(o *Options) { o.Instance = "A" },
		"Options.Election: Identity must not be empty":              elected(func(e *Election) { e.Identity = "" }),
		"Options.Election: LeaseDuration must be above":             elected(func(e *Election) { e.LeaseDuration = e.RenewDeadline + 5*time.Second }),
		"Options.Election: RenewDeadline must be above":             elected(func(e *Election) { e.RetryPeriod = 9 * time.Second }),
		"Options.Election: RetryPeriod must not":                    elected(func(e *Election) { e.RetryPeriod = -1 }),
		"Options.Election: LeaseDuration must be 1 s":               elected(func(e *Election) { e.LeaseDuration, e.RenewDeadline, e.RetryPeriod = 5, 4, 1 }),
		`Options.Election: Namespace "A" must be`:                   elected(func(e *Election) { e.Namespace = "A" }),
		`Options.Election: Name "a/b" must be`:                      elected(func(e *Election) { e.Name = "a/b" }),
		`task type "work": Template must not be empty`:              ofType(func(o *TypeOptions) { o.Template = nil }),
		`task type "work": the template is empty`:                   ofType(func(o *TypeOptions) { o.Template = []byte("#") }),
		`task type "work": Reports must be "lines" or "worker-api"`: ofType(func(o *TypeOptions) { o.Reports = "pigeon" }),
		`Reports is "worker-api", and Options.WorkerURL is empty`:   ofType(func(o *TypeOptions) { o.Reports = ReportWorkerAPI }),
		`PlainLines goes with Reports "lines" only`: func(o *Options) {
			o.WorkerURL = "http://a"
			ofType(func(o *TypeOptions) { o.Reports, o.PlainLines = ReportWorkerAPI, true })(o)
		},
		`InputIn must be "secret" or "configmap"`:                      ofType(func(o *TypeOptions) { o.InputIn = "volume" }),
		"EnvInputLimit must be at most 32768":                          ofType(func(o *TypeOptions) { o.EnvInputLimit = 32769 }),
		`the template has no container "c" that could be the work`:     ofType(func(o *TypeOptions) { o.Container = "c" }),
		"a TTL of 29s is too short: for 30s a submission may be under": ofType(func(o *TypeOptions) { o.TTL = 29 * time.Second }),
		"a TTL of 1m0s is too short: for 2m0s a": func(o *Options) {
			o.Submission.Lease = 2 * time.Minute
			ofType(func(o *TypeOptions) { o.TTL = time.Minute })(o)
		},
	} {
		options := someOptions(t)
		change(&options)
		err := options.Check()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want it to contain %q", err, want)
		}
		if _, err := New(options); err == nil || !strings.HasPrefix(err.Error(), "k8sjob: ") {
			t.Errorf("New says %v", err)
		}
	}
}

func TestOptionsHaveTheirDefaults(t *testing.T) {
	t.Parallel()
	options := someOptions(t)
	options.Election = &Election{Identity: "me"}
	must(t, options.Check())
	e, err := newExecutor(options)
	must(t, err)
	switch {
	case e.Instance != "taskbridge", e.CreateTimeout != 3*time.Second, e.Clock == nil, e.Logger == nil:
		t.Errorf("the options are %+v", e.Options)
	case *e.Election != Election{
		Namespace: "default", Name: "taskbridge", Identity: "me", LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
	}:
		t.Errorf("the election is %+v", e.Election)
	}
	work := e.Types["work"]
	work.Template = nil
	if got, want := work, (TypeOptions{
		Namespace: "default", Container: "work", Reports: ReportLines, InputIn: InputSecret, EnvInputLimit: 4096,
		PendingTimeout: 10 * time.Minute, LostTimeout: 5 * time.Minute, TTL: time.Hour, TailLines: 10,
	}); got.Namespace != want.Namespace || got.Container != want.Container || got.Reports != want.Reports || got.InputIn != want.InputIn ||
		got.EnvInputLimit != want.EnvInputLimit || got.PendingTimeout != want.PendingTimeout || got.LostTimeout != want.LostTimeout ||
		got.TTL != want.TTL || got.TailLines != want.TailLines {
		t.Errorf("the type is %+v, want %+v", got, want)
	}
	if options.Instance != "" || options.Types["work"].Container != "" {
		t.Error("the caller's options were changed")
	}
}

func TestTheTypesOfAnExecutorSayWhichNamespacesItUses(t *testing.T) {
	t.Parallel()
	options := someOptions(t)
	options.Types["second"] = TypeOptions{Template: []byte(podKind)} // of "reports"
	options.Types["third"] = TypeOptions{Template: []byte(bareKind), Namespace: "reports"}
	e, err := newExecutor(options)
	must(t, err)
	if got := strings.Join(e.namespaces(), " "); got != "default reports" {
		t.Errorf("they are %s", got)
	}
}
