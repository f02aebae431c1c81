package process

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// child is a running command with its pipes. The pipes are our own, not
// os/exec's: a process that the command leaves behind may hold them open, and
// must not keep the task from ending.
type child struct {
	cmd      *exec.Cmd
	identity identity
	exited   chan struct{} // closed when the command itself has ended
	waitErr  error         // of waiting for that; set before exited is closed

	stdin, stdout, stderr *os.File // our ends
	readers               sync.WaitGroup
	stderrTail            tail // after finish
}

// startChild starts the command, gives it the input and hands its standard
// output to line, from one goroutine, until finish.
func startChild(cmd *exec.Cmd, input []byte, command Command, claim string, line func(text []byte, size int)) (_ *child, err error) {
	c := &child{cmd: cmd, exited: make(chan struct{}), stderrTail: tail{limit: command.StderrTail}}
	var opened, theirs []io.Closer
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(opened))
		}
		// Only the command may hold these, or reading would not end.
		err = errors.Join(err, closeAll(theirs))
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				return r, w
			}
		}
		return nil, nil
	}
	inRead, inWrite := pipe()
	outRead, outWrite := pipe()
	errRead, errWrite := pipe()
	for _, f := range []*os.File{inWrite, outRead, errRead} {
		if f != nil {
			opened = append(opened, f)
		}
	}
	for _, f := range []*os.File{inRead, outWrite, errWrite} {
		if f != nil {
			theirs = append(theirs, f)
		}
	}
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inRead, outWrite, errWrite
	lead(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.stdin, c.stdout, c.stderr = inWrite, outRead, errRead
	c.identity = identity{pid: cmd.Process.Pid, claim: claim, child: true}
	go func() {
		c.waitErr = awaitExit(cmd)
		close(c.exited)
	}()
	c.readers.Go(func() {
		// The command need not read its input.
		_, _ = c.stdin.Write(append(append([]byte(nil), input...), '\n'))
		_ = c.stdin.Close()
	})
	c.readers.Go(func() { _ = readLines(&pipeReader{pipe: c.stdout}, command.MaxLine, line) })
	c.readers.Go(func() { _, _ = io.Copy(&c.stderrTail, &pipeReader{pipe: c.stderr}) })
	return c, nil
}

// hasEnded reports whether the command itself has ended.
func (c *child) hasEnded() bool {
	select {
	case <-c.exited:
		return true
	default:
		return isDead(c.identity.pid) // the news may be on its way
	}
}

// finish reads what the command has written and returns how it ended. Its
// processes are to be gone; what still holds the pipes is not waited for.
func (c *child) finish() (*os.ProcessState, error) {
	deadline := time.Now().Add(time.Second)
	err := errors.Join(
		ignoreClosed(c.stdin.Close()), // ends a write to somebody who does not read
		c.stdout.SetReadDeadline(deadline),
		c.stderr.SetReadDeadline(deadline),
	)
	c.readers.Wait()
	err = errors.Join(err, c.stdout.Close(), c.stderr.Close())
	select {
	case <-c.exited:
	default:
		return nil, errors.Join(err, errUnkillable) // its goroutine waits on for it
	}
	var exit *exec.ExitError
	if waitErr := reap(c.cmd); !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	return c.cmd.ProcessState, errors.Join(err, c.waitErr)
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func closeAll(closers []io.Closer) error {
	var err error
	for _, c := range closers {
		err = errors.Join(err, c.Close())
	}
	return err
}
