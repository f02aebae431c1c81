package fakes

import (
	"context"
	"errors"
	"sync"
)

// ErrInjected is the error of a fault that names no other. It matches no
// sentinel of the core: the caller must take the outcome for unknown.
var ErrInjected = errors.New("fakes: injected fault")

// ErrCrashed is what every call returns once the process is dead.
var ErrCrashed = errors.New("fakes: the process has crashed")

// Op names an operation of a wrapped contract, by its method.
type Op string

// The operations.
const (
	OpCreateTask          Op = "CreateTask"
	OpGetTask             Op = "GetTask"
	OpUpdateTask          Op = "UpdateTask"
	OpListTasks           Op = "ListTasks"
	OpDueTasks            Op = "DueTasks"
	OpRetireTask          Op = "RetireTask"
	OpDeleteTask          Op = "DeleteTask"
	OpWatchTask           Op = "WatchTask"
	OpAppendEvent         Op = "AppendEvent"
	OpReadEvents          Op = "ReadEvents"
	OpStreamState         Op = "StreamState"
	OpDeleteEvents        Op = "DeleteEvents"
	OpWatchEvents         Op = "WatchEvents"
	OpUpdateTaskAndAppend Op = "UpdateTaskAndAppend"
	OpAcquireLease        Op = "AcquireLease"
	OpReleaseLease        Op = "ReleaseLease"
	OpLeaseHolder         Op = "LeaseHolder"
	OpSubmitTask          Op = "SubmitTask"
	OpRequestCancellation Op = "RequestCancellation"
	OpInspectTask         Op = "InspectTask"
	OpResumeTask          Op = "ResumeTask"
	OpCheckHealth         Op = "CheckHealth"
)

// Call describes one call through a wrapper.
type Call struct {
	Op Op
	// TaskID is the task's; empty where the operation has none.
	TaskID string
	// N counts the calls of Op, Step those of all operations; both from 1.
	N, Step int

	faults *Faults
}

// Fault is what happens at a call. Either function may be nil.
type Fault struct {
	// Before runs before the effect; an error keeps it from happening and is
	// returned to the caller.
	Before func(ctx context.Context, call Call) error
	// After runs after the effect with its error; what it returns is what the
	// caller sees, whatever has happened.
	After func(ctx context.Context, call Call, err error) error
}

// FailBefore makes the call fail without any effect. nil means [ErrInjected].
func FailBefore(err error) Fault {
	if err == nil {
		err = ErrInjected
	}
	return Fault{Before: func(context.Context, Call) error { return err }}
}

// FailAfter lets the call take its effect and tells the caller that it failed.
// nil means [ErrInjected].
func FailAfter(err error) Fault {
	if err == nil {
		err = ErrInjected
	}
	return Fault{After: func(context.Context, Call, error) error { return err }}
}

// Delay holds the call back until release is closed. If the context ends or the
// process dies first, the call has no effect.
func Delay(release <-chan struct{}) Fault {
	return Fault{Before: func(ctx context.Context, call Call) error {
		select {
		case <-release:
			return nil
		case <-call.faults.Dead():
			return ErrCrashed
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// Hang never answers: the call has no effect and returns when its context ends
// or the process dies.
func Hang() Fault { return Delay(nil) }

// Hook runs f before the effect.
func Hook(f func(Call)) Fault {
	return Fault{Before: func(_ context.Context, call Call) error {
		f(call)
		return nil
	}}
}

// HookAfter runs f after the effect.
func HookAfter(f func(Call)) Fault {
	return Fault{After: func(_ context.Context, call Call, err error) error {
		f(call)
		return err
	}}
}

// CrashBefore kills the process before the call has taken effect.
func CrashBefore() Fault {
	return Fault{Before: func(_ context.Context, call Call) error {
		call.faults.Kill()
		return ErrCrashed
	}}
}

// CrashAfter kills the process when the call has taken effect, before its
// caller learns of it.
func CrashAfter() Fault {
	return Fault{After: func(_ context.Context, call Call, _ error) error {
		call.faults.Kill()
		return ErrCrashed
	}}
}

// Faults is a plan of failures and the record of the calls made under it. The
// wrappers that share one stand for one process: when it dies, it dies in all.
// Faults that are planned for the same call all happen, in the order of their
// planning. Safe for concurrent use.
type Faults struct {
	mu       sync.Mutex
	steps    []Call
	calls    map[Op]int
	byCall   map[callKey][]Fault
	byStep   map[int][]Fault
	always   map[Op][]Fault
	inFlight int
	idle     chan struct{} // closed when inFlight falls to 0; nil: nobody waits
	dead     chan struct{}
	killed   bool
}

type callKey struct {
	op Op
	n  int
}

// NewFaults makes a plan without faults.
func NewFaults() *Faults {
	return &Faults{
		calls:  make(map[Op]int),
		byCall: make(map[callKey][]Fault),
		byStep: make(map[int][]Fault),
		always: make(map[Op][]Fault),
		dead:   make(chan struct{}),
	}
}

// On plans a fault for the n-th call of the operation from now on (1: the next).
func (f *Faults) On(op Op, n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := callKey{op, f.calls[op] + n}
	f.byCall[key] = append(f.byCall[key], fault)
}

// OnStep plans a fault for the n-th call of any operation from now on.
func (f *Faults) OnStep(n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	step := len(f.steps) + n
	f.byStep[step] = append(f.byStep[step], fault)
}

// OnEvery plans a fault for every later call of the operation.
func (f *Faults) OnEvery(op Op, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.always[op] = append(f.always[op], fault)
}

// Clear drops all faults that are planned. A dead process stays dead.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.byCall)
	clear(f.byStep)
	clear(f.always)
}

// Calls returns how many calls of the operation have been made.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Steps returns all calls that have been made, in order.
func (f *Faults) Steps() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.steps...)
}

// Kill makes the process dead: from now on every call returns [ErrCrashed] and
// does nothing, and watches are silent. Calls that are inside their effect may
// still take it, as a request on its way does; see [Faults.Drain].
func (f *Faults) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.killed {
		f.killed = true
		close(f.dead)
	}
}

