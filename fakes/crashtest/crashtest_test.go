package crashtest_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes/crashtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func backend(store *memory.Store) crashtest.Backend {
	return crashtest.Backend{
		Leaser: store.Leaser,
		Truncate: func(_ context.Context, taskID string, last int64) error {
			store.Truncate(taskID, last)
			return nil
		},
		Trim: func(_ context.Context, taskID string, first int64) error {
			store.Trim(taskID, first)
			return nil
		},
	}
}

func TestTheMemoryStoreKeepsThePromises(t *testing.T) {
	crashtest.Run(t, crashtest.Harness{Thorough: true, New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
		store := memory.NewStore(memory.Options{Clock: clock})
		b := backend(store)
		b.Stores = taskbridge.Stores{Tasks: store, Events: store}
		return b
	}})
}

func TestAPairOfSeparateStoresKeepsThePromises(t *testing.T) {
	crashtest.Run(t, crashtest.Harness{Thorough: true, New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
		store := memory.NewStore(memory.Options{Clock: clock})
		b := backend(store)
		b.Stores = taskbridge.Stores{Tasks: store.Tasks, Events: store.Events}
		return b
	}})
}

func TestAStoreWithoutALeaserKeepsThePromises(t *testing.T) {
	crashtest.Run(t, crashtest.Harness{Races: 50, New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
		store := memory.NewStore(memory.Options{Clock: clock})
		return crashtest.Backend{Stores: taskbridge.Stores{Tasks: store, Events: store}}
	}})
}
