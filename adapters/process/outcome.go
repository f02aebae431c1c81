package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Failure codes of this package.
const (
	// CodeExitStatus: the command ended with a status other than 0. The message
	// has the status and the end of standard error.
	CodeExitStatus = "EXIT_STATUS"
	// CodeSignalled: a signal that was not sent by the executor killed the
	// command (the kernel, for want of memory, say). The message has the signal
	// and the end of standard error.
	CodeSignalled = "SIGNALLED"
	// CodeTimedOut: the command ran longer than Command.Timeout.
	CodeTimedOut = "TIMED_OUT"
	// CodeCommandNotStarted: the command was not started. It is retryable only
	// where the machine lacked something for the moment, not for a program
	// that is missing, say.
	CodeCommandNotStarted = "COMMAND_NOT_STARTED"
)

func failed(failure taskbridge.Failure) taskbridge.Outcome {
	return taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: failure}
}

// exited is the outcome of a command that ended by itself.
func exited(state *os.ProcessState, reports *reporter, stderr string) taskbridge.Outcome {
	switch {
	case reports.failure != nil:
		return failed(*reports.failure)
	case state == nil:
		return failed(taskbridge.Failure{Code: taskbridge.CodeExecutorLost, Message: "the command's end was not seen", Retryable: true})
	case state.Success():
		return taskbridge.Outcome{
			Status:     taskbridge.StatusCompleted,
			Completion: taskbridge.Completion{Result: reports.result},
		}
	}
	code := CodeExitStatus
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = CodeSignalled
	}
	return failed(taskbridge.Failure{Code: code, Message: withStderr(describe(state), stderr)})
}

func timedOut(limit time.Duration, stderr string) taskbridge.Failure {
	return taskbridge.Failure{Code: CodeTimedOut, Message: withStderr(fmt.Sprintf("the command ran longer than %s", limit), stderr)}
}

func withStderr(text, stderr string) string {
	if stderr == "" {
		return text
	}
	return text + "\n" + stderr
}

// notStarted is the failure for an error that kept the command from running.
func notStarted(err error) taskbridge.Failure {
	var unrecorded *recordError
	passing := errors.As(err, &unrecorded) || isAny(err,
		syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY)
	return taskbridge.Failure{Code: CodeCommandNotStarted, Message: err.Error(), Retryable: passing}
}
