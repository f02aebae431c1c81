// Package config reads the server's configuration: flags over TASKBRIDGE_*
// environment variables over one YAML file over defaults. Every setting has all
// three forms; see settings.go for the table. An error names the setting and
// where its value came from.
package config

import (
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Config is the whole configuration, valid as [Load] returns it.
type Config struct {
	// Listen is host:port, on loopback unless Auth is on; port 0: any free one.
	Listen string
	// ListenFile, unless empty, is written with the address once the server
	// listens.
	ListenFile string
	Store      Store
	// Data is the folder in which everything durable is kept.
	Data      string
	LogLevel  slog.Level
	LogFormat LogFormat
	// Demo turns the task type "demo" on.
	Demo bool
	// Tasks maps task types to the commands that do their work.
	Tasks   map[string]Command
	Process Process
	// Executors are the runtimes that tasks are handed to, by name, and Routes
	// says which task types go to which.
	Executors map[string]Executor
	Routes    map[string]Route
	Worker    Worker
	Auth      Auth
	TLS       TLS
	Metrics   Metrics
	// PprofListen is a loopback address for profiles; empty: there are none.
	PprofListen string
	// AllowedOrigins are those of web pages, besides the server's own.
	AllowedOrigins []string
	// RateLimit has no limits of a principal without access control, unless set.
	RateLimit RateLimit
	HTTP      HTTP
	Limits    taskbridge.Limits
	// Submission says how long the hand-over of a task may take.
	Submission taskbridge.SubmissionOptions
	// Retention is for how long tasks are kept after their end; negative: for good.
	Retention time.Duration
	// RetentionByType is the same for single task types.
	RetentionByType map[string]time.Duration
	// ReconcileInterval is the time between two rounds of reconciliation.
	ReconcileInterval time.Duration
	// InstanceLease is for how long after its last sign of life this process
	// counts as alive.
	InstanceLease time.Duration
	// DrainTimeout bounds a shutdown.
	DrainTimeout time.Duration

	sources map[string]string
	texts   []string // scratch of parsers
}

// Source says where the value of a setting came from, "the default" if nobody
// set it.
func (c *Config) Source(key string) string {
	if source, ok := c.sources[key]; ok {
		return source
	}
	return "the default"
}

// TaskTypes returns the types that are configured, sorted; demo is not among
// them.
func (c *Config) TaskTypes() []string {
	types := slices.Collect(maps.Keys(c.Tasks))
	return slices.Sorted(slices.Values(slices.AppendSeq(types, maps.Keys(c.Routes))))
}

// Store is where tasks are kept.
type Store string

// The stores.
const (
	StoreSQLite Store = "sqlite"
	StoreMemory Store = "memory"
)

// LogFormat is how the log is written.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Command is the work of one task type, done by a process.
type Command struct {
	// Argv is the program and its arguments.
	Argv []string
	// Dir is the working directory; empty: the server's.
	Dir string
	// Env is added to what is inherited, NAME=value.
	Env []string
	// InheritEnv says what of the server's environment the command gets.
	InheritEnv InheritEnv
	// PlainLines makes ordinary lines of output messages of the task.
	PlainLines bool
	// Timeout bounds the command's time; 0: no bound.
	Timeout time.Duration
}

// InheritEnv is what of the server's environment a command gets.
type InheritEnv string

// The choices; none means basic.
const (
	InheritBasic InheritEnv = "basic"
	InheritAll   InheritEnv = "all"
	InheritNone  InheritEnv = "none"
)

// Process tunes the executor of commands.
type Process struct {
	// MaxRunning is how many commands run at once, MaxWaiting how many wait.
	MaxRunning, MaxWaiting int
	// Grace is how long a cancelled command may take to stop before it is killed.
	Grace time.Duration
}

// HTTP tunes the transport.
type HTTP struct {
	// AllowedHosts are host names besides loopback's that requests may name.
	// With access control, none means every one.
	AllowedHosts []string
	// BodyBytes bounds a request's body; by default twice what a task's input
	// and metadata may have, since JSON can be written at length.
	BodyBytes      int
	BodyTimeout    time.Duration
	MaxConnections int
	RequestTimeout time.Duration
	WriteTimeout   time.Duration
	Heartbeat      time.Duration
}

// Default returns the configuration of a server that nobody configures.
func Default() *Config {
	return &Config{
		Listen:    "127.0.0.1:8080",
		Store:     StoreSQLite,
		Data:      "taskbridge-data",
		LogLevel:  slog.LevelInfo,
		LogFormat: LogText,
		Demo:      true,
		Tasks:     map[string]Command{},
		Worker:    defaultWorker(),
		Process:   Process{MaxRunning: runtime.GOMAXPROCS(0), MaxWaiting: 10_000, Grace: 10 * time.Second},
		Auth:      defaultAuth(),
		Metrics:   Metrics{Enabled: true},
		RateLimit: defaultRateLimit(),
		HTTP: HTTP{
			BodyTimeout:    30 * time.Second,
			RequestTimeout: 30 * time.Second,
			WriteTimeout:   30 * time.Second,
			Heartbeat:      15 * time.Second,
			MaxConnections: 30_000,
		},
		Limits: taskbridge.DefaultLimits(),
		Submission: taskbridge.SubmissionOptions{
			Timeout:       10 * time.Second,
			Lease:         30 * time.Second,
			Deadline:      15 * time.Minute,
			UnknownLimit:  15 * time.Minute,
			RetryMin:      time.Second,
			RetryMax:      time.Minute,
			CancelTimeout: 2 * time.Second,
			Silence:       time.Minute,

			MissingExecutorLimit: 24 * time.Hour,
		},
		Retention:         30 * day,
		ReconcileInterval: time.Second,
		InstanceLease:     15 * time.Second,
		DrainTimeout:      25 * time.Second,
		sources:           map[string]string{},
	}
}
