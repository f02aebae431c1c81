package config

import (
	"math"
	"strings"
	"time"
)

// setting is one thing that can be configured, in all its forms.
type setting struct {
	key   string // in the file: camelCase, a dot between levels
	flag  string // and, in capitals behind TASKBRIDGE_, the environment variable
	hint  string // what --help shows for the value
	usage string
	parse parser
}

// env returns the name of the setting's environment variable.
func (s setting) env() string { return envName(s.flag) }

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const (
	envPrefix = "TASKBRIDGE_"
	day       = 24 * time.Hour
)

// hintBool marks the flags that need no value.
const hintBool = "BOOL"

// group is a heading of --help and what stands below it.
type group struct {
	title    string
	settings []setting
}

// groups is the table of all settings but the tasks (see tasks.go) and the name
// of the configuration file itself.
var groups = []group{
	{"Server", []setting{
		{"listen", "listen", "HOST:PORT", "address to listen on; loopback only unless auth-modes is set; port 0 for any free one",
			text(func(c *Config) *string { return &c.Listen })},
		{"listenFile", "listen-file", "FILE", "write the address there once the server listens",
			text(func(c *Config) *string { return &c.ListenFile })},
		{"store", "store", "NAME", "where tasks are kept: sqlite, or memory (gone with the process)",
			choice(func(c *Config) *Store { return &c.Store }, StoreSQLite, StoreMemory)},
		{"data", "data", "DIR", "folder for everything durable",
			text(func(c *Config) *string { return &c.Data })},
		{"drainTimeout", "drain-timeout", "DURATION", "time for a shutdown in good order",
			duration(func(c *Config) *time.Duration { return &c.DrainTimeout }, time.Millisecond, day)},
		{"log.level", "log-level", "LEVEL", "debug, info, warn or error",
			level()},
		{"log.format", "log-format", "NAME", "text or json",
			choice(func(c *Config) *LogFormat { return &c.LogFormat }, LogText, LogJSON)},
	}},
	{"Tasks", []setting{
		{"demo", "demo", hintBool, "offer the task type demo",
			toggle(func(c *Config) *bool { return &c.Demo })},
		{"process.maxRunning", "process-max-running", "N", "commands that run at once; the others wait",
			number(func(c *Config) *int { return &c.Process.MaxRunning }, 1, 100_000)},
		{"process.maxWaiting", "process-max-waiting", "N", "tasks that wait for a command to end",
			number(func(c *Config) *int { return &c.Process.MaxWaiting }, 1, 10_000_000)},
		{"process.grace", "process-grace", "DURATION", "time for a cancelled command to stop before it is killed",
			duration(func(c *Config) *time.Duration { return &c.Process.Grace }, time.Millisecond, day)},
	}},
	workerGroup,
	authGroup,
	exposeGroup,
	watchingGroup,
	rateLimitGroup,
	{"HTTP", []setting{
		{"http.allowedHosts", "http-allowed-hosts", "NAME,…", "host names besides loopback's that requests may name; with access control, none means all",
			list(func(c *Config) *[]string { return &c.HTTP.AllowedHosts })},
		{"http.bodyBytes", "http-body-bytes", "BYTES", "largest body of a request (default: twice a task's input and metadata)",
			number(func(c *Config) *int { return &c.HTTP.BodyBytes }, 1, 1<<30)},
		{"http.bodyTimeout", "http-body-timeout", "DURATION", "time for a body to arrive",
			duration(func(c *Config) *time.Duration { return &c.HTTP.BodyTimeout }, time.Millisecond, day)},
		{"http.requestTimeout", "http-request-timeout", "DURATION", "time for a request, beyond what it asks to wait",
			duration(func(c *Config) *time.Duration { return &c.HTTP.RequestTimeout }, time.Millisecond, day)},
		{"http.writeTimeout", "http-write-timeout", "DURATION", "time for one write, after which a slow reader is cut",
			duration(func(c *Config) *time.Duration { return &c.HTTP.WriteTimeout }, time.Millisecond, day)},
		{"http.heartbeat", "http-heartbeat", "DURATION", "time without an event after which a stream shows life",
			duration(func(c *Config) *time.Duration { return &c.HTTP.Heartbeat }, time.Millisecond, day)},
	}},
	{"Limits of one task", []setting{
		{"limits.inputBytes", "limit-input-bytes", "BYTES", "input",
			number(func(c *Config) *int { return &c.Limits.Input }, 2, 1<<30)},
		{"limits.metadataBytes", "limit-metadata-bytes", "BYTES", "metadata",
			number(func(c *Config) *int { return &c.Limits.Metadata }, 2, 1<<30)},
		{"limits.eventBytes", "limit-event-bytes", "BYTES", "payload of an event",
			number(func(c *Config) *int { return &c.Limits.EventPayload }, 1<<10, 1<<30)},
		{"limits.resultBytes", "limit-result-bytes", "BYTES", "payload of the last event, with the result in it",
			number(func(c *Config) *int { return &c.Limits.TerminalPayload }, 1<<10, 1<<30)},
		{"limits.streamEvents", "limit-stream-events", "N", "progress and messages",
			number(func(c *Config) *int64 { return &c.Limits.StreamEvents }, 1, math.MaxInt32)},
		{"limits.suspensions", "limit-suspensions", "N", "suspensions",
			number(func(c *Config) *int { return &c.Limits.Suspensions }, 1, math.MaxInt32)},
	}},
	{"Submission, reconciliation, retention", []setting{
		{"submission.timeout", "submission-timeout", "DURATION", "time for handing a task over",
			duration(func(c *Config) *time.Duration { return &c.Submission.Timeout }, time.Millisecond, day)},
		{"submission.lease", "submission-lease", "DURATION", "time in which nobody else hands it over",
			duration(func(c *Config) *time.Duration { return &c.Submission.Lease }, time.Millisecond, day)},
		{"submission.deadline", "submission-deadline", "DURATION", "time after which a task not handed over is given up",
			duration(func(c *Config) *time.Duration { return &c.Submission.Deadline }, time.Millisecond, 30*day)},
		{"submission.unknownLimit", "submission-unknown-limit", "DURATION", "further time for a runtime that cannot say",
			duration(func(c *Config) *time.Duration { return &c.Submission.UnknownLimit }, time.Millisecond, 30*day)},
		{"submission.retryMin", "submission-retry-min", "DURATION", "shortest time between two tries",
			duration(func(c *Config) *time.Duration { return &c.Submission.RetryMin }, time.Millisecond, day)},
		{"submission.retryMax", "submission-retry-max", "DURATION", "longest time between two tries",
			duration(func(c *Config) *time.Duration { return &c.Submission.RetryMax }, time.Millisecond, day)},
		{"submission.cancelTimeout", "submission-cancel-timeout", "DURATION", "time for asking an executor to cancel",
			duration(func(c *Config) *time.Duration { return &c.Submission.CancelTimeout }, time.Millisecond, day)},
		{"submission.silence", "submission-silence", "DURATION", "time without news after which a runtime is asked",
			duration(func(c *Config) *time.Duration { return &c.Submission.Silence }, time.Millisecond, 30*day)},
		{"submission.missingExecutorLimit", "submission-missing-executor-limit", "DURATION", "time after which a task is given up whose type has lost its executor; 0 or never: not at all",
			limitOrNever(func(c *Config) *time.Duration { return &c.Submission.MissingExecutorLimit }, time.Second, 365*day)},
		{"reconcileInterval", "reconcile-interval", "DURATION", "time between two rounds of reconciliation",
			duration(func(c *Config) *time.Duration { return &c.ReconcileInterval }, time.Millisecond, day)},
		{"retention.keep", "retention", "DURATION", "time for which an ended task is kept; 0, less than that or forever: for good",
			retention()},
		{"retention.byType", "retention-by-type", "'TYPE=DURATION,…'", "the same for single task types; a mapping in the file",
			retentionByType()},
		{"instanceLease", "instance-lease", "DURATION", "time after which a silent server counts as dead",
			duration(func(c *Config) *time.Duration { return &c.InstanceLease }, 100*time.Millisecond, day)},
	}},
}

// lookup finds a setting by its key in the file.
func lookup(key string) (setting, bool) {
	for _, g := range groups {
		for _, s := range g.settings {
			if s.key == key {
				return s, true
			}
		}
	}
	return setting{}, false
}
