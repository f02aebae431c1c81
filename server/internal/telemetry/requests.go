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

// request is one HTTP request under way: it notes what is answered. It has
// Unwrap and none of the optional interfaces of a response writer, so that
// [http.ResponseController] finds those of the connection with all their errors;
// who asserts them directly finds none.
type request struct {
	http.ResponseWriter
	method    string // as a label
	route     string
	status    int // 0: nothing yet
	streaming bool
	span      trace.Span // nil: none, or ended
}

type requestKey struct{}

// unmatched is the route of a request that reached none.
const unmatched = "unmatched"

// SetRoute says which route the request of this context has reached. It is called
// by the router, with the pattern, a constant, and never with a path. Without
// [Telemetry.Middleware] it does nothing.
func SetRoute(ctx context.Context, pattern string) {
	q, _ := ctx.Value(requestKey{}).(*request)
	if q == nil {
		return
	}
	q.route = pattern
	if q.span != nil && q.span.IsRecording() {
		q.span.SetAttributes(attribute.String("http.route", pattern))
	}
}

// Middleware counts and times requests, and begins the span of each that is to
// be traced, under the parent that its traceparent header names. It goes inside
// of whatever answers for a handler that panics, and outside of the router.
func (t *Telemetry) Middleware(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{ResponseWriter: w, method: methodLabel(r.Method), route: unmatched}
		started := time.Now()
		ctx := context.WithValue(r.Context(), requestKey{}, q)
		if t.tracer != nil && strings.HasPrefix(r.URL.Path, "/api/") { // others are asked all the time, by machines
			ctx, q.span = t.startRequest(ctx, q, r)
		}
		defer func() {
			fault := recover()
			switch {
			case fault == nil:
				q.note(http.StatusOK) // as net/http has it, if nothing else was said
			case fault != http.ErrAbortHandler: //nolint:errorlint // as net/http compares it
				q.note(http.StatusInternalServerError) // so answers who recovers
			}
			t.finishRequest(q, time.Since(started))
			if fault != nil {
				panic(fault)
			}
		}()
		next.ServeHTTP(q, r.WithContext(ctx))
	})
}

func (t *Telemetry) finishRequest(q *request, took time.Duration) {
	t.metrics.requests.WithLabelValues(q.route, q.method, statusClass(q.status)).Inc()
	if !q.streaming {
		t.metrics.requestTimes.WithLabelValues(q.route, q.method).Observe(took.Seconds())
	}
	q.endSpan()
}

// note notes the status, and whether a stream begins with it. The span of a
// stream ends here: it is to be seen while the stream lasts, which may be days,
// and what is delivered has spans of its own.
func (q *request) note(status int) {
	if q.status != 0 || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	q.status = status
	q.streaming = status == http.StatusSwitchingProtocols ||
		status == http.StatusOK && strings.HasPrefix(q.Header().Get("Content-Type"), "text/event-stream")
	if q.streaming {
		q.endSpan()
	}
}

// WriteHeader implements [http.ResponseWriter].
func (q *request) WriteHeader(status int) {
	q.note(status)
	q.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (q *request) Write(b []byte) (int, error) {
	q.note(http.StatusOK)
	return q.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (q *request) Unwrap() http.ResponseWriter { return q.ResponseWriter }

// startRequest begins the span of a request. The query is not among its
// attributes: it may hold a credential.
func (t *Telemetry) startRequest(ctx context.Context, q *request, r *http.Request) (context.Context, trace.Span) {
	if parent, ok := incoming(r); ok {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return t.tracer.Start(ctx, q.method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", q.method),
		attribute.String("url.scheme", scheme),
		attribute.String("url.path", r.URL.Path),
	))
}

func (q *request) endSpan() {
	if q.span == nil {
		return
	}
	if q.span.IsRecording() {
		if q.route != unmatched {
			q.span.SetName(q.method + " " + q.route)
		}
		if q.status != 0 {
			q.span.SetAttributes(attribute.Int("http.response.status_code", q.status))
		}
		if q.status >= 500 {
			q.span.SetStatus(codes.Error, http.StatusText(q.status))
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
