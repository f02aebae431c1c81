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

// limitOrNever reads a duration; -1 for what is waited for without an end.
func limitOrNever(field func(*Config) *time.Duration, least, most time.Duration) parser {
	return parser{
		func(c *Config, raw any) (err error) {
			if raw == never || fmt.Sprint(raw) == "0" {
				*field(c) = -1
				return nil
			}
			d, err := parseDuration(raw, 0, most)
			switch {
			case err != nil:
				return err
			case d == 0:
				d = -1
			case d < least:
				return fmt.Errorf("must be from %s to %s, or 0 or never, not %s", showDuration(least), showDuration(most), d)
			}
			*field(c) = d
			return nil
		},
		func(c *Config) string {
			if *field(c) < 0 {
				return never
			}
			return showDuration(*field(c))
		},
	}
}

// forever is the retention of what is never deleted.
const forever = "forever"

// parseRetention reads a time; -1 for what is kept for good.
func parseRetention(raw any) (time.Duration, error) {
	const most = 100 * 365 * day
	if raw == forever || fmt.Sprint(raw) == "0" {
		return -1, nil
	}
	d, err := parseDuration(raw, -most, most)
	switch {
	case err != nil:
		return 0, err
	case d <= 0:
		return -1, nil
	case d < time.Second:
		return 0, fmt.Errorf("must be at least 1s, or 0 or forever for good, not %s", d)
	}
	return d, nil
}

func showRetention(d time.Duration) string {
	if d < 0 {
		return forever
	}
	return showDuration(d)
}

func retention() parser {
	return parser{
		func(c *Config, raw any) (err error) {
			c.Retention, err = parseRetention(raw)
			return err
		},
		func(c *Config) string { return showRetention(c.Retention) },
	}
}

func retentionByType() parser {
	return pairs(func(c *Config, values map[string]string) error {
		byType := make(map[string]time.Duration, len(values))
		for taskType, value := range values {
			keep, err := parseRetention(value)
			if err != nil {
				return fmt.Errorf("of type %q %w", taskType, err)
			}
			byType[taskType] = keep
		}
		c.RetentionByType = byType
		return nil
	}, func(c *Config) map[string]string {
		values := make(map[string]string, len(c.RetentionByType))
		for taskType, keep := range c.RetentionByType {
			values[taskType] = showRetention(keep)
		}
		return values
	})
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
