// Package crashtest proves TaskBridge's promises over any stores by breaking
// what is around them: the process dies before and after each call that it
// makes to its stores and its executor, runtimes forget, stay silent or answer
// late, clients and workers race. After each break fresh services over the same
// stores must bring every task to one definite end on which row and stream
// agree.
//
// A crash here is a process that no longer gets through to anything (see
// [fakes.Faults]); what the stores themselves lose when power goes is for their
// own tests.
//
//	func TestCrashes(t *testing.T) {
//		crashtest.Run(t, crashtest.Harness{New: func(t *testing.T, clock taskbridge.Clock) crashtest.Backend {
//			store := memory.NewStore(memory.Options{Clock: clock})
//			return crashtest.Backend{
//				Stores: taskbridge.Stores{Tasks: store, Events: store},
//				Leaser: store,
//			}
//		}})
//	}
package crashtest

import (
	"context"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// Harness makes the stores under test.
type Harness struct {
	// New opens empty stores. They belong to the test t, with whose end they
	// are closed (t.Cleanup).
	New func(t *testing.T, clock taskbridge.Clock) Backend
	// Races is how often each race is run; 0 means 1,000.
	Races int
	// Thorough tries every way on after every crash. Otherwise the ways on take
	// turns from one crash to the next.
	Thorough bool
}

// Backend is one set of stores. What is nil is logged as missing and what
// needs it not checked.
type Backend struct {
	Stores taskbridge.Stores
	// Leaser tells the time by the clock that New was given.
	Leaser taskbridge.Leaser
	// Truncate drops the events after the sequence number last from a stream
	// and leaves the row alone: the stream's store was put back to an older
	// backup.
	Truncate func(ctx context.Context, taskID string, last int64) error
	// Trim drops the events before the sequence number first from a stream.
	Trim func(ctx context.Context, taskID string, first int64) error
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatal("crashtest: Harness.New must not be nil")
	}
	if h.Races == 0 {
		h.Races = 1_000
	}
	t.Run("Crash", func(t *testing.T) { runCrashes(t, h) })
	t.Run("Fault", func(t *testing.T) { runFaults(t, h) })
	t.Run("CrashInProcess", func(t *testing.T) { runInProcessCrashes(t, h) })
	t.Run("Zombie", func(t *testing.T) { runZombies(t, h) })
	t.Run("Submission", func(t *testing.T) { runSubmissions(t, h) })
	t.Run("Race", func(t *testing.T) { runRaces(t, h) })
	t.Run("LostEvents", func(t *testing.T) { runLostEvents(t, h) })
	t.Run("Retirement", func(t *testing.T) { runRetirements(t, h) })
}

// patience bounds what one test may wait: far longer than anything takes.
const patience = 2 * time.Minute

var (
	start  = time.Date(2031, time.March, 5, 7, 9, 11, 0, time.UTC)
	client = taskbridge.Principal{Subject: "alice"}
)

const (
	taskType     = "work"
	requestID    = "request-1"
	cancelReason = "no longer needed"
)

// submission is how patient the services under test are with runtimes.
var submission = taskbridge.SubmissionOptions{
	Deadline:     15 * time.Minute,
	UnknownLimit: 15 * time.Minute,
	Silence:      time.Minute,
}

// overLease is longer than a submission's lease and an instance's.
const overLease = 35 * time.Second

// world is what outlives a process: the stores, the runtime, the time.
type world struct {
	t       *testing.T
	ctx     context.Context
	clock   *fakes.ManualClock
	backend Backend
}

func newWorld(t *testing.T, h Harness) *world {
	t.Helper()
	clock := fakes.NewManualClock(start)
	// Not t.Context(): processes are stopped when that has ended already.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return &world{t: t, ctx: ctx, clock: clock, backend: h.New(t, clock)}
}

func missing(t *testing.T, capability string) {
	t.Helper()
	t.Logf("capability missing: %s; not checked: %s", capability, t.Name())
}
