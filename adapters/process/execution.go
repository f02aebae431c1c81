package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// execution is one run of a task's command.
type execution struct {
	*Executor
	job     *job
	command Command
	claim   string
	run     taskbridge.Run
	logger  *slog.Logger
}

// ending says why an execution ends.
type ending int

const (
	endedItself ending = iota
	endedCancelled
	endedFenced // the run can report nothing more
	endedStopped
	endedTimedOut
)

const (
	// startTimeout bounds one call of Start; calls are repeated.
	startTimeout = 30 * time.Second
	// recordPatience is for how long the store may be away when the outcome is
	// to be recorded.
	recordPatience = 15 * time.Minute
	// killPatience is how long processes may outlive SIGKILL before the task is
	// ended without them: they hang in the kernel.
	killPatience = 30 * time.Second
	// drainPatience bounds the recording of what the command had printed when
	// it ended.
	drainPatience = time.Minute
)

// execute runs the job's task, from its Start until its end is recorded.
func (e *Executor) execute(j *job) {
	x := &execution{
		Executor: e,
		job:      j,
		command:  e.commands[j.taskType],
		claim:    rand.Text(),
		logger:   e.logger.With("taskId", j.taskID, "taskType", j.taskType),
	}
	if !x.begin() {
		return
	}
	outcome, ok := x.perform()
	if ok {
		x.record(outcome)
	}
	if err := x.run.Close(); err != nil {
		x.logger.Warn("run not closed", "error", err)
	}
}

// begin starts the attempt; false: the command is not to be run.
func (x *execution) begin() bool {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		ctx, cancel := context.WithTimeout(x.hard, startTimeout)
		run, err := x.lifecycle.Start(ctx, x.job.taskID, taskbridge.Claim{ID: x.claim, Instance: x.instance})
		cancel()
		switch {
		case err == nil:
			x.run = run
			x.mu.Lock()
			x.job.begun = true
			x.mu.Unlock()
			return true
		case isAny(err, taskbridge.ErrNotRunnable, taskbridge.ErrTaskNotFound, taskbridge.ErrTaskFinished, taskbridge.ErrStaleAttempt):
			x.logger.Debug("task dropped", "reason", err)
			return false
		case isAny(err, taskbridge.ErrInvalidArgument, taskbridge.ErrClosed):
			x.logger.Error("task not started", "error", err)
			return false
		}
		x.logger.Warn("start of task not recorded yet", "error", err)
		timer := x.clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-x.stop:
			timer.Stop()
			return false // the next start of the server sees to it
		}
	}
}

// perform runs the command and returns the task's outcome; false: there is
// nothing to be recorded.
func (x *execution) perform() (taskbridge.Outcome, bool) {
	if why, stopped := x.stopped(); stopped {
		return x.interrupted(why, "the command was not started")
	}
	reporter := &reporter{run: x.run, clock: x.clock, logger: x.logger, plain: x.command.PlainLines}
	var cancelReports context.CancelFunc
	reporter.ctx, cancelReports = context.WithCancel(x.hard)
	defer cancelReports()

	c, err := x.spawn(reporter)
	if err != nil {
		return failed(notStarted(err)), true
	}
	x.logger.Debug("command started", "pid", c.identity.pid)
	why := x.watch(c)
	gone := x.end(c)
	drain := time.AfterFunc(drainPatience, cancelReports)
	state, err := c.finish()
	drain.Stop()
	if err != nil {
		x.logger.Error("end of command not seen in good form", "error", err)
	}
	if gone {
		err = x.records.remove(x.claim)
	} else {
		x.records.disown(x.claim)
	}
	if err != nil {
		x.logger.Error("record of execution not removed", "error", err)
	}
	x.logger.Debug("command ended", "state", describe(state))
	if why == endedItself {
		return exited(state, reporter, c.stderrTail.String()), true
	}
	if why == endedTimedOut {
		return failed(timedOut(x.command.Timeout, c.stderrTail.String())), true
	}
	return x.interrupted(why, "the command was stopped: "+describe(state))
}

