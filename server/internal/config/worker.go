package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// Worker is the worker API.
type Worker struct {
	// URL is where workers reach this server, without a path; empty: the address
	// that it listens on.
	URL string
	// Keys sign the tokens of workers, 32 bytes or more each: the first signs, all
	// are taken. None: the server makes one and keeps it with its data.
	Keys [][]byte
	// KeysFile has them instead, one a line.
	KeysFile string
	// TokenLifetime is for how long the token of an attempt is good.
	TokenLifetime time.Duration
	// RequestsPerSecond and RequestsBurst limit the requests for one task that are
	// made with one kind of credential, of an attempt's token those of the attempt;
	// ConcurrentRequests is how many of them may be under way, those that wait among
	// them. 0 is no limit.
	RequestsPerSecond  float64
	RequestsBurst      int
	ConcurrentRequests int
}

// defaultWorker lets a worker that waits for each answer report as fast as a
// disk records it, and one that batches many times what it needs.
func defaultWorker() Worker {
	return Worker{TokenLifetime: 5 * time.Minute, RequestsPerSecond: 500, RequestsBurst: 1000, ConcurrentRequests: 32}
}

// minWorkerKey is the fewest bytes of a key.
const minWorkerKey = 32

var workerGroup = group{"Workers elsewhere", []setting{
	{"worker.url", "worker-url", "URL", "where workers reach this server (default: the address that it listens on)",
		text(func(c *Config) *string { return &c.Worker.URL })},
	{"worker.keys", "worker-keys", "KEY,…", "keys that sign workers' tokens, 32 bytes or more each, the first for new ones (default: one of its own, kept with the data); a flag is seen by all users of the machine",
		secrets(func(c *Config) *[][]byte { return &c.Worker.Keys })},
	{"worker.keysFile", "worker-keys-file", "FILE", "them in a file, one a line",
		text(func(c *Config) *string { return &c.Worker.KeysFile })},
	{"worker.tokenLifetime", "worker-token-lifetime", "DURATION", "time for which a worker's token is good; every answer renews it",
		duration(func(c *Config) *time.Duration { return &c.Worker.TokenLifetime }, time.Second, day)},
	{"worker.requestsPerSecond", "worker-requests-per-second", "N", "requests for one task in the long run; 0: no limit",
		decimal(func(c *Config) *float64 { return &c.Worker.RequestsPerSecond })},
	{"worker.requestsBurst", "worker-requests-burst", "N", "requests for one task in a burst",
		number(func(c *Config) *int { return &c.Worker.RequestsBurst }, 0, mostLimited)},
	{"worker.concurrentRequests", "worker-concurrent-requests", "N", "requests for one task at once, waiting ones too; 0: no limit",
		number(func(c *Config) *int { return &c.Worker.ConcurrentRequests }, 0, mostLimited)},
}}

// completeWorker reads the keys and checks what is given. A burst without a rate
// bounds nothing.
func (c *Config) completeWorker() error {
	w := &c.Worker
	if w.RequestsPerSecond == 0 {
		w.RequestsBurst = 0
	}
	if w.URL != "" {
		u, err := url.Parse(w.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
			u.Path != "" && u.Path != "/" {
			return c.invalid("worker.url", errors.New("must be an http or https address of a host, without a path"))
		}
	}
	if err := checkKeys(w.Keys); err != nil {
		return c.invalid("worker.keys", err)
	}
	if w.KeysFile != "" {
		content, err := os.ReadFile(w.KeysFile)
		if err != nil {
			return c.invalid("worker.keysFile", fmt.Errorf("cannot be read: %w", err))
		}
		var keys [][]byte
		for line := range bytes.Lines(content) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				keys = append(keys, bytes.Clone(line))
			}
		}
		if len(keys) == 0 {
			return c.invalid("worker.keysFile", errors.New("names a file without a key"))
		}
		if err := checkKeys(keys); err != nil {
			return c.invalid("worker.keysFile", err)
		}
		w.Keys = append(w.Keys, keys...)
	}
	return nil
}

func checkKeys(keys [][]byte) error {
	for _, key := range keys {
		if len(key) < minWorkerKey {
			return fmt.Errorf("must have keys of at least %d bytes", minWorkerKey)
		}
	}
	return nil
}
