//go:build linux

package temporaladapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// requestCounter counts the requests of a client to Temporal, by their names, as its
// metrics tell.
type requestCounter struct {
	tags map[string]string
	*requestCounts
}

type requestCounts struct {
	mu sync.Mutex
	by map[string]int64
}

func newRequestCounter() requestCounter {
	return requestCounter{map[string]string{}, &requestCounts{by: map[string]int64{}}}
}

func (c requestCounter) WithTags(tags map[string]string) client.MetricsHandler {
	all := maps.Clone(c.tags)
	maps.Copy(all, tags)
	return requestCounter{all, c.requestCounts}
}

func (c requestCounter) Counter(name string) client.MetricsCounter {
	return counter(func(n int64) {
		if name != "temporal_request" {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.by[c.tags["operation"]] += n
	})
}

func (requestCounter) Gauge(string) client.MetricsGauge { return client.MetricsNopHandler.Gauge("") }
func (requestCounter) Timer(string) client.MetricsTimer { return client.MetricsNopHandler.Timer("") }

type counter func(int64)

func (c counter) Inc(n int64) { c(n) }

func (c requestCounter) snapshot() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by)
}

func (c requestCounter) of(operation string) int64 { return c.snapshot()[operation] }

// BenchmarkWatching tells how many requests a second it costs to watch open workflows
// from outside, with the default intervals: when their tasks were heard of, and when
// all are silent.
//
//	go test -run '^$' -bench Watching -benchtime 1x -timeout 60m
func BenchmarkWatching(b *testing.B) {
	heard := unwatched // its silence is longer than the watch
	silent := taskbridge.SubmissionOptions{Timeout: 20 * time.Second}
	for _, open := range []int{1_000, 10_000} {
		for name, submission := range map[string]taskbridge.SubmissionOptions{"heard-of": heard, "silent": silent} {
			b.Run(fmt.Sprintf("%s/%d", name, open), func(b *testing.B) {
				for b.Loop() {
					watch(b, open, submission)
				}
			})
		}
	}
}

// watch opens workflows, which wait for a worker, and watches them for eight
// intervals of the sweep.
func watch(b *testing.B, open int, submission taskbridge.SubmissionOptions) {
	b.Helper()
	const interval, intervals = 15 * time.Second, 8
	counted := newRequestCounter()
	options := clientOptions(testServer)
	options.MetricsHandler = counted
	c, err := client.NewLazyClient(options)
	must(b, err)
	defer c.Close()
	f := newFixture(b, fixtureOptions{submission: &submission, change: func(o *Options) {
		o.Client, o.FirstLook, o.SweepInterval = c, time.Hour, interval
	}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	f.ctx = ctx // which the fixture's own is too short for
	begun := time.Now()
	var (
		mu       sync.Mutex
		failures []error
	)
	inSlots(16, make([]struct{}, open), func(struct{}) {
		_, err := f.bridge.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{ClientRequestID: newName(), TaskType: "wait"})
		mu.Lock()
		defer mu.Unlock()
		failures = append(failures, err)
	})
	must(b, errors.Join(failures...))
	b.Logf("%d workflows opened in %s", open, time.Since(begun).Round(time.Second))
	f.reconcile()
	const lists, inspections = "ListWorkflowExecutions", "DescribeWorkflowExecution"
	pages := counted.of(lists)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for range 5 { // all have been silent for a minute, and the sweep has had its first look
		<-tick.C
	}
	b.Logf("before the watch, from its beginning on: %v, of these lists while they were opened: %d", counted.snapshot(), pages)
	before, from := counted.snapshot(), time.Now()
	for range intervals {
		<-tick.C
	}
	after, took := counted.snapshot(), time.Since(from).Seconds()
	var total int64
	for operation, n := range after {
		total += n - before[operation]
	}
	b.ReportMetric(float64(total)/took, "requests/s")
	b.ReportMetric(float64(after[lists]-before[lists])/took, "lists/s")
	b.ReportMetric(float64(after[inspections]-before[inspections])/took, "inspections/s")
}
