package temporaladapter

import (
	"context"
	"errors"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// The follower looks at what was just submitted, until somebody has started the task
// or it waits for a worker for long: then it is a silent task like others. A task
// whose worker has the plugin is started before its first look, which costs Temporal
// nothing. What it knows is in memory alone: what a server that dies was following
// is found as a silent task.

const (
	looks         = 5      // of a task that waits, each after twice the time of the one before
	mostFollowed  = 10_000 // at once; others are silent tasks
	looksAtOnce   = 8
	lookTimeLimit = 30 * time.Second
)

// followed is a task that is followed.
type followed struct {
	due   time.Time
	pause time.Duration // before the look that is due
	looks int           // that were made
}

type follower struct {
	executor *Executor
	added    chan struct{} // holds one

	mu    sync.Mutex
	tasks map[string]followed
}

func newFollower(e *Executor) *follower {
	return &follower{executor: e, added: make(chan struct{}, 1), tasks: map[string]followed{}}
}

// add begins to follow a task. It does not block.
func (f *follower) add(taskID string) {
	pause := f.executor.FirstLook
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.tasks[taskID]; there || len(f.tasks) >= mostFollowed {
		return
	}
	f.tasks[taskID] = followed{due: f.executor.Clock.Now().Add(pause), pause: pause}
	select {
	case f.added <- struct{}{}:
	default:
	}
}

// run looks until ctx ends.
func (f *follower) run(ctx context.Context) {
	for {
		due, wait := f.due()
		if len(due) > 0 {
			inSlots(looksAtOnce, due, func(taskID string) { f.look(ctx, taskID) })
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer := f.executor.Clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-f.added:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// due returns the tasks that are due, else for how long none is.
func (f *follower) due() (due []string, wait time.Duration) {
	now := f.executor.Clock.Now()
	wait = time.Hour
	f.mu.Lock()
	defer f.mu.Unlock()
	for taskID, task := range f.tasks {
		if left := task.due.Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			due = append(due, taskID)
		}
	}
	return due, wait
}

// look looks at a task and says when it is due again, if it is.
func (f *follower) look(ctx context.Context, taskID string) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeLimit)
	defer cancel()
	again := f.waits(ctx, taskID)
	f.mu.Lock()
	defer f.mu.Unlock()
	task := f.tasks[taskID]
	task.looks++
	if !again || task.looks >= looks {
		delete(f.tasks, taskID)
		return
	}
	task.pause *= 2
	task.due = f.executor.Clock.Now().Add(task.pause)
	f.tasks[taskID] = task
}

// waits looks at a task, which may start or end it, and reports whether it is still
// to begin.
func (f *follower) waits(ctx context.Context, taskID string) bool {
	e := f.executor
	row, err := e.Rows.GetTask(ctx, taskID)
	if err == nil && begins(row) {
		if err = e.settleEnded(ctx, row); err == nil {
			row, err = e.Rows.GetTask(ctx, taskID)
		}
	}
	if errors.Is(err, taskbridge.ErrTaskNotFound) {
		return false
	}
	if err != nil {
		if ctx.Err() == nil {
			e.Logger.Warn("task that was submitted cannot be looked at", "taskId", taskID, "error", err)
		}
		return true
	}
	return begins(row)
}

// begins reports whether the task is still to begin, and to be looked at until it
// does. A cancellation looks after what it is asked for itself.
func begins(row taskbridge.Task) bool {
	return row.Attempt == 0 && !row.Status.Terminal() && row.Cancellation.RequestedAt.IsZero()
}

// inSlots calls do for each item, several at a time, and returns when all are done.
func inSlots[T any](slots int, items []T, do func(T)) {
	var working sync.WaitGroup
	free := make(chan struct{}, slots)
	for _, item := range items {
		free <- struct{}{}
		working.Go(func() {
			defer func() { <-free }()
			do(item)
		})
	}
	working.Wait()
}
