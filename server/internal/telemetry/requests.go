package telemetry

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Request is one HTTP request under way. Its methods and the functions that find
// it by its context are called by the goroutine that has the request; those of a
// nil Request do nothing.
//
// (OpenTelemetry's own middleware for net/http does not fit: it loses the errors
// of Flush, says nothing of a response that was cut, and its spans of streams last
// as long as the streams.)
type Request struct {
	telemetry *Telemetry
	method    string // as a label
	route     string
	started   time.Time
	streaming bool
	span      trace.Span // nil: none, or ended
}

type requestKey struct{}

// unmatched is the route of a request that reached none.
const unmatched = "unmatched"

// BeginRequest begins to time a request. If it is to be traced its span begins as
// well, under the parent that its traceparent header names. The request that is
// returned goes to the handler; the caller ends the other one.
func (t *Telemetry) BeginRequest(r *http.Request) (*http.Request, *Request) {
	if t == nil {
		return r, nil
	}
	q := &Request{telemetry: t, method: methodLabel(r.Method), route: unmatched, started: time.Now()}
	ctx := context.WithValue(r.Context(), requestKey{}, q)
	if t.tracer != nil && strings.HasPrefix(r.URL.Path, "/api/") { // others are asked all the time, by machines
		ctx, q.span = t.startRequest(ctx, q.method, r)
	}
	return r.WithContext(ctx), q
}

// requestOf returns the request of a context; nil where none was begun.
func requestOf(ctx context.Context) *Request {
	q, _ := ctx.Value(requestKey{}).(*Request)
	return q
}

// SetRoute says which route the request of this context has reached. It is called
// by the router, with the pattern, a constant, and never with a path.
func SetRoute(ctx context.Context, pattern string) {
	if q := requestOf(ctx); q != nil {
		q.route = pattern
	}
}

// SetStreaming says that the request of this context is being answered with a
// stream. How long that takes is no duration of a request. Its span ends here: it
// is to be seen while the stream lasts, which may be days, and what is delivered
// has spans of its own.
func SetStreaming(ctx context.Context, status int) {
	if q := requestOf(ctx); q != nil && !q.streaming {
		q.streaming = true
		q.endSpan(status)
	}
}

// End counts the request, once. The status is 0 for one that was cut without an
// answer.
func (q *Request) End(status int) {
	if q == nil {
		return
	}
	m := &q.telemetry.metrics
	m.requests.WithLabelValues(q.route, q.method, statusClass(status)).Inc()
	if !q.streaming {
		m.requestTimes.WithLabelValues(q.route, q.method).Observe(time.Since(q.started).Seconds())
	}
	q.endSpan(status)
}

// startRequest begins the span of a request. The query is not among its
// attributes: it may hold a credential.
func (t *Telemetry) startRequest(ctx context.Context, method string, r *http.Request) (context.Context, trace.Span) {
	if parent, ok := incoming(r); ok {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return t.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method),
		attribute.String("url.scheme", scheme),
		attribute.String("url.path", r.URL.Path),
	))
}

func (q *Request) endSpan(status int) {
	if q.span == nil {
		return
	}
	if q.span.IsRecording() {
		if q.route != unmatched {
			q.span.SetName(q.method + " " + q.route)
			q.span.SetAttributes(attribute.String("http.route", q.route))
		}
		if status != 0 {
			q.span.SetAttributes(attribute.Int("http.response.status_code", status))
		}
		if status >= 500 {
			q.span.SetStatus(codes.Error, http.StatusText(status))
		}
	}
	q.span.End()
	q.span = nil
}

// methodLabel returns the method; "_OTHER", as OpenTelemetry has it, for one that
// a client made up.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "_OTHER"
}

func statusClass(status int) string {
	switch {
	case status >= 100 && status < 600:
		return string(rune('0'+status/100)) + "xx"
	case status == 0:
		return "none"
	}
	return other
}
