package k8sjob

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// attempt is a pod whose work has begun, as an attempt of the task. It belongs to
// whoever has the key of its Job.
type attempt struct {
	pod    *podLevel
	run    taskbridge.NumberedRun // nil: not started here yet
	reader *reader                // of its output, nil: none yet
	// over: it is fenced, or all that it said is known. mute: its reports cannot be
	// recorded, and it is read for the rest.
	over, mute bool
	said       said
	// awaited is since when its output is waited for, to go on with the Job.
	awaited time.Time
	retryAt time.Time
	tries   int
	heard   hearing
}

// hearing is how far the reading of an output has come, over all its tries.
type hearing struct {
	// at is when it last came further, or was held up by the API server or the
	// store, Unix nanoseconds.
	at      atomic.Int64
	ordinal atomic.Int64 // to which report
	// failing is since when no report was recorded, 0: the last one was.
	failing atomic.Int64
}

// maxHold is for how long reports that are not recorded hold up the end of a task: by
// then it is not the store that is away, but a report that it does not take.
const maxHold = time.Hour

// reader is one reading of a pod's output, from its beginning.
type reader struct {
	stop context.CancelFunc
	done chan struct{}
	// These are for whoever has seen done closed.
	said said
	err  error
}

// claimProducer names our reports among those of a claim: work that reports over the
// worker API has the same claim.
const claimProducer = "kubernetes"

// claim is the identity of the pod's work. Its epoch is the same for all who read the
// pod's output, since what is reported is a function of that, and higher for a later
// pod, whose ordinals begin anew. Of pods of one second the later has the later lines,
// and with them the higher ordinals.
func (p *podLevel) claim() taskbridge.Claim {
	return taskbridge.Claim{ID: string(p.uid), Producer: claimProducer, Epoch: max(p.created, 1)}
}

// errLifecycle is of a lifecycle without what Options.Lifecycle asks for.
var errLifecycle = errors.New("the runs of Options.Lifecycle are no taskbridge.NumberedRun")

// start starts the attempt, or joins it.
func (t *term) start(ctx context.Context, tr *track, a *attempt) error {
	run, err := t.Lifecycle.Start(ctx, tr.job.taskID, a.pod.claim())
	if err != nil {
		return err
	}
	numbered, ok := run.(taskbridge.NumberedRun)
	if !ok {
		return errors.Join(errLifecycle, run.Close())
	}
	a.run = numbered
	t.aside.Go(func() {
		select {
		case <-numbered.Done():
			if !errors.Is(numbered.Err(), taskbridge.ErrClosed) {
				t.queue.Add(tr.key) // it was fenced, or the task has ended
			}
		case <-t.ctx.Done():
		}
	})
	return nil
}

// read has the attempt's output read, if that is how its work reports.
func (t *term) read(tr *track, a *attempt, now time.Time) (wait time.Duration) {
	options := t.limits(tr.job)
	switch {
	case a.over || a.run == nil:
		return 0
	case options.Reports == ReportWorkerAPI:
		a.over = a.pod.ended()
		return 0
	case a.reader != nil:
		return t.readAgain(tr, a, now)
	}
	ctx, stop := context.WithCancel(t.ctx)
	r := &reader{stop: stop, done: make(chan struct{})}
	a.reader = r
	pod, container, run := a.pod.object(), a.pod.container, &heardRun{a.run, t.Clock, &a.heard, a.mute}
	t.aside.Go(func() {
		defer stop()
		r.said, r.err = t.follow(ctx, pod, container, options, run)
		close(r.done)
		t.queue.Add(tr.key)
	})
	return 0
}

// readAgain takes what a reading that has ended found, or begins another one where it
// has failed.
func (t *term) readAgain(tr *track, a *attempt, now time.Time) (wait time.Duration) {
	select {
	case <-a.reader.done:
	default:
		return 0
	}
	err := a.reader.err
	a.said = a.reader.said
	switch {
	case t.ctx.Err() != nil:
		return 0 // it was stopped, with all else
	case err == nil,
		errors.Is(err, taskbridge.ErrStaleAttempt),
		errors.Is(err, taskbridge.ErrTaskFinished), errors.Is(err, taskbridge.ErrTaskNotFound):
		a.over = true
		return 0
	case errors.Is(err, taskbridge.ErrStaleProducer):
		// By the API server's clock an earlier pod is younger. The result still counts.
		t.Logger.Error("what a pod reports cannot be recorded, since its time of creation is before that of an earlier pod",
			"taskId", tr.job.taskID, "pod", a.pod.name)
		a.mute, a.reader = true, nil
		return t.read(tr, a, now)
	case a.retryAt.IsZero():
		t.Logger.Warn("reading a pod's output failed, trying again", "taskId", tr.job.taskID, "pod", a.pod.name, "error", err)
		a.retryAt = now.Add(min(retryMin<<min(a.tries, 20), retryMax))
		a.tries++
	}
	if wait = a.retryAt.Sub(now); wait > 0 {
		return wait
	}
	a.reader, a.retryAt = nil, time.Time{}
	return t.read(tr, a, now)
}

