package telemetry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exposition returns what a scrape shows.
func exposition(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	answer := httptest.NewRecorder()
	tel.MetricsHandler(discard).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// sample returns the value of the series with exactly these labels, given as
// name and value by turns; 0 where there is none.
func sample(t *testing.T, tel *telemetry.Telemetry, name string, labels ...string) float64 {
	t.Helper()
	families, err := tel.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, metric := range family.GetMetric() {
			if len(metric.GetLabel()) != len(labels)/2 {
				continue
			}
			for _, label := range metric.GetLabel() {
				found := false
				for i := 0; i < len(labels); i += 2 {
					found = found || label.GetName() == labels[i] && label.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			switch {
			case metric.GetCounter() != nil:
				return metric.GetCounter().GetValue()
			case metric.GetGauge() != nil:
				return metric.GetGauge().GetValue()
			case metric.GetHistogram() != nil:
				return float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

// expect checks series, each given as "name", labels…, value.
func expect(t *testing.T, tel *telemetry.Telemetry, want float64, name string, labels ...string) {
	t.Helper()
	if got := sample(t, tel, name, labels...); got != want {
		t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

// recording returns a telemetry whose spans are kept in memory.
func recording(t *testing.T, options ...sdktrace.TracerProviderOption) (*telemetry.Telemetry, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSyncer(spans))...)
	t.Cleanup(func() {
		if err := provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return telemetry.New(telemetry.Options{TaskTypes: []string{"demo"}, Tracer: provider}), spans
}

// only returns the one span that there is.
func only(t *testing.T, spans *tracetest.InMemoryExporter) tracetest.SpanStub {
	t.Helper()
	all := spans.GetSpans()
	if len(all) != 1 {
		t.Fatalf("%d spans, want 1: %v", len(all), all)
	}
	return all[0]
}

func attributeOf(span tracetest.SpanStub, key attribute.Key) string {
	for _, a := range span.Attributes {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}
