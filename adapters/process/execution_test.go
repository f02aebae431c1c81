//go:build linux

package process

import (
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// overRun is a run of which everything has happened at once.
type overRun struct{ taskbridge.Run }

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (overRun) Done() <-chan struct{}            { return closedChannel() }
func (overRun) CancelRequested() <-chan struct{} { return closedChannel() }

func TestACommandThatHasEndedKeepsItsOutcomeWhateverElseHappens(t *testing.T) {
	x := &execution{
		Executor: &Executor{clock: taskbridge.SystemClock{}, stop: closedChannel()},
		job:      &job{cancel: closedChannel()},
		command:  Command{Timeout: time.Nanosecond},
		run:      overRun{},
	}
	for range 200 {
		if why := x.watch(&child{exited: closedChannel()}); why != endedItself {
			t.Fatalf("it ended for the reason %d", why)
		}
	}
}
