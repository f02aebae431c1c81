package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// track is what a term remembers of a Job. But for what mu guards it belongs to
// whoever has the Job's key from the queue.
type track struct {
	key      string
	job      *jobLevel // as last looked at
	attempts map[types.UID]*attempt
	noticed  map[string]int64 // the last ordinal of each source

	// row is when the task's row was looked at last.
	row time.Time
	// ended: the task's row has ended. recorded: the cluster has been told. stopped
	// is when the Job was last told to stop.
	ended, recorded bool
	stopped         time.Time
	refused         time.Time // when the cluster last refused to be told
	// unknown counts the looks that found no row.
	unknown int
	foreign bool // it was told that the Job is no task's
	// behind is since when the cache of pods is behind that of Jobs; listed: it was
	// made up for.
	behind time.Time
	listed bool
	gone   time.Time // since when the Job is not there

	// Under the term's mu: what has left the caches.
	lastJob  *jobLevel
	lastPods []*podLevel
}

const (
	// stepTimeout bounds one look at a Job.
	stepTimeout = 30 * time.Second
	// rowInterval is the time between looks at the row of a task whose work has not
	// begun. Of one that has, its run tells.
	rowInterval = time.Minute
	// barredInterval is that of a task which waits for its submission to be known.
	barredInterval = 2 * time.Second
	// cleanupTime is how long a pod may go on after its work has reported its own end.
	cleanupTime = 5 * time.Minute
	// stopInterval is the time after which a Job that goes on is told to stop again.
	stopInterval = 10 * time.Minute
	// markInterval is the time between tries to mark a Job where that is refused.
	markInterval = 10 * time.Minute
	// behindLimit is how long the cache of pods may be behind.
	behindLimit = 2 * time.Second
	// maxLastPods bounds the pods that are remembered of a Job after they have gone.
	maxLastPods = 4
)

// track is what is remembered of the Job.
func (t *term) track(key string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trackLocked(key)
}

func (t *term) trackLocked(key string) *track {
	tr := t.tracks[key]
	if tr == nil {
		tr = &track{key: key, attempts: map[types.UID]*attempt{}, noticed: map[string]int64{}}
		t.tracks[key] = tr
	}
	return tr
}

func (t *term) jobRemoved(job *jobLevel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trackLocked(job.key()).lastJob = job
}

// podRemoved remembers a pod of a Job that is not done.
func (t *term) podRemoved(pod *podLevel, wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(pod)
	if !wanted && t.tracks[key] == nil {
		return
	}
	tr := t.trackLocked(key)
	tr.lastPods = append(tr.lastPods, pod)
	tr.lastPods = tr.lastPods[max(0, len(tr.lastPods)-maxLastPods):]
}

// forget ends what is at work for a Job, and remembers nothing of it.
func (t *term) forget(tr *track) {
	t.release(tr)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tracks, tr.key)
}

// release ends what is at work for a Job.
func (t *term) release(tr *track) {
	for uid, a := range tr.attempts {
		if err := a.close(); err != nil {
			t.Logger.Warn("closing an attempt failed", "pod", a.pod.name, "error", err)
		}
		delete(tr.attempts, uid)
	}
}

// later has the Job looked at again.
func (t *term) later(tr *track, wait time.Duration) {
	t.queue.AddAfter(tr.key, wait)
}

// reconcile looks at what is there and does what is owed. It may be repeated at any
// time, and by two processes at once; an error means: again.
func (t *term) reconcile(key string) error {
	ctx, cancel := context.WithTimeout(t.ctx, stepTimeout)
	defer cancel()
	job := t.job(key)
	if job == nil {
		return t.missing(ctx, key)
	}
	return t.look(ctx, t.track(key), job)
}

