package temporaladapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// ErrReportRefused is what a report of a workflow matches that TaskBridge did not
// record and never will: the task has ended, its stream is full, or the report is
// not valid. The workflow may well ignore it.
var ErrReportRefused = errors.New("report refused")

// ReportProgress reports progress from the code of a workflow, through a local
// activity, and returns once it is recorded. Replay repeats nothing. In a workflow
// that is no task's it does nothing.
//
// It is recorded once: a worker that makes it again, since the one before was
// killed before the history had it, is recognised by the report's ordinal. Reports
// of several coroutines are recorded in the order of the calls.
func ReportProgress(ctx workflow.Context, progress taskbridge.Progress) error {
	return reportFrom(ctx, taskEvent{Progress: &progress})
}

// ReportMessage reports a message from the code of a workflow; see
// [ReportProgress].
func ReportMessage(ctx workflow.Context, message taskbridge.Message) error {
	return reportFrom(ctx, taskEvent{Message: &message})
}

func reportFrom(ctx workflow.Context, event taskEvent) error {
	task := taskOf(ctx)
	if task == nil {
		return nil
	}
	answer, err := task.report(ctx, event)
	if err == nil && answer.Refused != "" {
		err = fmt.Errorf("%w: %s", ErrReportRefused, answer.Refused)
	}
	return err
}

// report records a report, under its ordinal if the run numbers them.
func (t *taskWorkflow) report(ctx workflow.Context, event taskEvent) (verdict, error) {
	reports := t.reports
	if reports == nil {
		return t.record(ctx, event, t.plugin.Patience)
	}
	reports.tickets++
	ticket := reports.tickets
	waiting, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if err := workflow.Await(waiting, func() bool { return reports.served == ticket-1 }); err != nil {
		return verdict{}, err
	}
	defer func() { reports.served = ticket }()
	event.Ordinal, event.Since, event.Search = ticket, reports.since, reports.search || reports.since > 0 && !t.child
	answer, err := t.record(ctx, event, t.plugin.Patience)
	if err == nil {
		reports.take(answer)
	}
	return answer, err
}

// ReportingChildren returns a context whose child workflows report for the task of
// the workflow, by [ReportProgress], [ReportMessage] and what their activities
// report. Otherwise they are silent. The task's start and end stay the parent's.
func ReportingChildren(ctx workflow.Context) workflow.Context {
	return workflow.WithValue(ctx, reportingChildrenKey{}, true)
}

type reportingChildrenKey struct{}

// ActionSignal is the name of the signal with which an accepted action comes to a
// suspended workflow, with an [Action] as its argument.
const ActionSignal = "taskbridge-action"

// Action is a client's accepted answer to a suspension.
type Action struct {
	SuspendID  string          `json:"suspendId"`
	ActionID   string          `json:"actionId"`
	ActionType string          `json:"actionType"`
	Payload    json.RawMessage `json:"payload,omitempty"`
	AcceptedAt time.Time       `json:"acceptedAt"`
}

// Suspend records that the work waits for somebody, and waits for the action with
// the suspension's id. An action that comes twice, or to another suspension, has no
// effect here. Several coroutines may be suspended at once, under different ids. It
// returns the context's error when the workflow is cancelled, and [ErrReportRefused]
// where the suspension was not recorded. ExpiresAt is for clients; a workflow that
// is to go on by then has a timer of its own.
func Suspend(ctx workflow.Context, suspension taskbridge.Suspension) (Action, error) {
	task := taskOf(ctx)
	if task == nil || task.child {
		return Action{}, fmt.Errorf("%w: only the workflow of a task can suspend it", ErrReportRefused)
	}
	task.actions.listen(ctx)
	if err := reportFrom(ctx, taskEvent{Suspension: &suspension}); err != nil {
		return Action{}, err
	}
	err := workflow.Await(ctx, func() bool {
		_, there := task.actions.bySuspension[suspension.SuspendID]
		return there
	})
	return task.actions.bySuspension[suspension.SuspendID], err
}

// actions are those that have come to a workflow. Only its coroutines touch it, one
// at a time.
type actions struct {
	listening    bool
	bySuspension map[string]Action
}

// listen takes signals as long as the run lasts.
func (a *actions) listen(ctx workflow.Context) {
	if a.listening {
		return
	}
	a.listening, a.bySuspension = true, map[string]Action{}
	ctx, _ = workflow.NewDisconnectedContext(ctx) // it ends with the run
	workflow.GoNamed(ctx, "taskbridge actions", func(ctx workflow.Context) {
		signals := workflow.GetSignalChannel(ctx, ActionSignal)
		for {
			var action Action
			if !signals.Receive(ctx, &action) {
				return
			}
			if _, there := a.bySuspension[action.SuspendID]; !there {
				a.bySuspension[action.SuspendID] = action
			}
		}
	})
}
