//go:build soak

package sqlitestore_test

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes/crashtest"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// They hold over each half of SQLite beside another store, too.
func TestSoakThePromisesHoldOverSQLiteBesideAnotherStore(t *testing.T) {
	t.Run("rows in SQLite", func(t *testing.T) {
		crashtest.Run(t, crashHarness(func(s *sqlitestore.Store) taskbridge.Stores {
			return taskbridge.Stores{Tasks: s, Events: memory.NewEvents()}
		}))
	})
	t.Run("events in SQLite", func(t *testing.T) {
		crashtest.Run(t, crashHarness(func(s *sqlitestore.Store) taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: s}
		}))
	})
}
