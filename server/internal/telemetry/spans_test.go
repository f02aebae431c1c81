package telemetry_test

import (
	"errors"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

const (
	origin          = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	originUnsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

func TestASpanHangsUnderTheTraceOfItsTask(t *testing.T) {
	tel, spans := recording(t)
	ctx, done := tel.Begin(t.Context(), taskbridge.Operation{
		Kind: taskbridge.OperationSubmit, TaskID: "abc-1", TaskType: "demo", Traceparent: origin,
	})
	inside := telemetry.Traceparent(ctx)
	done(nil)

	span := only(t, spans)
	if span.Name != "task submit" || span.SpanKind != trace.SpanKindProducer {
		t.Errorf("%s, %s", span.Name, span.SpanKind)
	}
	if got := span.SpanContext.TraceID().String(); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("trace %s", got)
	}
	if got := span.Parent.SpanID().String(); got != "b7ad6b7169203331" {
		t.Errorf("parent %s", got)
	}
	if inside != "00-0af7651916cd43dd8448eb211c80319c-"+span.SpanContext.SpanID().String()+"-01" {
		t.Errorf("what is called gets %s", inside)
	}
	for key, want := range map[string]string{"taskbridge.task.id": "abc-1", "taskbridge.task.type": "demo", "taskbridge.outcome": "ok"} {
		found := false
		for _, a := range span.Attributes {
			found = found || string(a.Key) == key && a.Value.String() == want
		}
		if !found {
			t.Errorf("no %s=%s in %v", key, want, span.Attributes)
		}
	}
}

func TestARequestsSpanComesBeforeTheTasksTraceAndLinksToIt(t *testing.T) {
	tel, spans := recording(t)
	request, ok := telemetry.ParseTraceparent("00-11111111111111111111111111111111-2222222222222222-01")
	if !ok {
		t.Fatal("not parsed")
	}
	ctx := trace.ContextWithSpanContext(t.Context(), request)
	_, done := tel.Begin(ctx, taskbridge.Operation{Kind: taskbridge.OperationCancel, TaskID: "abc-1", Traceparent: origin})
	done(nil)
	span := only(t, spans)
	if span.Parent.SpanID() != request.SpanID() {
		t.Errorf("parent %s", span.Parent.SpanID())
	}
	if len(span.Links) != 1 || span.Links[0].SpanContext.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("links %v", span.Links)
	}
}

func TestWhatHappensForEachEventIsTracedOnlyWhereItsTaskIs(t *testing.T) {
	for _, kind := range []taskbridge.OperationKind{taskbridge.OperationAppend, taskbridge.OperationDeliver} {
		for traceparent, want := range map[string]int{origin: 1, originUnsampled: 0, "": 0, "rubbish": 0} {
			// This sampler records everything, whatever the parent is.
			tel, spans := recording(t, sdktrace.WithSampler(sdktrace.AlwaysSample()))
			ctx, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: kind, Traceparent: traceparent, Event: taskbridge.EventProgress})
			if want == 0 && ctx != t.Context() {
				t.Errorf("%s under %q: the context is another", kind, traceparent)
			}
			done(nil)
			if n := len(spans.GetSpans()); n != want {
				t.Errorf("%s under %q: %d spans, want %d", kind, traceparent, n, want)
			}
		}
	}
}

func TestAStartIsNoTraceOfItsOwn(t *testing.T) {
	for traceparent, want := range map[string]int{origin: 1, originUnsampled: 0, "": 0} {
		tel, spans := recording(t)
		_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationStart, TaskID: "abc-1", Traceparent: traceparent})
		done(nil)
		if n := len(spans.GetSpans()); n != want {
			t.Errorf("under %q: %d spans, want %d", traceparent, n, want)
		}
	}
}

func TestAnUnsampledTraceIsPassedOnUnrecorded(t *testing.T) {
	tel, spans := recording(t)
	ctx, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationSubmit, Traceparent: originUnsampled})
	passedOn, ok := telemetry.ParseTraceparent(telemetry.Traceparent(ctx))
	done(nil)
	if !ok || passedOn.IsSampled() || passedOn.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("passed on: %s", telemetry.Traceparent(ctx))
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

func TestOnlyAFaultMakesASpanAnError(t *testing.T) {
	for outcome, test := range map[string]struct {
		err  error
		code codes.Code
	}{
		"ok":      {nil, codes.Unset},
		"refused": {taskbridge.ErrIdempotencyConflict, codes.Unset},
		"fault":   {errors.New("disk full"), codes.Error},
	} {
		tel, spans := recording(t)
		_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationCreate, TaskType: "demo"})
		done(test.err)
		span := only(t, spans)
		if span.Status.Code != test.code || attributeOf(span, "taskbridge.outcome") != outcome {
			t.Errorf("%v: %v %v", test.err, span.Status, span.Attributes)
		}
	}
}
