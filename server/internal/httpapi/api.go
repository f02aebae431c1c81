package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
)

// Options configures [New]. Only Bridge and Authenticator are required.
type Options struct {
	Bridge        *taskbridge.Bridge
	Authenticator Authenticator
	// Limiter bounds what principals may ask; nil: nothing does.
	Limiter *ratelimit.Limiter
	// Ready holds what /ready asks, by the name that it is reported under.
	Ready map[string]ReadyCheck
	// Runtimes is what /ready asks and reports too, but does not depend on.
	Runtimes map[string]ReadyCheck
	// AllowedHosts are host names, without a port, that requests may name
	// besides loopback names and addresses; "*" allows every one, and so does
	// none with AccessControl.
	AllowedHosts []string
	// AllowedOrigins are the web pages' origins, scheme://host[:port], that may
	// use the server besides its own; "*" allows every one.
	AllowedOrigins []string
	// AccessControl: the Authenticator asks for credentials.
	AccessControl bool

	// BodyBytes bounds a request's body; default 2 MiB.
	BodyBytes int64
	// BodyTimeout is how long a body may take to arrive; default 30 s.
	BodyTimeout time.Duration
	// RequestTimeout bounds a request beyond what it asked to wait; it does
	// not count for streams. Default 30 s.
	RequestTimeout time.Duration
	// WriteTimeout is how long one write may take before the reader counts as
	// too slow and is cut; default 30 s.
	WriteTimeout time.Duration
	// Heartbeat is how long a stream may be without an event before a heartbeat
	// is sent; default 15 s.
	Heartbeat time.Duration
	// SocketHeartbeat is the same for WebSockets; default 25 s.
	SocketHeartbeat time.Duration
	// SubscribeTimeout is how long a WebSocket's first frame may take; default 10 s.
	SubscribeTimeout time.Duration
	// Recheck is how often a stream's client is authenticated again; default 15 s.
	Recheck time.Duration
	// StreamOpened, if not nil, is called when a stream begins ("sse" or
	// "websocket") and when a poll begins to wait ("longpoll"), and what it
	// returns when that has ended.
	StreamOpened func(transport string) (closed func())
	// Delivered, if not nil, is called after each write to a stream, with the
	// events in it, maybe none, and its bytes above the transfer coding.
	Delivered func(transport string, events, bytes int)
	// SlowReaderCut, if not nil, is called for each stream that is given up
	// since a write to it took longer than WriteTimeout.
	SlowReaderCut func(transport string)

	// Pages are answered to GET and HEAD besides the API, by path; anybody may
	// have them.
	Pages map[string]http.Handler
	// Worker, if not nil, makes the handler of the worker API; draining is closed
	// when draining begins. Who calls it is its own to find out.
	Worker func(draining <-chan struct{}) (http.Handler, error)
	// BeginRequest, if not nil, is called with each request that begins. The one
	// that it returns is handled, and ended is called once it has been answered:
	// with status 0 if it was cut without an answer; streaming says that the
	// answer is a stream, which may go on.
	BeginRequest func(r *http.Request) (begun *http.Request, ended func(status int, streaming bool))
	// RouteReached, if not nil, is called with the pattern of the route that a
	// request has reached.
	RouteReached func(ctx context.Context, pattern string)
	// Refused, if not nil, is called for each request that is answered 401, with
	// the authenticator's error, and Limited for each that a limit turned away.
	Refused func(error)
	Limited func(*ratelimit.LimitError)
	// Traceparent, if not nil, says what a request's task is created under;
	// else it is the request's own header.
	Traceparent func(r *http.Request) string

	Clock  taskbridge.Clock // nil: the system's
	Logger *slog.Logger     // nil: discarded
}

// ReadyCheck reports whether a part can be used now; nil means yes. It returns
// within its context.
type ReadyCheck func(ctx context.Context) error

// API is the handler of all routes.
type API struct {
	opts    Options
	logger  *slog.Logger
	hosts   hostPolicy
	router  http.Handler
	drained context.Context // ends when draining begins
	drain   context.CancelFunc
	live    liveStreams
	beats   *beats
}

