package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// ErrHelp: the arguments asked for help.
var ErrHelp = pflag.ErrHelp

// configFlag names the configuration file.
const configFlag = "config"

// Load reads the configuration from the command's arguments, the environment
// (as [os.Environ] has it) and the file that either of them names.
func Load(args, environ []string) (*Config, error) {
	flags := flagSet()
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	vars := variables(environ)
	l := loader{config: Default(), merged: koanf.New(".")}

	path, source := vars[envName(configFlag)], envName(configFlag)
	if flag := flags.Lookup(configFlag); flag.Changed {
		path, source = flag.Value.String(), "--"+configFlag
	}
	if path != "" {
		if err := l.file(path); err != nil {
			return nil, fmt.Errorf("%s (from %s): %w", path, source, err)
		}
	}
	if err := l.environment(environ, vars); err != nil {
		return nil, err
	}
	if err := l.flags(flags); err != nil {
		return nil, err
	}
	if err := l.apply(); err != nil {
		return nil, err
	}
	if l.config.HTTP.BodyBytes == 0 {
		l.config.HTTP.BodyBytes = 2 * (l.config.Limits.Input + l.config.Limits.Metadata)
	}
	if err := l.config.validate(); err != nil {
		return nil, err
	}
	return l.config, nil
}

// loader puts the layers on top of each other, the lowest first.
type loader struct {
	config *Config
	merged *koanf.Koanf
}

// layer merges the values over what is there and notes where they came from.
func (l *loader) layer(provider koanf.Provider, source func(setting) string) error {
	layer := koanf.New(".")
	if err := layer.Load(provider, nil); err != nil {
		return err
	}
	for _, key := range layer.Keys() {
		s, ok := lookup(key)
		if !ok {
			if emptySection(key, layer.Get(key)) {
				continue
			}
			return fmt.Errorf("%s is no setting of this server", key)
		}
		l.config.sources[key] = source(s)
	}
	return l.merged.Merge(layer)
}

// emptySection reports whether the key is the heading of settings none of which
// is given.
func emptySection(key string, value any) bool {
	section, ok := value.(map[string]any)
	if value != nil && (!ok || len(section) > 0) {
		return false
	}
	for _, g := range groups {
		for _, s := range g.settings {
			if strings.HasPrefix(s.key, key+".") {
				return true
			}
		}
	}
	return false
}

// addTasks puts the types over those that are there.
func (l *loader) addTasks(tasks map[string]Command, source string) {
	maps.Copy(l.config.Tasks, tasks)
	for taskType := range tasks {
		delete(l.config.Routes, taskType)
		l.config.sources[tasksKey+"."+taskType] = source
	}
}

func (l *loader) file(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("must hold one YAML document")
	}
	values := map[string]any{}
	if err := document.Decode(&values); err != nil {
		return oneSentence(err)
	}
	if err := l.executors(&document, path); err != nil {
		return err
	}
	delete(values, executorsKey)
	delete(values, tasksKey)
	if err := foldMappings(values); err != nil {
		return err
	}
	return l.layer(confmap.Provider(values, ""), func(setting) string { return path })
}

// oneSentence is what YAML has against a document, which it puts on a line for
// each fault, with none of them alone.
func oneSentence(err error) error {
	var faults *yaml.TypeError
	if !errors.As(err, &faults) {
		return err
	}
	return errors.New(strings.Join(faults.Errors, "; "))
}

// executors reads the runtimes and the task types of the file.
func (l *loader) executors(document *yaml.Node, path string) error {
	if len(document.Content) == 0 {
		return nil
	}
	top, err := readMapping("the file", document.Content[0])
	if err != nil {
		return err
	}
	executors, err := readExecutors(top.values[executorsKey])
	if err != nil {
		return err
	}
	commands, routes, err := readTasks(top.values[tasksKey], executors)
	if err != nil {
		return err
	}
	if err := readTemplates(path, executors, routes); err != nil {
		return err
	}
	l.config.Executors, l.config.Routes = executors, routes
	l.config.sources[executorsKey] = path
	l.addTasks(commands, path)
	for taskType := range routes {
		l.config.sources[tasksKey+"."+taskType] = path
	}
	return nil
}

