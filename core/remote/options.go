package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures a [Lifecycle]. Only URL is required.
type Options struct {
	// URL is the server's, without the path of the API: https://host, maybe with
	// a port and a path below which it is served.
	URL string
	// Credential returns the API key, of scope worker, with which runs are started
	// where their claim has no submission token, and with which Notice and Settle
	// are called. It is asked for each request. nil: there is none.
	Credential func(ctx context.Context) (string, error)
	// HTTPClient sends the requests; nil: one of the lifecycle's own. Its Timeout
	// is not used, and redirects are not followed.
	HTTPClient *http.Client
	// Limits are the server's: what reports are checked against before they are
	// sent. Zero fields mean the defaults.
	Limits taskbridge.Limits
	// BatchDelay is the least time between the beginnings of two requests of a run
	// with tokens, messages and progress, unless there is more than one request can
	// hold or somebody waits; default 35 ms. If Synchronous is set it is how long a
	// token may wait for others.
	BatchDelay time.Duration
	// MaxBufferedBytes and MaxBufferedReports bound what a run keeps of what it was
	// given and the server is not known to have; default 1 MiB and 1,000. One
	// report that is larger is taken alone; a suspension and an end always are.
	MaxBufferedBytes, MaxBufferedReports int
	// Synchronous makes Progress and Message return once the report is recorded,
	// with its error. Tokens are buffered still, as in a local run.
	Synchronous bool
	Retry       Retry
	// RequestTimeout bounds one try of a request, and what a request for
	// cancellation takes beyond its wait; default 30 s.
	RequestTimeout time.Duration
	Clock          taskbridge.Clock
	Logger         *slog.Logger // nil: discarded
}

// Retry says how long to pause before a request is tried again: First after the
// first failure, twice as long after each further one, at most Most, each time
// less a random part of up to half. The server's Retry-After is honoured where it
// is longer, up to MostAsked.
type Retry struct {
	First     time.Duration // default 100 ms
	Most      time.Duration // default 10 s
	MostAsked time.Duration // default 1 min
}

func (o Options) withDefaults() (Options, error) {
	if err := checkURL(o.URL); err != nil {
		return o, err
	}
	o.URL = strings.TrimRight(o.URL, "/")
	for name, n := range map[string]int64{
		"BatchDelay": int64(o.BatchDelay), "MaxBufferedBytes": int64(o.MaxBufferedBytes),
		"MaxBufferedReports": int64(o.MaxBufferedReports), "RequestTimeout": int64(o.RequestTimeout),
		"Retry.First": int64(o.Retry.First), "Retry.Most": int64(o.Retry.Most), "Retry.MostAsked": int64(o.Retry.MostAsked),
	} {
		if n < 0 {
			return o, fmt.Errorf("remote: Options.%s must not be negative", name)
		}
	}
	o.BatchDelay = cmp.Or(o.BatchDelay, 35*time.Millisecond)
	o.MaxBufferedBytes = cmp.Or(o.MaxBufferedBytes, 1<<20)
	o.MaxBufferedReports = cmp.Or(o.MaxBufferedReports, 1000)
	o.RequestTimeout = cmp.Or(o.RequestTimeout, 30*time.Second)
	o.Retry.First = cmp.Or(o.Retry.First, 100*time.Millisecond)
	o.Retry.Most = max(o.Retry.First, cmp.Or(o.Retry.Most, 10*time.Second))
	o.Retry.MostAsked = cmp.Or(o.Retry.MostAsked, time.Minute)
	if o.Clock == nil {
		o.Clock = taskbridge.SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	client := http.Client{Transport: ownTransport()}
	if o.HTTPClient != nil {
		client = *o.HTTPClient
	}
	client.Timeout = 0 // requests have their own
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTPClient = &client
	return o, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil: // which would quote a password
		return errors.New("remote: Options.URL is no address")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("remote: Options.URL must be http://host or https://host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("remote: Options.URL must have no user, query or fragment")
	}
	return nil
}

// ownTransport keeps a connection for each of many runs: with the default's two
// they would open and close one a request.
func ownTransport() http.RoundTripper {
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // the program's own
	}
	t := shared.Clone()
	t.MaxIdleConns = 1000
	t.MaxIdleConnsPerHost = 1000
	return t
}
