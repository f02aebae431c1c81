package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
)

// The setting of the commands: a mapping in the file, TYPE=COMMAND in a flag,
// one of those a line in the environment. Each adds types to, or replaces types
// of, the layers below it.
const (
	tasksKey = "tasks"
	taskFlag = "task"
)

// demoType is the task type of the demonstration.
const demoType = "demo"

// splitCommand splits by a shell's quoting rules and expands nothing.
func splitCommand(line string) ([]string, error) {
	argv, err := shellquote.Split(line)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be split into words: %w", err)
	case len(argv) == 0 || argv[0] == "":
		return nil, errors.New("must name a command")
	}
	return argv, nil
}

// parseTaskFlag reads TYPE=COMMAND ARG….
func parseTaskFlag(value string) (taskType string, command Command, err error) {
	taskType, line, ok := strings.Cut(value, "=")
	taskType = strings.TrimSpace(taskType)
	if !ok || taskType == "" {
		return "", Command{}, fmt.Errorf("must be TYPE=COMMAND ARG…, not %q", value)
	}
	if command.Argv, err = splitCommand(line); err != nil {
		return "", Command{}, fmt.Errorf("of type %q %w", taskType, err)
	}
	return taskType, command, nil
}

// parseTaskFlags reads several of them, none of the types twice.
func parseTaskFlags(values []string) (map[string]Command, error) {
	tasks := make(map[string]Command, len(values))
	for _, value := range values {
		taskType, command, err := parseTaskFlag(value)
		if err != nil {
			return nil, err
		}
		if _, twice := tasks[taskType]; twice {
			return nil, fmt.Errorf("gives the type %q twice", taskType)
		}
		tasks[taskType] = command
	}
	return tasks, nil
}

// parseTaskLines reads the environment variable: one a line, empty lines aside.
func parseTaskLines(value string) (map[string]Command, error) {
	var lines []string
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return parseTaskFlags(lines)
}

// parseCommand reads one entry. Errors begin with the key.
func parseCommand(fields map[string]any) (command Command, err error) {
	if fields["command"] == nil {
		return command, errors.New("command is missing")
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		raw, err := fields[key], error(nil)
		switch key {
		case "command":
			command.Argv, err = parseArgv(raw)
		case "dir":
			var ok bool
			if command.Dir, ok = raw.(string); !ok {
				err = errors.New("must be text")
			}
		case "env":
			command.Env, err = parseEnv(raw)
		case "plainLines":
			command.PlainLines, err = parseBool(raw)
		case "inheritEnv":
			text, _ := raw.(string)
			if command.InheritEnv = InheritEnv(text); !slices.Contains([]InheritEnv{InheritBasic, InheritAll, InheritNone}, command.InheritEnv) {
				err = fmt.Errorf("must be basic, all or none, not %v", raw)
			}
		case "timeout":
			command.Timeout, err = parseDuration(raw, time.Millisecond, 365*day)
		default:
			err = errors.New("is no setting of this server")
		}
		if err != nil {
			return command, fmt.Errorf("%s %w", key, err)
		}
	}
	return command, nil
}

// parseArgv takes one text, which is split, or the words themselves.
func parseArgv(raw any) ([]string, error) {
	if line, ok := raw.(string); ok {
		return splitCommand(line)
	}
	argv, err := texts(raw)
	if err == nil && (len(argv) == 0 || argv[0] == "") {
		err = errors.New("must name a command")
	}
	return argv, err
}

func parseEnv(raw any) ([]string, error) {
	mapping, ok := raw.(map[string]any)
	if !ok {
		return nil, errors.New("must map names to texts")
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(mapping)) {
		value, ok := mapping[name].(string)
		if !ok || name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("must map names to texts: %q does not (quote it?)", name)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}
