package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/fakes"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func newLimiter(t *testing.T, opts Options) (*Limiter, *fakes.ManualClock) {
	t.Helper()
	clock := fakes.NewManualClock(noon)
	opts.Clock = clock
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l, clock
}

// allowed checks that there is no error, and releases what there is to release.
func allowed(t *testing.T, release func(), err error) {
	t.Helper()
	if err != nil {
		t.Errorf("refused: %v", err)
		return
	}
	release()
}

var kinds = map[string]Kind{
	"requests": KindRequests, "new tasks": KindCreates, "requests at once": KindConcurrent,
	"open streams": KindStreams, "open streams on this server": KindTotalStreams,
}

func limited(t *testing.T, err error, limit string, retryAfter int) {
	t.Helper()
	var refused *LimitError
	if !errors.As(err, &refused) || !errors.Is(err, ErrLimited) {
		t.Errorf("error %v, want a LimitError", err)
		return
	}
	if kind, known := kinds[limit]; !known || refused.Kind != kind || refused.Limit != limit || refused.RetryAfter() != retryAfter {
		t.Errorf("%d %q, again after %d s (%s), want %q, %d s", refused.Kind, refused.Limit, refused.RetryAfter(), refused.After, limit, retryAfter)
	}
}

func TestRequestsAreLimitedByRateAndToldWhenToComeBack(t *testing.T) {
	l, clock := newLimiter(t, Options{Requests: Rate{PerSecond: 0.5, Burst: 3}})
	for range 3 {
		release, err := l.Request("alice")
		allowed(t, release, err)
	}
	for range 5 { // a refusal costs nothing
		_, err := l.Request("alice")
		limited(t, err, "requests", 2)
	}
	release, err := l.Request("bob")
	allowed(t, release, err)
	clock.Advance(500 * time.Millisecond)
	_, err = l.Request("alice")
	limited(t, err, "requests", 2) // 1.5 s, rounded up
	clock.Advance(1400 * time.Millisecond)
	_, err = l.Request("alice")
	limited(t, err, "requests", 1)
	clock.Advance(100 * time.Millisecond)
	release, err = l.Request("alice")
	allowed(t, release, err)
	_, err = l.Request("alice")
	limited(t, err, "requests", 2)
}

func TestCreationsHaveALimitOfTheirOwn(t *testing.T) {
	l, clock := newLimiter(t, Options{Creates: Rate{PerSecond: 1}})
	if err := l.Create("alice"); err != nil {
		t.Fatal(err)
	}
	limited(t, l.Create("alice"), "new tasks", 1)
	release, err := l.Request("alice")
	allowed(t, release, err)
	if err := l.Create("bob"); err != nil {
		t.Error(err)
	}
	clock.Advance(time.Second)
	if err := l.Create("alice"); err != nil {
		t.Error(err)
	}
}

func TestStreamsCountAsRequestsByRateAndNotByNumber(t *testing.T) {
	l, _ := newLimiter(t, Options{Requests: Rate{PerSecond: 1, Burst: 3}, ConcurrentRequests: 1})
	first, err := l.Stream("alice")
	if err != nil {
		t.Fatal(err)
	}
	defer first()
	release, err := l.Request("alice")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Request("alice")
	limited(t, err, "requests at once", 1)
	release()
	release, err = l.Request("alice")
	allowed(t, release, err)
	_, err = l.Stream("alice")
	limited(t, err, "requests", 1)
}

