package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Retry bounds how a request is repeated. The zero value means the defaults.
type Retry struct {
	// MinDelay and MaxDelay bound the delay before a repetition, which doubles
	// and is jittered; defaults 200 ms and 10 s.
	MinDelay, MaxDelay time.Duration
	// MaxRetryAfter bounds how long a server's Retry-After is honoured; default
	// one minute.
	MaxRetryAfter time.Duration
	// MaxAttempts bounds the tries of Create, Get, Cancel and a page of List; 0:
	// the time alone does.
	MaxAttempts int
	// MaxElapsed bounds the time of the same: no try begins after it. Default two
	// minutes; negative: the context alone bounds it.
	MaxElapsed time.Duration
	// MaxOutage is how long Wait and Follow go on while the server does not
	// answer. 0: until their context ends.
	MaxOutage time.Duration
}

func (r Retry) withDefaults() (Retry, error) {
	if r.MinDelay < 0 || r.MaxDelay < 0 || r.MaxRetryAfter < 0 || r.MaxAttempts < 0 || r.MaxOutage < 0 {
		return r, errors.New("client: Retry must not have negative bounds, MaxElapsed apart")
	}
	if r.MinDelay == 0 {
		r.MinDelay = 200 * time.Millisecond
	}
	if r.MaxDelay == 0 {
		r.MaxDelay = max(10*time.Second, r.MinDelay)
	}
	if r.MaxRetryAfter == 0 {
		r.MaxRetryAfter = time.Minute
	}
	if r.MaxElapsed == 0 {
		r.MaxElapsed = 2 * time.Minute
	}
	if r.MaxDelay < r.MinDelay {
		return r, errors.New("client: Retry.MaxDelay is below MinDelay")
	}
	return r, nil
}

// delay returns how long to wait after the n-th failure in a row, from 1.
func (r Retry) delay(n int, err error) time.Duration {
	d := r.MaxDelay
	if shift := n - 1; shift < 30 && r.MinDelay<<shift > 0 {
		d = min(d, r.MinDelay<<shift)
	}
	d = d/2 + rand.N(d/2+1)
	var answer *Error
	if errors.As(err, &answer) {
		d = max(d, min(answer.RetryAfter, r.MaxRetryAfter))
	}
	return d
}

// maxUnexpected is how many answers in a row that are not the protocol's are
// taken for an accident on the way.
const maxUnexpected = 5

// passing reports whether the error may pass.
func passing(err error) bool {
	var (
		answer      *Error
		source      *sourceError
		argument    *taskbridge.ArgumentError
		certificate *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &answer):
		return answer.Status == http.StatusTooManyRequests ||
			answer.Status >= 500 && !errors.Is(err, taskbridge.ErrSubmissionRejected) ||
			answer.Status < 300 // one that makes no sense
	case errors.As(err, &source), errors.As(err, &argument), errors.As(err, &certificate),
		errors.Is(err, ErrAnswerTooLarge), errors.Is(err, taskbridge.ErrEventGap):
		return false
	}
	return true // the connection's
}

// again counts failures in a row.
type again struct {
	failures, unexpected int
}

// failed counts one and reports whether it may be tried again.
func (a *again) failed(err error) bool {
	a.failures++
	if errors.Is(err, ErrUnexpectedAnswer) {
		a.unexpected++
	} else {
		a.unexpected = 0
	}
	return passing(err) && a.unexpected < maxUnexpected
}

// persist calls try until it succeeds, fails for good, or a bound is reached.
func (c *Client) persist(ctx context.Context, what string, try func() error) error {
	var failures again
	begun := c.clock.Now()
	for {
		err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, ended(ctx, err))
		case !failures.failed(err):
			return fmt.Errorf("%s: %w", what, err)
		}
		delay := c.retry.delay(failures.failures, err)
		spent := c.clock.Now().Sub(begun)
		if c.retry.MaxAttempts > 0 && failures.failures >= c.retry.MaxAttempts ||
			c.retry.MaxElapsed > 0 && spent+delay > c.retry.MaxElapsed {
			return fmt.Errorf("%s: given up after %d tries: %w", what, failures.failures, err)
		}
		c.logger.Debug("a request failed and is tried again", "request", what, "failures", failures.failures, "delay", delay, "error", err)
		if c.sleep(ctx, delay) != nil {
			return fmt.Errorf("%s: %w", what, ended(ctx, err))
		}
	}
}

// ended says that the context has ended, and what had failed by then.
func ended(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if last == nil || errors.Is(last, cause) {
		return cause
	}
	return fmt.Errorf("%w, after: %w", cause, last)
}

func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
