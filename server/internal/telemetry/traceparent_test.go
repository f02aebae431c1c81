package telemetry_test

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

func TestATraceparentIsReadAsTheStandardHasIt(t *testing.T) {
	for text, want := range map[string]bool{
		origin:          true,
		originUnsampled: true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff":       true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later": true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01later":  false,
		"":                      false,
		origin + "-x":           false,
		" " + origin:            false,
		origin + "\n":           false,
		origin[:54]:             false,
		"ff" + origin[2:]:       false,
		strings.ToUpper(origin): false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01": false,
		"00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01": false,
	} {
		if got := telemetry.ValidTraceparent(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestAContextWithoutATraceHasNoTraceparent(t *testing.T) {
	if got := telemetry.Traceparent(t.Context()); got != "" {
		t.Error(got)
	}
}

func TestWhatIsParsedIsWrittenTheSame(t *testing.T) {
	for _, text := range []string{origin, originUnsampled} {
		span, ok := telemetry.ParseTraceparent(text)
		if got := telemetry.Traceparent(trace.ContextWithSpanContext(t.Context(), span)); !ok || got != text || !span.IsRemote() {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// The library's own reader is the reference; ours is there because it is asked
// for each event and must not allocate.
func FuzzTraceparentsAreReadAsTheLibraryReadsThem(f *testing.F) {
	for _, seed := range []string{
		origin, originUnsampled, "", "cc" + origin[2:] + "-x", "ff" + origin[2:], origin + "-", "01" + origin[2:],
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", origin[:53] + "02", origin[:53] + "g1", strings.ToUpper(origin),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, " \t\r\n") {
			return // a header's value has none at its ends
		}
		carrier := propagation.MapCarrier{"traceparent": text}
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
		got, ok := telemetry.ParseTraceparent(text)
		version00 := strings.HasPrefix(text, "00-")
		switch {
		case ok == want.IsValid():
		case ok && version00: // the library refuses flags that this version has no meaning for
		case !ok && version00 && len(text) > len(origin): // it lets something follow, which no caller may send
		default:
			t.Fatalf("%q: valid %v, the library says %v", text, ok, want.IsValid())
		}
		if ok && want.IsValid() && (got.TraceID() != want.TraceID() || got.SpanID() != want.SpanID() || got.IsSampled() != want.IsSampled()) {
			t.Fatalf("%q: %v, the library says %v", text, got, want)
		}
	})
}
