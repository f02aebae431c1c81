package config

import (
	"fmt"
	"net"
	"strconv"
)

// Metrics says where /metrics is served. Without access control, and without an
// address of its own, it is on the server's main address, which is loopback then.
type Metrics struct {
	Enabled bool
	Listen  string
}

// OnMain reports whether the main address has /metrics.
func (c *Config) OnMain() bool { return c.Metrics.Enabled && c.Metrics.Listen == "" && !c.Auth.On() }

var watchingGroup = group{"Watching", []setting{
	{"metrics.enabled", "metrics-enabled", hintBool, "serve /metrics; without metrics-listen only while there is no access control",
		toggle(func(c *Config) *bool { return &c.Metrics.Enabled })},
	{"metrics.listen", "metrics-listen", "HOST:PORT", "address for /metrics alone, open to whoever reaches it",
		text(func(c *Config) *string { return &c.Metrics.Listen })},
	{"pprof.listen", "pprof-listen", "HOST:PORT", "loopback address for go tool pprof",
		text(func(c *Config) *string { return &c.PprofListen })},
}}

func (c *Config) checkWatching() error {
	if c.PprofListen != "" {
		if err := checkListen(c.PprofListen, false); err != nil {
			return c.invalid("pprof.listen", fmt.Errorf("must be HOST:PORT on loopback, since profiles show the server's memory; %q is not", c.PprofListen))
		}
	}
	if c.Metrics.Listen == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(c.Metrics.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return c.invalid("metrics.listen", fmt.Errorf("must be HOST:PORT, not %q", c.Metrics.Listen))
	}
	return nil
}
