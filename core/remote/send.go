package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// send is the sender: it delivers batch after batch until the run is over, and
// then answers those who wait still.
func (r *run) send() {
	defer r.endRequests()
	defer r.abandon()
	for {
		b, err := r.next()
		if err != nil {
			r.over(err)
			return
		}
		if b == nil || !r.deliver(b) {
			return
		}
	}
}

// next waits until there is something to send; nil: the run is over.
func (r *run) next() (*batch, error) {
	for {
		b, due, err := r.look()
		if b != nil || err != nil || !r.sleep(due) {
			return b, err
		}
	}
}

// look returns what is to be sent now, or says in how long there will be
// something; negative: when the queue changes.
func (r *run) look() (*batch, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, -1, nil
	}
	if len(r.queue.sealed) > 0 {
		return r.queue.sealed[0], 0, nil
	}
	if r.queue.sendable(r.closing) == nil {
		return nil, -1, nil
	}
	now := r.lifecycle.opts.Clock.Now()
	if r.queue.urgent == 0 && !r.queue.full() {
		from := r.sentAt
		if r.lifecycle.opts.Synchronous {
			from = r.since
		}
		if due := from.Add(r.lifecycle.opts.BatchDelay); due.After(now) {
			return nil, due.Sub(now), nil
		}
	}
	b, err := r.queue.seal(r.ordinal+1, r.closing)
	if err != nil {
		return nil, 0, err
	}
	r.ordinal += int64(len(b.entries))
	r.sentAt, r.since = now, now
	return b, 0, nil
}

// sleep waits for so long, or for a change of the queue; false: the run is over.
func (r *run) sleep(d time.Duration) bool {
	var due <-chan time.Time
	if d >= 0 {
		timer := r.lifecycle.opts.Clock.NewTimer(d)
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-due:
	case <-r.wakes:
	case <-r.life.Done():
		return false
	}
	return true
}

// mostBroken is how often a batch is sent again because the server cannot read it.
const mostBroken = 5

// deliver sends a batch until it has an outcome; false: the run is over.
func (r *run) deliver(b *batch) bool {
	pauses, broken := backoff{lifecycle: r.lifecycle}, 0
	for {
		if done, err := r.withdraw(b); done || err != nil {
			if err != nil {
				r.over(err)
			}
			return err == nil
		}
		token := r.currentToken()
		answer, err := r.lifecycle.post(r.requests, r.task.ID, token, b.body)
		r.mu.Lock()
		r.trouble = err
		r.mu.Unlock()
		if err == nil {
			r.recorded(b, answer)
			return true
		}
		refused := new(Error)
		switch {
		case isPassingOrForeign(err) && !divisible(err):
		case !errors.As(err, &refused):
			r.over(err)
			return false
		case refused.Status == http.StatusUnauthorized:
			if r.renew(r.life, token) != nil {
				return false
			}
			if pauses.failures == 0 {
				pauses.failures++
				continue
			}
			// Renewed and expired again: a server that is at odds with itself.
		case fences(err):
			r.answer(b, err)
			r.over(err)
			return false
		case divisible(err):
			if err := r.divide(b, refused); err != nil {
				r.over(err)
				return false
			}
			return true
		case refused.Status == http.StatusBadRequest && broken < mostBroken:
			// What was sent is well-formed: it did not arrive like that. (A process that
			// is stopped while it sends is one way.)
			broken++
		default:
			r.over(fmt.Errorf("report on task %s: %w", r.task.ID, err))
			return false
		}
		if pauses.failures == 0 {
			r.lifecycle.opts.Logger.Warn("reports are to be sent again", "taskId", r.task.ID, "reports", len(b.entries), "error", err)
		}
		if !pauses.pause(r.life, err) {
			return false
		}
	}
}

// post makes one try of a request with reports.
func (l *Lifecycle) post(ctx context.Context, taskID, token string, body []byte) (*attemptAnswer, error) {
	answer := new(attemptAnswer)
	req := request{method: http.MethodPost, route: "/reports", taskID: taskID, body: body, most: maxAnswer}
	return answer, l.try(ctx, req, token, answer)
}

// withdraw takes a report that its caller has given up out of a batch that is to
// be sent again. What precedes it keeps its ordinals. done: the batch is another
// one now, or there is nothing left of it.
func (r *run) withdraw(b *batch) (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(b.entries) - 1
	if !b.entries[n].withdrawn {
		return false, nil
	}
	r.queue.settle()
	close(b.entries[n].decided)
	return true, r.resend(part{b.first, b.entries[:n]})
}

// part is some reports of a batch, under the ordinals that they have there.
type part struct {
	first   int64
	entries []*entry
}

