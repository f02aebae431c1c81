// Package telemetry makes Prometheus metrics and OpenTelemetry spans of what the
// services and the transport do. No metric has a task's id, a subject or
// anything else that a client chooses for a label: what a label can be is a
// constant, or stands in [Options].
package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [New]. The zero value works: metrics without task types and
// no traces.
type Options struct {
	// TaskTypes are the types that are configured: the only ones that become
	// labels, each other one is "other".
	TaskTypes []string
	// Version and Revision say what was built; empty: "unknown".
	Version, Revision string
	// Ready holds what is asked, at each scrape, whether it can be used; the
	// names become labels. A check returns within its context.
	Ready map[string]func(context.Context) error
	// StoreFiles are the files whose sizes are reported, by the name that they
	// are reported under. One that is missing has no bytes.
	StoreFiles map[string]string
	// Tracer makes the spans; nil: there are none.
	Tracer trace.TracerProvider
}

// Telemetry observes one server. It is safe for concurrent use. The methods that
// a transport calls may be called on a nil Telemetry, which does nothing.
type Telemetry struct {
	registry *prometheus.Registry
	metrics  metrics
	types    map[string]string // task type to label
	tracer   trace.Tracer      // nil: no spans
	pool     sync.Pool         // of *measurement
}

var _ taskbridge.Observer = (*Telemetry)(nil)

// New makes a Telemetry with a registry of its own.
func New(opts Options) *Telemetry {
	t := &Telemetry{registry: prometheus.NewRegistry(), types: make(map[string]string, len(opts.TaskTypes))}
	for _, taskType := range opts.TaskTypes {
		t.types[taskType] = taskType
	}
	if opts.Tracer != nil {
		t.tracer = opts.Tracer.Tracer(scope)
	}
	t.pool.New = func() any {
		m := &measurement{telemetry: t}
		m.end = m.finish
		return m
	}
	t.metrics = newMetrics(t.registry)
	t.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(opts.Version, opts.Revision),
	)
	if len(opts.Ready) > 0 {
		t.registry.MustRegister(&readiness{checks: opts.Ready})
	}
	if len(opts.StoreFiles) > 0 {
		t.registry.MustRegister(&storeFiles{paths: opts.StoreFiles})
	}
	return t
}

// MetricsHandler answers scrapes. What cannot be gathered is logged and left out.
func (t *Telemetry) MetricsHandler(logger *slog.Logger) http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(logger.Handler(), slog.LevelError),
		ErrorHandling: promhttp.ContinueOnError,
		// A scrape asks the store; more of them at once tell nothing more.
		MaxRequestsInFlight: 4,
		Timeout:             2 * readyTimeout,
	})
}

// Gatherer returns the metrics themselves, for tests.
func (t *Telemetry) Gatherer() prometheus.Gatherer { return t.registry }

func buildInfo(version, revision string) prometheus.Collector {
	for _, s := range []*string{&version, &revision} {
		if *s == "" {
			*s = "unknown"
		}
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help:        "What was built; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// typeLabel returns what a task type becomes as a label.
func (t *Telemetry) typeLabel(taskType string) string {
	if label, ok := t.types[taskType]; ok {
		return label
	}
	return other
}

// other is the label of everything that is not configured or not known.
const other = "other"
