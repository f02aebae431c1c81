package sqlitestore_test

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes/crashtest"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// crashHarness breaks what is around a pair of stores of which one at least is
// SQLite.
func crashHarness(pair func(*sqlitestore.Store) taskbridge.Stores) crashtest.Harness {
	return crashtest.Harness{
		New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
			s := open(t, sqlitestore.Options{Dir: t.TempDir(), Clock: clock})
			return crashtest.Backend{Stores: pair(s.Store), Leaser: s.Store}
		},
		Races: 100,
	}
}

// The promises hold over SQLite, whatever breaks around it.
func TestThePromisesHoldOverSQLite(t *testing.T) {
	crashtest.Run(t, crashHarness(func(s *sqlitestore.Store) taskbridge.Stores {
		return taskbridge.Stores{Tasks: s, Events: s}
	}))
}
