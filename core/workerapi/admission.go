package workerapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// TokenKind is one of the two kinds of token that a [Signer] makes.
type TokenKind string

// The kinds of token.
const (
	TokenSubmission TokenKind = "submission"
	TokenAttempt    TokenKind = "attempt"
)

// LimitError is what [Options].Admit returns for a request that is one too many.
// It is answered 429 RATE_LIMITED, with Retry-After.
type LimitError struct {
	// Message says which limit it is; the worker reads it.
	Message string
	// After is when it is worth trying again: told in whole seconds, at least 1.
	After time.Duration
}

// Error says which limit it is.
func (e *LimitError) Error() string { return e.Message }

// retryAfter returns After as the header has it.
func (e *LimitError) retryAfter() int { return int(max(1, math.Ceil(e.After.Seconds()))) }

// refused tells the host of a token that was refused.
func (h *handler) refused(r *http.Request, token string, err error) {
	var p *problem
	if h.opts.Refused == nil || !errors.As(err, &p) || p.status != http.StatusUnauthorized && p.status != http.StatusForbidden {
		return
	}
	switch {
	case strings.HasPrefix(token, submissionPrefix):
		h.opts.Refused(r, TokenSubmission)
	case strings.HasPrefix(token, attemptPrefix):
		h.opts.Refused(r, TokenAttempt)
	}
}

// admit asks the host whether the request is one too many. done is called once it
// has been handled.
func (h *handler) admit(c *call) (done func(), err error) {
	if h.opts.Admit == nil {
		return func() {}, nil
	}
	return h.opts.Admit(c.r, c.caller())
}

// caller names whom a request is counted to.
func (c *call) caller() string {
	switch c.credential.kind {
	case submissionToken:
		return "submission of " + c.taskID
	case attemptToken:
		return fmt.Sprintf("attempt %d of %s", c.credential.grant.Attempt, c.taskID)
	}
	return "host's credentials, for " + c.taskID
}
