package config

import (
	"net/url"
	"os"
	"strings"
	"time"
)

// KindAsynq hands tasks to asynq's queues in Redis.
const KindAsynq ExecutorKind = "asynq"

// Asynq is a Redis in which asynq has its queues.
type Asynq struct {
	// URL is Redis's, as asynq takes it: redis://, rediss://, redis-socket:// or
	// redis-sentinel://.
	URL string `yaml:"url"`
	// PasswordFile has the password that the URL leaves out.
	PasswordFile string `yaml:"passwordFile"`
}

// AsynqTask is a task type whose work asynq's workers do. Zero fields mean the
// adapter's defaults.
type AsynqTask struct {
	Queue string `yaml:"queue"`
	// Timeout bounds one attempt, Deadline all of them.
	Timeout  time.Duration `yaml:"timeout"`
	Deadline time.Duration `yaml:"deadline"`
	// MaxRetry is how often asynq runs a task again that failed; nil: asynq's own
	// number.
	MaxRetry *int `yaml:"maxRetry"`
	// Retention is for how long asynq remembers the ids of tasks that are done.
	Retention time.Duration `yaml:"retention"`
}

func readAsynq(m mapping) (any, error) {
	a := new(Asynq)
	if err := m.decode(a, "kind"); err != nil {
		return nil, err
	}
	if a.URL == "" {
		return nil, m.errorf("url", `must be set: where Redis is, as "redis://host:6379/0"`)
	}
	u, err := url.Parse(a.URL)
	if err != nil {
		return nil, m.errorf("url", "must be an address of Redis") // which may hold a password
	}
	switch u.Scheme {
	case "redis", "rediss", "redis-socket", "redis-sentinel":
	default:
		return nil, m.errorf("url", "must begin with redis://, rediss://, redis-socket:// or redis-sentinel://")
	}
	if a.PasswordFile == "" {
		return a, nil
	}
	if _, given := u.User.Password(); given {
		return nil, m.errorf("passwordFile", "and a password in url must not both be set")
	}
	content, err := os.ReadFile(a.PasswordFile)
	if err != nil {
		return nil, m.errorf("passwordFile", "cannot be read: %w", err)
	}
	password := strings.TrimSpace(string(content))
	if password == "" {
		return nil, m.errorf("passwordFile", "names a file that is empty")
	}
	u.User = url.UserPassword(u.User.Username(), password)
	a.URL = u.String()
	return a, nil
}

func readAsynqTask(m mapping) (any, error) {
	t := new(AsynqTask)
	if err := m.decode(t, "executor"); err != nil {
		return nil, err
	}
	switch { // what the adapter would refuse without a line
	case t.MaxRetry != nil && *t.MaxRetry < 0:
		return nil, m.errorf("maxRetry", "must be 0 or more, not %d", *t.MaxRetry)
	case t.Timeout%time.Second != 0:
		return nil, m.errorf("timeout", "must be whole seconds, not %s", t.Timeout)
	case t.Deadline != 0 && t.Deadline < time.Second:
		return nil, m.errorf("deadline", "must be 1s or more, not %s", t.Deadline)
	case m.values["queue"] != nil && strings.TrimSpace(t.Queue) == "":
		return nil, m.errorf("queue", "must not be blank")
	}
	return t, nil
}
