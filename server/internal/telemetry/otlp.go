package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Exporter sends spans to a collector by OTLP over HTTP.
type Exporter struct {
	provider *sdktrace.TracerProvider
}

// NewExporter makes an exporter as the standard OTEL_* variables of the
// environment have it; nil and no error where they name no endpoint or turn
// traces off. What is wrong with them is an error and not, as the library has
// it, a line in a log: spans that go nowhere are missed when they are needed.
//
// Spans are sent in the background. What cannot be sent is dropped and logged,
// once a minute at most; that handler of errors belongs to the process, so there
// is one Exporter in it. The caller shuts it down.
func NewExporter(ctx context.Context, version string, logger *slog.Logger) (*Exporter, error) {
	wanted, err := exporterWanted(os.Getenv)
	if err != nil || !wanted {
		return nil, err
	}
	otel.SetErrorHandler(&exportErrors{logger: logger})
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	if version == "" {
		version = "unknown"
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "taskbridge"), attribute.String("service.version", version)),
		resource.WithHost(),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last: it wins
	)
	if err != nil {
		return nil, fmt.Errorf("traces: what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say of this server: %w", err)
	}
	return &Exporter{sdktrace.NewTracerProvider(sdktrace.WithBatcher(client), sdktrace.WithResource(about))}, nil
}

// TracerProvider returns what [Options.Tracer] takes; nil for a nil Exporter.
func (e *Exporter) TracerProvider() trace.TracerProvider {
	if e == nil {
		return nil
	}
	return e.provider
}

// Shutdown sends what is left, within ctx, and ends the exporter. A nil Exporter
// has nothing to send.
func (e *Exporter) Shutdown(ctx context.Context) error {
	if e == nil {
		return nil
	}
	if err := e.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("traces: send of the last spans: %w", err)
	}
	return nil
}

// exporterWanted reads the variables that decide whether there is an exporter,
// and checks those that the library passes over when they are wrong.
func exporterWanted(getenv func(string) string) (bool, error) {
	value := func(name string) string { return strings.TrimSpace(getenv(name)) }
	first := func(names ...string) (string, string) {
		for _, name := range names {
			if v := value(name); v != "" {
				return name, v
			}
		}
		return "", ""
	}
	if strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := value("OTEL_TRACES_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return false, nil
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER must be otlp or none, not %q", exporter)
	}
	name, endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" {
		return false, nil
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false, fmt.Errorf("%s must be an address as http://localhost:4318", name) // unquoted: it may hold a password
	}
	switch name, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf", "http/json":
	default:
		return false, fmt.Errorf("%s must be http/protobuf or http/json, not %q", name, protocol)
	}
	switch sampler := strings.ToLower(value("OTEL_TRACES_SAMPLER")); sampler {
	case "", "always_on", "always_off", "traceidratio",
		"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio":
	default:
		return false, fmt.Errorf("OTEL_TRACES_SAMPLER knows no %q", sampler)
	}
	return true, nil
}

// exportErrors logs what the library cannot do, and keeps a collector that is
// away from filling the log.
type exportErrors struct {
	logger *slog.Logger

	mu     sync.Mutex
	logged time.Time
	passed int
}

// exportErrorPause is how long the same trouble is not repeated.
const exportErrorPause = time.Minute

// Handle implements [otel.ErrorHandler].
func (e *exportErrors) Handle(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if !e.logged.IsZero() && now.Sub(e.logged) < exportErrorPause {
		e.passed++
		return
	}
	e.logger.Warn("traces cannot be sent", "error", err, "errorsBefore", e.passed)
	e.logged, e.passed = now, 0
}
