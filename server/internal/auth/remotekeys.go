package auth

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const (
	defaultRefresh      = 5 * time.Minute
	minRefetch          = 5 * time.Second
	defaultFetchTimeout = 5 * time.Second
	defaultKeysStale    = time.Hour

	retryMin = time.Second
	retryMax = 30 * time.Second
)

// remoteOptions configures a remoteKeys; all are set.
type remoteOptions struct {
	url string
	// refresh is the time between two fetches, minRefetch the least between two
	// that tokens cause, stale how old a set may get.
	refresh, minRefetch, timeout, stale time.Duration
	clock                               taskbridge.Clock
	logger                              *slog.Logger
}

// remoteKeys are the keys of a URL. One goroutine fetches them, at once, then
// every refresh interval, after a failure with back-off, and when a token with
// an unknown key asks for it.
type remoteKeys struct {
	opts   remoteOptions
	client *http.Client
	wanted chan struct{} // capacity 1: a fetch is asked for
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// set is what the last successful fetch gave, which began at fetchedAt; a
	// zero fetchedAt: there was none.
	set       keySet
	fetchedAt time.Time
	// failures counts the failed fetches since, err is the last one's.
	failures int
	err      error
	fetching bool
	// round is closed when the fetch under way, else the next one, has ended.
	round  chan struct{}
	closed bool
}

func openRemoteKeys(opts remoteOptions) *remoteKeys {
	ctx, cancel := context.WithCancel(context.Background())
	k := &remoteKeys{
		opts: opts, client: newKeyClient(), wanted: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
		fetching: true, round: make(chan struct{}),
	}
	go k.run(ctx)
	return k
}

// close ends the fetching, waits for it, and lets nobody wait any longer.
func (k *remoteKeys) close() {
	k.cancel()
	<-k.done
	k.client.CloseIdleConnections()
}

// ask waits for at most one fetch. An undecided verdict is final when it comes
// from a set that was fetched a moment ago, so that tokens with made-up keys
// cost the provider one request each minRefetch and no more.
func (k *remoteKeys) ask(ctx context.Context, judge func(keySet) verdict) (verdict, error) {
	var before time.Time // when the set that left it undecided was fetched
	for waited := false; ; waited = true {
		k.mu.Lock()
		set, fetchedAt, round, failure := k.set, k.fetchedAt, k.round, k.err
		mayWait := !waited && !k.closed && (k.fetching || failure == nil)
		k.mu.Unlock()

		if age := k.opts.clock.Now().Sub(fetchedAt); !fetchedAt.IsZero() && age <= k.opts.stale {
			// Outside the lock: this is where signatures are verified.
			newest := age < k.opts.minRefetch || waited && fetchedAt.After(before)
			if v := judge(set); v != undecided || newest {
				return v, nil
			}
		}
		switch {
		case mayWait:
		case failure != nil:
			return undecided, unavailable("the key set could not be fetched: %w", failure)
		default:
			return undecided, unavailable("the key set is not at hand")
		}
		before = fetchedAt
		k.want(round)
		select {
		case <-round:
		case <-ctx.Done():
			return undecided, unavailable("waiting for the key set: %w", context.Cause(ctx))
		}
	}
}

// want asks for a fetch, unless that round is under way or over.
func (k *remoteKeys) want(round chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fetching || k.round != round {
		return
	}
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

func (k *remoteKeys) run(ctx context.Context) {
	defer close(k.done)
	for {
		began := k.opts.clock.Now()
		set, err := k.fetch(ctx)
		pause := k.finish(ctx, began, set, err)
		if ctx.Err() != nil {
			return
		}
		timer := k.opts.clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-k.wanted:
		case <-ctx.Done():
		}
		timer.Stop()
		k.begin()
	}
}

// begin marks a fetch as under way; what was asked for is what begins.
func (k *remoteKeys) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetching = true
	select {
	case <-k.wanted:
	default:
	}
}

// finish records what a fetch gave and says how long to wait for the next.
func (k *remoteKeys) finish(ctx context.Context, began time.Time, set keySet, err error) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	failed := k.failures
	switch {
	case ctx.Err() != nil:
		k.closed = true
	case err != nil:
		k.failures, k.err = k.failures+1, err
	default:
		k.set, k.fetchedAt = set, began
		k.failures, k.err = 0, nil
	}
	k.fetching = false
	close(k.round)
	k.round = make(chan struct{})
	if k.closed {
		return 0
	}
	k.report(failed, err)
	if k.failures > 0 {
		return min(backoff(k.failures), k.opts.refresh)
	}
	return k.opts.refresh
}

// report logs the first of several failures and their end.
func (k *remoteKeys) report(failed int, err error) {
	logger := k.opts.logger.With("url", loggedURL(k.opts.url))
	switch {
	case err != nil && failed == 0 && k.fetchedAt.IsZero():
		logger.Error("the key set cannot be fetched; tokens cannot be checked until it is", "error", err)
	case err != nil && failed == 0:
		logger.Error("the key set cannot be fetched; the present keys stay valid for a limited time, then nobody is let in",
			"until", k.fetchedAt.Add(k.opts.stale), "error", err)
	case err == nil && len(k.set.keys) == 0:
		logger.Error("the key set has no key that can be used; no token is good", "ignoredKeys", k.set.ignored)
	case err == nil && failed > 0:
		logger.Info("the key set is fetched again", "failures", failed)
	}
}

// backoff doubles from retryMin to retryMax.
func backoff(failures int) time.Duration {
	return min(retryMin<<min(failures-1, 10), retryMax)
}