// look is reconcile for a Job that is there.
func (t *term) look(ctx context.Context, tr *track, job *jobLevel) error {
	if tr.job != nil && tr.job.uid != job.uid { // made anew under its name
		t.forget(tr)
		tr = t.track(job.key())
	}
	tr.job, tr.gone = job, time.Time{}
	switch {
	case tr.recorded:
		return nil // it is about to leave the cache
	case !job.ours(t.Instance):
		if !tr.foreign {
			tr.foreign = true
			t.Logger.Warn("a Job with this instance's labels is no task's, or the copy of one, and is left alone", "job", tr.key, "annotation", job.taskID)
		}
		return nil
	}
	now := t.Clock.Now()
	pods := t.podsOf(tr)
	known, err := t.checkRow(ctx, tr, now)
	if err != nil || !known {
		return err
	}
	if tr.ended {
		return t.endedJob(ctx, tr, pods, now)
	}
	ready, err := t.attend(ctx, tr, pods, now)
	switch {
	case err != nil || !ready:
		return err
	case tr.ended:
		return t.endedJob(ctx, tr, pods, now)
	case job.final != "":
		return t.finish(ctx, tr, pods, now)
	}
	return t.pending(ctx, tr, pods, now)
}

// podsOf are the Job's pods, the oldest first: those of the cache, and those that have
// left it, as they were.
func (t *term) podsOf(tr *track) []*podLevel {
	pods := t.pods(tr.job)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, last := range tr.lastPods {
		i := slices.IndexFunc(pods, func(pod *podLevel) bool { return pod.uid == last.uid })
		switch {
		case last.jobUID != tr.job.uid:
		case i < 0:
			pods = append(pods, last)
		case last.over(): // listed, and the cache is behind
			pods[i] = last
		}
	}
	oldestFirst(pods)
	return pods
}

// departed reports whether the pod has left the cache.
func (t *term) departed(tr *track, pod *podLevel) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(tr.lastPods, func(last *podLevel) bool { return last.uid == pod.uid })
}

// checkRow looks at the task's row where nobody else would tell of its end. known is
// false where there is none: the Job is left alone.
func (t *term) checkRow(ctx context.Context, tr *track, now time.Time) (known bool, err error) {
	if tr.ended {
		return true, nil
	}
	running := false
	for _, a := range tr.attempts {
		if a.run == nil {
			continue
		}
		select {
		case <-a.run.Done():
			running = running || !errors.Is(a.run.Err(), taskbridge.ErrTaskFinished)
		default:
			running = true
		}
	}
	if running || !tr.row.IsZero() && now.Sub(tr.row) < rowInterval && len(tr.attempts) == 0 {
		if !running {
			t.later(tr, rowInterval-now.Sub(tr.row))
		}
		return tr.unknown == 0, nil
	}
	_, known, err = t.readRow(ctx, tr, now)
	return known, err
}

// readRow reads the task's row, and notes whether it has ended.
func (t *term) readRow(ctx context.Context, tr *track, now time.Time) (row taskbridge.Task, known bool, err error) {
	row, err = t.Rows.GetTask(ctx, tr.job.taskID)
	if errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.unknownTask(tr, now)
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("read the task's row: %w", err)
	}
	tr.row, tr.unknown = now, 0
	tr.ended = row.Status.Terminal()
	if !tr.ended && len(tr.attempts) == 0 {
		t.later(tr, rowInterval)
	}
	return row, true, nil
}

// unknownTask leaves a Job alone whose task the store does not know. It may be another
// installation's; or the store does not know it yet.
func (t *term) unknownTask(tr *track, now time.Time) {
	if tr.unknown == 0 {
		t.Logger.Warn("the store does not know the task of a Job, which is left alone; do two installations have the same Options.Instance?",
			"job", tr.key, "taskId", tr.job.taskID)
	}
	tr.row = now
	t.later(tr, min(rowInterval<<min(tr.unknown, 10), time.Hour))
	tr.unknown++
}

// attend starts an attempt for each pod whose work has begun, in their order, and has
// its output read. ready is false while something must be waited for first: a pod
// begins when all is known of the one before it, as far as that has ended.
func (t *term) attend(ctx context.Context, tr *track, pods []*podLevel, now time.Time) (ready bool, err error) {
	begun := slices.DeleteFunc(slices.Clone(pods), func(p *podLevel) bool { return p.startedAt == 0 })
	for i, pod := range begun {
		a := tr.attempts[pod.uid]
		if a == nil {
			a = &attempt{}
			tr.attempts[pod.uid] = a
		}
		a.pod = pod
		if a.run == nil && !a.over {
			if known, err := t.begin(ctx, tr, a, begun[i+1:], now); err != nil || !known || tr.ended {
				return tr.ended, err
			}
		}
		if wait := t.read(tr, a, now); wait > 0 {
			t.later(tr, wait)
		}
		if i == len(begun)-1 || a.over {
			continue
		}
		if !pod.ended() && !t.departed(tr, pod) {
			continue // the next one's start fences it
		}
		wait, err := t.await(ctx, tr, a, now, time.Time{})
		if err != nil {
			return false, err
		}
		if wait > 0 {
			t.later(tr, wait)
			return false, nil
		}
	}
	return true, nil
}

