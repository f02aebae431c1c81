package httpapi

import (
	"errors"
	"net/http"

	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
)

// admit counts a request against the limits of its principal. What it takes is
// given back by the call's done, or by the stream that has kept it.
func (a *API) admit(c *call) (err error) {
	limiter := a.opts.Limiter
	if limiter == nil {
		return nil
	}
	subject := c.principal.Subject
	if IsStream(c.r) {
		c.release, err = limiter.Stream(subject)
	} else if c.release, err = limiter.Request(subject); err == nil && c.r.Method == http.MethodPost && c.r.URL.Path == pathTasks {
		err = limiter.Create(subject)
	}
	var limit *ratelimit.LimitError
	if !errors.As(err, &limit) {
		return err
	}
	a.opts.Limited(limit)
	if limit.Server && c.r.URL.Path == pathSocket {
		// A browser does not see how a handshake is refused, but it sees a code.
		c.overloaded = true
		return nil
	}
	p := &problem{
		status: http.StatusTooManyRequests, code: codeRateLimited, message: limit.Error(),
		retryAfter: true, seconds: limit.RetryAfter(),
	}
	if limit.Server {
		p.status, p.code = http.StatusServiceUnavailable, codeUnavailable
	}
	return p
}

// done gives back what the call has been admitted with.
func (c *call) done() {
	if c.release != nil {
		c.release()
	}
}

// keep hands that over to a stream that outlives the call.
func (c *call) keep() (release func()) {
	release, c.release = c.release, nil
	if release == nil {
		return func() {}
	}
	return release
}
