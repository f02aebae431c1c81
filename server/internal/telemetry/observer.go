package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// measurement is one operation under way. They are used again: an operation that
// is only counted must not cost an allocation.
type measurement struct {
	telemetry  *Telemetry
	operation  taskbridge.Operation
	kind       int
	started    time.Time
	span       trace.Span // nil: none
	reconciler bool
	end        func(error) // finish, bound once
}

// Begin implements [taskbridge.Observer].
func (t *Telemetry) Begin(ctx context.Context, operation taskbridge.Operation) (context.Context, func(error)) {
	m, _ := t.pool.Get().(*measurement)
	m.operation = operation
	m.kind = indexOf(kinds[:], operation.Kind)
	m.reconciler = byReconciler(ctx, operation.Kind)
	if t.tracer != nil {
		ctx, m.span = t.startSpan(ctx, operation)
	}
	m.started = time.Now()
	return ctx, m.end
}

func (m *measurement) finish(err error) {
	t, outcome := m.telemetry, outcomeOf(err)
	t.metrics.durations[m.kind].Observe(time.Since(m.started).Seconds())
	t.metrics.operations[m.kind][outcome].Inc()
	if outcome == outcomeOK && m.operation.Event != "" {
		t.metrics.events[indexOf(eventTypes[:], m.operation.Event)].Inc()
		if status := m.operation.Event.Status(); status != "" {
			t.metrics.ended.WithLabelValues(string(status), t.typeLabel(m.operation.TaskType)).Inc()
		}
	}
	if m.reconciler {
		t.metrics.reconciled.WithLabelValues(string(kinds[m.kind]), outcomeNames[outcome]).Inc()
	}
	if m.span != nil {
		endSpan(m.span, outcome, err)
		m.span = nil
	}
	m.operation = taskbridge.Operation{}
	t.pool.Put(m)
}

type reconcilerKey struct{}

// ByReconciler marks the context that a [taskbridge.Reconciler] is run with:
// what is done under it counts as reconciliation.
func ByReconciler(ctx context.Context) context.Context {
	return context.WithValue(ctx, reconcilerKey{}, true)
}

// byReconciler looks at the kinds only that a reconciler acts by: the others are
// frequent, and looking takes time.
func byReconciler(ctx context.Context, kind taskbridge.OperationKind) bool {
	switch kind {
	case taskbridge.OperationSubmit, taskbridge.OperationCancel, taskbridge.OperationEnd, taskbridge.OperationInspect:
		return ctx.Value(reconcilerKey{}) != nil
	}
	return false
}
