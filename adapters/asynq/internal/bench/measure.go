package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// contender is a way to have tasks done by asynq.
type contender interface {
	name() string
	// create hands a task over.
	create(ctx context.Context) error
	// begun receives when the handler of each task begins, while latencies are
	// measured.
	begun() <-chan time.Time
	// expect says that so many tasks are to come, and returns a channel that is
	// closed at the end of the last one. Nothing is sent on begun then.
	expect(n int) <-chan struct{}
	close()
}

// latency measures one task on an idle machine.
func latency(ctx context.Context, c contender) (time.Duration, error) {
	// At some moment between two looks of the worker.
	timer := time.NewTimer(rand.N(15 * time.Millisecond))
	<-timer.C
	c.expect(0)
	start := time.Now()
	if err := c.create(ctx); err != nil {
		return 0, err
	}
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case at := <-c.begun():
		return at.Sub(start), nil
	case <-limit.C:
		return 0, fmt.Errorf("%s: the handler has not begun", c.name())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

const callers = 16

// throughput measures how many tasks a second are created and done.
func throughput(ctx context.Context, c contender, tasks int) (float64, error) {
	done := c.expect(tasks)
	start := time.Now()
	var creating sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		creating.Go(func() {
			for range share(tasks, i) {
				if errs[i] = c.create(ctx); errs[i] != nil {
					return
				}
			}
		})
	}
	creating.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	limit := time.NewTimer(5 * time.Minute)
	defer limit.Stop()
	select {
	case <-done:
		return float64(tasks) / time.Since(start).Seconds(), nil
	case <-limit.C:
		return 0, fmt.Errorf("%s: the tasks are not done", c.name())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// share is how many of the tasks a caller creates.
func share(tasks, caller int) int {
	n := tasks / callers
	if caller < tasks%callers {
		n++
	}
	return n
}

func percentile(samples []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func median(rates []float64) float64 {
	sorted := slices.Sorted(slices.Values(rates))
	return sorted[len(sorted)/2]
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// counter tells when handlers begin, or when a number of tasks is done.
type counter struct {
	starts chan time.Time

	mu   sync.Mutex
	left int
	done chan struct{}
}

func newCounter() *counter { return &counter{starts: make(chan time.Time, 1)} }

func (c *counter) begun() <-chan time.Time { return c.starts }

func (c *counter) expect(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.done = n, make(chan struct{})
	return c.done
}

// begin is called by handlers.
func (c *counter) begin() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		select {
		case c.starts <- now:
		default:
		}
	}
}

// end is called when a task has ended.
func (c *counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}
