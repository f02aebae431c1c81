package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// scope is the name of the instrumentation.
const scope = "github.com/taskbridge/taskbridge/server"

// Attributes of spans. Unlike a metric's labels they may name a task.
const (
	attrTaskID    = attribute.Key("taskbridge.task.id")
	attrTaskType  = attribute.Key("taskbridge.task.type")
	attrEventType = attribute.Key("taskbridge.event.type")
	attrOutcome   = attribute.Key("taskbridge.outcome")
)

// spanNames has the name of each kind's spans, made once.
var spanNames = func() (names [len(kinds)]string) {
	for i, kind := range kinds {
		names[i] = "task " + string(kind)
	}
	return names
}()

// startSpan begins an operation's span; nil for one that is not worth one. Its
// parent is what the context carries, a request's span for instance, else the
// trace that the task was created under. Where both are there and differ, the
// span has a link to the latter.
func (t *Telemetry) startSpan(ctx context.Context, operation taskbridge.Operation) (context.Context, trace.Span) {
	var links []trace.Link
	parent := trace.SpanContextFromContext(ctx)
	created, hasOrigin := ParseTraceparent(operation.Traceparent)
	switch {
	case !hasOrigin:
	case !parent.IsValid():
		parent = created
	case parent.TraceID() != created.TraceID():
		links = []trace.Link{{SpanContext: created}}
	}
	// These happen for each event. A trace of a task that nobody asked for would
	// be nothing but them, and nothing is allocated for a parent that is not
	// recorded.
	frequent := operation.Kind == taskbridge.OperationAppend || operation.Kind == taskbridge.OperationDeliver
	if frequent && !parent.IsSampled() {
		return ctx, nil
	}
	// Neither is a start whose task is not known yet worth a trace of its own:
	// one that nobody traces would have one.
	if operation.Kind == taskbridge.OperationStart && !parent.IsValid() {
		return ctx, nil
	}
	if parent.IsValid() && !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}

	attributes := make([]attribute.KeyValue, 0, 3)
	for _, a := range []struct {
		key   attribute.Key
		value string
	}{{attrTaskID, operation.TaskID}, {attrTaskType, operation.TaskType}, {attrEventType, string(operation.Event)}} {
		if a.value != "" {
			attributes = append(attributes, a.key.String(a.value))
		}
	}
	kind := trace.SpanKindInternal
	if operation.Kind == taskbridge.OperationSubmit {
		kind = trace.SpanKindProducer // the runtime goes on with it
	}
	return t.tracer.Start(ctx, spanNames[indexOf(kinds[:], operation.Kind)],
		trace.WithSpanKind(kind), trace.WithAttributes(attributes...), trace.WithLinks(links...))
}

// endSpan says how the operation ended. Only a fault is an error: a refusal is
// an answer.
func endSpan(span trace.Span, outcome outcome, err error) {
	if span.IsRecording() {
		span.SetAttributes(attrOutcome.String(outcomeNames[outcome]))
		if outcome == outcomeFault {
			span.SetStatus(codes.Error, err.Error())
		}
	}
	span.End()
}
