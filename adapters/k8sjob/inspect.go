package k8sjob

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const (
	// endTime is for how long the end of a Job is left to whoever watches, who reads
	// what its pod said: from when it was seen here first. Since nothing may have been
	// seen by anybody meanwhile, it is to be seen endSights times, with endPause between.
	endTime, endPause = 5 * time.Minute, 30 * time.Second
	endSights         = 3
	// attendTime is the same where this process is the one that watches.
	attendTime = time.Hour
)

// sight is what inspections saw of a Job that has ended and whose end is not recorded.
type sight struct {
	first, last time.Time
	times       int
}

// InspectTask asks the API server for the task's Job, and for its pods where it has
// ended. A Job that has ended is "running" while its end is about to be recorded. If
// nobody seems to do that, its pod's output is read here, for the result.
//
// A Job that is not there never was if the submission is not recorded and the work
// not started; else somebody has deleted it, and the watching records that if it has
// seen the Job. If the submission is not recorded, what
// the Job's pod waits for is made if it is missing: who was submitting may have died
// in between.
func (e *Executor) InspectTask(ctx context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return taskbridge.Inspection{}, err
	}
	job, err := e.jobOf(ctx, task)
	if err == nil && job == nil {
		inspection := missing(task)
		if inspection.Knowledge == taskbridge.InspectionFinished && e.minds(task) {
			return known(taskbridge.InspectionRunning), nil
		}
		return inspection, nil
	}
	var inspection taskbridge.Inspection
	if err == nil {
		inspection, err = e.inspectJob(ctx, task, job)
	}
	if err != nil {
		return taskbridge.Inspection{}, fmt.Errorf("k8sjob: inspect: %w", err)
	}
	return inspection, nil
}

func known(knowledge taskbridge.Knowledge) taskbridge.Inspection {
	return taskbridge.Inspection{Knowledge: knowledge}
}

// minds reports whether this process's watching has seen the task's Job, and is about
// to record its end as it was last seen, with what its pods still say.
func (e *Executor) minds(task taskbridge.Task) bool {
	if e.watcher == nil {
		return false
	}
	t := e.watcher.term()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tracks[cmp.Or(e.Types[task.Type].Namespace, e.Namespace)+"/"+jobName(e.Instance, task.ID)] != nil
}

// missing is what is known of a task whose Job is not there.
func missing(task taskbridge.Task) taskbridge.Inspection {
	switch {
	case task.Status.Terminal():
		return known(taskbridge.InspectionGone)
	case task.Submission.State != taskbridge.SubmissionRecorded && task.Attempt == 0:
		return known(taskbridge.InspectionAbsent)
	}
	outcome := failed(taskbridge.Failure{Code: CodeDeleted, Message: "the Job was deleted before it ended", Retryable: true})
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: ofIntent(task, nil, outcome)}
}

func (e *Executor) inspectJob(ctx context.Context, task taskbridge.Task, job *batchv1.Job) (taskbridge.Inspection, error) {
	level := levelOfJob(job)
	switch {
	case level.final != "" && task.Status.Terminal():
		return known(taskbridge.InspectionGone), nil // what the work said is in the row, and nowhere else
	case level.final != "":
		since, unattended := e.unattended(level)
		if !unattended && job.Labels[labelRecorded] == "" {
			return known(taskbridge.InspectionRunning), nil
		}
		pods, err := e.podsOf(ctx, job)
		if err != nil {
			return taskbridge.Inspection{}, err
		}
		pod := lastPod(level, pods)
		output, err := e.hear(ctx, task, pod, since)
		if err != nil {
			return taskbridge.Inspection{}, err
		}
		outcome := outcomeOf(level, pod, output, e.Types[task.Type].TailLines)
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: ofIntent(task, level, outcome)}, nil
	case level.deleting || task.Attempt > 0 || value(job.Status.Ready) > 0 || level.succeeded > 0 || level.failed > 0:
		return known(taskbridge.InspectionRunning), nil
	}
	if task.Submission.State != taskbridge.SubmissionRecorded && task.Cancellation.RequestedAt.IsZero() {
		if err := e.hand(ctx, task, job, ""); err != nil {
			return taskbridge.Inspection{}, err
		}
	}
	return known(taskbridge.InspectionWaiting), nil
}

// unattended reports whether a Job that has ended was seen so for so long, since the
// time, that nobody seems to watch.
func (e *Executor) unattended(job *jobLevel) (since time.Time, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Clock.Now()
	maps.DeleteFunc(e.ended, func(_ types.UID, seen sight) bool { return now.Sub(seen.last) > 24*time.Hour }) // recorded since
	seen, again := e.ended[job.uid]
	switch {
	case !again:
		seen = sight{first: now, last: now, times: 1}
	case now.Sub(seen.last) >= endPause:
		seen.last = now
		seen.times++
	}
	e.ended[job.uid] = seen
	limit := endTime
	if e.attends(job) {
		limit = attendTime + e.OutputTimeout
	}
	return seen.first, seen.times >= endSights && now.Sub(seen.first) >= limit
}
