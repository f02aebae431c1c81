package client

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures a [Client]. URL is required.
type Options struct {
	// URL is where the server is: http or https, a host, maybe a port and a path
	// before /api/v1; no user, query or fragment.
	URL string
	// Token is an API key or a token, sent as a bearer credential. Empty: none.
	Token string
	// TokenSource gives the credential instead of Token. It is asked before the
	// first request, and once more after an answer of 401; in between its answer
	// is kept. Calls do not overlap. Its errors end the operation: a source that
	// can try again does so itself.
	TokenSource func(ctx context.Context) (string, error)
	// HTTPClient is nil for one over [http.DefaultTransport]. Of the one that is
	// given a copy is used that follows no redirects and has no Timeout, which
	// would cut streams; see Timeout below.
	HTTPClient *http.Client
	// Timeout bounds one try of a request, beyond what the request is to wait;
	// default 30 s.
	Timeout time.Duration
	// MaxBytes bounds the body of an answer, and an event of a stream; default
	// 16 MiB.
	MaxBytes int
	// Retry bounds repetition.
	Retry Retry
	// Clock is nil for the system's.
	Clock taskbridge.Clock
	// Logger is told of what is tried again, at level debug, and of a change
	// between streaming and polling, at level info. nil: nobody is.
	Logger *slog.Logger
}

// Client makes requests of one server. Safe for concurrent use. There is nothing
// to close; idle connections are those of the HTTP client.
type Client struct {
	base        string // up to and with /api/v1/tasks
	credentials *credentials
	http        *http.Client
	timeout     time.Duration
	maxBytes    int
	retry       Retry
	clock       taskbridge.Clock
	logger      *slog.Logger
}

// New makes a client. It makes no request.
func New(opts Options) (*Client, error) {
	base, err := parseBase(opts.URL)
	if err != nil {
		return nil, err
	}
	held, err := newCredentials(opts.Token, opts.TokenSource)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base: base, credentials: held,
		http: &http.Client{}, timeout: 30 * time.Second, maxBytes: 16 << 20,
		clock: taskbridge.SystemClock{}, logger: slog.New(slog.DiscardHandler),
	}
	if opts.HTTPClient != nil {
		*c.http = *opts.HTTPClient
	}
	c.http.Timeout = 0
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if opts.Clock != nil {
		c.clock = opts.Clock
	}
	if opts.Logger != nil {
		c.logger = opts.Logger
	}
	if opts.Timeout < 0 || opts.MaxBytes < 0 {
		return nil, errors.New("client: Timeout and MaxBytes must not be negative")
	}
	if opts.Timeout > 0 {
		c.timeout = opts.Timeout
	}
	if opts.MaxBytes > 0 {
		c.maxBytes = opts.MaxBytes
	}
	c.retry, err = opts.Retry.withDefaults()
	return c, err
}

// errURL says nothing of the URL, which may have a password where none belongs.
var errURL = errors.New("client: URL must be http://host or https://host, with a port and a path if need be")

func parseBase(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", errURL
	}
	return u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/") + "/api/v1/tasks", nil
}

// taskPath returns the path of a task below the base.
func taskPath(taskID, rest string) (string, error) {
	if !taskbridge.ValidTaskID(taskID) {
		return "", &taskbridge.ArgumentError{Field: "taskId", Reason: "must have the form of a task id"}
	}
	return "/" + taskID + rest, nil
}
