package fakes_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

type bare struct{ taskbridge.TaskExecutor }

func (bare) SubmitTask(context.Context, taskbridge.Task) error { return errors.New("bare") }

type inspects struct{}

func (inspects) InspectTask(context.Context, taskbridge.Task) (taskbridge.Inspection, error) {
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionGone}, nil
}

type healthy struct{}

func (healthy) CheckHealth(context.Context) error { return errors.New("ill") }

type bound struct{}

func (bound) InstanceID() string { return "instance" }

type resumes struct{}

func (resumes) ResumeTask(context.Context, taskbridge.Task, taskbridge.TaskAction) error {
	return errors.New("resumed")
}

// executors returns one executor of each combination of the optional interfaces.
func executors() []taskbridge.TaskExecutor {
	return []taskbridge.TaskExecutor{
		bare{},
		struct {
			bare
			inspects
		}{},
		struct {
			bare
			healthy
		}{},
		struct {
			bare
			bound
		}{},
		struct {
			bare
			resumes
		}{},
		struct {
			bare
			inspects
			healthy
		}{},
		struct {
			bare
			inspects
			bound
		}{},
		struct {
			bare
			inspects
			resumes
		}{},
		struct {
			bare
			healthy
			bound
		}{},
		struct {
			bare
			healthy
			resumes
		}{},
		struct {
			bare
			bound
			resumes
		}{},
		struct {
			bare
			inspects
			healthy
			bound
		}{},
		struct {
			bare
			inspects
			healthy
			resumes
		}{},
		struct {
			bare
			inspects
			bound
			resumes
		}{},
		struct {
			bare
			healthy
			bound
			resumes
		}{},
		struct {
			bare
			inspects
			healthy
			bound
			resumes
		}{},
	}
}

// abilities asks each optional interface that x has and says what it answers.
func abilities(ctx context.Context, x taskbridge.TaskExecutor) map[string]string {
	can := map[string]string{"submit": fmt.Sprint(x.SubmitTask(ctx, taskbridge.Task{}))}
	if i, ok := x.(taskbridge.TaskInspector); ok {
		inspection, err := i.InspectTask(ctx, taskbridge.Task{})
		can["inspect"] = fmt.Sprint(inspection.Knowledge, err)
	}
	if h, ok := x.(taskbridge.HealthChecker); ok {
		can["health"] = fmt.Sprint(h.CheckHealth(ctx))
	}
	if b, ok := x.(taskbridge.InstanceBound); ok {
		can["instance"] = b.InstanceID()
	}
	if r, ok := x.(taskbridge.TaskResumer); ok {
		can["resume"] = fmt.Sprint(r.ResumeTask(ctx, taskbridge.Task{}, taskbridge.TaskAction{}))
	}
	return can
}

func TestAWrappedExecutorCanDoWhatTheInnerOneCanAndNoMore(t *testing.T) {
	seen := make(map[int]int)
	for _, inner := range executors() {
		want := abilities(t.Context(), inner)
		got := abilities(t.Context(), fakes.WrapExecutor(inner, fakes.NewFaults()))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T: wrapped %v, want %v", inner, got, want)
		}
		seen[len(want)]++
	}
	if want := map[int]int{1: 1, 2: 4, 3: 6, 4: 4, 5: 1}; !reflect.DeepEqual(seen, want) {
		t.Errorf("combinations by size %v, want %v", seen, want)
	}
}

func TestWrapStoresKeepsAnAtomicStoreOneAndAPairTwo(t *testing.T) {
	store := memory.NewStore(memory.Options{})
	one := fakes.WrapStores(taskbridge.Stores{Tasks: store, Events: store}, fakes.NewFaults())
	if _, atomic := one.Tasks.(taskbridge.AtomicStore); !atomic || any(one.Tasks) != any(one.Events) {
		t.Errorf("an atomic store became %T and %T", one.Tasks, one.Events)
	}
	for name, pair := range map[string]taskbridge.Stores{
		"two stores":                 {Tasks: memory.NewTasks(), Events: memory.NewEvents()},
		"halves of different stores": {Tasks: store, Events: memory.NewStore(memory.Options{})},
		"rows here, events there":    {Tasks: store, Events: memory.NewEvents()},
	} {
		two := fakes.WrapStores(pair, fakes.NewFaults())
		if _, atomic := two.Tasks.(taskbridge.AtomicStore); atomic || any(two.Tasks) == any(two.Events) {
			t.Errorf("%s: became %T and %T", name, two.Tasks, two.Events)
		}
	}
}

type healthyTasks struct {
	*memory.Tasks
	healthy
}

type healthyEvents struct {
	*memory.Events
	healthy
}

type healthyStore struct {
	*memory.Store
	healthy
}

func TestAWrappedStoreChecksItsHealthIfTheInnerOneDoes(t *testing.T) {
	store := memory.NewStore(memory.Options{})
	for _, c := range []struct {
		wrapped any
		want    bool
	}{
		{fakes.WrapTasks(memory.NewTasks(), fakes.NewFaults()), false},
		{fakes.WrapTasks(healthyTasks{Tasks: memory.NewTasks()}, fakes.NewFaults()), true},
		{fakes.WrapEvents(memory.NewEvents(), fakes.NewFaults()), false},
		{fakes.WrapEvents(healthyEvents{Events: memory.NewEvents()}, fakes.NewFaults()), true},
		{fakes.WrapStore(store, fakes.NewFaults()), false},
		{fakes.WrapStore(healthyStore{Store: store}, fakes.NewFaults()), true},
	} {
		checker, ok := c.wrapped.(taskbridge.HealthChecker)
		if ok != c.want {
			t.Errorf("%T: has a health check: %v, want %v", c.wrapped, ok, c.want)
		} else if ok && fmt.Sprint(checker.CheckHealth(t.Context())) != "ill" {
			t.Errorf("%T: %v", c.wrapped, checker.CheckHealth(t.Context()))
		}
	}
}
