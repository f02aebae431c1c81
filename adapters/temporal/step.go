package temporaladapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Step reports progress once for the name, whatever the number of the activity's
// attempts, and whenever their workers are killed: what is about to be reported,
// under which ordinal, is in the heartbeat's details before it is, beside the names
// that are done, so that the next attempt repeats that very report. It waits for
// both. An activity that uses Step must not record heartbeats of its own with
// RecordHeartbeat, whose details would take the place of these.
//
// In a local activity, which has no heartbeat, it is as [Reporter.Progress].
func (r *Reporter) Step(ctx context.Context, name string, progress taskbridge.Progress) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return taskbridge.ErrClosed
	}
	if err := r.readSteps(ctx); err != nil {
		return err
	}
	s := &r.steps
	if slices.Contains(s.kept.Done, name) {
		return nil
	}
	if r.run != nil { // what was reported before comes before
		if err := flush(ctx, r.run); err != nil && !errors.Is(err, taskbridge.ErrStaleProducer) {
			return err
		}
	}
	if !s.plain {
		err := r.numberedStep(ctx, name, progress)
		if s.plain = errors.Is(err, errUnnumbered); !s.plain {
			return err
		}
	}
	return r.plainStep(ctx, name, progress)
}

// numberedStep reports a step under an ordinal, behind the one that is in doubt.
func (r *Reporter) numberedStep(ctx context.Context, name string, progress taskbridge.Progress) error {
	s := &r.steps
	if s.doubtful {
		late := s.kept.Intent.Name
		if err := r.step(ctx); late == name || s.doubtful || errors.Is(err, errUnnumbered) {
			return err
		}
	}
	if err := r.intend(ctx, s.next(name, progress, r.plugin.Clock.Now())); err != nil {
		return err
	}
	return r.step(ctx)
}

// steps are what the heartbeat of an activity keeps of its reporter.
type steps struct {
	Done []string `json:"taskbridgeSteps"`
	// Intent is the step that is being reported.
	Intent *intent `json:"taskbridgeIntent,omitempty"`
}

// intent is a report that an attempt is about to make.
type intent struct {
	Name     string              `json:"name"`
	Progress taskbridge.Progress `json:"progress"`
	// Producer is whose the epoch is; versions that did not say so went by the
	// activity's id.
	Producer string `json:"producer,omitempty"`
	Epoch    int64  `json:"epoch"`
	Ordinal  int64  `json:"ordinal"`
	// Since is an event that it comes behind, 0 where none is known.
	Since int64 `json:"since,omitempty"`
}

// maxSteps bounds what a heartbeat keeps.
const maxSteps = 1000

// add notes that the step is done.
func (s *steps) add(name string) {
	s.Done = append(s.Done, name)
	if most := len(s.Done) - maxSteps; most > 0 {
		s.Done = s.Done[most:]
	}
}

// stepState is what a [Reporter] has of its steps.
type stepState struct {
	claim taskbridge.Claim // of their producer, without an epoch
	// formerly is the producer of an intent that names none.
	formerly string
	since    int64 // the place of the last one, or of what the workflow reported before
	read     bool
	kept     steps // by the heartbeat; Done may be ahead
	// doubtful: whether the intent was reported is not known, since an earlier
	// attempt had it, or an earlier call that failed.
	doubtful bool
	told     bool                   // that the activity is to stop
	plain    bool                   // reports have no ordinals
	run      taskbridge.NumberedRun // under the intent's epoch; nil: none
}

func (s *stepState) release() {
	if s.run != nil {
		_ = s.run.Close() // it has nothing that is not recorded
		s.run = nil
	}
}

// next numbers a step behind the one before.
func (s *stepState) next(name string, progress taskbridge.Progress, now time.Time) intent {
	next := intent{Name: name, Progress: progress, Producer: s.claim.Producer, Epoch: now.UnixMicro(), Ordinal: 1, Since: s.since}
	if last := s.kept.Intent; last != nil {
		next.Epoch, next.Ordinal = last.Epoch, last.Ordinal+1
	}
	return next
}

// readSteps takes over what the attempt before has left.
func (r *Reporter) readSteps(ctx context.Context) error {
	s := &r.steps
	if s.read {
		return nil
	}
	if s.plain = r.info.IsLocalActivity; !s.plain && activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &s.kept); err != nil {
			s.kept = steps{}
			return fmt.Errorf("read the steps that are done: %w", err)
		}
		if s.doubtful = s.kept.Intent != nil; s.doubtful {
			s.claim.Producer = cmp.Or(s.kept.Intent.Producer, s.formerly)
		}
	}
	s.read = true
	return nil
}

