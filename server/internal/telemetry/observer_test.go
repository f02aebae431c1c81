package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

// sentinels are core's, with the outcome that each is counted as.
var sentinels = map[string]struct {
	err     error
	outcome string
}{
	"ErrTaskNotFound":        {taskbridge.ErrTaskNotFound, "refused"},
	"ErrRevisionConflict":    {taskbridge.ErrRevisionConflict, "refused"},
	"ErrIllegalTransition":   {taskbridge.ErrIllegalTransition, "refused"},
	"ErrTaskFinished":        {taskbridge.ErrTaskFinished, "refused"},
	"ErrNotRunnable":         {taskbridge.ErrNotRunnable, "refused"},
	"ErrStaleAttempt":        {taskbridge.ErrStaleAttempt, "refused"},
	"ErrStaleProducer":       {taskbridge.ErrStaleProducer, "refused"},
	"ErrOrdinalReused":       {taskbridge.ErrOrdinalReused, "refused"},
	"ErrStreamFull":          {taskbridge.ErrStreamFull, "refused"},
	"ErrPayloadTooLarge":     {&taskbridge.SizeError{Field: "input"}, "refused"},
	"ErrInvalidArgument":     {&taskbridge.ArgumentError{Field: "limit"}, "refused"},
	"ErrInvalidCursor":       {taskbridge.ErrInvalidCursor, "refused"},
	"ErrEventGap":            {&taskbridge.GapError{}, "refused"},
	"ErrIdempotencyConflict": {taskbridge.ErrIdempotencyConflict, "refused"},
	"ErrUnknownTaskType":     {taskbridge.ErrUnknownTaskType, "refused"},
	"ErrForbidden":           {taskbridge.ErrForbidden, "refused"},
	"ErrSubmissionRejected":  {taskbridge.Reject("NO", "no", false), "refused"},
	"ErrSlowConsumer":        {taskbridge.ErrSlowConsumer, "refused"},
	"ErrClosed":              {taskbridge.ErrClosed, "cancelled"},
}

func TestEachSentinelOfCoreHasAnOutcomeThatWasDecidedOn(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../core/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, declaration := range file.Decls {
		if values, ok := declaration.(*ast.GenDecl); ok && values.Tok == token.VAR {
			for _, spec := range values.Specs {
				value, _ := spec.(*ast.ValueSpec)
				declared = append(declared, value.Names[0].Name)
			}
		}
	}
	slices.Sort(declared)
	if known := slices.Sorted(maps.Keys(sentinels)); !slices.Equal(declared, known) {
		t.Errorf("core declares %v, here are %v", declared, known)
	}
	for name, s := range sentinels {
		tel := telemetry.New(telemetry.Options{})
		_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationCreate})
		done(fmt.Errorf("wrapped: %w", s.err))
		if got := sample(t, tel, "taskbridge_operations_total", "kind", "create", "outcome", s.outcome); got != 1 {
			t.Errorf("%s is not counted as %s", name, s.outcome)
		}
	}
}

func TestAnOperationIsCountedOnceByKindAndOutcome(t *testing.T) {
	for _, test := range []struct {
		err     error
		outcome string
	}{
		{nil, "ok"},
		{context.Canceled, "cancelled"},
		{context.DeadlineExceeded, "fault"},
		{errors.New("disk full"), "fault"},
	} {
		tel := telemetry.New(telemetry.Options{})
		_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationAppend, Event: taskbridge.EventMessage})
		done(test.err)
		for _, outcome := range []string{"ok", "refused", "cancelled", "fault"} {
			want := 0.0
			if outcome == test.outcome {
				want = 1
			}
			expect(t, tel, want, "taskbridge_operations_total", "kind", "append", "outcome", outcome)
		}
		expect(t, tel, 1, "taskbridge_operation_duration_seconds", "kind", "append")
		appended := 0.0
		if test.err == nil {
			appended = 1
		}
		expect(t, tel, appended, "taskbridge_events_appended_total", "type", "TASK_MESSAGE")
	}
}

func TestWhatIsNotKnownIsOther(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: "invented", Event: "TASK_INVENTED"})
	done(nil)
	tel.Open("carrier pigeon")
	tel.AuthenticationFailed("handshake")
	tel.RateLimited("mood")
	expect(t, tel, 1, "taskbridge_operations_total", "kind", "other", "outcome", "ok")
	expect(t, tel, 1, "taskbridge_events_appended_total", "type", "other")
	expect(t, tel, 1, "taskbridge_streams_open", "transport", "other")
	expect(t, tel, 1, "taskbridge_authentication_failures_total", "mode", "other")
	expect(t, tel, 1, "taskbridge_rate_limited_requests_total", "limit", "other")
}

func TestAFailedEndEndsNoTask(t *testing.T) {
	tel := telemetry.New(telemetry.Options{TaskTypes: []string{"demo"}})
	end := func(event taskbridge.EventType, err error) {
		_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationEnd, TaskType: "demo", Event: event})
		done(err)
	}
	end(taskbridge.EventCancelled, taskbridge.ErrRevisionConflict)
	end(taskbridge.EventFailed, nil)
	expect(t, tel, 0, "taskbridge_tasks_ended_total", "status", "CANCELLED", "type", "demo")
	expect(t, tel, 1, "taskbridge_tasks_ended_total", "status", "FAILED", "type", "demo")
}

func TestOnlyWhatTheReconcilerDoesCountsAsReconciliation(t *testing.T) {
	tel := telemetry.New(telemetry.Options{})
	submit := func(ctx context.Context) {
		_, done := tel.Begin(ctx, taskbridge.Operation{Kind: taskbridge.OperationSubmit})
		done(nil)
	}
	submit(t.Context())
	expect(t, tel, 0, "taskbridge_reconciliation_actions_total", "action", "submit", "outcome", "ok")
	ctx, cancel := context.WithCancel(telemetry.ByReconciler(t.Context()))
	defer cancel()
	submit(ctx)
	expect(t, tel, 1, "taskbridge_reconciliation_actions_total", "action", "submit", "outcome", "ok")
	expect(t, tel, 2, "taskbridge_operations_total", "kind", "submit", "outcome", "ok")
}

func TestCountingCostsNoAllocation(t *testing.T) {
	tel := telemetry.New(telemetry.Options{TaskTypes: []string{"demo"}})
	ctx := t.Context()
	operation := taskbridge.Operation{
		Kind: taskbridge.OperationAppend, TaskID: "abc-x", TaskType: "demo", Event: taskbridge.EventProgress,
		Traceparent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01",
	}
	if n := testing.AllocsPerRun(1000, func() {
		_, done := tel.Begin(ctx, operation)
		done(nil)
	}); n > allocationsAllowed {
		t.Errorf("%v allocations an operation", n)
	}
	traced, _ := recording(t)
	operation.Traceparent = operation.Traceparent[:53] + "00"
	if n := testing.AllocsPerRun(1000, func() {
		_, done := traced.Begin(ctx, operation)
		done(nil)
	}); n > allocationsAllowed {
		t.Errorf("%v allocations an operation whose trace is not recorded", n)
	}
}

func BenchmarkObservedAppend(b *testing.B) {
	tel := telemetry.New(telemetry.Options{TaskTypes: []string{"demo"}})
	operation := taskbridge.Operation{Kind: taskbridge.OperationAppend, TaskID: "abc-x", TaskType: "demo", Event: taskbridge.EventProgress}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, done := tel.Begin(context.Background(), operation)
			done(nil)
		}
	})
}
