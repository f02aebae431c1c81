// Package ratelimit bounds what one principal may ask of the server, so that no
// one of them takes it from the others: requests and creations by rate, requests
// under way and open streams by number, and all streams together by number.
//
// A principal is known by its subject: its API keys and tokens share its limits.
package ratelimit

import (
	"container/list"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"golang.org/x/time/rate"
)

// Rate is a token bucket: so many a second in the long run, and up to Burst at
// once. The zero value limits nothing.
type Rate struct {
	PerSecond float64
	// Burst; 0: one second's worth, at least 1.
	Burst int
}

// Options configures [New]. What is zero is not limited.
type Options struct {
	// Requests limits all requests of a principal, Creates those of them that
	// create a task.
	Requests, Creates Rate
	// ConcurrentRequests is how many requests of a principal may be under way,
	// long polls among them; streams are not.
	ConcurrentRequests int
	// Streams is how many streams a principal may have open, TotalStreams how
	// many there may be on this server.
	Streams, TotalStreams int
	// IdlePrincipals is for how many principals who have nothing under way it is
	// remembered what they did lately, some 350 bytes for each. One who comes
	// back after it was forgotten has its whole burst again. Default 100,000.
	IdlePrincipals int

	Clock taskbridge.Clock // nil: the system's
}

// ErrLimited: a limit has been reached. The error is a [LimitError].
var ErrLimited = errors.New("limit reached")

// LimitError says which limit was reached, in words that may be shown to the
// client. It matches [ErrLimited].
type LimitError struct {
	// Kind is which of them it is, for whoever counts.
	Kind Kind
	// Limit names it to the client.
	Limit string
	// Server: it is the server's limit and not the principal's.
	Server bool
	// After is when it is worth trying again.
	After time.Duration
}

// Kind is one of the limits of [Options].
type Kind int

// The kinds.
const (
	KindRequests     Kind = iota // Options.Requests
	KindCreates                  // Options.Creates
	KindConcurrent               // Options.ConcurrentRequests
	KindStreams                  // Options.Streams
	KindTotalStreams             // Options.TotalStreams
)

// Error says which limit it is.
func (e *LimitError) Error() string { return "too many " + e.Limit }

// Is makes it match [ErrLimited].
func (*LimitError) Is(target error) bool { return target == ErrLimited }

// RetryAfter returns After as the header of that name has it: whole seconds, at
// least 1.
func (e *LimitError) RetryAfter() int {
	return int(max(1, math.Ceil(e.After.Seconds())))
}

const (
	// retryRequest and retryStream are answered where only others' going makes
	// room, which nobody can foresee.
	retryRequest = time.Second
	retryStream  = 5 * time.Second
)

// Limiter counts. Safe for concurrent use; it has no goroutine and needs no
// closing.
type Limiter struct {
	opts Options
	// refill is how long the slower bucket takes from empty to full.
	refill time.Duration

	mu         sync.Mutex
	principals map[string]*principal
	// idle are those with nothing under way, who became so longest ago first.
	idle    *list.List
	streams int
}

type principal struct {
	subject           string
	requests, creates *rate.Limiter // nil: not limited
	running, streams  int
	idle              *list.Element // nil: something is under way
	idleSince         time.Time
}

// New checks the options.
func New(opts Options) (*Limiter, error) {
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	if opts.IdlePrincipals == 0 {
		opts.IdlePrincipals = 100_000
	}
	for _, r := range []struct {
		name string
		rate *Rate
	}{{"Requests", &opts.Requests}, {"Creates", &opts.Creates}} {
		switch {
		case r.rate.PerSecond < 0 || math.IsNaN(r.rate.PerSecond) || math.IsInf(r.rate.PerSecond, 0) || r.rate.Burst < 0:
			return nil, fmt.Errorf("ratelimit: Options.%s must not be negative, and finite", r.name)
		case r.rate.PerSecond == 0 && r.rate.Burst > 0:
			return nil, fmt.Errorf("ratelimit: Options.%s has a burst and no rate", r.name)
		case r.rate.PerSecond > 0 && r.rate.PerSecond < 0.001:
			return nil, fmt.Errorf("ratelimit: Options.%s must be 0.001 a second or more, 0 for no limit", r.name)
		case r.rate.Burst == 0:
			r.rate.Burst = int(min(max(1, math.Ceil(r.rate.PerSecond)), math.MaxInt32))
		}
	}
	if opts.ConcurrentRequests < 0 || opts.Streams < 0 || opts.TotalStreams < 0 || opts.IdlePrincipals < 0 {
		return nil, errors.New("ratelimit: the numbers of Options must not be negative")
	}
	return &Limiter{
		opts: opts, refill: refillTime(opts.Requests, opts.Creates),
		principals: map[string]*principal{}, idle: list.New(),
	}, nil
}

