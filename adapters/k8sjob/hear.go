package k8sjob

import (
	"context"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// hear reads, for an inspection, what the last pod of an ended Job said: its result,
// its failure, its tail. Its reports are not recorded, which is the watching's part;
// if there are any, a warning says that some may be missing. since is when the Job's
// end was first seen: for some time what cannot be read is an error, after which the
// inspection is repeated, and then what was read is all, and a warning says so.
func (e *Executor) hear(ctx context.Context, task taskbridge.Task, pod *podLevel, since time.Time) (said, error) {
	options := e.Types[task.Type]
	if pod == nil || pod.startedAt == 0 || options.Reports == ReportWorkerAPI {
		return said{}, nil
	}
	follow := e.follow
	if e.watcher != nil {
		follow = e.watcher.follow
	}
	mute := &mutedRun{unstartedRun: unstartedRun{task: task}}
	output, err := follow(ctx, pod.object(), pod.container, options, mute)
	var warning string
	switch {
	case err != nil && e.Clock.Now().Sub(since) < e.patience():
		return said{}, fmt.Errorf("read what pod %s said: %w", pod.name, err)
	case err != nil:
		warning = unreadOutput(pod)
	case output.Unproven && !pod.endKnown():
		warning = missingOutput
	case mute.reports:
		warning = "Nobody watched the Job when it ended. Some of the pod's reports may be missing."
	default:
		return output, nil
	}
	err = e.notices.NoticeOnce(ctx, task.ID, noticeOutput, max(pod.created, 1), taskbridge.Message{Text: warning, Level: taskbridge.LevelWarning})
	if err != nil && !isAny(err, taskbridge.ErrTaskFinished, taskbridge.ErrTaskNotFound, taskbridge.ErrStreamFull,
		taskbridge.ErrInvalidArgument, taskbridge.ErrPayloadTooLarge) {
		return said{}, fmt.Errorf("tell of the output: %w", err)
	}
	return output, nil
}

// patience is for how long an inspection that is to record an end tries to read the
// output.
func (e *Executor) patience() time.Duration { return 2*endTime + e.OutputTimeout }

// attends reports whether this process is about to record the Job's end.
func (e *Executor) attends(job *jobLevel) bool {
	if e.watcher == nil || e.watcher.term() == nil {
		return false
	}
	cached := e.watcher.job(job.key())
	return cached != nil && cached.uid == job.uid && cached.final != ""
}

// unreadOutput is what a client is told of output that was given up.
func unreadOutput(pod *podLevel) string {
	return fmt.Sprintf("The output of pod %s was not read to its end in time. What it still says is lost.", pod.name)
}

// mutedRun notes that there were reports, and records none.
type mutedRun struct {
	unstartedRun
	reports bool // by the one who sends them; for others once that has ended
}

// Report does nothing.
func (r *mutedRun) Report(ctx context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	r.reports = r.reports || len(reports) > 0
	return taskbridge.Reported{}, ctx.Err()
}
