package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// backoff counts the failures of one request.
type backoff struct {
	lifecycle *Lifecycle
	failures  int
}

// next is how long to pause after a failure.
func (b *backoff) next(err error) time.Duration {
	retry := b.lifecycle.opts.Retry
	pause := retry.Most
	if shift := b.failures; shift < 30 && retry.First<<shift>>shift == retry.First {
		pause = min(pause, retry.First<<shift)
	}
	b.failures++
	pause -= time.Duration(rand.Int64N(int64(pause)/2 + 1))
	if told := new(passing); errors.As(err, &told) {
		pause = max(pause, min(told.after, retry.MostAsked))
	}
	return pause
}

// pause waits after a failure; false: ctx has ended.
func (b *backoff) pause(ctx context.Context, err error) bool {
	return b.lifecycle.wait(ctx, b.next(err))
}

// wait waits by the clock; false: ctx has ended.
func (l *Lifecycle) wait(ctx context.Context, d time.Duration) bool {
	timer := l.opts.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// persist makes a call until it has an answer, or ctx ends: then the error
// matches ctx's and tells the last failure. again says which errors are worth
// another try.
func (l *Lifecycle) persist(ctx context.Context, what string, again func(error) bool, call func() error) error {
	pauses := backoff{lifecycle: l}
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		err := call()
		if err == nil {
			return nil
		}
		if cause := ctx.Err(); cause != nil && isPassing(err) {
			return gaveUp(what, cause, err)
		}
		if !again(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		l.opts.Logger.Warn("a request is to be tried again", "request", what, "error", err)
		if !pauses.pause(ctx, err) {
			return gaveUp(what, ctx.Err(), err)
		}
	}
}

// gaveUp is the error of a call whose context has ended before it had an answer.
func gaveUp(what string, cause, last error) error {
	if last == nil {
		return fmt.Errorf("%s: %w", what, cause)
	}
	return fmt.Errorf("%s: %w (the last failure: %v)", what, cause, last) //nolint:errorlint // only the context's error is to be matched
}

func isPassing(err error) bool {
	told := new(passing)
	return errors.As(err, &told)
}

// isUntouched reports whether the failed request has certainly had no effect.
func isUntouched(err error) bool {
	told := new(passing)
	return errors.As(err, &told) && told.untouched
}

// isPassingOrForeign also takes an answer of something on the way for passing.
func isPassingOrForeign(err error) bool {
	told := new(Error)
	return isPassing(err) || errors.As(err, &told) && told.foreign()
}
