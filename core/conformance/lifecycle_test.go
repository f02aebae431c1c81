package conformance_test

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
)

func localLifecycle(t *testing.T, opts taskbridge.LifecycleOptions) taskbridge.TaskLifecycle {
	t.Helper()
	lifecycle, err := taskbridge.NewLocalLifecycle(opts)
	if err != nil {
		t.Fatalf("NewLocalLifecycle: %v", err)
	}
	return lifecycle
}

func TestTheLocalLifecycleConformsOverOneAtomicStore(t *testing.T) {
	conformance.RunLifecycle(t, conformance.LifecycleHarness{
		NewStores: func(*testing.T) taskbridge.Stores {
			store := memory.NewStore(memory.Options{})
			return taskbridge.Stores{Tasks: store, Events: store}
		},
		New: localLifecycle,
	})
}

func TestTheLocalLifecycleConformsOverSeparateStores(t *testing.T) {
	conformance.RunLifecycle(t, conformance.LifecycleHarness{
		NewStores: func(*testing.T) taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
		},
		New: localLifecycle,
	})
}
