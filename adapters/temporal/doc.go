// Package temporaladapter puts Temporal (go.temporal.io) behind TaskBridge: a task
// is a workflow, or a standalone activity, under the task's own id.
//
// The server's side is an [Executor]: it starts a workflow once however often a
// submission is repeated, passes cancellations on, and finds the ends that no
// worker tells of (terminations, time-outs, workers without the plugin). The
// worker's side is a plugin, [NewPlugin]: workflows that an executor started
// report their start and their end, each once under replay, and their code and
// activities can report progress ([ReportProgress], [ReporterFromContext]). Any
// other workflow on the same worker is left as it is.
//
// # What belongs where
//
// The state of the work stays in Temporal's history; events are what clients are
// shown. A workflow never reads back what it reported, and an end is taken from
// the latest run of the workflow: what a reset or a retry has replaced counts no
// more.
//
// # How a task ends
//
//	the workflow returns nil                 COMPLETED with its result
//	an application error                     FAILED, its type as the code
//	any other error                          FAILED TEMPORAL_FAILED
//	an error, and the workflow has retries   goes on; the last run's error counts
//	an activity or a child timed out         FAILED TEMPORAL_TIMED_OUT
//	a panic in an activity                   FAILED TEMPORAL_PANIC
//	a time-out of the workflow               FAILED TEMPORAL_TIMED_OUT
//	somebody terminated it                   FAILED TEMPORAL_TERMINATED
//	a client cancelled it                    CANCELLED, unless it returned nil
//
// The worker reports the first of these as they happen, the server finds the
// others by its sweep of closed workflows.
package temporaladapter
