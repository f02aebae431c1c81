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

// search looks for the processes of some executions, again and again.
type search struct {
	ids    []identity
	groups map[int]bool   // sessions and groups that are certainly theirs
	seen   map[int]string // when the processes of the last look were started
}

func newSearch(ids ...identity) *search {
	return &search{ids: ids, groups: make(map[int]bool)}
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
func endProcesses(ctx context.Context, s *search, force <-chan time.Time, patience time.Duration) error {
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
		left, err := s.look()
		switch {
		case err == nil && len(left) == 0:
			// A process that was born behind the back of the first look is
			// there for the second.
			if gone++; gone == 2 {
				return nil
			}
			continue
		case killing:
			err = errors.Join(err, s.kill(left))
		case !asked:
			asked = true
			// A stopped process acts on SIGTERM only when it is continued.
			err = errors.Join(err, s.signal(left, syscall.SIGTERM), s.signal(left, sigContinue))
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

// kill stops the processes before it kills them: what one of them gives birth to
// between a look and its end would have no parent to be found by.
func (s *search) kill(left []process) error {
	const rounds = 10 // for one that does not stop, since it hangs in the kernel
	var err error
	stopped := make(map[process]bool)
	for range rounds {
		var fresh []process
		for _, p := range left {
			if !stopped[p] {
				stopped[p] = true
				fresh = append(fresh, p)
			}
		}
		if len(fresh) == 0 {
			break
		}
		if err = s.signal(fresh, sigStop); err != nil {
			break
		}
		if left, err = s.look(); err != nil {
			break
		}
	}
	return errors.Join(err, s.signal(left, syscall.SIGKILL))
}

// signal signals whole groups, which misses no process, and the rest singly, also
// what is in this process's own group.
func (s *search) signal(left []process, sig syscall.Signal) error {
	groups := make(map[int]bool)
	for _, id := range s.ids {
		if id.child {
			groups[id.pid] = true // also if the look has failed
		}
	}
	var err error
	for _, p := range left {
		if s.groups[p.group] && !ownGroup(p.group) {
			groups[p.group] = true
		} else {
			err = errors.Join(err, p.signal(sig))
		}
	}
	for group := range groups {
		err = errors.Join(err, signalGroup(group, sig))
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
