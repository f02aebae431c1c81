package crashtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// runtime is a runtime of its own, which no crash of a server touches. It knows
// ids, keeps what it was given, and takes note of everybody who hands it a task
// twice.
type runtime struct {
	rejects *taskbridge.Failure // turns every task down
	// crowded: time passes faster than the calls of a live process, so that one
	// whose lease has ended may still arrive.
	crowded bool

	mu         sync.Mutex
	jobs       map[string]*job
	submits    map[string]int             // that arrived
	absents    map[string]int             // answers "absent"
	absentNow  map[string]bool            // the last answer was "absent", and no submission arrived since
	claims     map[string]map[string]bool // of the executions begun, by task
	violations []string
}

type job struct {
	task  taskbridge.Task
	state taskbridge.Knowledge
	claim string // of the execution that the runtime has begun last
	end   taskbridge.Outcome
}

func newRuntime() *runtime {
	return &runtime{jobs: make(map[string]*job), submits: make(map[string]int), absents: make(map[string]int), absentNow: make(map[string]bool), claims: make(map[string]map[string]bool)}
}

// in is the executor by which one process talks to the runtime.
func (r *runtime) in(p *process) taskbridge.TaskExecutor { return &adapter{r, p} }

type adapter struct {
	*runtime
	process *process
}

func (a *adapter) SubmitTask(_ context.Context, task taskbridge.Task) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.submits[task.ID]++
	if n, absents := a.submits[task.ID], a.absents[task.ID]; n > 1 && (n > 1+absents || !a.crowded && !a.absentNow[task.ID]) {
		a.violations = append(a.violations, fmt.Sprintf("task %s was submitted %d times, the runtime said %d times that it did not have it", task.ID, n, absents))
	}
	delete(a.absentNow, task.ID)
	if a.rejects != nil {
		return taskbridge.Reject(a.rejects.Code, a.rejects.Message, a.rejects.Retryable)
	}
	if a.jobs[task.ID] == nil {
		a.jobs[task.ID] = &job{task: task, state: taskbridge.InspectionWaiting}
	}
	return nil
}

// RequestCancellation takes out what waits and then settles it, in two steps as
// every real runtime does; what runs hears of the intent from its run.
func (a *adapter) RequestCancellation(ctx context.Context, task taskbridge.Task, _ string) error {
	a.mu.Lock()
	j := a.jobs[task.ID]
	waits := j != nil && j.state == taskbridge.InspectionWaiting
	if waits {
		delete(a.jobs, task.ID)
	}
	a.mu.Unlock()
	if !waits {
		return nil
	}
	return a.process.lifecycle.Settle(ctx, task.ID, taskbridge.Outcome{Status: taskbridge.StatusCancelled})
}

func (a *adapter) InspectTask(_ context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j := a.jobs[task.ID]
	if j == nil {
		a.absents[task.ID]++
		a.absentNow[task.ID] = true
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, nil
	}
	return taskbridge.Inspection{Knowledge: j.state, Outcome: j.end}, nil
}

// handOver is the moment in which the runtime gives the task to a worker.
func (r *runtime) handOver(taskID, claim string) {
	r.set(taskID, func(j *job) {
		j.state, j.claim = taskbridge.InspectionRunning, claim
		if r.claims[taskID] == nil {
			r.claims[taskID] = make(map[string]bool)
		}
		r.claims[taskID][claim] = true
	})
}

// has reports whether the runtime has the task.
func (r *runtime) has(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[taskID] != nil
}

// done is the moment in which the worker says that it need not come again.
func (r *runtime) done(taskID string) {
	r.set(taskID, func(j *job) { j.state = taskbridge.InspectionGone })
}

func (r *runtime) set(taskID string, change func(*job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j := r.jobs[taskID]; j != nil {
		change(j)
	}
}

// unfinished returns copies of the jobs that wait or run, by id.
func (r *runtime) unfinished() []job {
	r.mu.Lock()
	defer r.mu.Unlock()
	var jobs []job
	for _, j := range r.jobs {
		if j.state == taskbridge.InspectionWaiting || j.state == taskbridge.InspectionRunning {
			jobs = append(jobs, *j)
		}
	}
	slices.SortFunc(jobs, func(a, b job) int { return slices.Compare([]byte(a.task.ID), []byte(b.task.ID)) })
	return jobs
}