// Request counts a request that begins. release must be called when it has
// ended; calling it again does nothing. With an error there is nothing to
// release.
func (l *Limiter) Request(subject string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.opts.Clock.Now()
	p := l.enter(subject, now)
	defer l.leave(p, now)
	if l.opts.ConcurrentRequests > 0 && p.running >= l.opts.ConcurrentRequests {
		return nil, &LimitError{Kind: KindConcurrent, Limit: "requests at once", After: retryRequest}
	}
	if err := take(p.requests, now, KindRequests, "requests"); err != nil {
		return nil, err
	}
	p.running++
	return l.releaser(p, &p.running, nil), nil
}

// Create counts a creation, beside the request that it is.
func (l *Limiter) Create(subject string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.opts.Clock.Now()
	p := l.enter(subject, now)
	defer l.leave(p, now)
	return take(p.creates, now, KindCreates, "new tasks")
}

// Stream counts a stream that is opened, in place of Request. release must be
// called when it has been closed; calling it again does nothing. With an error
// there is nothing to release.
func (l *Limiter) Stream(subject string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.opts.Clock.Now()
	p := l.enter(subject, now)
	defer l.leave(p, now)
	switch {
	case l.opts.Streams > 0 && p.streams >= l.opts.Streams:
		return nil, &LimitError{Kind: KindStreams, Limit: "open streams", After: retryStream}
	case l.opts.TotalStreams > 0 && l.streams >= l.opts.TotalStreams:
		return nil, &LimitError{Kind: KindTotalStreams, Limit: "open streams on this server", Server: true, After: retryStream}
	}
	if err := take(p.requests, now, KindRequests, "requests"); err != nil {
		return nil, err
	}
	p.streams++
	l.streams++
	return l.releaser(p, &p.streams, &l.streams), nil
}

// releaser returns what counts down, once. all may be nil.
func (l *Limiter) releaser(p *principal, own, all *int) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			*own--
			if all != nil {
				*all--
			}
			l.leave(p, l.opts.Clock.Now())
		})
	}
}

// take takes a token out of a bucket.
func take(bucket *rate.Limiter, now time.Time, kind Kind, what string) error {
	if bucket == nil || bucket.AllowN(now, 1) {
		return nil
	}
	missing := 1 - bucket.TokensAt(now)
	seconds := max(0, missing/float64(bucket.Limit()))
	return &LimitError{Kind: kind, Limit: what, After: time.Duration(seconds * float64(time.Second))}
}

// enter finds the principal, or makes it, and takes it off the idle ones.
func (l *Limiter) enter(subject string, now time.Time) *principal {
	p := l.principals[subject]
	if p == nil {
		p = &principal{subject: subject, requests: bucket(l.opts.Requests), creates: bucket(l.opts.Creates)}
		l.principals[subject] = p
	}
	if p.idle != nil {
		l.idle.Remove(p.idle)
		p.idle = nil
	}
	l.forget(now)
	return p
}

func bucket(r Rate) *rate.Limiter {
	if r.PerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
}

// leave puts the principal among the idle ones once nothing is under way.
func (l *Limiter) leave(p *principal, now time.Time) {
	if p.running == 0 && p.streams == 0 && p.idle == nil {
		p.idleSince = now
		p.idle = l.idle.PushBack(p)
	}
}

// forget drops idle principals of whom nothing is left to know, and the longest
// idle ones where there are too many. Two at most for each call, so that no call
// takes long and they still become fewer.
func (l *Limiter) forget(now time.Time) {
	for range 2 {
		oldest := l.idle.Front()
		if oldest == nil {
			return
		}
		p := oldest.Value.(*principal)
		if l.idle.Len() <= l.opts.IdlePrincipals && now.Sub(p.idleSince) < l.refill {
			return
		}
		l.idle.Remove(oldest)
		delete(l.principals, p.subject)
	}
}

// refillTime is how long the slower bucket takes from empty to full.
func refillTime(rates ...Rate) time.Duration {
	var longest float64
	for _, r := range rates {
		if r.PerSecond > 0 {
			longest = max(longest, float64(r.Burst)/r.PerSecond)
		}
	}
	return time.Duration(min(longest, (24*time.Hour).Seconds()) * float64(time.Second))
}
