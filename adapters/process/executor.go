package process

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [New]. Lifecycle, InstanceID and StateDir are required.
type Options struct {
	// Lifecycle records what happens to the tasks.
	Lifecycle taskbridge.TaskLifecycle
	// InstanceID is the id of the taskbridge.Instance that this process holds.
	InstanceID string
	// Commands maps task types to commands. It is copied, and may be empty: for
	// a host that only wants [Executor.KillSurvivors].
	Commands map[string]Command
	// StateDir is a folder of this executor alone, made if it is missing: the
	// running executions are recorded in it. It is locked until Close.
	StateDir string
	// MaxRunning bounds how many commands run at once; default: as many as Go
	// uses processors.
	MaxRunning int
	// MaxWaiting bounds how many tasks wait for one of them to end; default
	// 10,000. A waiting task stays ACCEPTED and costs some hundred bytes: its
	// input is read again when it starts.
	MaxWaiting int
	// Grace is the time between SIGTERM and SIGKILL; default 10 s.
	Grace  time.Duration
	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// Executor runs tasks as local commands. It is safe for concurrent use; the
// host closes it.
type Executor struct {
	lifecycle  taskbridge.TaskLifecycle
	instance   string
	commands   map[string]Command
	records    *records
	maxRunning int
	maxWaiting int
	grace      time.Duration
	clock      taskbridge.Clock
	logger     *slog.Logger

	stop       chan struct{}   // closed by Close: executions end
	hard       context.Context // ends with Close's patience: nothing is waited for
	hurry      context.CancelFunc
	executions sync.WaitGroup

	mu      sync.Mutex
	closing bool
	jobs    map[string]*job // by task id: all that this executor has
	waiting *list.List      // of *job, first in first out
	running int             // jobs that hold a slot
}

var (
	_ taskbridge.TaskExecutor  = (*Executor)(nil)
	_ taskbridge.TaskInspector = (*Executor)(nil)
	_ taskbridge.HealthChecker = (*Executor)(nil)
	_ taskbridge.InstanceBound = (*Executor)(nil)
)

// New makes an executor. It runs nothing yet and kills nothing: a host calls
// [Executor.KillSurvivors] before it lets tasks in.
func New(opts Options) (*Executor, error) {
	if err := platformSupported(); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	switch {
	case opts.Lifecycle == nil:
		return nil, errors.New("process: Options.Lifecycle must not be nil")
	case opts.InstanceID == "":
		return nil, errors.New("process: Options.InstanceID must not be empty")
	case opts.StateDir == "":
		return nil, errors.New("process: Options.StateDir must not be empty")
	case opts.MaxRunning < 0 || opts.MaxWaiting < 0 || opts.Grace < 0:
		return nil, errors.New("process: Options.MaxRunning, MaxWaiting and Grace must not be negative")
	}
	e := &Executor{
		lifecycle:  opts.Lifecycle,
		instance:   opts.InstanceID,
		commands:   make(map[string]Command, len(opts.Commands)),
		maxRunning: cmp.Or(opts.MaxRunning, runtime.GOMAXPROCS(0)),
		maxWaiting: cmp.Or(opts.MaxWaiting, 10_000),
		grace:      cmp.Or(opts.Grace, 10*time.Second),
		clock:      opts.Clock,
		logger:     opts.Logger,
		stop:       make(chan struct{}),
		jobs:       make(map[string]*job),
		waiting:    list.New(),
	}
	if e.clock == nil {
		e.clock = taskbridge.SystemClock{}
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	for taskType, command := range opts.Commands {
		checked, err := command.checked()
		if err != nil {
			return nil, fmt.Errorf("process: command of task type %q: %w", taskType, err)
		}
		e.commands[taskType] = checked
	}
	var err error
	if e.records, err = openRecords(opts.StateDir); err != nil {
		return nil, fmt.Errorf("process: state folder: %w", err)
	}
	e.hard, e.hurry = context.WithCancel(context.Background())
	return e, nil
}

// InstanceID returns Options.InstanceID.
func (e *Executor) InstanceID() string { return e.instance }

// CheckHealth says whether an execution could be recorded now.
func (e *Executor) CheckHealth(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	closing := e.closing
	e.mu.Unlock()
	if closing {
		return fmt.Errorf("process: %w", taskbridge.ErrClosed)
	}
	if err := e.records.probe(); err != nil {
		return fmt.Errorf("process: state folder: %w", err)
	}
	return nil
}

// Close takes no more tasks and stops the running ones: SIGTERM, the grace,
// SIGKILL, then FAILED EXECUTOR_LOST, retryable. What waits is left ACCEPTED,
// for the next start to run. It returns when all of that is done.
//
// If ctx ends before, what still runs gets SIGKILL at once, ends that are not
// recorded yet are left to the reconciler of the next start, and ctx's error is
// returned. Close may be called more than once.
func (e *Executor) Close(ctx context.Context) error {
	e.mu.Lock()
	if !e.closing {
		e.closing = true
		for element := e.waiting.Front(); element != nil; element = element.Next() {
			delete(e.jobs, element.Value.(*job).taskID)
		}
		e.waiting.Init()
		close(e.stop)
	}
	e.mu.Unlock()

	done := make(chan struct{})
	go func() {
		e.executions.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("process: close: %w", ctx.Err())
		e.hurry()
		<-done // soon: see endProcesses
	}
	e.hurry()
	if unlockErr := e.records.close(); err == nil && unlockErr != nil && !errors.Is(unlockErr, os.ErrClosed) {
		err = fmt.Errorf("process: close: %w", unlockErr)
	}
	return err
}
