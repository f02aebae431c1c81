package remote

import (
	"context"
	"errors"
	"reflect"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func (r *run) Progress(ctx context.Context, progress taskbridge.Progress) error {
	if err := taskbridge.CheckReport(taskbridge.Report{Progress: &progress}, r.lifecycle.opts.Limits); err != nil {
		return err
	}
	e := newEntry(progressReport(progress))
	return r.report(ctx, e, func() (*entry, bool) { return r.queue.addProgress(e, !r.lifecycle.opts.Synchronous) })
}

func (r *run) Message(ctx context.Context, message taskbridge.Message) error {
	if err := taskbridge.CheckReport(taskbridge.Report{Message: &message}, r.lifecycle.opts.Limits); err != nil {
		return err
	}
	e := newEntry(messageReport(message))
	return r.report(ctx, e, func() (*entry, bool) { return r.queue.addMessage(e) })
}

// report adds progress or a message and, if the lifecycle is synchronous, waits
// for its outcome.
func (r *run) report(ctx context.Context, e *entry, add func() (*entry, bool)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	synchronous := r.lifecycle.opts.Synchronous
	r.mu.Lock()
	if u := r.unsure; synchronous && u != nil && reflect.DeepEqual(u.report, e.report) {
		r.unsure = nil
		if u.waiting++; u.isDecided() {
			delete(r.lost, u.kind()) // this call tells of it
		}
		r.mu.Unlock()
		return r.await(ctx, u)
	}
	e, err := r.add(ctx, e.kind(), add)
	if err == nil && synchronous {
		e.waiting++
		r.queue.hurry(e)
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	r.wake()
	if !synchronous {
		return nil
	}
	return r.await(ctx, e)
}

// add adds a report to the queue as soon as there is room. The lock is held, and
// given away in between.
func (r *run) add(ctx context.Context, kind workerapi.ReportType, add func() (*entry, bool)) (*entry, error) {
	for {
		if err := r.refusal(); err != nil {
			return nil, err
		}
		if err := r.lost[kind]; err != nil {
			delete(r.lost, kind)
			return nil, err
		}
		empty := len(r.queue.open) == 0
		if e, ok := add(); ok {
			if empty {
				r.since = r.lifecycle.opts.Clock.Now()
			}
			r.unsure = nil
			return e, nil
		}
		r.queue.starved++
		err := r.awaitChange(ctx)
		r.queue.starved--
		if err != nil {
			return nil, err
		}
	}
}

// awaitChange waits until something has left the queue. The lock is held before
// and after.
func (r *run) awaitChange(ctx context.Context) error {
	changed := r.queue.changed
	r.mu.Unlock()
	defer r.mu.Lock()
	r.wake()
	select {
	case <-changed:
		return nil
	case <-r.life.Done():
		return nil // the run's error is looked at next
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Token buffers a piece of text; see [taskbridge.Run].
func (r *run) Token(ctx context.Context, text string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	synchronous := r.lifecycle.opts.Synchronous
	for synchronous && len(r.queue.sealed) > 0 && r.refusal() == nil {
		// What is under way may be text of which this call is to tell.
		if err := r.awaitChange(ctx); err != nil {
			return err
		}
	}
	e, err := r.add(ctx, workerapi.ReportToken, func() (*entry, bool) {
		if text == "" {
			return nil, true
		}
		return r.queue.addToken(text)
	})
	if err != nil || e == nil {
		return err
	}
	if !synchronous || len(e.text) < r.tokenRoom() {
		r.wake()
		return nil
	}
	e.waiting++
	r.queue.hurry(e)
	r.mu.Unlock()
	r.wake()
	err = r.await(ctx, e)
	r.mu.Lock()
	if err != nil && !e.isDecided() {
		return nil // it is kept and sent: an error would have the caller report it twice
	}
	return err
}

// tokenRoom is how long the text of one message may be, as JSON.
func (r *run) tokenRoom() int {
	limit := r.lifecycle.opts.Limits.EventPayload
	if limit == 0 {
		limit = taskbridge.DefaultLimits().EventPayload
	}
	return limit - len(`{"message":""}`)
}

// await waits for the outcome of an entry for which the caller is counted as
// waiting. If ctx ends first: what was not sent is taken back, a suspension or an
// end is not sent again, anything else is.
func (r *run) await(ctx context.Context, e *entry) error {
	select {
	case <-e.decided:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.waiting--
	if e.isDecided() {
		return e.err
	}
	err := gaveUp("report "+string(e.kind())+" of task "+r.task.ID, ctx.Err(), r.trouble)
	if e.kind() == workerapi.ReportToken {
		return err
	}
	for i, open := range r.queue.open {
		if open == e {
			r.queue.remove(i)
			close(e.decided)
			return err
		}
	}
	if e.last() {
		e.withdrawn = true
	} else {
		r.unsure = e
	}
	return err
}

// Flush waits for what is buffered; see [Flusher].
func (r *run) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return err
	}
	last := r.hurryAll()
	if last != nil {
		select {
		case <-last.decided:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case last != nil && !last.isDecided():
		return gaveUp("flush of task "+r.task.ID, ctx.Err(), r.trouble)
	case r.err != nil && (last == nil || last.err != nil):
		return r.err
	}
	return r.takeLost()
}

// Suspend records a suspension; see [taskbridge.Run].
func (r *run) Suspend(ctx context.Context, suspension taskbridge.Suspension) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := taskbridge.CheckReport(taskbridge.Report{Suspension: &suspension}, r.lifecycle.opts.Limits); err != nil {
		return err
	}
	report, err := suspendReport(suspension)
	if err != nil {
		return err
	}
	e := newEntry(report)
	if err := r.submit(e); err != nil {
		return err
	}
	return r.await(ctx, e)
}

// submit adds a suspension or an end, which wait for no room.
func (r *run) submit(e *entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refusal(); err != nil {
		return err
	}
	r.queue.put(e)
	r.queue.hurry(e)
	e.waiting++
	r.unsure = nil
	r.wake()
	return nil
}

func (r *run) Complete(ctx context.Context, completion taskbridge.Completion) error {
	return r.end(ctx, taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: completion})
}

func (r *run) Fail(ctx context.Context, failure taskbridge.Failure) error {
	return r.end(ctx, taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: failure})
}

func (r *run) Cancelled(ctx context.Context, message string) error {
	return r.end(ctx, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: message})
}

// end records the outcome, after all that is buffered.
func (r *run) end(ctx context.Context, outcome taskbridge.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := taskbridge.CheckReport(taskbridge.Report{Outcome: &outcome}, r.lifecycle.opts.Limits); err != nil {
		return err
	}
	e := newEntry(r.lifecycle.end(outcome))
	err := r.submit(e)
	if err == nil {
		if err = r.await(ctx, e); err == nil {
			r.workers.Wait()
			return nil
		}
	}
	if !errors.Is(err, taskbridge.ErrTaskFinished) || e.answered {
		return err
	}
	// The task has ended, and the server knows whether like this: it may even have
	// been this call, had the watcher not learned of it first.
	return r.endAgain(ctx, e.report)
}
