// Package asynqadapter puts asynq (github.com/hibiken/asynq) behind TaskBridge:
// tasks are enqueued over Redis, and handlers of an asynq server run them.
//
// The server's side is an [Executor]: it enqueues a task under its own id, so
// that a repeated submission is recognised, takes out what waits when it is
// cancelled, and tells what became of a task. The worker's side is [Handle], or
// [Worker.Middleware] for handlers that exist already: it starts the attempt,
// gives the work a context that ends when a client cancels, and records the end
// before asynq does, so that a repeated delivery finds the task finished.
//
// asynq delivers at least once. What is exact here is what is recorded: one
// TASK_STARTED, one end, and nothing of an attempt that another has replaced. A
// handler's side effects happen once for each attempt, so work that must not be
// done twice has to recognise itself, as with asynq alone.
//
// # How a task ends
//
//	the handler returns nil              COMPLETED with its result
//	an error, and retries are left       goes on: a warning, and asynq's retry
//	an error that wraps asynq.SkipRetry  FAILED ASYNQ_HANDLER_ERROR
//	an error, and no retry is left       FAILED ASYNQ_RETRIES_EXHAUSTED
//	a panic, and no retry is left        FAILED ASYNQ_HANDLER_PANIC
//	the time-out, and no retry is left   FAILED ASYNQ_TIMED_OUT
//	the deadline                         FAILED ASYNQ_DEADLINE_EXCEEDED
//	a client cancelled it                CANCELLED, unless the handler returned nil
//	its worker died too often            FAILED ASYNQ_LEASE_EXPIRED
//	somebody archived or deleted it      FAILED ASYNQ_ARCHIVED, ASYNQ_DELETED
//
// An error that is a [Failure] brings its own code, see [Fail].
package asynqadapter
