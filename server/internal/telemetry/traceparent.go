package telemetry

import (
	"context"
	"encoding/hex"
	"net/http"

	"go.opentelemetry.io/otel/trace"
)

// traceparentLength is that of version 00: 2+1+32+1+16+1+2.
const traceparentLength = 55

// ParseTraceparent reads a W3C traceparent; false for anything else. A version
// higher than 00 is read as 00, as the standard asks, and what it adds is
// dropped.
func ParseTraceparent(s string) (trace.SpanContext, bool) {
	var none trace.SpanContext
	switch {
	case len(s) < traceparentLength || s[2] != '-' || s[35] != '-' || s[52] != '-':
		return none, false
	case s[:2] == "00" && len(s) != traceparentLength, len(s) > traceparentLength && s[traceparentLength] != '-':
		return none, false
	}
	var (
		version, flags [1]byte
		traceID        trace.TraceID
		spanID         trace.SpanID
	)
	for _, field := range []struct {
		dst  []byte
		text string
	}{{version[:], s[:2]}, {traceID[:], s[3:35]}, {spanID[:], s[36:52]}, {flags[:], s[53:55]}} {
		if !decodeHex(field.dst, field.text) {
			return none, false
		}
	}
	if version[0] == 0xff || !traceID.IsValid() || !spanID.IsValid() {
		return none, false
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, Remote: true,
	}), true
}

// decodeHex decodes lower-case digits, which are the only ones allowed.
func decodeHex(dst []byte, s string) bool {
	for i := range dst {
		high, ok := digit(s[2*i])
		low, ok2 := digit(s[2*i+1])
		if !ok || !ok2 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

func digit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// ValidTraceparent reports whether s is a W3C traceparent.
func ValidTraceparent(s string) bool {
	_, ok := ParseTraceparent(s)
	return ok
}

// Traceparent returns the context's span as a traceparent, "" where there is none.
func Traceparent(ctx context.Context) string {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return ""
	}
	return formatTraceparent(span)
}

func formatTraceparent(span trace.SpanContext) string {
	traceID, spanID := span.TraceID(), span.SpanID()
	b := make([]byte, 0, traceparentLength)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, traceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, spanID[:])
	if span.IsSampled() {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

// TraceparentOf returns what a task that the request creates is to be created
// under: the request's span, else, as a server without traces is a stage between
// two that may have them, what the request says itself; "" for neither.
func TraceparentOf(r *http.Request) string {
	if own := Traceparent(r.Context()); own != "" {
		return own
	}
	if span, ok := incoming(r); ok {
		return formatTraceparent(span)
	}
	return ""
}

// incoming returns the trace context that a request carries. More than one
// header of the name is none.
func incoming(r *http.Request) (trace.SpanContext, bool) {
	values := r.Header["Traceparent"]
	if len(values) != 1 {
		return trace.SpanContext{}, false
	}
	return ParseTraceparent(values[0])
}