// begin starts an attempt. later are the pods that began after its own. known is false
// if it cannot be now; the row's end is in tr.ended.
func (t *term) begin(ctx context.Context, tr *track, a *attempt, later []*podLevel, now time.Time) (known bool, err error) {
	if a.pod.ended() || len(later) > 0 {
		row, known, err := t.readRow(ctx, tr, now)
		if err != nil || !known || tr.ended {
			return known, err
		}
		if row.Attempt > taskbridge.MaxPastClaims && slices.ContainsFunc(later, func(pod *podLevel) bool { return string(pod.uid) == row.Claim }) {
			a.over = true // it was fenced so long ago that the row may have forgotten its claim
			return true, nil
		}
		if a.pod.ended() && !row.Cancellation.RequestedAt.IsZero() && row.Claim != string(a.pod.uid) {
			// A start would end the task as cancelled, and its work may have completed.
			a.run, a.mute = unstartedRun{task: row}, true
			return true, nil
		}
	}
	err = t.start(ctx, tr, a)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, taskbridge.ErrStaleAttempt):
		a.over = true // a newer pod has begun
		return true, nil
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		t.unknownTask(tr, now)
		return false, nil
	case !errors.Is(err, taskbridge.ErrNotRunnable):
		return false, fmt.Errorf("start the attempt: %w", err)
	}
	row, known, err := t.readRow(ctx, tr, now)
	if err != nil || !known || tr.ended {
		return known, err
	}
	// Its submission was barred, and the reconciler is about to hear of the Job.
	t.Logger.Debug("the work of a task has begun that may not run yet", "taskId", tr.job.taskID, "barred", row.Submission.Barred)
	t.later(tr, barredInterval)
	return false, nil
}

// endedJob does what is left for the Job of a task that has ended.
func (t *term) endedJob(ctx context.Context, tr *track, pods []*podLevel, now time.Time) error {
	if tr.job.final != "" {
		t.release(tr)
		return t.markRecorded(ctx, tr)
	}
	if tr.stopped.IsZero() {
		row, known, err := t.readRow(ctx, tr, now)
		if err != nil || !known {
			return err
		}
		if t.endedItself(row, tr.job, pods) {
			if wait := row.FinishedAt.Add(cleanupTime).Sub(now); wait > 0 {
				t.later(tr, wait)
				return nil
			}
		}
	}
	return t.stopJob(ctx, tr, now)
}

// endedItself reports whether the work of a pod that still runs seems to have
// reported its own end: its pod ends without being told.
func (t *term) endedItself(row taskbridge.Task, job *jobLevel, pods []*podLevel) bool {
	options, configured := t.Types[job.taskType]
	if configured && options.Reports != ReportWorkerAPI || len(pods) == 0 || row.Claim != string(pods[len(pods)-1].uid) {
		return false
	}
	failure, isFailure := row.Failure()
	return row.Status == taskbridge.StatusCompleted ||
		isFailure && !strings.HasPrefix(failure.Code, codePrefix) && failure.Code != taskbridge.CodeExecutorLost
}

// stopJob stops a Job whose task has ended.
func (t *term) stopJob(ctx context.Context, tr *track, now time.Time) error {
	if wait := tr.stopped.Add(stopInterval).Sub(now); !tr.stopped.IsZero() && wait > 0 {
		t.later(tr, wait)
		return nil
	}
	t.release(tr)
	if err := t.halt(ctx, tr.job.namespace, tr.job.name, tr.job.uid); err != nil {
		return fmt.Errorf("stop the Job of a task that has ended: %w", err)
	}
	t.Logger.Info("Job stopped, its task has ended", "taskId", tr.job.taskID, "job", tr.key)
	tr.stopped = now
	t.later(tr, stopInterval)
	return nil
}