func TestOpenStreamsAreLimitedForAPrincipalAndForTheServer(t *testing.T) {
	l, _ := newLimiter(t, Options{Streams: 2, TotalStreams: 3})
	open := func(subject string) func() {
		t.Helper()
		release, err := l.Stream(subject)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	one, two := open("alice"), open("alice")
	_, err := l.Stream("alice")
	limited(t, err, "open streams", 5)
	three := open("bob")
	_, err = l.Stream("bob")
	limited(t, err, "open streams on this server", 5)
	var refused *LimitError
	if !errors.As(err, &refused) || !refused.Server {
		t.Errorf("error %+v does not say that it is the server's limit", err)
	}
	one()
	one() // releasing again does nothing
	four := open("bob")
	_, err = l.Stream("carol")
	limited(t, err, "open streams on this server", 5)
	for _, release := range []func(){two, three, four} {
		release()
	}
	for range 3 {
		allowed(t, open("carol"), nil)
	}
}

func TestNothingIsLimitedByDefault(t *testing.T) {
	l, _ := newLimiter(t, Options{})
	for range 1000 {
		if _, err := l.Request("alice"); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Stream("alice"); err != nil {
			t.Fatal(err)
		}
		if err := l.Create("alice"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCountsAreRightAfterAnyNumberOfConcurrentUses(t *testing.T) {
	l, _ := newLimiter(t, Options{ConcurrentRequests: 3, Streams: 3, TotalStreams: 5})
	var all sync.WaitGroup
	var mu sync.Mutex
	open, most := map[string]int{}, map[string]int{}
	count := func(name string, by int) {
		mu.Lock()
		defer mu.Unlock()
		open[name] += by
		most[name] = max(most[name], open[name])
	}
	for i := range 8 {
		subject := fmt.Sprint("user-", i%2)
		all.Go(func() {
			for range 300 {
				if release, err := l.Request(subject); err == nil {
					count("requests of "+subject, 1)
					runtime.Gosched()
					count("requests of "+subject, -1)
					release()
				}
				if release, err := l.Stream(subject); err == nil {
					count("streams of "+subject, 1)
					count("streams", 1)
					runtime.Gosched()
					count("streams", -1)
					count("streams of "+subject, -1)
					release()
				}
			}
		})
	}
	all.Wait()
	for name, limit := range map[string]int{
		"requests of user-0": 3, "requests of user-1": 3, "streams of user-0": 3, "streams of user-1": 3, "streams": 5,
	} {
		if most[name] > limit {
			t.Errorf("%d %s at once, the limit is %d", most[name], name, limit)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams != 0 || len(l.principals) != l.idle.Len() {
		t.Errorf("%d streams and %d principals in use are left", l.streams, len(l.principals)-l.idle.Len())
	}
	for _, p := range l.principals {
		if p.running != 0 || p.streams != 0 {
			t.Errorf("%s has %d requests and %d streams left", p.subject, p.running, p.streams)
		}
	}
}

func TestIdlePrincipalsAreForgottenOnceTheirBucketsAreFull(t *testing.T) {
	l, clock := newLimiter(t, Options{Requests: Rate{PerSecond: 2, Burst: 10}, Creates: Rate{PerSecond: 1, Burst: 20}})
	for i := range 1000 {
		release, err := l.Request(fmt.Sprint(i))
		allowed(t, release, err)
	}
	clock.Advance(20*time.Second - time.Nanosecond)
	release, err := l.Request("late")
	allowed(t, release, err)
	if got := len(l.principals); got != 1001 {
		t.Fatalf("%d principals, want 1001", got)
	}
	clock.Advance(time.Nanosecond)
	for range 500 {
		release, err := l.Request("late")
		if err == nil {
			release()
		}
	}
	if got := len(l.principals); got != 1 || l.idle.Len() != 1 {
		t.Errorf("%d principals of whom %d are idle, want one", got, l.idle.Len())
	}
}

func TestAPrincipalWithAnOpenStreamIsNotForgotten(t *testing.T) {
	l, clock := newLimiter(t, Options{Streams: 1, IdlePrincipals: 2})
	release, err := l.Stream("alice")
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	for i := range 100 {
		done, err := l.Request(fmt.Sprint(i))
		allowed(t, done, err)
	}
	if _, err := l.Stream("alice"); err == nil {
		t.Error("its stream was forgotten")
	}
	if got := len(l.principals); got > 4 {
		t.Errorf("%d principals are remembered, 2 idle ones are allowed", got)
	}
	release()
	release, err = l.Stream("alice")
	allowed(t, release, err)
}

func TestTheNumberOfIdlePrincipalsIsBounded(t *testing.T) {
	l, _ := newLimiter(t, Options{Requests: Rate{PerSecond: 0.001, Burst: 10}, IdlePrincipals: 50})
	for i := range 1000 {
		release, err := l.Request(fmt.Sprint(i))
		allowed(t, release, err)
	}
	if got := len(l.principals); got > 51 {
		t.Errorf("%d principals are remembered, 50 are allowed", got)
	}
	// Those who came last still have what they used.
	release, err := l.Request("999")
	allowed(t, release, err)
	if tokens := l.principals["999"].requests.TokensAt(noon); math.Round(tokens) != 8 {
		t.Errorf("%v tokens left, want 8", tokens)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		opts Options
		want string
	}{
		"negative rate":   {Options{Requests: Rate{PerSecond: -1}}, "Options.Requests must not be negative"},
		"no number":       {Options{Creates: Rate{PerSecond: math.NaN()}}, "Options.Creates must not be negative, and finite"},
		"endless":         {Options{Creates: Rate{PerSecond: math.Inf(1)}}, "Options.Creates must not be negative, and finite"},
		"burst alone":     {Options{Requests: Rate{Burst: 5}}, "Options.Requests has a burst and no rate"},
		"next to nothing": {Options{Requests: Rate{PerSecond: 1e-9}}, "0.001 a second or more"},
		"negative number": {Options{Streams: -1}, "must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(test.opts); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	l, err := New(Options{Requests: Rate{PerSecond: 2.5}, Creates: Rate{PerSecond: 0.1}})
	if err != nil {
		t.Fatal(err)
	}
	if l.opts.Requests.Burst != 3 || l.opts.Creates.Burst != 1 {
		t.Errorf("default bursts %d and %d, want 3 and 1", l.opts.Requests.Burst, l.opts.Creates.Burst)
	}
}

func BenchmarkRequest(b *testing.B) {
	l, err := New(Options{Requests: Rate{PerSecond: 1e9}, ConcurrentRequests: 100})
	if err != nil {
		b.Fatal(err)
	}
	subjects := make([]string, 1000)
	for i := range subjects {
		subjects[i] = fmt.Sprint("user-", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		release, err := l.Request(subjects[i%len(subjects)])
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}

// BenchmarkIdlePrincipal reports the memory of one who is remembered.
func BenchmarkIdlePrincipal(b *testing.B) {
	const many = 100_000
	var before, after runtime.MemStats
	for b.Loop() {
		l, err := New(Options{Requests: Rate{PerSecond: 1}, Creates: Rate{PerSecond: 1}})
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range many {
			release, err := l.Request(fmt.Sprintf("user-%06d", i))
			if err != nil {
				b.Fatal(err)
			}
			release()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/principal")
		runtime.KeepAlive(l)
	}
}
