package fakes

import (
	"context"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// WrapExecutor puts an executor under the plan. The wrapper is a
// [taskbridge.TaskInspector], [taskbridge.HealthChecker],
// [taskbridge.InstanceBound] or [taskbridge.TaskResumer] if and only if the
// executor is. InstanceID is no call to anywhere and is passed on untouched.
func WrapExecutor(inner taskbridge.TaskExecutor, faults *Faults) taskbridge.TaskExecutor {
	type (
		X = wrappedExecutor
		I = wrappedInspector
		H = wrappedHealth
		B = taskbridge.InstanceBound
		R = wrappedResumer
	)
	inspector, isI := inner.(taskbridge.TaskInspector)
	checker, isH := inner.(taskbridge.HealthChecker)
	bound, isB := inner.(taskbridge.InstanceBound)
	resumer, isR := inner.(taskbridge.TaskResumer)
	x := &X{inner, faults}
	i, h, b, r := I{inspector, faults}, H{checker, faults}, bound, R{resumer, faults}

	// A method set is fixed at compile time, so each combination is a type.
	switch [4]bool{isI, isH, isB, isR} {
	case [4]bool{true, false, false, false}:
		return &struct {
			*X
			I
		}{x, i}
	case [4]bool{false, true, false, false}:
		return &struct {
			*X
			H
		}{x, h}
	case [4]bool{true, true, false, false}:
		return &struct {
			*X
			I
			H
		}{x, i, h}
	case [4]bool{false, false, true, false}:
		return &struct {
			*X
			B
		}{x, b}
	case [4]bool{true, false, true, false}:
		return &struct {
			*X
			I
			B
		}{x, i, b}
	case [4]bool{false, true, true, false}:
		return &struct {
			*X
			H
			B
		}{x, h, b}
	case [4]bool{true, true, true, false}:
		return &struct {
			*X
			I
			H
			B
		}{x, i, h, b}
	case [4]bool{false, false, false, true}:
		return &struct {
			*X
			R
		}{x, r}
	case [4]bool{true, false, false, true}:
		return &struct {
			*X
			I
			R
		}{x, i, r}
	case [4]bool{false, true, false, true}:
		return &struct {
			*X
			H
			R
		}{x, h, r}
	case [4]bool{true, true, false, true}:
		return &struct {
			*X
			I
			H
			R
		}{x, i, h, r}
	case [4]bool{false, false, true, true}:
		return &struct {
			*X
			B
			R
		}{x, b, r}
	case [4]bool{true, false, true, true}:
		return &struct {
			*X
			I
			B
			R
		}{x, i, b, r}
	case [4]bool{false, true, true, true}:
		return &struct {
			*X
			H
			B
			R
		}{x, h, b, r}
	case [4]bool{true, true, true, true}:
		return &struct {
			*X
			I
			H
			B
			R
		}{x, i, h, b, r}
	}
	return x
}

type wrappedExecutor struct {
	executor taskbridge.TaskExecutor
	faults   *Faults
}

func (w *wrappedExecutor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	return throughDo(ctx, w.faults, OpSubmitTask, task.ID, func() error {
		return w.executor.SubmitTask(ctx, task)
	})
}

func (w *wrappedExecutor) RequestCancellation(ctx context.Context, task taskbridge.Task, reason string) error {
	return throughDo(ctx, w.faults, OpRequestCancellation, task.ID, func() error {
		return w.executor.RequestCancellation(ctx, task, reason)
	})
}

type wrappedInspector struct {
	inspector taskbridge.TaskInspector
	faults    *Faults
}

func (w wrappedInspector) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	return through(ctx, w.faults, OpInspectTask, task.ID, func() (taskbridge.Inspection, error) {
		return w.inspector.InspectTask(ctx, task)
	})
}

type wrappedResumer struct {
	resumer taskbridge.TaskResumer
	faults  *Faults
}

func (w wrappedResumer) ResumeTask(ctx context.Context, task taskbridge.Task, action taskbridge.TaskAction) error {
	return throughDo(ctx, w.faults, OpResumeTask, task.ID, func() error {
		return w.resumer.ResumeTask(ctx, task, action)
	})
}
