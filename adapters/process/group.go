package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// identity is what the processes of an execution are found by.
type identity struct {
	pid     int    // of the leader of its session and group; 0: not known
	started string // when the leader was, see startTime
	claim   string
	// child: the leader is a child of ours that has not been waited for, so that
	// the group's number is certainly its own.
	child bool
}

// process is one process as it was when it was looked at.
type process struct {
	pid, parent, group, session int
	started                     string
	ended                       bool // only its parent's wait is missing
}

// errUnkillable: processes were still there long after SIGKILL.
var errUnkillable = errors.New("processes do not end after SIGKILL")

// endProcesses sends SIGTERM to everything that belongs to the executions, once,
// and SIGKILL to what is left when force receives or ctx ends, again and again.
// It returns nil once nothing lives; it gives up patience after the first
// SIGKILL (zero: never), and soon after ctx has ended, with an error.
//
// There is no event for the end of processes that are not one's children:
// they are looked for at short intervals.
func endProcesses(ctx context.Context, ids []identity, force <-chan time.Time, patience time.Duration) error {
	const (
		firstPause, longestPause = 2 * time.Millisecond, 100 * time.Millisecond
		lastPatience             = 3 * time.Second
	)
	var (
		asked, killing bool
		gone           int // looks that found nothing
		giveUp         <-chan time.Time
		hurry          = ctx.Done()
		pause          = time.Duration(0)
	)
	for {
		left, err := living(ids)
		switch {
		case err == nil && len(left) == 0:
			// A process that was born behind the back of the first look is
			// there for the second.
			if gone++; gone == 2 {
				return nil
			}
			continue
		case killing:
			err = errors.Join(err, signalAll(ids, left, syscall.SIGKILL))
		case !asked:
			asked = true
			// A stopped process acts on SIGTERM only when it is continued.
			err = errors.Join(err, signalAll(ids, left, syscall.SIGTERM), signalAll(ids, left, sigContinue))
		}
		gone = 0
		pause = min(max(2*pause, firstPause), longestPause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-force:
			force, killing, pause = nil, true, 0
			if patience > 0 {
				giveUp = time.After(patience)
			}
		case <-hurry:
			hurry, force, killing, pause = nil, nil, true, 0
			giveUp = time.After(lastPatience)
		case <-giveUp:
			timer.Stop()
			return errors.Join(fmt.Errorf("%w: %v", errUnkillable, pids(left)), err)
		}
		timer.Stop()
	}
}

// signalAll signals whole groups, which misses no process, and the rest singly:
// also what is in this process's own group.
func signalAll(ids []identity, left []process, sig syscall.Signal) error {
	groups := make(map[int]bool)
	for _, id := range ids {
		if id.pid != 0 && !ownGroup(id.pid) {
			groups[id.pid] = id.child
		}
	}
	var err error
	for _, p := range left {
		if _, ok := groups[p.group]; ok {
			groups[p.group] = true
		} else {
			err = errors.Join(err, p.signal(sig))
		}
	}
	for group, ours := range groups {
		if ours {
			err = errors.Join(err, signalGroup(group, sig))
		}
	}
	return err
}

func pids(ps []process) []int {
	numbers := make([]int, len(ps))
	for i, p := range ps {
		numbers[i] = p.pid
	}
	return numbers
}