// spawn puts the execution on record, starts the command, and adds to the
// record what it is found by.
func (x *execution) spawn(reporter *reporter) (*child, error) {
	if x.command.Dir != "" { // the error of a start does not tell it from the program
		if _, err := os.Stat(x.command.Dir); err != nil {
			return nil, fmt.Errorf("the working directory: %w", err)
		}
	}
	input := x.run.Task().Input
	own := []string{envTaskID + "=" + x.job.taskID, envTaskType + "=" + x.job.taskType, envClaim + "=" + x.claim}
	if len(input) <= maxEnvInput {
		own = append(own, envInput+"="+string(input))
	}
	if parent := x.run.Task().Traceparent; parent != "" {
		own = append(own, envTrace+"="+parent)
	}
	cmd := exec.Command(x.command.Path, x.command.Args...)
	cmd.Dir = x.command.Dir
	cmd.Env = x.command.environment(own...)

	rec := record{Claim: x.claim, TaskID: x.job.taskID, At: x.clock.Now().UTC(), Boot: bootID()}
	if err := x.records.begin(rec); err != nil {
		return nil, errors.Join(&recordError{err}, x.records.remove(x.claim))
	}
	c, err := startChild(cmd, input, x.command, x.claim, reporter.line)
	if err != nil {
		return nil, errors.Join(err, x.records.remove(x.claim))
	}
	c.identity.started, err = startTime(c.identity.pid)
	if err == nil {
		rec.PID, rec.Started = c.identity.pid, c.identity.started
		err = x.records.update(rec)
	}
	if err == nil {
		return c, nil
	}
	// Without its record it might go on unnoticed after this server.
	err = &recordError{err}
	if x.end(c) {
		err = errors.Join(err, x.records.remove(x.claim))
	}
	_, finishErr := c.finish()
	return nil, errors.Join(err, finishErr)
}

// recordError is a fault of this server, not of the command.
type recordError struct{ err error }

func (e *recordError) Error() string { return "the execution could not be recorded: " + e.err.Error() }
func (e *recordError) Unwrap() error { return e.err }

// stopped reports why the command should not be running, if so.
func (x *execution) stopped() (why ending, stopped bool) {
	select {
	case <-x.run.Done():
		return endedFenced, true
	default:
	}
	if x.cancelRequested() {
		return endedCancelled, true
	}
	select {
	case <-x.stop:
		return endedStopped, true
	default:
	}
	return endedItself, false
}

func (x *execution) cancelRequested() bool {
	select {
	case <-x.run.CancelRequested():
		return true
	case <-x.job.cancel:
		return true
	default:
		return false
	}
}

// watch waits until the command has ended or has to be.
func (x *execution) watch(c *child) ending {
	var timeout <-chan time.Time
	if x.command.Timeout > 0 {
		timer := x.clock.NewTimer(x.command.Timeout)
		defer timer.Stop()
		timeout = timer.C()
	}
	why := endedItself
	select {
	case <-c.exited:
	case <-timeout:
		why = endedTimedOut
	case <-x.run.Done():
		why = endedFenced
	case <-x.run.CancelRequested():
		why = endedCancelled
	case <-x.job.cancel:
		why = endedCancelled
	case <-x.stop:
		why = endedStopped
	}
	if why != endedItself && c.hasEnded() {
		return endedItself // before it was signalled: its own outcome counts
	}
	return why
}

// end ends all that belongs to the execution and reports whether it is gone.
func (x *execution) end(c *child) bool {
	grace := x.clock.NewTimer(x.grace)
	defer grace.Stop()
	if err := endProcesses(x.hard, newSearch(c.identity), grace.C(), killPatience); err != nil {
		x.logger.Error("processes of a task are still there; the next start of the server looks for them again", "error", err)
		return false
	}
	<-c.exited // at once: it is dead
	return true
}

// interrupted is the outcome of a command that was not let to its end.
func (x *execution) interrupted(why ending, how string) (taskbridge.Outcome, bool) {
	switch {
	case why == endedCancelled, why == endedStopped && x.cancelRequested():
		return taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: how}, true
	case why == endedStopped:
		return failed(taskbridge.Failure{Code: taskbridge.CodeExecutorLost, Message: "the server was stopped", Retryable: true}), true
	}
	x.logger.Debug("command stopped because its run is over", "reason", x.run.Err())
	return taskbridge.Outcome{}, false
}

// record ends the task. The outcome exists nowhere else, so that the run is
// given long to record it.
func (x *execution) record(outcome taskbridge.Outcome) {
	ctx, cancel := context.WithTimeout(x.hard, recordPatience)
	defer cancel()
	var err error
	switch outcome.Status {
	case taskbridge.StatusCompleted:
		err = x.run.Complete(ctx, outcome.Completion)
	case taskbridge.StatusCancelled:
		err = x.run.Cancelled(ctx, outcome.Message)
	default:
		err = x.run.Fail(ctx, outcome.Failure)
	}
	switch {
	case err == nil:
	case isAny(err, taskbridge.ErrTaskFinished, taskbridge.ErrStaleAttempt, taskbridge.ErrStaleProducer):
		x.logger.Debug("task has got another end", "reason", err)
	default:
		x.logger.Error("end of task not recorded", "status", outcome.Status, "error", err)
	}
}

// describe says how a command ended.
func describe(state *os.ProcessState) string {
	if state == nil {
		return "its end was not seen"
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	return fmt.Sprintf("exit status %d", state.ExitCode())
}
