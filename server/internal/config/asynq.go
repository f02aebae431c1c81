package config

import (
	"cmp"
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
	// redis-sentinel://. The user and the password in the last are Sentinel's.
	URL string `yaml:"url"`
	// PasswordFile has Redis's password, which is then no part of the URL.
	PasswordFile string `yaml:"passwordFile"`
	// Password is what the file has, for a URL that names Sentinel; that of any
	// other is put into the URL.
	Password string `yaml:"-"`
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
	// Line is where it stands in the file, or the retention if it has one.
	Line int `yaml:"-"`
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
	sentinel := u.Scheme == "redis-sentinel"
	switch {
	case u.Scheme == "redis-socket" && u.Path == "":
		return nil, m.errorf("url", "must have the path of a socket")
	case u.Scheme != "redis-socket" && u.Hostname() == "":
		return nil, m.errorf("url", "must name a host")
	case sentinel && u.Query().Get("master") == "":
		return nil, m.errorf("url", `must name the master, as in "redis-sentinel://host:26379?master=name"`)
	}
	if a.PasswordFile == "" {
		return a, nil
	}
	if _, given := u.User.Password(); given && !sentinel {
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
	if sentinel {
		a.Password = password
		return a, nil
	}
	u.User = url.UserPassword(u.User.Username(), password)
	a.URL = u.String()
	return a, nil
}

func readAsynqTask(m mapping) (any, error) {
	t := &AsynqTask{Line: cmp.Or(m.lines["retention"], m.line)}
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
