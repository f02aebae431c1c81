package auth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"go.yaml.in/yaml/v3"
)

// APIKeyOptions configures [OpenAPIKeys].
type APIKeyOptions struct {
	// File has the keys, in YAML or JSON:
	//
	//	keys:
	//	  - id: nightly-build
	//	    hash: sha256:9f86d0…            # of the whole key; see NewKey
	//	    subject: ci
	//	    scopes: [tasks:read, tasks:write]
	//	    expiresAt: 2030-01-01T00:00:00Z # optional
	//
	// Several keys may have one subject, which is how one is replaced. A file
	// with a mistake anywhere in it is refused as a whole; "keys: []" is a file
	// that lets nobody in.
	File string
	// ReloadInterval is how often the file is read: a key that is taken off it
	// is refused within this and 0.5 s. Default 2 s.
	ReloadInterval time.Duration
	// MaxStale is for how long the keys that were read last stay valid while
	// the file is missing or broken; then all are refused until it is good
	// again. Default 5 min.
	MaxStale time.Duration

	Clock  taskbridge.Clock // nil: the system's
	Logger *slog.Logger     // nil: discarded
}

// APIKeys are the keys of a file. Safe for concurrent use.
type APIKeys struct {
	file  *watched[keyTable]
	clock taskbridge.Clock
}

// keyTable finds keys by their hash. That takes as long for every key that is
// not there: what a comparison could tell by its time is about a hash, of which
// nobody can choose the digits.
type keyTable map[[sha256.Size]byte]keyGrant

type keyGrant struct {
	principal taskbridge.Principal
	expiresAt time.Time
}

// OpenAPIKeys reads the file, which must be good now, and keeps reading it until
// Close.
func OpenAPIKeys(opts APIKeyOptions) (*APIKeys, error) {
	opts.Clock, opts.Logger = orDefaults(opts.Clock, opts.Logger)
	file, err := watch(watchOptions[keyTable]{
		path: opts.File, what: "file of API keys", decode: decodeKeys,
		reload: opts.ReloadInterval, stale: opts.MaxStale, clock: opts.Clock, logger: opts.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return &APIKeys{file, opts.Clock}, nil
}

// Close ends the reading of the file and waits for it.
func (k *APIKeys) Close() error {
	k.file.close()
	return nil
}

var (
	errKeyUnknown = refuse(PresentedAPIKey, "the API key is not valid")
	errKeyExpired = refuse(PresentedAPIKey, "the API key has expired")
)

// Verify returns whose key it is. The error matches [ErrUnauthenticated] or
// [ErrUnavailable].
func (k *APIKeys) Verify(key string) (taskbridge.Principal, error) {
	if !validKey(key) {
		return taskbridge.Principal{}, errKeyUnknown
	}
	table, err := k.file.get()
	if err != nil {
		return taskbridge.Principal{}, err
	}
	grant, ok := table[sha256.Sum256([]byte(key))]
	switch {
	case !ok:
		return taskbridge.Principal{}, errKeyUnknown
	case !grant.expiresAt.IsZero() && !k.clock.Now().Before(grant.expiresAt):
		return taskbridge.Principal{}, errKeyExpired
	}
	return grant.principal, nil
}

// decodeKeys reads the file. What is wrong is told by place and never quoted:
// somebody may have put the key where its hash belongs.
func decodeKeys(raw []byte) (keyTable, error) {
	var file struct {
		Keys *[]fileEntry `yaml:"keys"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	switch err := decoder.Decode(&file); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, fmt.Errorf("it is no list of keys in YAML or JSON%s", placeOf(err))
	case file.Keys == nil:
		return nil, errors.New(`it has no list "keys"`)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document")
	}
	table := make(keyTable, len(*file.Keys))
	ids := make(map[string]bool, len(*file.Keys))
	for i, written := range *file.Keys {
		entry, sum, err := written.read()
		if err != nil {
			return nil, fmt.Errorf("key number %d: %w", i+1, err)
		}
		if _, twice := table[sum]; twice || ids[entry.ID] {
			return nil, fmt.Errorf("key number %d has the id or the hash of one before it", i+1)
		}
		ids[entry.ID] = true
		table[sum] = keyGrant{
			principal: taskbridge.Principal{Subject: entry.Subject, Scopes: orderScopes(entry.Scopes)},
			expiresAt: entry.ExpiresAt,
		}
	}
	return table, nil
}

// fileEntry is a [KeyEntry] as it is written, its time not understood yet.
type fileEntry struct {
	ID        string             `yaml:"id"`
	Hash      string             `yaml:"hash"`
	Subject   string             `yaml:"subject"`
	Scopes    []taskbridge.Scope `yaml:"scopes"`
	ExpiresAt *string            `yaml:"expiresAt"`
}

func (f fileEntry) read() (entry KeyEntry, sum [sha256.Size]byte, err error) {
	entry = KeyEntry{ID: f.ID, Hash: f.Hash, Subject: f.Subject, Scopes: f.Scopes}
	if f.ExpiresAt != nil {
		if entry.ExpiresAt, err = time.Parse(time.RFC3339, *f.ExpiresAt); err != nil || entry.ExpiresAt.IsZero() {
			return entry, sum, errors.New("expiresAt must be a time such as 2030-01-01T00:00:00Z")
		}
	}
	sum, err = entry.check()
	return entry, sum, err
}

var lineNumber = regexp.MustCompile(`\bline [0-9]+`)

// placeOf returns where the parser gave up, as the end of a sentence.
func placeOf(err error) string {
	if line := lineNumber.FindString(err.Error()); line != "" {
		return ": see " + line
	}
	return ""
}
