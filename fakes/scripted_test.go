package fakes_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

func TestAScriptedExecutorTakesEverythingUntilItIsToldOtherwise(t *testing.T) {
	e := fakes.NewScriptedExecutor()
	knows := func(id string, want taskbridge.Knowledge) {
		t.Helper()
		inspection, err := e.InspectTask(t.Context(), row(id))
		if err != nil || inspection.Knowledge != want {
			t.Errorf("of %s the runtime knows %d, %v; want %d", id, inspection.Knowledge, err, want)
		}
	}
	knows("a", taskbridge.InspectionAbsent)
	for range 2 {
		if err := e.SubmitTask(t.Context(), row("a")); err != nil {
			t.Error(err)
		}
	}
	knows("a", taskbridge.InspectionWaiting)

	away := errors.New("away")
	e.OnSubmit(func(context.Context, taskbridge.Task) error { return away })
	if err := e.SubmitTask(t.Context(), row("b")); !errors.Is(err, away) {
		t.Errorf("error %v", err)
	}
	knows("b", taskbridge.InspectionAbsent)
	e.Take("b") // the answer was lost, the task was not
	knows("b", taskbridge.InspectionWaiting)
	e.AnswerInspections(taskbridge.InspectionGone)
	knows("a", taskbridge.InspectionGone)

	if e.Submits("a") != 2 || e.Submits("b") != 1 || e.Submits("c") != 0 || e.Inspections("b") != 2 {
		t.Errorf("calls counted: %d, %d, %d submissions, %d inspections", e.Submits("a"), e.Submits("b"), e.Submits("c"), e.Inspections("b"))
	}
	if got := e.Submitted(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("submitted: %q", got)
	}
}

func TestAScriptedExecutorAnswersAsItIsToldAndTakesNote(t *testing.T) {
	e := fakes.NewScriptedExecutor()
	refusal := errors.New("no")
	action := taskbridge.TaskAction{ActionID: "1", ActionType: "approve"}
	cancel := func(reason string) error { return e.RequestCancellation(t.Context(), row("a"), reason) }
	resume := func() error { return e.ResumeTask(t.Context(), row("a"), action) }
	health := func() error { return e.CheckHealth(t.Context()) }
	if err := errors.Join(cancel("first"), resume(), health()); err != nil {
		t.Error(err)
	}
	e.OnCancel(func(context.Context, taskbridge.Task, string) error { return refusal })
	e.OnResume(func(context.Context, taskbridge.Task, taskbridge.TaskAction) error { return refusal })
	e.SetHealth(refusal)
	for what, err := range map[string]error{"cancel": cancel("second"), "resume": resume(), "health": health()} {
		if !errors.Is(err, refusal) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if got := e.Cancellations("a"); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("cancellations: %q", got)
	}
	if got := e.Resumes("a"); len(got) != 2 || got[1].ActionType != "approve" {
		t.Errorf("resumes: %+v", got)
	}
}