// errUnnumbered: the server knows of no ordinals of the caller's.
var errUnnumbered = errors.New("reports have no ordinals here")

// plainStep reports a step that nothing but the heartbeat behind it keeps from
// being repeated.
func (r *Reporter) plainStep(ctx context.Context, name string, progress taskbridge.Progress) error {
	if err := r.reportLocked(ctx, func(run taskbridge.Run) error {
		if err := run.Progress(ctx, progress); err != nil {
			return err
		}
		return flush(ctx, run)
	}); err != nil {
		return err
	}
	r.steps.kept.add(name)
	if r.info.IsLocalActivity {
		return nil
	}
	return r.keep(ctx, steps{Done: r.steps.kept.Done})
}

// step reports the step of the intent.
func (r *Reporter) step(ctx context.Context) error {
	s := &r.steps
	again := s.doubtful
	s.doubtful = true
	for climb := (climbing{epoch: s.kept.Intent.Epoch}); ; {
		i := *s.kept.Intent
		report := taskbridge.Report{Ordinal: i.Ordinal, Progress: &i.Progress}
		switch {
		case r.alone: // nobody shares the producer; and the report may be of the task's attempt before
		case again && climb.steps > 0 && i.Since > 0:
			report.Verify, report.Since = taskbridge.VerifyAlways, i.Since
		default:
			report.Verify, report.Since = taskbridge.VerifyDuplicate, i.Since
		}
		reported, err := r.reportStep(ctx, report)
		if err == nil && len(reported.Refused) > 0 {
			err = reported.Refused[0].Err
		}
		if err == nil {
			s.doubtful = false
			s.since = max(s.since, reported.Sequence)
			s.kept.add(i.Name)
			return nil
		}
		if _, passing := judged(err); passing == nil || errors.Is(err, errUnnumbered) {
			s.doubtful = false // it is not, and never will be
			return err
		}
		if !reusedOrStale(err) || !climb.up(r.plugin.Clock.Now()) {
			return err
		}
		// Activities share producers. Whether this attempt still is the one that
		// counts is said by the answer to the heartbeat.
		i.Epoch = climb.epoch
		if err := r.intend(ctx, i); err != nil {
			return err
		}
	}
}

// intend writes down what is about to be reported, with what is done.
func (r *Reporter) intend(ctx context.Context, next intent) error {
	if last := r.steps.kept.Intent; last != nil && last.Epoch != next.Epoch {
		r.steps.release()
	}
	if err := r.keep(ctx, steps{Done: r.steps.kept.Done, Intent: &next}); err != nil {
		return err
	}
	r.steps.kept.Intent = &next
	return nil
}

// keep records a heartbeat with the details. [taskbridge.ErrStaleAttempt]: the
// attempt was replaced.
func (r *Reporter) keep(ctx context.Context, details steps) error {
	err := activity.GetClient(ctx).RecordActivityHeartbeat(ctx, r.info.TaskToken, details)
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
		return fmt.Errorf("%w: %w", taskbridge.ErrStaleAttempt, err)
	case temporal.IsCanceledError(err), errors.Is(err, activity.ErrActivityPaused), errors.Is(err, activity.ErrActivityReset):
		// It is kept, and the activity is to stop: the SDK hears of it by a heartbeat
		// of its own, and ends ctx.
		if !r.steps.told {
			r.steps.told = true
			activity.RecordHeartbeat(ctx, details)
		}
	case err != nil:
		return fmt.Errorf("record a heartbeat: %w", err)
	}
	return nil
}

// reportStep makes the report under the intent's epoch.
func (r *Reporter) reportStep(ctx context.Context, report taskbridge.Report) (taskbridge.Reported, error) {
	s := &r.steps
	if s.run == nil {
		claim := s.claim
		claim.Epoch = s.kept.Intent.Epoch
		run, err := r.plugin.recorder.start(ctx, r.taskID, claim)
		if err != nil {
			return taskbridge.Reported{}, err
		}
		numbered, ok := run.(taskbridge.NumberedRun)
		if !ok {
			return taskbridge.Reported{}, errors.Join(errUnnumbered, run.Close())
		}
		s.run = numbered
	}
	reported, err := s.run.Report(ctx, []taskbridge.Report{report})
	if s.run.Err() != nil {
		s.release()
	}
	return reported, err
}
