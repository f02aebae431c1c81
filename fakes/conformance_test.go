package fakes_test

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

// wrapped makes a harness of stores under a plan without faults. The suite
// closes the inner ones: closing is no part of the contracts.
func wrapped[S any, I io.Closer](open func() I, wrap func(I, *fakes.Faults) S) conformance.Harness[S] {
	var inner sync.Map // of I, by S
	return conformance.Harness[S]{
		New: func(t *testing.T) S {
			store := open()
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			w := wrap(store, fakes.NewFaults())
			inner.Store(w, store)
			return w
		},
		Close: func(w S) error {
			store, _ := inner.Load(w)
			return store.(I).Close()
		},
	}
}

func TestAWrappedRegistryConforms(t *testing.T) {
	conformance.RunTaskRegistry(t, wrapped(memory.NewTasks, func(inner *memory.Tasks, faults *fakes.Faults) taskbridge.TaskRegistry {
		return fakes.WrapTasks(inner, faults)
	}))
}

func TestAWrappedEventStoreConforms(t *testing.T) {
	conformance.RunEventStore(t, wrapped(memory.NewEvents, func(inner *memory.Events, faults *fakes.Faults) taskbridge.EventStore {
		return fakes.WrapEvents(inner, faults)
	}))
}

func TestAWrappedAtomicStoreConforms(t *testing.T) {
	harness := wrapped(func() *memory.Store { return memory.NewStore(memory.Options{}) },
		func(inner *memory.Store, faults *fakes.Faults) taskbridge.AtomicStore {
			return fakes.WrapStore(inner, faults)
		})
	conformance.RunTaskRegistry(t, harness)
	conformance.RunEventStore(t, harness)
	conformance.RunAtomicStore(t, harness)
}

func TestAWrappedLeaserConforms(t *testing.T) {
	clock := fakes.NewManualClock(epoch)
	conformance.RunLeaser(t, conformance.LeaserHarness[taskbridge.Leaser]{
		Harness: wrapped(func() *memory.Leaser { return memory.NewLeaser(clock) },
			func(inner *memory.Leaser, faults *fakes.Faults) taskbridge.Leaser {
				return fakes.WrapLeaser(inner, faults)
			}),
		Advance: clock.Advance,
	})
}

// begins counts how often the work of each task is begun.
type begins struct {
	mu    sync.Mutex
	tasks map[string]int
}

// count is a lifecycle that counts the accepted starts.
func (b *begins) count(inner taskbridge.TaskLifecycle) taskbridge.TaskLifecycle {
	return &countedLifecycle{inner, b}
}

type countedLifecycle struct {
	taskbridge.TaskLifecycle
	begins *begins
}

func (c *countedLifecycle) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	run, err := c.TaskLifecycle.Start(ctx, taskID, claim)
	if err == nil {
		c.begins.mu.Lock()
		defer c.begins.mu.Unlock()
		c.begins.tasks[taskID]++
	}
	return run, err
}

func (b *begins) of(taskID string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tasks[taskID]
}

func TestTheDeterministicExecutorConforms(t *testing.T) {
	for name, opts := range map[string]fakes.Options{
		"of no instance": {MaxRunning: 2},
		"of an instance": {MaxRunning: 2, InstanceID: "instance"},
	} {
		for name, wrap := range map[string]func(taskbridge.TaskExecutor) taskbridge.TaskExecutor{
			name: func(executor taskbridge.TaskExecutor) taskbridge.TaskExecutor { return executor },
			name + ", wrapped": func(executor taskbridge.TaskExecutor) taskbridge.TaskExecutor {
				return fakes.WrapExecutor(executor, fakes.NewFaults())
			},
		} {
			t.Run(name, func(t *testing.T) {
				conformance.RunExecutor(t, conformance.ExecutorHarness{
					New: func(t *testing.T, _ taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
						counted := &begins{tasks: make(map[string]int)}
						opts := opts
						opts.Lifecycle, opts.Script = counted.count(lifecycle), fakes.DemoScript
						executor, err := fakes.NewDeterministicFakeExecutor(opts)
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() {
							if err := executor.Close(context.Background()); err != nil {
								t.Errorf("close: %v", err)
							}
						})
						return conformance.Runtime{Executor: wrap(executor), Places: opts.MaxRunning, Begun: counted.of}
					},
					Completes: conformance.Work{Type: "demo", Input: json.RawMessage(`{"ticks":2,"tickMillis":1,"result":{"a":1}}`), Result: json.RawMessage(`{"a":1}`)},
					Fails:     conformance.Work{Type: "demo", Input: json.RawMessage(`{"ticks":2,"tickMillis":1,"failAfterTicks":1}`), Code: fakes.CodeDemoFailed},
					RunsOn:    conformance.Work{Type: "demo", Input: json.RawMessage(`{"ticks":1,"tickMillis":3600000}`)},
					Rejected:  conformance.Work{Type: "demo", Input: json.RawMessage(`{"ticks":"many"}`)},
				})
			})
		}
	}
}
