// Package process runs tasks as local commands: an HTTP front with progress,
// resume and cancellation for any script or program of one machine.
//
// [New] makes an [Executor] from task types to commands. A task's command gets
// the input on its standard input, tells progress and its result by printing
// lines that begin with "::taskbridge " (see taskbridge.LineReport), and ends
// the task by exiting.
//
// # What the command is given
//
// Standard input is the task's input, one line of JSON. The environment has
//
//   - TASKBRIDGE_TASK_ID, TASKBRIDGE_TASK_TYPE
//   - TASKBRIDGE_CLAIM: random for this execution; the processes of a command
//     are found by it
//   - TASKBRIDGE_INPUT: the input again, if it has at most 32 KiB
//   - TRACEPARENT: the W3C trace context that the task was created under, if
//     there is one
//
// beside [Command.Env] and what [Command.InheritEnv] lets through. The input
// never becomes part of a command line, and no shell is run unless it is the
// command.
//
// # How a task ends
//
//	exit status 0                   COMPLETED with the last "result", else null
//	a "fail" report, however it     FAILED with that failure, the last one
//	  exits
//	another exit status             FAILED EXIT_STATUS
//	killed by a signal not of ours  FAILED SIGNALLED
//	longer than Command.Timeout     FAILED TIMED_OUT
//	could not be started            FAILED COMMAND_NOT_STARTED
//	cancelled by a client           CANCELLED
//	the executor was closed         FAILED EXECUTOR_LOST, retryable
//
// A cancellation that was asked for while the command was running ends the task
// CANCELLED whatever the exit status: a script that handles SIGTERM and exits 0
// has stopped early, and a client that cancelled is not told "completed" by it.
// A command that had ended before its signal keeps its own outcome.
//
// # What belongs to an execution
//
// The command leads a session and process group of its own. All of it, on Linux
// moreover every process that carries the execution's TASKBRIDGE_CLAIM in its
// environment and all descendants of these, is sent SIGTERM and, after the
// grace, SIGKILL: when the task is cancelled, timed out or fenced, when the
// executor is closed, and when the command has ended by itself and left
// something behind. The task's end is recorded after they are gone. What is to
// outlive its task must be started without the claim and in a session of its
// own: env -u TASKBRIDGE_CLAIM setsid COMMAND.
//
// Each execution is on record in [Options.StateDir] before its command is
// started. A server that was killed leaves the records, and
// [Executor.KillSurvivors] of the next one ends what they name.
//
// It runs on Linux and, with the limits that KillSurvivors names, on macOS and
// the BSDs; elsewhere New returns an error.
package process
