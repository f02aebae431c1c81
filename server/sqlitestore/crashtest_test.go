package sqlitestore_test

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes/crashtest"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// The promises hold over SQLite alone and over each half of it beside another
// store, whatever breaks around them.
func TestThePromisesHoldOverSQLite(t *testing.T) {
	for name, pair := range map[string]func(*sqlitestore.Store) taskbridge.Stores{
		"alone": func(s *sqlitestore.Store) taskbridge.Stores { return taskbridge.Stores{Tasks: s, Events: s} },
		"rows here, events away": func(s *sqlitestore.Store) taskbridge.Stores {
			return taskbridge.Stores{Tasks: s, Events: memory.NewEvents()}
		},
		"events here, rows away": func(s *sqlitestore.Store) taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: s}
		},
	} {
		t.Run(name, func(t *testing.T) {
			crashtest.Run(t, crashtest.Harness{
				New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
					s := open(t, sqlitestore.Options{Dir: t.TempDir(), Clock: clock})
					return crashtest.Backend{Stores: pair(s.Store), Leaser: s.Store}
				},
				Races: 200,
			})
		})
	}
}
