package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parser reads a value as the file (typed) or a flag or variable (text) has it,
// and shows the one that is set. Errors continue the setting's name.
type parser struct {
	set  func(c *Config, raw any) error
	show func(c *Config) string
}

func text(field func(*Config) *string) parser {
	return parser{
		func(c *Config, raw any) error {
			s, ok := raw.(string)
			if !ok {
				return fmt.Errorf("must be text, not %v", raw)
			}
			*field(c) = s
			return nil
		},
		func(c *Config) string { return *field(c) },
	}
}

func choice[T ~string](field func(*Config) *T, allowed ...T) parser {
	return parser{
		func(c *Config, raw any) error {
			s, _ := raw.(string)
			if !slices.Contains(allowed, T(s)) {
				return fmt.Errorf("must be one of %v, not %q", allowed, fmt.Sprint(raw))
			}
			*field(c) = T(s)
			return nil
		},
		func(c *Config) string { return string(*field(c)) },
	}
}

func number[T int | int64](field func(*Config) *T, least, most T) parser {
	return parser{
		func(c *Config, raw any) error {
			n, err := strconv.ParseInt(fmt.Sprint(raw), 10, 64)
			switch {
			case err != nil:
				return fmt.Errorf("must be a whole number, not %q", fmt.Sprint(raw))
			case n < int64(least) || n > int64(most):
				return fmt.Errorf("must be from %d to %d, not %d", least, most, n)
			}
			*field(c) = T(n)
			return nil
		},
		func(c *Config) string {
			if *field(c) == 0 {
				return "" // worked out from others
			}
			return strconv.FormatInt(int64(*field(c)), 10)
		},
	}
}

// decimal reads a number of 0 or more.
func decimal(field func(*Config) *float64) parser {
	return parser{
		func(c *Config, raw any) error {
			n, err := strconv.ParseFloat(fmt.Sprint(raw), 64)
			if err != nil || !(n >= 0 && n <= 1e9) {
				return fmt.Errorf("must be a number from 0 to 1000000000, not %q", fmt.Sprint(raw))
			}
			*field(c) = n
			return nil
		},
		func(c *Config) string { return strconv.FormatFloat(*field(c), 'g', -1, 64) },
	}
}

func duration(field func(*Config) *time.Duration, least, most time.Duration) parser {
	return parser{
		func(c *Config, raw any) (err error) {
			*field(c), err = parseDuration(raw, least, most)
			return err
		},
		func(c *Config) string { return showDuration(*field(c)) },
	}
}

func parseDuration(raw any, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(fmt.Sprint(raw))
	switch {
	case err != nil:
		return 0, fmt.Errorf(`must be a duration with its unit, as "1m30s" or "250ms", not %q`, fmt.Sprint(raw))
	case d < least || d > most:
		return 0, fmt.Errorf("must be from %s to %s, not %s", showDuration(least), showDuration(most), d)
	}
	return d, nil
}

// showDuration leaves out the zero units at the end of "15m0s".
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// forever is the retention of what is never deleted.
const forever = "forever"

func retention() parser {
	kept := duration(func(c *Config) *time.Duration { return &c.Retention }, time.Second, 100*365*day)
	return parser{
		func(c *Config, raw any) error {
			if raw == forever {
				c.Retention = -1
				return nil
			}
			return kept.set(c, raw)
		},
		func(c *Config) string {
			if c.Retention < 0 {
				return forever
			}
			return kept.show(c)
		},
	}
}

func toggle(field func(*Config) *bool) parser {
	return parser{
		func(c *Config, raw any) (err error) {
			*field(c), err = parseBool(raw)
			return err
		},
		func(c *Config) string { return strconv.FormatBool(*field(c)) },
	}
}

func parseBool(raw any) (bool, error) {
	on, err := strconv.ParseBool(fmt.Sprint(raw))
	if err != nil {
		return false, fmt.Errorf("must be true or false, not %q", fmt.Sprint(raw))
	}
	return on, nil
}

// list takes a sequence, or text with commas in it.
func list(field func(*Config) *[]string) parser {
	return parser{
		func(c *Config, raw any) error {
			var values []string
			switch raw := raw.(type) {
			case string:
				for value := range strings.SplitSeq(raw, ",") {
					if value = strings.TrimSpace(value); value != "" {
						values = append(values, value)
					}
				}
			default:
				var err error
				if values, err = texts(raw); err != nil {
					return err
				}
			}
			*field(c) = values
			return nil
		},
		func(c *Config) string { return strings.Join(*field(c), ",") },
	}
}

// texts reads a sequence of texts.
func texts(raw any) ([]string, error) {
	sequence, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("must be a list of texts, not %v", raw)
	}
	values := make([]string, len(sequence))
	for i, element := range sequence {
		value, ok := element.(string)
		if !ok {
			return nil, fmt.Errorf("must be a list of texts, but %v is none (quote it)", element)
		}
		values[i] = value
	}
	return values, nil
}

func level() parser {
	return parser{
		func(c *Config, raw any) error {
			if !slices.Contains([]any{"debug", "info", "warn", "error"}, raw) {
				return fmt.Errorf("must be one of [debug info warn error], not %q", fmt.Sprint(raw))
			}
			return c.LogLevel.UnmarshalText([]byte(raw.(string)))
		},
		func(c *Config) string { return strings.ToLower(slog.Level.String(c.LogLevel)) },
	}
}
