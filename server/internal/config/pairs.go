package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// pairs reads a mapping: NAME=VALUE with commas between them, or what a mapping
// in the file has been turned into, a sequence of those.
func pairs(set func(c *Config, values map[string]string) error, get func(c *Config) map[string]string) parser {
	elements := list(func(c *Config) *[]string { return &c.texts })
	return parser{
		func(c *Config, raw any) error {
			if err := elements.set(c, raw); err != nil {
				return err
			}
			values := make(map[string]string, len(c.texts))
			for _, element := range c.texts {
				// The last one: names may have the sign in them, values never.
				at := strings.LastIndexByte(element, '=')
				if at <= 0 {
					return fmt.Errorf("must be NAME=VALUE, not %q", element)
				}
				name, value := strings.TrimSpace(element[:at]), strings.TrimSpace(element[at+1:])
				if _, twice := values[name]; twice {
					return fmt.Errorf("has %q twice", name)
				}
				values[name] = value
			}
			return set(c, values)
		},
		func(c *Config) string {
			values := get(c)
			var shown []string
			for _, name := range slices.Sorted(maps.Keys(values)) {
				shown = append(shown, name+"="+values[name])
			}
			return strings.Join(shown, ",")
		},
	}
}

// mappings are the settings whose value in the file is a mapping with names of
// the operator's own.
var mappings = [][]string{{"auth", "jwt", "scopeMap"}, {"retention", "byType"}}

// foldMappings turns them into sequences of NAME=VALUE, so that their names are
// not taken for settings.
func foldMappings(values map[string]any) error {
	for _, path := range mappings {
		section := values
		for _, part := range path[:len(path)-1] {
			section, _ = section[part].(map[string]any)
		}
		last := path[len(path)-1]
		mapping, ok := section[last].(map[string]any)
		if !ok {
			continue
		}
		folded := make([]any, 0, len(mapping))
		for _, name := range slices.Sorted(maps.Keys(mapping)) {
			value := fmt.Sprint(mapping[name])
			if sequence, ok := mapping[name].([]any); ok {
				words, err := texts(sequence)
				if err != nil {
					return fmt.Errorf("%s.%s %w", strings.Join(path, "."), name, err)
				}
				value = strings.Join(words, " ")
			}
			folded = append(folded, name+"="+value)
		}
		section[last] = folded
	}
	return nil
}