// Dead is closed when the process dies.
func (f *Faults) Dead() <-chan struct{} { return f.dead }

// Context returns a context that ends when parent does or the process has died.
// Calls that are inside their effect come out of it first: a store must not take
// a death for a call that was given up, and finish it behind the next process's
// back.
func (f *Faults) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-f.dead:
			if f.Drain(ctx) == nil {
				cancel(ErrCrashed)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-finished
	}
}

// Drain waits until no call is inside its effect. After [Faults.Kill] nothing
// of the dead process can happen once it has returned nil; otherwise the error
// is ctx's.
func (f *Faults) Drain(ctx context.Context) error {
	for {
		f.mu.Lock()
		if f.inFlight == 0 {
			f.mu.Unlock()
			return nil
		}
		if f.idle == nil {
			f.idle = make(chan struct{})
		}
		idle := f.idle
		f.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Faults) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.killed
}

// begin counts a call and returns what is planned for it.
func (f *Faults) begin(op Op, taskID string) (Call, []Fault, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killed {
		return Call{}, nil, ErrCrashed
	}
	f.calls[op]++
	call := Call{Op: op, TaskID: taskID, N: f.calls[op], Step: len(f.steps) + 1, faults: f}
	f.steps = append(f.steps, call)
	var planned []Fault
	planned = append(planned, f.always[op]...)
	planned = append(planned, f.byCall[callKey{op, call.N}]...)
	planned = append(planned, f.byStep[call.Step]...)
	delete(f.byCall, callKey{op, call.N})
	delete(f.byStep, call.Step)
	return call, planned, nil
}

// enter is asked right before the effect: the process may have died while the
// call was held back.
func (f *Faults) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killed {
		return false
	}
	f.inFlight++
	return true
}

func (f *Faults) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight--
	if f.inFlight == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// through makes one call under the plan. A call that fails returns T's zero
// value.
func through[T any](ctx context.Context, f *Faults, op Op, taskID string, effect func() (T, error)) (T, error) {
	var none T
	call, planned, err := f.begin(op, taskID)
	if err != nil {
		return none, err
	}
	for _, fault := range planned {
		if fault.Before != nil {
			if err := fault.Before(ctx, call); err != nil {
				return none, err
			}
		}
	}
	if !f.enter() {
		return none, ErrCrashed
	}
	result, err := effect()
	f.leave()
	for _, fault := range planned {
		if fault.After != nil {
			err = fault.After(ctx, call, err)
		}
	}
	if f.isDead() {
		return none, ErrCrashed
	}
	if err != nil {
		return none, err
	}
	return result, nil
}

// throughDo is [through] for calls without a result.
func throughDo(ctx context.Context, f *Faults, op Op, taskID string, effect func() error) error {
	_, err := through(ctx, f, op, taskID, func() (struct{}, error) { return struct{}{}, effect() })
	return err
}