// New makes the handler.
func New(opts Options) (*API, error) {
	switch {
	case opts.Bridge == nil:
		return nil, errors.New("httpapi: Options.Bridge must not be nil")
	case opts.Authenticator == nil:
		return nil, errors.New("httpapi: Options.Authenticator must not be nil")
	}
	if opts.BodyBytes <= 0 {
		opts.BodyBytes = 2 << 20
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&opts.BodyTimeout, 30 * time.Second},
		{&opts.RequestTimeout, 30 * time.Second},
		{&opts.WriteTimeout, 30 * time.Second},
		{&opts.Heartbeat, 15 * time.Second},
		{&opts.SocketHeartbeat, 25 * time.Second},
		{&opts.SubscribeTimeout, 10 * time.Second},
		{&opts.Recheck, 15 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if opts.StreamOpened == nil {
		opts.StreamOpened = func(string) func() { return func() {} }
	}
	if opts.Delivered == nil {
		opts.Delivered = func(string, int, int) {}
	}
	if opts.SlowReaderCut == nil {
		opts.SlowReaderCut = func(string) {}
	}
	if opts.BeginRequest == nil {
		opts.BeginRequest = func(r *http.Request) (*http.Request, func(int, bool)) { return r, func(int, bool) {} }
	}
	if opts.RouteReached == nil {
		opts.RouteReached = func(context.Context, string) {}
	}
	if opts.Refused == nil {
		opts.Refused = func(error) {}
	}
	if opts.Limited == nil {
		opts.Limited = func(*ratelimit.LimitError) {}
	}
	if opts.Traceparent == nil {
		opts.Traceparent = func(r *http.Request) string { return r.Header.Get("Traceparent") }
	}
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{opts: opts, logger: opts.Logger, hosts: newHostPolicy(opts)}
	a.drained, a.drain = context.WithCancel(context.Background())
	a.beats = newBeats(opts.Clock, a.live.hold, func() { a.live.end(nil) })
	var worker http.Handler
	if opts.Worker != nil {
		var err error
		if worker, err = opts.Worker(a.drained.Done()); err != nil {
			return nil, err
		}
	}
	a.router = a.unread(a.guard(a.cors(a.routes(worker))))
	return a, nil
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.trace(w, r, a.router)
}

// Drain makes the server step down: it is not ready any more, open streams are
// cut and new ones refused, and whoever waits for something gets what there is.
// Other requests go on. It returns at once and may be called more than once.
func (a *API) Drain() {
	a.live.stop()
	a.drain()
	a.live.hurry()
}

// call is one request on its way through a handler.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	principal taskbridge.Principal
	taskID    string // from the path, well-formed
	body      []byte // all of it, nil where there was none

	release    func() // gives back what the limits have counted; nil: nothing
	overloaded bool   // a WebSocket for which the server has no room
}

// handler answers a call or returns an error, which is answered for it. A
// handler that returns an error has not written anything.
type handler func(c *call) error

// serve does what every route needs before its handler: who calls, and the body.
func (a *API) serve(w http.ResponseWriter, r *http.Request, taskID string, h handler) {
	c := &call{w: w, r: r, taskID: taskID}
	defer c.done()
	if err := a.prepare(c); err != nil {
		a.fail(c, err)
		return
	}
	if err := h(c); err != nil {
		a.fail(c, err)
	}
}

func (a *API) prepare(c *call) (err error) {
	if c.principal, err = a.opts.Authenticator.Authenticate(c.r); err != nil {
		if errors.Is(err, ErrUnauthenticated) {
			a.opts.Refused(err)
		}
		return authenticationProblem(err)
	}
	if err = a.admit(c); err != nil {
		return err
	}
	if c.body, err = a.readBody(c.w, c.r); err != nil {
		return err
	}
	if c.taskID != "" && !taskbridge.ValidTaskID(c.taskID) {
		return taskbridge.ErrTaskNotFound
	}
	return nil
}

// timeLimit returns the request's context, bounded by RequestTimeout beyond
// what the client asked to wait.
func (a *API) timeLimit(c *call, wait time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.r.Context(), a.opts.RequestTimeout+wait)
}

// untilDrain returns a context that ends with ctx or when draining begins.
func (a *API) untilDrain(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.drained, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// waiting calls fetch with the time that the client wants to wait and, if
// draining begins meanwhile, once more without waiting.
func waiting[T any](a *API, c *call, wait time.Duration, fetch func(context.Context, time.Duration) (T, error)) (T, error) {
	ctx, cancel := a.timeLimit(c, wait)
	defer cancel()
	if wait > 0 && a.drained.Err() == nil {
		drainable, stop := a.untilDrain(ctx)
		result, err := fetch(drainable, wait)
		stop()
		if err == nil || a.drained.Err() == nil || ctx.Err() != nil {
			return result, err
		}
	}
	return fetch(ctx, 0)
}
