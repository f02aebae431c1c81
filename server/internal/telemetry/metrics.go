package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// namespace begins every name.
const namespace = "taskbridge"

// metrics are all that is counted as it happens. Those that are touched for each
// event are resolved once, into arrays, so that counting is an addition.
type metrics struct {
	operations   [len(kinds)][outcomes]prometheus.Counter
	durations    [len(kinds)]prometheus.Observer
	events       [len(eventTypes)]prometheus.Counter
	ended        *prometheus.CounterVec // status, type
	reconciled   *prometheus.CounterVec // action, outcome
	requests     *prometheus.CounterVec // route, method, status
	requestTimes *prometheus.HistogramVec
	streams      [len(transports)]streamMetrics
	authFailures *prometheus.CounterVec // mode
	limited      *prometheus.CounterVec // limit
}

// streamMetrics belong to one transport.
type streamMetrics struct {
	open          prometheus.Gauge
	lifetimes     prometheus.Observer
	frames, bytes prometheus.Counter
	slow          prometheus.Counter
}

// kinds lists the operations; an operation's number is its index.
var kinds = [...]taskbridge.OperationKind{
	taskbridge.OperationCreate, taskbridge.OperationSubmit, taskbridge.OperationCancel, taskbridge.OperationStart,
	taskbridge.OperationAppend, taskbridge.OperationEnd, taskbridge.OperationDeliver, taskbridge.OperationInspect,
	other, // kinds that this package does not know yet
}

// eventTypes lists the events that an observer is told of. The other control
// events are written together with the row and are no operations of their own.
var eventTypes = [...]taskbridge.EventType{
	taskbridge.EventProgress, taskbridge.EventMessage, taskbridge.EventActionAccepted,
	taskbridge.EventCompleted, taskbridge.EventFailed, taskbridge.EventCancelled,
	other,
}

// indexOf returns where a value stands in a list, which ends with "other".
func indexOf[T comparable](list []T, value T) int {
	for i, v := range list {
		if v == value {
			return i
		}
	}
	return len(list) - 1
}

// From a cached read to a runtime that lets its caller wait.
var operationBuckets = []float64{
	0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
}

// Up to the longest wait that a request can ask for.
var requestBuckets = []float64{0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}

// From a replay that ends at once to a task that takes days.
var streamBuckets = []float64{0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600}

func newMetrics(registry prometheus.Registerer) (m metrics) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
		registry.MustRegister(v)
		return v
	}

	operations := counter("operations_total",
		"Operations of the services, by kind and outcome: ok, refused (an answer that the contract foresees), cancelled (the caller went away or the server stops), fault.",
		"kind", "outcome")
	durations := histogram("operation_duration_seconds", "How long operations of the services took.", operationBuckets, "kind")
	for i, kind := range kinds {
		for o, name := range outcomeNames {
			m.operations[i][o] = operations.WithLabelValues(string(kind), name)
		}
		m.durations[i] = durations.WithLabelValues(string(kind))
	}
	events := counter("events_appended_total", "Reports and terminal events that were appended to streams, by type.", "type")
	for i, eventType := range eventTypes {
		m.events[i] = events.WithLabelValues(string(eventType))
	}
	m.ended = counter("tasks_ended_total", "Tasks whose end was recorded, by terminal status and task type.", "status", "type")
	m.reconciled = counter("reconciliation_actions_total", "What the reconciler did, by action and outcome.", "action", "outcome")

	m.requests = counter("http_requests_total",
		"HTTP requests that were answered or cut, by route, method and class of the status (none: cut without an answer).",
		"route", "method", "status")
	m.requestTimes = histogram("http_request_duration_seconds",
		"How long HTTP requests took, with what they asked to wait; streams are not among them.",
		requestBuckets, "route", "method")

	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "streams_open", Help: "Clients that are being served live, by transport.",
	}, []string{"transport"})
	registry.MustRegister(open)
	lifetimes := histogram("stream_duration_seconds", "How long streams that are closed now were open.", streamBuckets, "transport")
	frames := counter("delivered_frames_total", "Events that were written to clients, by transport.", "transport")
	bytes := counter("delivered_bytes_total", "Bytes of streams that were written to clients, by transport.", "transport")
	slow := counter("slow_readers_cut_total", "Streams that were cut because their client did not keep up.", "transport")
	for i, transport := range transports {
		m.streams[i] = streamMetrics{
			open:      open.WithLabelValues(string(transport)),
			lifetimes: lifetimes.WithLabelValues(string(transport)),
			frames:    frames.WithLabelValues(string(transport)),
			bytes:     bytes.WithLabelValues(string(transport)),
			slow:      slow.WithLabelValues(string(transport)),
		}
	}
	m.authFailures = counter("authentication_failures_total", "Requests without credentials, or with bad ones, by what they presented; of workers' tokens, those too that do not reach so far.", "mode")
	m.limited = counter("rate_limited_requests_total", "Requests and streams that were turned away, by the limit that was reached.", "limit")
	return m
}
