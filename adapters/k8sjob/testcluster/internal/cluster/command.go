package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// grace is how long a command may take to end after a signal.
const grace = 20 * time.Second

// Run runs the command with the cluster's environment and returns its exit status,
// 128 and the signal's number if one ended it. When ctx ends, the command's process
// group gets SIGTERM, and SIGKILL after a grace. Nothing of the group is left.
func (c *Cluster) Run(ctx context.Context, name string, args ...string) (int, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), c.Environment()...)
	p, err := c.launcher.start(cmd)
	if err != nil {
		return 1, fmt.Errorf("start the command: %w", err)
	}
	group := -cmd.Process.Pid
	select {
	case <-p.ended:
	case <-ctx.Done():
		err = ignoreGone(syscall.Kill(group, syscall.SIGTERM))
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-p.ended:
		case <-late.C:
		}
	}
	err = errors.Join(err, ignoreGone(syscall.Kill(group, syscall.SIGKILL)))
	<-p.ended
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), err
	}
	return cmd.ProcessState.ExitCode(), err
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Describe tells somebody how to use the cluster.
func (c *Cluster) Describe(w io.Writer) {
	say(w, "A cluster is up (logs: %s). For tests, or with kubectl --kubeconfig:\n\n", c.Logs())
	for _, variable := range c.Environment() {
		if strings.HasPrefix(variable, "TASKBRIDGE_") {
			say(w, "  export %s\n", variable)
		}
	}
	say(w, "\nCtrl-C ends it.\n")
}
