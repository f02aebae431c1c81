// Package remote is the worker's side of the worker API: a
// [taskbridge.TaskLifecycle] whose server is elsewhere. Work that uses it cannot
// tell it from a local one, but for the time that a report takes.
//
// # Reports
//
// Progress, Message and Token return once the report is in the run's buffer. It
// goes out with others, in order, one request at a time, and each request is
// repeated as it was until the server is known to have it: nothing is lost,
// doubled or reordered by a network that drops, delays, repeats or cuts short.
// The buffer is bounded: progress that newer progress has overtaken gives way,
// everything else waits for room. Suspend and the ends wait for their answer,
// and so do all reports of a lifecycle that is Synchronous. [Flusher] waits for
// what is in the buffer. A run under a claim with an epoch buffers nothing.
//
// # When the server is away
//
// Whatever may pass (a broken connection, an answer cut short, 429, 5xx, an
// answer that is not the worker API's) is tried again, with growing pauses: by
// the run itself for as long as it lasts, by a call until its context ends. A run
// ends when the server says so: it was fenced, the task has ended, or the worker
// may not report any more.
//
// # Tokens
//
// A run keeps its attempt token fresh. One that expired all the same, as the
// process was stopped for a while, is renewed with the credential that the run
// was started with, and the run goes on where it was, unless another attempt has
// started meanwhile.
package remote
