package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// KindTemporal hands tasks to Temporal, as workflows or standalone activities.
const KindTemporal ExecutorKind = "temporal"

// Temporal is a namespace of a Temporal service.
type Temporal struct {
	// Address is the frontend's, host:port.
	Address   string `yaml:"address"`
	Namespace string `yaml:"namespace"`
	// Prefix begins the ids of workflows and activities; "": the adapter's own.
	Prefix string `yaml:"prefix"`
	// TLS: the connection is encrypted. CAFile has the certificates that the
	// service's is trusted by, CertFile and KeyFile those of this server; each of
	// them turns TLS on. ServerName is the name in the service's certificate, where
	// it is not that of the address.
	TLS        bool   `yaml:"tls"`
	CAFile     string `yaml:"caFile"`
	CertFile   string `yaml:"certFile"`
	KeyFile    string `yaml:"keyFile"`
	ServerName string `yaml:"serverName"`
	// APIKeyFile has the key that is sent along with each request; it turns TLS on. It
	// is read for each, so that the key can be another one while the server runs.
	APIKeyFile string `yaml:"apiKeyFile"`
	// APIKey is what the file held when the configuration was read.
	APIKey string `yaml:"-"`
	// SweepInterval is the time between two looks at what has closed.
	SweepInterval time.Duration `yaml:"sweepInterval"`
}

// TemporalTask is a task type whose work Temporal's workers do. Zero fields mean the
// adapter's defaults.
type TemporalTask struct {
	TaskQueue string `yaml:"taskQueue"`
	// Workflow or Activity is the type's name in Temporal.
	Workflow string `yaml:"workflow"`
	Activity string `yaml:"activity"`

	ExecutionTimeout       time.Duration `yaml:"executionTimeout"`
	RunTimeout             time.Duration `yaml:"runTimeout"`
	StartToCloseTimeout    time.Duration `yaml:"startToCloseTimeout"`
	ScheduleToCloseTimeout time.Duration `yaml:"scheduleToCloseTimeout"`
	HeartbeatTimeout       time.Duration `yaml:"heartbeatTimeout"`
	// MaxAttempts is how often a workflow or an activity is tried; nil: a workflow
	// once, an activity without a limit.
	MaxAttempts *int `yaml:"maxAttempts"`
	// CancelSignal is sent instead of Temporal's cancellation, TerminateAfter ends
	// work that goes on after it.
	CancelSignal   string        `yaml:"cancelSignal"`
	TerminateAfter time.Duration `yaml:"terminateAfter"`
}

func readTemporal(m mapping) (any, error) {
	t := new(Temporal)
	if err := m.decode(t, "kind"); err != nil {
		return nil, err
	}
	if t.Address == "" {
		return nil, m.errorf("address", `must be set: where Temporal's frontend is, as "host:7233"`)
	}
	host, port, err := net.SplitHostPort(t.Address)
	if number, invalid := strconv.ParseUint(port, 10, 16); err != nil || host == "" || invalid != nil || number == 0 {
		return nil, m.errorf("address", `must be like "host:7233"`)
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, m.errorf("certFile", "and keyFile belong together")
	}
	if t.APIKeyFile != "" {
		var err error
		if t.APIKey, err = t.ReadAPIKey(); err != nil {
			return nil, m.errorf("apiKeyFile", "%w", err)
		}
	}
	t.TLS = t.TLS || t.CAFile != "" || t.CertFile != "" || t.ServerName != "" || t.APIKey != ""
	return t, nil
}

// ReadAPIKey reads APIKeyFile. Its errors go on from the setting's name, and have
// nothing of the content.
func (t *Temporal) ReadAPIKey() (string, error) {
	content, err := os.ReadFile(t.APIKeyFile)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	key := strings.TrimSpace(string(content))
	switch {
	case key == "":
		return "", errors.New("names a file that is empty")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("names a file with more than a key: characters that no header may have")
	}
	return key, nil
}

func readTemporalTask(m mapping) (any, error) {
	t := new(TemporalTask)
	if err := m.decode(t, "executor"); err != nil {
		return nil, err
	}
	if t.MaxAttempts != nil && *t.MaxAttempts < 1 {
		return nil, m.errorf("maxAttempts", "must be 1 or more, not %d", *t.MaxAttempts)
	}
	return t, nil
}
