package httpapi

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// liveStreams owns the streams that have left their handler: a stream on a
// connection that was taken over from net/http runs in goroutines of its own, so
// that the buffers and the grown stack of the handler are not held for it.
type liveStreams struct {
	mu       sync.Mutex
	stopping bool
	running  sync.WaitGroup
}

// begin counts a stream in, unless the server is shutting down.
func (l *liveStreams) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.running.Add(1)
	return true
}

func (l *liveStreams) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
}

// Wait returns when all streams have ended, which Drain makes them do, or when
// ctx ends.
func (a *API) Wait(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		a.live.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errNoLongerPermitted ends a stream whose credentials have ended.
var errNoLongerPermitted = errors.New("the credentials do not allow this any more")

// watcher asks now and then whether a stream's client may still have it.
type watcher struct {
	api          *API
	request      *http.Request // what authentication needs of it
	subscription *taskbridge.Subscription
	checked      time.Time
}

func (a *API) watch(c *call, subscription *taskbridge.Subscription) *watcher {
	return &watcher{
		api: a,
		// Not the request itself: it holds on to its connection's buffers.
		request: &http.Request{
			Method: c.r.Method, URL: c.r.URL, Header: c.r.Header, Host: c.r.Host, RemoteAddr: c.r.RemoteAddr, TLS: c.r.TLS,
			Proto: c.r.Proto, ProtoMajor: c.r.ProtoMajor, ProtoMinor: c.r.ProtoMinor,
		},
		subscription: subscription,
		checked:      a.opts.Clock.Now(),
	}
}

// check returns errNoLongerPermitted if the stream must end. That the
// authenticator cannot tell at the moment ends nothing.
func (w *watcher) check() error {
	now := w.api.opts.Clock.Now()
	if now.Sub(w.checked) < w.api.opts.Recheck {
		return nil
	}
	w.checked = now
	principal, err := w.api.opts.Authenticator.Authenticate(w.request)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return errNoLongerPermitted
	case err != nil:
		w.api.logger.Warn("credentials of a stream cannot be checked", "error", err)
		return nil
	case !w.subscription.Permitted(principal):
		return errNoLongerPermitted
	}
	return nil
}