func (l *loader) environment(environ []string, vars map[string]string) error {
	name := envName(taskFlag)
	tasks, err := parseTaskLines(vars[name])
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	l.addTasks(tasks, name)

	keys := make(map[string]string)
	for _, g := range groups {
		for _, s := range g.settings {
			keys[s.env()] = s.key
		}
	}
	provider := env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		// The environment holds other variables with this prefix: those of the
		// work. An unknown one has an empty key, which leaves it out, and so does
		// an empty one: compose files pass on what nobody has set.
		TransformFunc: func(name, value string) (string, any) {
			if value == "" {
				return "", nil
			}
			return keys[name], value
		},
	})
	return l.layer(provider, setting.env)
}

// variables returns the environment variables with our prefix.
func variables(environ []string) map[string]string {
	vars := make(map[string]string)
	for _, variable := range environ {
		if name, value, ok := strings.Cut(variable, "="); ok && strings.HasPrefix(name, envPrefix) {
			vars[name] = value
		}
	}
	return vars
}

func (l *loader) flags(flags *pflag.FlagSet) error {
	values, err := flags.GetStringArray(taskFlag)
	if err != nil {
		return err
	}
	tasks, err := parseTaskFlags(values)
	if err != nil {
		return fmt.Errorf("--%s %w", taskFlag, err)
	}
	l.addTasks(tasks, "--"+taskFlag)

	keys := make(map[string]string)
	for _, g := range groups {
		for _, s := range g.settings {
			keys[s.flag] = s.key
		}
	}
	provider := posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		return keys[f.Name], f.Value.String()
	})
	return l.layer(provider, func(s setting) string { return "--" + s.flag })
}

// apply reads the values that won.
func (l *loader) apply() error {
	for _, g := range groups {
		for _, s := range g.settings {
			if !l.merged.Exists(s.key) {
				continue
			}
			if err := s.parse.set(l.config, l.merged.Get(s.key)); err != nil {
				return l.config.invalid(s.key, err)
			}
		}
	}
	return nil
}

// invalid names a setting and its source before what is wrong with it.
func (c *Config) invalid(key string, err error) error {
	return fmt.Errorf("%s (from %s) %w", key, c.Source(key), err)
}

// validate checks what is wrong only together.
func (c *Config) validate() error {
	if err := c.completeAuth(); err != nil {
		return err
	}
	if err := c.checkExposed(); err != nil {
		return err
	}
	if err := c.checkWatching(); err != nil {
		return err
	}
	if err := c.completeWorker(); err != nil {
		return err
	}
	if err := c.checkK8sJob(); err != nil {
		return err
	}
	c.completeRateLimit()
	if err := checkListen(c.Listen, c.Auth.On()); err != nil {
		return c.invalid("listen", err)
	}
	if c.Store != StoreMemory && c.Data == "" {
		return c.invalid("data", errors.New("must not be empty"))
	}
	s := c.Submission
	switch {
	case s.Lease <= s.Timeout:
		return c.invalid("submission.lease", fmt.Errorf("must be longer than submission.timeout: %s, not %s", s.Timeout, s.Lease))
	case s.RetryMax < s.RetryMin:
		return c.invalid("submission.retryMax", fmt.Errorf("must not be shorter than submission.retryMin: %s, not %s", s.RetryMin, s.RetryMax))
	}
	for _, taskType := range c.TaskTypes() {
		key := tasksKey + "." + taskType
		switch {
		case taskType == demoType && c.Demo:
			return c.invalid(key, errors.New("is the demonstration's type: turn that off (demo: false) or choose another"))
		case len(taskType) > 255 || !utf8.ValidString(taskType) || strings.ContainsFunc(taskType, isControl):
			return c.invalid(key, errors.New("must be a type of at most 255 bytes of UTF-8 without control characters"))
		}
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