// resend has what is left of a batch sent in its place. The lock is held.
func (r *run) resend(parts ...part) error {
	var batches []*batch
	for _, p := range parts {
		if len(p.entries) == 0 {
			continue
		}
		b, err := newBatch(p.first, p.entries)
		if err != nil {
			return err
		}
		batches = append(batches, b)
	}
	r.queue.resend(batches)
	return nil
}

// recorded takes notice of the answer to a batch.
func (r *run) recorded(b *batch, answer *attemptAnswer) {
	r.observe(&answer.AttemptResponse)
	refused := make(map[int64]workerapi.Refusal, len(answer.Refused))
	for _, refusal := range answer.Refused {
		refused[refusal.Ordinal] = refusal
	}
	ended := false
	r.mu.Lock()
	for i, e := range b.entries {
		if refusal, ok := refused[b.first+int64(i)]; ok {
			r.decide(e, refusedReport(refusal))
			continue
		}
		r.decide(e, nil)
		ended = ended || e.ends()
	}
	r.queue.settle()
	r.mu.Unlock()
	if ended {
		r.over(taskbridge.ErrTaskFinished)
	}
}

func refusedReport(refusal workerapi.Refusal) error {
	means := taskbridge.ErrStreamFull
	if refusal.Code == workerapi.CodeTaskFinished {
		means = taskbridge.ErrTaskFinished
	}
	return fmt.Errorf("%w: %s", means, refusal.Message)
}

// decide gives an entry its outcome. An error that nobody waits for is kept for
// the next call. The lock is held.
func (r *run) decide(e *entry, err error) {
	e.err, e.answered = err, true
	if err != nil && e.waiting == 0 && !e.last() {
		r.lost[e.kind()] = err
	}
	close(e.decided)
}

// answer gives a suspension or an end the error by which the server has refused
// its batch: whoever waits for it has the server's word.
func (r *run) answer(b *batch, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := b.entries[len(b.entries)-1]; last.last() {
		last.err, last.answered = err, true
	}
}

// divisible reports whether an answer refuses a report of a batch, or the size of
// it all, and not the run.
func divisible(err error) bool {
	refused := new(Error)
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Status {
	case http.StatusRequestEntityTooLarge: // by whatever is on the way too
		return true
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return refused.index >= 0
	}
	return false
}

// divide drops the report that the server will not have and has the others sent,
// under the ordinals that they have: nothing of the batch was recorded, or it
// was in a try before. Where all of it is too large it is halved.
func (r *run) divide(b *batch, refused *Error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.settle()
	bad, n := refused.index, len(b.entries)
	if bad < 0 || bad >= n {
		if n > 1 {
			half := n / 2
			return r.resend(part{b.first, b.entries[:half]}, part{b.first + int64(half), b.entries[half:]})
		}
		bad = 0
		if e := b.entries[0]; e.kind() == workerapi.ReportComplete && e.report.Result != nil {
			omitResult(&e.report)
			return r.resend(part{b.first, b.entries})
		}
	}
	var err error = refused
	if refused.means != nil {
		err = refused.means
	}
	e := b.entries[bad]
	r.lifecycle.opts.Logger.Warn("a report is refused", "taskId", r.task.ID, "type", e.kind(), "error", err)
	r.decide(e, err)
	return r.resend(part{b.first, b.entries[:bad]}, part{b.first + int64(bad) + 1, b.entries[bad+1:]})
}

// omitResult makes a completion of what is too large for a request. The end is
// what counts; that its result is missing is told.
func omitResult(report *workerapi.Report) {
	note := fmt.Sprintf("the result of %d bytes is left out: it is larger than a request may be", len(report.Result))
	if report.Message != "" {
		note = report.Message + " (" + note + ")"
	}
	report.Result, report.Message = nil, note
}

// abandon tells those who wait that the run is over.
func (r *run) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &r.queue
	all := q.open
	for _, b := range q.sealed {
		all = append(all, b.entries...)
	}
	for _, e := range all {
		if !e.isDecided() {
			if e.err == nil {
				e.err = r.err
			}
			close(e.decided)
		}
	}
	changed := q.changed
	*q = newQueue(q.maxBytes, q.maxCount)
	close(changed)
}

// endAgain reports an end to a task that has ended, to learn whether it is the
// same one: nil, or [taskbridge.ErrTaskFinished].
func (r *run) endAgain(ctx context.Context, report workerapi.Report) error {
	r.mu.Lock()
	r.ordinal++
	b, err := newBatch(r.ordinal, []*entry{newEntry(report)})
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.lifecycle.persist(ctx, "end of task "+r.task.ID, isPassing, func() error {
		token := r.currentToken()
		answer, err := r.lifecycle.post(ctx, r.task.ID, token, b.body)
		refused := new(Error)
		switch {
		case err == nil:
			r.observe(&answer.AttemptResponse)
		case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized && !refused.foreign():
			if err := r.renew(ctx, token); err != nil {
				return err
			}
			return &passing{err: err}
		}
		return err
	})
}