// await returns how long to wait for the attempt's output, 0: it is over. It is not
// waited for when nothing of it came for Options.OutputTimeout, though API server and
// store answered, or after the time hard if that is set: then what was read so far is
// all.
func (t *term) await(ctx context.Context, tr *track, a *attempt, now, hard time.Time) (wait time.Duration, err error) {
	if a.awaited.IsZero() {
		a.awaited = now
	}
	if a.over || a.run == nil || a.reader == nil {
		return t.prove(ctx, tr, a, now)
	}
	quiet := a.awaited
	if heard := time.Unix(0, a.heard.at.Load()); heard.After(quiet) {
		quiet = heard
	}
	until := quiet.Add(t.OutputTimeout)
	if !hard.IsZero() && hard.Before(until) {
		until = hard
	}
	if wait = until.Sub(now); wait > 0 {
		return wait, nil
	}
	a.reader.stop()
	<-a.reader.done
	a.said = a.reader.said
	if a.reader.err == nil {
		a.over = true
		return t.prove(ctx, tr, a, now)
	}
	t.Logger.Error("a pod's output was not read to its end in time; what it still says is lost",
		"taskId", tr.job.taskID, "pod", a.pod.name, "error", a.reader.err)
	err = t.notice(ctx, tr, noticeOutput, a.pod.created, taskbridge.LevelWarning, unreadOutput(a.pod))
	if a.over = err == nil; !a.over {
		a.awaited = now // the store is away: what is said is heard again
	}
	return 0, err
}

// prove tells that output may be missing if its pod was gone before it could be asked
// how its container fared, and no cache knows of the container's end either: the API
// server ends a log in the same way when it loses the node.
func (t *term) prove(ctx context.Context, tr *track, a *attempt, now time.Time) (wait time.Duration, err error) {
	if !a.said.Unproven {
		return 0, nil
	}
	if !a.pod.endKnown() {
		if wait = a.awaited.Add(behindLimit).Sub(now); wait > 0 && !t.departed(tr, a.pod) {
			return wait, nil
		}
		if err := t.notice(ctx, tr, noticeLog, a.pod.created, taskbridge.LevelWarning, missingOutput); err != nil {
			return 0, err
		}
	}
	a.said.Unproven = false
	return 0, nil
}

// close ends what the attempt has at work. It may be called again.
func (a *attempt) close() error {
	if a.reader != nil {
		a.reader.stop()
		<-a.reader.done
	}
	if a.run == nil {
		return nil
	}
	return a.run.Close()
}

// heardRun notes how far the reading has come, or what holds it up.
type heardRun struct {
	taskbridge.NumberedRun
	clock taskbridge.Clock
	heard *hearing
	mute  bool
}

// Report is the run's, or does nothing.
func (r *heardRun) Report(ctx context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	if r.mute {
		return taskbridge.Reported{}, ctx.Err()
	}
	reported, err := r.NumberedRun.Report(ctx, reports)
	switch now := r.clock.Now(); {
	case err == nil:
		r.heard.failing.Store(0)
	case errors.Is(ctx.Err(), context.Canceled):
	default: // the store is away, or hangs, or nothing more is recorded anyway
		r.heard.failing.CompareAndSwap(0, now.UnixNano())
		if now.Sub(time.Unix(0, r.heard.failing.Load())) < maxHold {
			r.hold()
		}
	}
	if n := len(reports); err == nil && n > 0 && reports[n-1].Ordinal > r.heard.ordinal.Load() {
		r.heard.ordinal.Store(reports[n-1].Ordinal)
		r.heard.at.Store(r.clock.Now().UnixNano())
	}
	return reported, err
}

// hold notes that the reading could not come further now.
func (r *heardRun) hold() { r.heard.at.Store(r.clock.Now().UnixNano()) }

// unstartedRun is of work that ended before anybody could start it: its output is read
// for the result, and no reports of it are recorded.
type unstartedRun struct {
	taskbridge.NumberedRun // nil: nothing else is called
	task                   taskbridge.Task
}

func (r unstartedRun) Task() taskbridge.Task { return r.task }
func (r unstartedRun) Done() <-chan struct{} { return nil }
func (r unstartedRun) Close() error          { return nil }
