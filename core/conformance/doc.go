// Package conformance has the test suites that every implementation of
// TaskBridge's contracts runs: [RunTaskRegistry], [RunEventStore],
// [RunAtomicStore] and [RunLeaser] for stores, [RunLifecycle] for lifecycles,
// [RunExecutor] for executors against their real runtime.
//
// A suite is called from a test of the implementation's own:
//
//	func TestStore(t *testing.T) {
//		h := conformance.Harness[*Store]{New: open, Reopen: reopen}
//		conformance.RunTaskRegistry(t, h)
//		conformance.RunEventStore(t, h)
//		conformance.RunAtomicStore(t, h)
//	}
//
// A harness makes the thing under test and says what it can do. What a harness
// leaves out is logged by name ("capability missing: ..."), never skipped
// silently; everything else must hold, there is no list of accepted failures.
//
// The suites wait on events themselves under a generous deadline and never
// sleep. They are meant to run under the race detector.
package conformance
