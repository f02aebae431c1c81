package client

import (
	"context"
	"fmt"
	"time"
)

// pace spaces out the requests of an operation that goes on through outages.
type pace struct {
	client   *Client
	what     string
	lastLife time.Time // when the server answered last, or the beginning
	failures again
	hasty    int // answers in a row that came at once and said nothing
}

func (c *Client) newPace(what string) *pace {
	return &pace{client: c, what: what, lastLife: c.clock.Now()}
}

// answered notes that the server is there.
func (p *pace) answered() {
	p.lastLife = p.client.clock.Now()
	p.failures = again{}
}

// failed waits before the next try; an error of it ends the operation.
func (p *pace) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", p.what, ended(ctx, err))
	}
	if !p.failures.failed(err) {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	delay := p.client.retry.delay(p.failures.failures, err)
	silent := p.client.clock.Now().Sub(p.lastLife)
	if limit := p.client.retry.MaxOutage; limit > 0 && silent+delay > limit {
		return fmt.Errorf("%s: given up after %s without an answer: %w", p.what, silent.Round(time.Millisecond), err)
	}
	p.client.logger.Debug("a connection was lost and is made anew", "request", p.what, "failures", p.failures.failures, "delay", delay, "error", err)
	if p.client.sleep(ctx, delay) != nil {
		return fmt.Errorf("%s: %w", p.what, ended(ctx, err))
	}
	return nil
}

// unless waits after an answer that said nothing, if it came long before it was
// to come: whatever is on the way does not wait, and is not to be hammered.
func (p *pace) unless(ctx context.Context, asked time.Time, wait time.Duration) error {
	if p.client.clock.Now().Sub(asked) >= wait/2 {
		p.hasty = 0
		return nil
	}
	p.hasty++
	if p.client.sleep(ctx, p.client.retry.delay(p.hasty, nil)) != nil {
		return fmt.Errorf("%s: %w", p.what, context.Cause(ctx))
	}
	return nil
}
