package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// Flusher is implemented by the runs of a [Lifecycle].
type Flusher interface {
	// Flush waits until all that was reported before is recorded, the first bytes
	// of a rune whose rest is still to come apart. It returns the errors of reports
	// that were not (a full stream, say) and that no other call has returned.
	Flush(ctx context.Context) error
}

// run is one attempt over the worker API. Two goroutines belong to it: the
// sender, which alone makes requests with reports, and the watcher. Both end with
// it.
type run struct {
	lifecycle *Lifecycle
	claim     taskbridge.Claim
	task      taskbridge.Task

	life        context.Context // ends with the run
	endLife     context.CancelFunc
	requests    context.Context // of the sender's requests: the one under way outlives life
	endRequests context.CancelFunc
	cancel      chan struct{}
	wakes       chan struct{} // to the sender; capacity 1
	renewing    chan struct{} // capacity 1: full while the attempt token is renewed
	workers     sync.WaitGroup

	mu      sync.Mutex
	token   string
	expires time.Time
	reason  string // of the cancellation
	err     error  // why the run is over
	closing bool
	trouble error // of the last try, nil after one that had an answer
	ordinal int64 // the last one used
	sentAt  time.Time
	since   time.Time // when the first open entry came
	queue   queue
	// lost are errors of reports that nobody waited for, by kind.
	lost map[workerapi.ReportType]error
	// unsure is the report of a synchronous call that gave up on it after it was
	// sent. Made again at once it is this one.
	unsure *entry
}

var (
	_ taskbridge.Run = (*run)(nil)
	_ Flusher        = (*run)(nil)
)

func newRun(l *Lifecycle, claim taskbridge.Claim, answer *startAnswer) *run {
	r := &run{
		lifecycle: l,
		claim:     claim,
		task:      answer.task(claim),
		cancel:    make(chan struct{}),
		wakes:     make(chan struct{}, 1),
		renewing:  make(chan struct{}, 1),
		queue:     newQueue(l.opts.MaxBufferedBytes, l.opts.MaxBufferedReports),
		lost:      make(map[workerapi.ReportType]error),
	}
	r.life, r.endLife = context.WithCancel(context.Background())
	r.requests, r.endRequests = context.WithCancel(context.Background())
	r.observe(&answer.AttemptResponse)
	return r
}

func (r *run) begin() {
	r.workers.Go(r.send)
	r.workers.Go(r.watch)
}

// wake tells the sender to look at the queue.
func (r *run) wake() {
	select {
	case r.wakes <- struct{}{}:
	default:
	}
}

// observe takes notice of an answer.
func (r *run) observe(a *workerapi.AttemptResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token == "" || a.TokenExpiresAt.After(r.expires) {
		r.token, r.expires = a.Token, a.TokenExpiresAt
	}
	if a.CancellationRequested && !r.cancelled() {
		r.reason = a.CancelReason
		close(r.cancel)
	}
}

func (r *run) cancelled() bool {
	select {
	case <-r.cancel:
		return true
	default:
		return false
	}
}

func (r *run) currentToken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.token
}

// over ends the run's life, for the first reason given.
func (r *run) over(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.endLife()
	}
}

func (r *run) Task() taskbridge.Task            { return r.task.Clone() }
func (r *run) Attempt() int64                   { return r.task.Attempt }
func (r *run) CancelRequested() <-chan struct{} { return r.cancel }
func (r *run) Done() <-chan struct{}            { return r.life.Done() }

func (r *run) CancelReason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

func (r *run) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// refusal says why the run takes no report. The lock is held.
func (r *run) refusal() error {
	if r.err == nil && r.closing {
		return taskbridge.ErrClosed
	}
	return r.err
}

// renew gets a new attempt token in the place of one that has expired, over
// passing failures until ctx ends. An error that is the server's ends the run.
func (r *run) renew(ctx context.Context, expired string) error {
	select {
	case r.renewing <- struct{}{}:
		defer func() { <-r.renewing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.currentToken() != expired {
		return nil // the other goroutine has done it
	}
	again := func(err error) bool {
		unknown := new(credentialError)
		return isPassingOrForeign(err) || errors.As(err, &unknown)
	}
	answer, err := r.lifecycle.start(ctx, r.task.ID, r.claim, expired, again)
	switch {
	case err == nil && answer.Attempt != r.task.Attempt:
		err = taskbridge.ErrStaleAttempt
	case errors.Is(err, taskbridge.ErrNotRunnable):
		// It was, when the run started.
		err = fmt.Errorf("%w: %w", taskbridge.ErrTaskFinished, err)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.over(err)
		}
		return err
	}
	r.mu.Lock()
	r.token, r.expires = "", time.Time{}
	r.mu.Unlock()
	r.observe(&answer.AttemptResponse)
	return nil
}

// closeTimeout bounds the recording of what is buffered when a run is closed.
const closeTimeout = 10 * time.Second

// Close records what is buffered, for 10 s at the most, and ends the run; see
// [taskbridge.Run]. The error says that something was not recorded.
func (r *run) Close() error {
	r.mu.Lock()
	first := !r.closing
	r.closing = true
	live := r.err == nil
	r.mu.Unlock()
	var err error
	if first && live {
		err = r.drain()
	}
	if first {
		r.over(taskbridge.ErrClosed)
		r.endRequests()
	}
	r.workers.Wait()
	return err
}

// drain is the flush of a run that is closing: an incomplete rune goes too.
func (r *run) drain() error {
	limit := r.lifecycle.opts.Clock.NewTimer(closeTimeout)
	defer limit.Stop()
	last := r.hurryAll()
	if last != nil {
		select {
		case <-last.decided:
		case <-limit.C():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case last == nil:
	case !last.isDecided():
		return gaveUp(fmt.Sprintf("%d reports of task %s were not recorded", r.queue.count, r.task.ID), context.DeadlineExceeded, r.trouble)
	case last.err != nil && errors.Is(r.err, last.err):
		return last.err
	}
	return r.takeLost()
}

// hurryAll has all that is buffered sent at once and returns the last entry
// that will be; nil for none.
func (r *run) hurryAll() *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.queue.sendable(r.closing)
	if last != nil {
		r.queue.hurry(last)
		r.wake()
	} else if n := len(r.queue.sealed); n > 0 {
		entries := r.queue.sealed[n-1].entries
		last = entries[len(entries)-1]
	}
	return last
}

// takeLost returns the errors that nobody was told of. The lock is held.
func (r *run) takeLost() error {
	var all []error
	for kind, err := range r.lost {
		all = append(all, err)
		delete(r.lost, kind)
	}
	return errors.Join(all...)
}
