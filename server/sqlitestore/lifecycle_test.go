package sqlitestore_test

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func TestALifecycleOverTheStoreConforms(t *testing.T) {
	conformance.RunLifecycle(t, conformance.LifecycleHarness{
		NewStores: func(t *testing.T) taskbridge.Stores {
			store := open(t, sqlitestore.Options{Dir: t.TempDir()})
			return taskbridge.Stores{Tasks: store, Events: store}
		},
		New: func(t *testing.T, opts taskbridge.LifecycleOptions) taskbridge.TaskLifecycle {
			lifecycle, err := taskbridge.NewLocalLifecycle(opts)
			if err != nil {
				t.Fatalf("NewLocalLifecycle: %v", err)
			}
			return lifecycle
		},
	})
}
