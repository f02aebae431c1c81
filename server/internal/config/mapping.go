package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// mapping is a mapping of the file whose keys are known by their lines, so that
// an error can say where it is.
type mapping struct {
	path string // "executors.jobs"
	line int
	keys []string
	// values are the nodes by key, and lines where the keys stand.
	values map[string]*yaml.Node
	lines  map[string]int
}

// readMapping reads a node that must be a mapping, or nothing.
func readMapping(path string, node *yaml.Node) (mapping, error) {
	m := mapping{path: path, values: map[string]*yaml.Node{}, lines: map[string]int{}}
	if node == nil {
		return m, nil
	}
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	m.line = node.Line
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return m, nil
	case node.Kind != yaml.MappingNode:
		return m, fmt.Errorf("line %d: %s must be a mapping", node.Line, path)
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			return m, fmt.Errorf("line %d: %s must map names (text) to their settings, and %q is none (quote it?)", key.Line, path, key.Value)
		}
		if _, twice := m.values[key.Value]; twice {
			return m, fmt.Errorf("line %d: %s.%s is there twice", key.Line, path, key.Value)
		}
		m.keys = append(m.keys, key.Value)
		m.values[key.Value], m.lines[key.Value] = value, key.Line
	}
	return m, m.merge(merged)
}

// merge adds what "<<" names, as far as the mapping does not have it itself.
func (m *mapping) merge(nodes []*yaml.Node) error {
	for _, node := range nodes {
		for node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		if node.Kind == yaml.SequenceNode {
			if err := m.merge(node.Content); err != nil {
				return err
			}
			continue
		}
		other, err := readMapping(m.path+".<<", node)
		if err != nil {
			return err
		}
		for _, key := range other.keys {
			if _, ok := m.values[key]; !ok {
				m.keys = append(m.keys, key)
				m.values[key], m.lines[key] = other.values[key], other.lines[key]
			}
		}
	}
	return nil
}

// errorf is an error of one key; it begins with the line and the key's path.
func (m mapping) errorf(key, format string, args ...any) error {
	line, ok := m.lines[key]
	if !ok {
		line = m.line
	}
	return fmt.Errorf("line %d: %s.%s "+format, append([]any{line, m.path, key}, args...)...)
}

// text returns the text under the key, "" if there is none.
func (m mapping) text(key string) (string, error) {
	node, ok := m.values[key]
	if !ok {
		return "", nil
	}
	var raw any
	if err := node.Decode(&raw); err != nil {
		return "", m.errorf(key, "cannot be read: %w", err)
	}
	s, ok := raw.(string)
	if !ok || s == "" {
		return "", m.errorf(key, "must be text that is not empty")
	}
	return s, nil
}

// decode fills the struct, whose fields have their keys in a yaml tag. Keys that
// it does not have are refused, apart from those that have been read already.
func (m mapping) decode(into any, read ...string) error {
	structure := reflect.ValueOf(into).Elem()
	fields := map[string]reflect.Value{}
	var known []string
	for i := range structure.NumField() {
		if name := structure.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = structure.Field(i)
			known = append(known, name)
		}
	}
	done := map[string]bool{}
	for _, key := range read {
		done[key] = true
	}
	for _, key := range m.keys {
		field, ok := fields[key]
		switch {
		case done[key]:
			continue
		case !ok:
			return m.errorf(key, "is no setting here; there are %s", strings.Join(append(read, known...), ", "))
		}
		if err := decodeValue(m.values[key], field); err != nil {
			return m.errorf(key, "%w", err)
		}
	}
	return nil
}

// Wait is a time after which waiting ends; negative: never.
type Wait time.Duration

// never is the Wait without an end.
const never = "never"

// decodeValue reads one value. Errors continue its name.
func decodeValue(node *yaml.Node, field reflect.Value) error {
	var raw any
	if err := node.Decode(&raw); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	switch into := field.Addr().Interface().(type) {
	case *time.Duration:
		d, err := parseDuration(raw, time.Millisecond, 100*365*day)
		*into = d
		return err
	case *Wait:
		if raw == never {
			*into = -1
			return nil
		}
		d, err := parseDuration(raw, time.Second, 100*365*day)
		if err != nil {
			return fmt.Errorf("%w; or %s", err, never)
		}
		*into = Wait(d)
		return nil
	case *bool:
		on, err := parseBool(raw)
		*into = on
		return err
	case *int:
		n, ok := raw.(int)
		if !ok {
			return fmt.Errorf("must be a whole number, not %v", raw)
		}
		*into = n
		return nil
	case **int:
		n, ok := raw.(int)
		if !ok {
			return fmt.Errorf("must be a whole number, not %v", raw)
		}
		*into = &n
		return nil
	}
	if field.Kind() == reflect.String {
		s, ok := raw.(string)
		if !ok {
			return errors.New("must be text (quote it?)") // and may be a secret
		}
		field.SetString(s)
		return nil
	}
	return errors.New("has a type that this server cannot read")
}
