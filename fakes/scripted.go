package fakes

import (
	"context"
	"maps"
	"slices"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// ScriptedExecutor stands for a runtime of its own and does no work: it takes
// note of every call and answers as the test tells it. Until told otherwise it
// takes every task, says that it waits ([taskbridge.InspectionWaiting]), that it
// does not have the others ([taskbridge.InspectionAbsent]), and is healthy. Safe
// for concurrent use.
type ScriptedExecutor struct {
	mu            sync.Mutex
	has           map[string]bool
	submits       map[string]int
	inspections   map[string]int
	resumes       map[string][]taskbridge.TaskAction
	cancellations map[string][]string

	onSubmit  func(ctx context.Context, task taskbridge.Task) error
	onCancel  func(ctx context.Context, task taskbridge.Task, reason string) error
	onInspect func(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error)
	onResume  func(ctx context.Context, task taskbridge.Task, action taskbridge.TaskAction) error
	health    error
}

// NewScriptedExecutor makes an executor that takes everything.
func NewScriptedExecutor() *ScriptedExecutor {
	return &ScriptedExecutor{
		has:           make(map[string]bool),
		submits:       make(map[string]int),
		inspections:   make(map[string]int),
		resumes:       make(map[string][]taskbridge.TaskAction),
		cancellations: make(map[string][]string),
	}
}

// OnSubmit sets what SubmitTask does from now on; nil: take every task. A task
// for which it returns nil is one that the runtime has. It runs outside the
// executor's lock, so that it may block until its context ends.
func (e *ScriptedExecutor) OnSubmit(answer func(ctx context.Context, task taskbridge.Task) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onSubmit = answer
}

// OnCancel sets what RequestCancellation does from now on; nil: nothing.
func (e *ScriptedExecutor) OnCancel(answer func(ctx context.Context, task taskbridge.Task, reason string) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onCancel = answer
}

// OnInspect sets what InspectTask answers from now on; nil: Waiting for a task
// that the runtime has, Absent for any other.
func (e *ScriptedExecutor) OnInspect(answer func(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onInspect = answer
}

// OnResume sets what ResumeTask does from now on; nil: nothing.
func (e *ScriptedExecutor) OnResume(answer func(ctx context.Context, task taskbridge.Task, action taskbridge.TaskAction) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onResume = answer
}

// AnswerInspections makes InspectTask say the same of every task.
func (e *ScriptedExecutor) AnswerInspections(knowledge taskbridge.Knowledge) {
	e.OnInspect(func(context.Context, taskbridge.Task) (taskbridge.Inspection, error) {
		return taskbridge.Inspection{Knowledge: knowledge}, nil
	})
}

// SetHealth sets what CheckHealth returns.
func (e *ScriptedExecutor) SetHealth(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.health = err
}

// SubmitTask counts the call and answers as [ScriptedExecutor.OnSubmit] says.
func (e *ScriptedExecutor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	e.mu.Lock()
	e.submits[task.ID]++
	answer := e.onSubmit
	e.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, task); err != nil {
			return err
		}
	}
	e.Take(task.ID)
	return nil
}

// Take makes the runtime have the task, without anybody's knowledge: what a
// submission does whose answer is lost.
func (e *ScriptedExecutor) Take(taskID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.has[taskID] = true
}

// RequestCancellation notes the reason and answers as
// [ScriptedExecutor.OnCancel] says.
func (e *ScriptedExecutor) RequestCancellation(ctx context.Context, task taskbridge.Task, reason string) error {
	e.mu.Lock()
	e.cancellations[task.ID] = append(e.cancellations[task.ID], reason)
	answer := e.onCancel
	e.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, task, reason)
}

// InspectTask counts the call and answers as [ScriptedExecutor.OnInspect] says.
func (e *ScriptedExecutor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	e.mu.Lock()
	e.inspections[task.ID]++
	answer, has := e.onInspect, e.has[task.ID]
	e.mu.Unlock()
	switch {
	case answer != nil:
		return answer(ctx, task)
	case has:
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionWaiting}, nil
	}
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, nil
}

// ResumeTask notes the action and answers as [ScriptedExecutor.OnResume] says.
func (e *ScriptedExecutor) ResumeTask(ctx context.Context, task taskbridge.Task, action taskbridge.TaskAction) error {
	e.mu.Lock()
	e.resumes[task.ID] = append(e.resumes[task.ID], action)
	answer := e.onResume
	e.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, task, action)
}

// CheckHealth returns what [ScriptedExecutor.SetHealth] set.
func (e *ScriptedExecutor) CheckHealth(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.health
}

// Submits returns how often SubmitTask was called for the task.
func (e *ScriptedExecutor) Submits(taskID string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.submits[taskID]
}

// Submitted returns the ids of all tasks for which SubmitTask was called,
// sorted.
func (e *ScriptedExecutor) Submitted() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.submits))
}

// Inspections returns how often InspectTask was called for the task.
func (e *ScriptedExecutor) Inspections(taskID string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inspections[taskID]
}

// Cancellations returns the reasons of all calls of RequestCancellation for the
// task, in order.
func (e *ScriptedExecutor) Cancellations(taskID string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.cancellations[taskID])
}

// Resumes returns the actions of all calls of ResumeTask for the task, in order.
func (e *ScriptedExecutor) Resumes(taskID string) []taskbridge.TaskAction {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.resumes[taskID])
}
