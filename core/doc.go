// Package taskbridge stands between clients and long-running work that runs
// on somebody else's runtime. It holds the vocabulary (tasks, events, attempts,
// cursors), the contracts that storage and runtimes fulfil ([TaskRegistry],
// [EventStore], [TaskExecutor], [Leaser]), and the services over them: creation
// that is idempotent, polling and live replay, cancellation, ownership, and the
// reconciliation of what a crash or a silent runtime left undone.
//
// It imports the standard library alone and never an adapter.
//
// # Promises
//
// An accepted task is never lost and is never started twice by TaskBridge. A
// stream has no gap, no loss and no reordering, and says so if a cursor cannot
// be honoured. Every stream ends exactly once and agrees with the task's row.
// Nobody but an administrator sees another owner's task.
//
// # Where to begin
//
// [New] wires all services over a store and an [ExecutorRouter]. Package memory
// has a store for tests and demonstrations, package conformance the suites
// which every store and executor must pass.
package taskbridge
