package conformance

import (
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// LifecycleHarness makes lifecycles for [RunLifecycle]. Both functions are
// required.
type LifecycleHarness struct {
	// NewStores opens empty stores: one [taskbridge.AtomicStore] as both, or two
	// separate ones. The suite makes rows in them, asks for cancellation by
	// writing the intent to the row, and reads what the lifecycle has recorded.
	NewStores func(t *testing.T) taskbridge.Stores
	// New makes a lifecycle that records in the stores of the options, with
	// their limits and delays. A remote one is given a server over them. It is
	// released with the end of the test t.
	New func(t *testing.T, opts taskbridge.LifecycleOptions) taskbridge.TaskLifecycle
	// Remote says that the lifecycle reaches its stores over a network. Then the
	// row of a server instance is not its to start; a start whose answer was lost
	// may count twice, and may find itself fenced; and the last try of a call that has
	// given up may still arrive.
	Remote bool
}

// counted reports whether a row counts so many starts.
func (h LifecycleHarness) counted(row taskbridge.Task, starts int64) bool {
	return row.Starts == starts || h.Remote && row.Starts > starts
}

// RunLifecycle checks every obligation of [taskbridge.TaskLifecycle] and
// [taskbridge.Run]. It passes the lifecycle stores that fail now and then.
func RunLifecycle(t *testing.T, h LifecycleHarness) {
	if h.NewStores == nil || h.New == nil {
		t.Fatal("LifecycleHarness.NewStores and New must not be nil")
	}
	runChecks(t, h, startChecks, runnableChecks, reportChecks, tokenChecks, suspendChecks,
		endChecks, outsideChecks, cancelChecks, closeChecks, fullStreamChecks, faultChecks, numberedChecks, verifyChecks)
}
