package temporaladapter

import (
	"context"
	"errors"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// numbering is what the reports of a run of a workflow are numbered by. Only the
// run's coroutines touch it, one at a time.
type numbering struct {
	epoch int64
	// tickets counts the reports that were asked for, served those that are over:
	// they are recorded one after the other, in the order of their ordinals.
	tickets, served int64
	since           int64 // the place of the last one in the stream, 0 before the first
	// search: nobody else reports as this producer, nor has done before the event
	// that since is.
	search bool
	// children and activities count those that were called; names is how many the
	// children have.
	children, activities, names uint32
}

// numberingKey is the header's key of what a run hands on: to a child that reports,
// and to the run that continues it.
const numberingKey = "taskbridge-reports"

// handedOn is the content of that header.
type handedOn struct {
	// Epoch is the last one of the run before, Since the place of its last report.
	Epoch int64 `json:"epoch,omitempty"`
	Since int64 `json:"since,omitempty"`
	// Turn picks the name that a child or an activity reports under; 0 where a version
	// has called it that gave none.
	Turn uint32 `json:"turn,omitempty"`
	// Children and Activities count those that the runs before have called. Names is
	// how many the children have.
	Children   uint32 `json:"children,omitempty"`
	Activities uint32 `json:"activities,omitempty"`
	Names      uint32 `json:"names,omitempty"`
}

// newNumbering begins the numbering of a run that has begun at the time: every
// later run of its chain begins later, and a reset repeats the one that it resets.
// Clocks may differ; what the run before has handed on may not be undercut.
func newNumbering(begun time.Time, before handedOn, search bool) *numbering {
	return &numbering{
		epoch: max(1, begun.UnixMicro(), before.Epoch+1), since: before.Since, search: search,
		children: before.Children, activities: before.Activities, names: formerChildReporters,
	}
}

// betweenRetries is by how much a clock may go back between a run and the one that
// Temporal starts in its place.
const betweenRetries = time.Hour

// retried has the epoch of a run, of which so many were tried before, be above theirs
// whatever the clocks say: nothing of them is handed on.
func (n *numbering) retried(attempt int32) {
	const most = 1_000_000 // they last for a century then
	n.epoch += min(max(0, int64(attempt)-1), most) * betweenRetries.Microseconds()
	n.epoch = min(n.epoch, taskbridge.MaxReportOrdinal)
}

// take notes the answer to a report.
func (n *numbering) take(answer verdict) {
	n.epoch = max(n.epoch, answer.Epoch)
	if answer.Sequence > 0 {
		n.since = answer.Sequence
	}
}

// number records progress or a message under its ordinal: once, whoever makes the
// recording again, this worker or another one. Where the report that the epoch has
// under the ordinal is another one, and where the epoch was fenced, it goes on
// under a higher epoch, which the history keeps.
//
// A workflow's epoch is fenced by its own runs alone, so what it may have reported
// under a lower one is searched for. Children share producers, and what is like a
// report of theirs may be another's: of those one that is made again just when
// another one fences it comes twice.
func (r *recorder) number(ctx context.Context, event taskEvent) (verdict, error) {
	report := taskbridge.Report{
		Ordinal: event.Ordinal, Progress: event.Progress, Message: event.Message,
		Verify: taskbridge.VerifyDuplicate, Since: event.Since,
	}
	for climb := (climbing{epoch: event.Epoch}); ; {
		again := event
		again.Epoch = climb.epoch
		reported, err := r.numberOnce(ctx, again, report)
		if reusedOrStale(err) {
			// Under the same epoch it is searched for and not recorded: what is there does
			// not take the place of another epoch, and of the next report nothing is said.
			if event.Search && report.Verify == taskbridge.VerifyDuplicate {
				report.Verify = taskbridge.VerifyAlways
				continue
			}
			if climb.up(r.clock.Now()) {
				continue
			}
		}
		if err == nil && len(reported.Refused) > 0 {
			err = reported.Refused[0].Err
		}
		answer, err := judged(err)
		if answer.Sequence = reported.Sequence; climb.epoch != event.Epoch {
			answer.Epoch = climb.epoch
		}
		return answer, err
	}
}

// numberOnce makes the report under one epoch.
func (r *recorder) numberOnce(ctx context.Context, event taskEvent, wanted taskbridge.Report) (taskbridge.Reported, error) {
	run, err := r.join(ctx, event)
	if err != nil {
		return taskbridge.Reported{}, err
	}
	numbered, ok := run.(taskbridge.NumberedRun)
	if !ok {
		err := report(ctx, run, event)
		return taskbridge.Reported{}, errors.Join(err, run.Close())
	}
	reported, err := numbered.Report(ctx, []taskbridge.Report{wanted})
	_ = run.Close() // it has nothing that is not recorded
	return reported, err
}

// reusedOrStale reports whether a report has to go under a higher epoch.
func reusedOrStale(err error) bool {
	return errors.Is(err, taskbridge.ErrOrdinalReused) || errors.Is(err, taskbridge.ErrStaleProducer)
}

// climbing looks for an epoch that is not fenced. The next one comes first: it is
// the same for all who repeat one report.
type climbing struct {
	epoch int64
	steps int
}

// beyond are how far the clocks of others may be ahead of this one.
var beyond = [...]time.Duration{0, time.Second, time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}

// up goes to the next epoch; false: there is none that could be another's.
func (c *climbing) up(now time.Time) bool {
	if c.steps > len(beyond) || c.epoch == taskbridge.MaxReportOrdinal {
		return false
	}
	next := int64(0)
	if c.steps > 0 {
		next = now.Add(beyond[c.steps-1]).UnixMicro()
	}
	c.epoch = max(c.epoch+1, next)
	c.steps++
	return true
}
