package remote

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// watchWait is how long the server may hold back the answer to the watcher.
	watchWait = 25 * time.Second
	// watchDelay is how long a run lives before it is watched: one that is over
	// sooner costs no request for that. What the server knew at the start came with
	// its answer.
	watchDelay = 100 * time.Millisecond
	// watchPause is the least time between two answers that came early and told
	// nothing new, the first time; it doubles up to watchWait.
	watchPause = 250 * time.Millisecond
)

// watch learns of cancellation, fencing and the task's end, and keeps the
// attempt token fresh, until the run is over.
func (r *run) watch() {
	pauses := backoff{lifecycle: r.lifecycle}
	early := watchPause
	if !r.lifecycle.wait(r.life, watchDelay) {
		return
	}
	for {
		asked, known := r.lifecycle.opts.Clock.Now(), r.cancelled()
		token := r.currentToken()
		answer, err := r.ask(token, known)
		if r.life.Err() != nil {
			return
		}
		if err == nil {
			pauses.failures = 0
			r.observe(&answer.AttemptResponse)
			if took := r.lifecycle.opts.Clock.Now().Sub(asked); took >= watchWait/2 || !known && r.cancelled() {
				early = watchPause
				continue
			}
			if !r.lifecycle.wait(r.life, early) {
				return
			}
			early = min(2*early, watchWait)
			continue
		}
		refused := new(Error)
		switch {
		case isPassingOrForeign(err):
		case !errors.As(err, &refused):
			r.over(err)
			return
		case refused.Status == http.StatusUnauthorized:
			if r.renew(r.life, token) != nil {
				return
			}
			if pauses.failures == 0 {
				pauses.failures++
				continue
			}
		case fences(err):
			r.over(err)
			return
		default:
			r.over(fmt.Errorf("watch task %s: %w", r.task.ID, err))
			return
		}
		if !pauses.pause(r.life, err) {
			return
		}
	}
}

// ask makes one request for the state of the attempt, which the server answers
// when there is news or after a while.
func (r *run) ask(token string, cancellationKnown bool) (*attemptAnswer, error) {
	answer := new(attemptAnswer)
	req := request{
		method: http.MethodGet, taskID: r.task.ID, wait: watchWait, most: maxAnswer,
		route: fmt.Sprintf("/attempt?waitTimeoutMs=%d&cancellationKnown=%t", watchWait.Milliseconds(), cancellationKnown),
	}
	return answer, r.lifecycle.try(r.life, req, token, answer)
}
