package process

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Command says how the tasks of one type are run.
type Command struct {
	// Path is the program: a path, or a name that is looked up in the server's
	// PATH when the task is run. A relative path is taken from Dir.
	Path string
	// Args are the arguments after the program's name, passed as they are: no
	// shell sees them.
	Args []string
	// Dir is the working directory; empty: the server's.
	Dir string
	// Env is added to the environment, each "KEY=value", over what is inherited.
	// The variables that the package sets itself are refused.
	Env []string
	// InheritEnv says what of the server's environment the command gets.
	InheritEnv EnvPolicy
	// PlainLines makes a TASK_MESSAGE of level info of each line of standard
	// output that is no report and not blank; otherwise such lines are dropped.
	PlainLines bool
	// MaxLine is the most bytes of a line of standard output that are kept;
	// default 64 KiB. A longer plain line is cut; a longer report is replaced by
	// a warning.
	MaxLine int
	// StderrTail is how many bytes of the end of standard error go into the
	// message of a failure; default 4 KiB, negative for none.
	StderrTail int
	// Timeout bounds the command's time; 0: no bound.
	Timeout time.Duration
}

// EnvPolicy says what of the server's environment a command inherits. Variables
// whose names begin with TASKBRIDGE_, where the server's own secrets are, are
// inherited under no policy.
type EnvPolicy int

// The policies.
const (
	// EnvBasic inherits PATH, HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_*,
	// TZ and TMPDIR: what programs need and nothing secret.
	EnvBasic EnvPolicy = iota
	// EnvAll inherits everything but TASKBRIDGE_*.
	EnvAll
	// EnvNone inherits nothing.
	EnvNone
)

const (
	envTaskID   = "TASKBRIDGE_TASK_ID"
	envTaskType = "TASKBRIDGE_TASK_TYPE"
	envClaim    = "TASKBRIDGE_CLAIM"
	envInput    = "TASKBRIDGE_INPUT"
	envTrace    = "TRACEPARENT" // as OpenTelemetry has it for environments

	// maxEnvInput is the longest input that is given in the environment too.
	maxEnvInput = 32 << 10

	defaultMaxLine    = 64 << 10
	defaultStderrTail = 4 << 10
)

// checked returns the command with its defaults, sharing no memory with c.
func (c Command) checked() (Command, error) {
	if c.Path == "" {
		return c, fmt.Errorf("Path must not be empty")
	}
	for _, text := range append([]string{c.Path, c.Dir}, c.Args...) {
		if strings.ContainsRune(text, 0) {
			return c, fmt.Errorf("%q must not hold a zero byte", text)
		}
	}
	for _, entry := range c.Env {
		key, _, ok := strings.Cut(entry, "=")
		switch {
		case !ok || key == "" || strings.ContainsRune(entry, 0):
			return c, fmt.Errorf("Env: %q must have the form KEY=value", entry)
		case slices.Contains([]string{envTaskID, envTaskType, envClaim, envInput}, key):
			return c, fmt.Errorf("Env: %s is set by the executor", key)
		}
	}
	switch {
	case c.InheritEnv < EnvBasic || c.InheritEnv > EnvNone:
		return c, fmt.Errorf("InheritEnv: %d is no policy", c.InheritEnv)
	case c.MaxLine < 0:
		return c, fmt.Errorf("MaxLine must not be negative")
	case c.Timeout < 0:
		return c, fmt.Errorf("Timeout must not be negative")
	}
	c.MaxLine = cmp.Or(c.MaxLine, defaultMaxLine)
	c.StderrTail = max(0, cmp.Or(c.StderrTail, defaultStderrTail))
	c.Args = slices.Clone(c.Args)
	c.Env = slices.Clone(c.Env)
	return c, nil
}

// environment is what the command runs with; later entries win.
func (c Command) environment(own ...string) []string {
	var env []string
	for _, entry := range os.Environ() {
		key, _, _ := strings.Cut(entry, "=")
		if c.InheritEnv.inherits(key) {
			env = append(env, entry)
		}
	}
	return append(append(env, c.Env...), own...)
}

func (p EnvPolicy) inherits(key string) bool {
	switch {
	case p == EnvNone || strings.HasPrefix(key, "TASKBRIDGE_") || key == envTrace:
		return false
	case p == EnvAll:
		return true
	}
	switch key {
	case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR":
		return true
	}
	return strings.HasPrefix(key, "LC_")
}
