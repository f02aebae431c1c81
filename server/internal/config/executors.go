package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// executorsKey is the key of the runtimes in the file. They can be set there
// alone.
const executorsKey = "executors"

// ExecutorKind is a kind of runtime.
type ExecutorKind string

// The kinds.
const (
	KindWebhook ExecutorKind = "webhook"
)

// kind is how a kind is configured.
type kind struct {
	// executor reads a runtime's settings, and task those of a task type on it;
	// both check what can be checked alone.
	executor func(m mapping) (any, error)
	task     func(m mapping) (any, error)
}

var kinds = map[ExecutorKind]kind{
	KindWebhook:  {readWebhook, readWebhookTask},
	KindAsynq:    {readAsynq, readAsynqTask},
	KindK8sJob:   {readK8sJob, readK8sJobTask},
	KindTemporal: {readTemporal, readTemporalTask},
}

// Executor is a runtime that tasks are handed to.
type Executor struct {
	Kind ExecutorKind
	// Settings is of the kind: *[Webhook], *[Asynq], *[K8sJob], *[Temporal].
	Settings any
	// Line is where it stands in the file.
	Line int
}

// Route says where the tasks of a type go.
type Route struct {
	// Executor is the name of one of Config.Executors.
	Executor string
	// Settings is of the executor's kind: *[WebhookTask], *[AsynqTask], *[K8sJobTask],
	// *[TemporalTask].
	Settings any
}

// Webhook is a worker, or a queue before workers, that takes tasks by HTTP.
type Webhook struct {
	// URL is where tasks are posted to.
	URL string `yaml:"url"`
	// Secret signs what is posted; SecretFile has it instead. 32 bytes or more,
	// or empty for no signature.
	Secret     string `yaml:"secret"`
	SecretFile string `yaml:"secretFile"`
}

// WebhookTask is a task type whose work a webhook's worker does.
type WebhookTask struct {
	// Deadline is how long after its creation a task that has not ended fails.
	Deadline time.Duration `yaml:"deadline"`
}

func readWebhook(m mapping) (any, error) {
	w := new(Webhook)
	if err := m.decode(w, "kind"); err != nil {
		return nil, err
	}
	u, err := url.Parse(w.URL)
	switch {
	case w.URL == "":
		return nil, m.errorf("url", "must be set: where tasks are posted to")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "":
		return nil, m.errorf("url", "must be an http or https address without user and fragment")
	case w.Secret != "" && w.SecretFile != "":
		return nil, m.errorf("secretFile", "and secret must not both be set")
	}
	key := "secret"
	if w.SecretFile != "" {
		key = "secretFile"
		content, err := os.ReadFile(w.SecretFile)
		if err != nil {
			return nil, m.errorf("secretFile", "cannot be read: %w", err)
		}
		w.Secret = strings.TrimSpace(string(content))
		if w.Secret == "" {
			return nil, m.errorf("secretFile", "names a file that is empty")
		}
	}
	if w.Secret != "" && len(w.Secret) < 32 {
		return nil, m.errorf(key, "must have at least 32 bytes")
	}
	return w, nil
}

func readWebhookTask(m mapping) (any, error) {
	t := &WebhookTask{Deadline: day}
	return t, m.decode(t, "executor")
}

// readExecutors reads the runtimes.
func readExecutors(node *yaml.Node) (map[string]Executor, error) {
	m, err := readMapping(executorsKey, node)
	if err != nil {
		return nil, err
	}
	executors := make(map[string]Executor, len(m.keys))
	for _, name := range m.keys {
		one, err := readMapping(executorsKey+"."+name, m.values[name])
		if err != nil {
			return nil, err
		}
		if err := checkName(name); err != nil {
			return nil, m.errorf(name, "%w", err)
		}
		text, err := one.text("kind")
		if err != nil {
			return nil, err
		}
		k, ok := kinds[ExecutorKind(text)]
		if !ok {
			if text == "" {
				return nil, m.errorf(name, "must say its kind, one of %v", kindNames())
			}
			return nil, one.errorf("kind", "must be one of %v, not %q", kindNames(), text)
		}
		settings, err := k.executor(one)
		if err != nil {
			return nil, err
		}
		executors[name] = Executor{ExecutorKind(text), settings, m.lines[name]}
	}
	return executors, nil
}

func kindNames() []ExecutorKind { return slices.Sorted(maps.Keys(kinds)) }

// reservedNames are those of what is there without configuration; readiness
// reports each under its name.
var reservedNames = []string{"demo", "process", "store", "taskTypes"}

func checkName(name string) error {
	switch {
	case name == "" || len(name) > 64 || !utf8.ValidString(name) || strings.ContainsFunc(name, isControl):
		return errors.New("must have a name of 1 to 64 bytes of UTF-8 without control characters")
	case slices.Contains(reservedNames, name):
		return fmt.Errorf("must have another name: %v are the server's own", reservedNames)
	}
	return nil
}

// readTasks reads the task types: those of commands, and those that go to one of
// the runtimes.
func readTasks(node *yaml.Node, executors map[string]Executor) (map[string]Command, map[string]Route, error) {
	m, err := readMapping(tasksKey, node)
	if err != nil {
		return nil, nil, err
	}
	commands, routes := map[string]Command{}, map[string]Route{}
	unused := maps.Clone(executors)
	for _, taskType := range m.keys {
		one, err := readMapping(tasksKey+"."+taskType, m.values[taskType])
		if err != nil {
			return nil, nil, fmt.Errorf(`%w with the key "command" or "executor"`, err)
		}
		_, isCommand := one.values["command"]
		name, err := one.text("executor")
		switch {
		case err != nil:
			return nil, nil, err
		case isCommand && name != "":
			return nil, nil, one.errorf("executor", "and command must not both be set")
		case name == "":
			var fields map[string]any
			if err := m.values[taskType].Decode(&fields); err != nil {
				return nil, nil, m.errorf(taskType, "cannot be read: %w", err)
			}
			command, err := parseCommand(fields)
			if err != nil {
				return nil, nil, fmt.Errorf("line %d: tasks.%s.%w", m.lines[taskType], taskType, err)
			}
			commands[taskType] = command
			continue
		}
		executor, ok := executors[name]
		if !ok {
			return nil, nil, one.errorf("executor", "names %q, which is none of executors: %v", name, slices.Sorted(maps.Keys(executors)))
		}
		settings, err := kinds[executor.Kind].task(one)
		if err != nil {
			return nil, nil, err
		}
		routes[taskType] = Route{name, settings}
		delete(unused, name)
	}
	for _, name := range slices.Sorted(maps.Keys(unused)) {
		return nil, nil, fmt.Errorf("line %d: %s.%s is not used: no task type of tasks names it", unused[name].Line, executorsKey, name)
	}
	return commands, routes, nil
}
