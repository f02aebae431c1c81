package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
)

// growthName is the name under which Options.Only asks for the growth.
const growthName = "growth"

const (
	// smallStore is how many finished tasks the store has that the large one is
	// compared with.
	smallStore = 1000
	// growthAim is how many times longer an operation may take a client in the
	// large one. What is measured at the store has no aim of its own: it says how
	// much of a client's time is the store's.
	growthAim = 1.5
	// taskEvery is how far apart the tasks of the stores were created.
	taskEvery = time.Second
	// places is how many tasks are read by turns: far more than any cache holds.
	places = 50_000
)

// measureGrowth measures the same operations in a store of few finished tasks
// and in one of many, by turns, and then the deletion of half of the many while
// creates go on.
func measureGrowth(ctx context.Context, opts Options) (_ *Growth, err error) {
	dir, err := scratch(opts.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	growth := &Growth{Small: smallStore, Large: opts.Tasks}
	smallDir, largeDir := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	begin := time.Now()
	if err := fillSites(ctx, smallDir, largeDir, opts.Tasks); err != nil {
		return nil, err
	}
	growth.FillSeconds = time.Since(begin).Seconds()
	opts.Progress("growth: stores of %d and %d tasks filled in %.0f s", smallStore, opts.Tasks, growth.FillSeconds)
	small, err := openSite(ctx, opts, smallDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, small.close()) }()
	large, err := openSite(ctx, opts, largeDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, large.close()) }()

	// Reads come first: creates change what there is to read.
	for _, o := range readOperations {
		result, err := o.compareReads(ctx, opts, small, large)
		if err != nil {
			return nil, fmt.Errorf("%s (%s): %w", o.name, o.level, err)
		}
		growth.add(opts, result)
	}
	for _, o := range createOperations {
		result, err := o.compareCreates(ctx, opts, small, large)
		if err != nil {
			return nil, fmt.Errorf("%s (%s): %w", o.name, o.level, err)
		}
		growth.add(opts, result)
	}
	growth.Retention, err = measureRetention(ctx, opts, large)
	return growth, err
}

func (g *Growth) add(opts Options, result GrowthOperation) {
	if result.Level == levelHTTP {
		result.Aim, result.Met = growthAim, result.Ratio <= growthAim
	}
	g.Operations = append(g.Operations, result)
	opts.Progress("growth %s (%s): %.0f µs, %.0f µs, ratio %.2f", result.Name, result.Level, result.Small.P50, result.Large.P50, result.Ratio)
}

// Where operations are measured: by clients over loopback, or at the store's
// methods.
const (
	levelHTTP  = "HTTP"
	levelStore = "store"
)

// operation is one thing that a client does.
type operation struct {
	name, level string
	callers     int // how many do it at once; 0: one
	call        func(ctx context.Context, s *site, caller int) error
}

var readOperations = []operation{
	{name: "get of any task", level: levelHTTP, call: func(_ context.Context, s *site, caller int) error {
		return s.clients[caller].get("/api/v1/tasks/"+s.place().TaskID, "200")
	}},
	{name: "poll of any task from the beginning", level: levelHTTP, call: func(_ context.Context, s *site, caller int) error {
		return s.clients[caller].get("/api/v1/tasks/"+s.place().TaskID+"/events", "200")
	}},
	{name: "list, first page", level: levelHTTP, call: func(_ context.Context, s *site, caller int) error {
		return s.clients[caller].get("/api/v1/tasks", "200")
	}},
	{name: "list, any page", level: levelHTTP, call: func(_ context.Context, s *site, caller int) error {
		return s.clients[caller].get("/api/v1/tasks?cursor="+pageAfter(s.place()), "200")
	}},
	{name: "get of any task", level: levelStore, call: func(ctx context.Context, s *site, _ int) error {
		_, err := s.store.GetTask(ctx, s.place().TaskID)
		return err
	}},
	{name: "poll of any task from the beginning", level: levelStore, call: func(ctx context.Context, s *site, _ int) error {
		events, err := s.store.ReadEvents(ctx, s.place().TaskID, 0, taskbridge.DefaultPollEvents)
		if err == nil && len(events) != bulk.EventsPerTask {
			err = fmt.Errorf("%d events instead of %d", len(events), bulk.EventsPerTask)
		}
		return err
	}},
	{name: "list, first page", level: levelStore, call: func(ctx context.Context, s *site, _ int) error {
		return s.list(ctx, taskbridge.ListCursor{})
	}},
	{name: "list, any page", level: levelStore, call: func(ctx context.Context, s *site, _ int) error {
		return s.list(ctx, s.place())
	}},
}

var createOperations = []operation{
	{name: "create", level: levelHTTP, call: createOverHTTP},
	{name: "create, 64 at once", level: levelHTTP, callers: 64, call: createOverHTTP},
	{name: "create", level: levelStore, call: createInStore},
	{name: "create, 64 at once", level: levelStore, callers: 64, call: createInStore},
}

// turn is how many calls one store gets before the other has its turn: few, so
// that what else the machine does meets both, and enough that each is in the
// processor's caches.
const turn = 16

// compareReads calls by turns for the length of a sample each.
func (o operation) compareReads(ctx context.Context, opts Options, small, large *site) (result GrowthOperation, err error) {
	var taken [2][]time.Duration
	begin := time.Now()
	for n := 0; n < 2 || time.Since(begin) < 2*opts.Duration; n++ {
		for i, s := range []*site{small, large} {
			for range turn {
				start := time.Now()
				if err := errors.Join(o.call(ctx, s, 0), ctx.Err()); err != nil {
					return result, err
				}
				taken[i] = append(taken[i], time.Since(start))
			}
		}
	}
	return o.result(taken), nil
}

// createTurn is how many creates a store gets before the other has its turn, and
// createTurns how many turns a sample has at most; the first warms up and does
// not count.
const (
	createTurn  = 128
	createTurns = 6
)

// compareCreates creates by turns. So that the small store stays small, each
// sample begins with a new copy of it.
func (o operation) compareCreates(ctx context.Context, opts Options, small, large *site) (result GrowthOperation, err error) {
	var taken [2][]time.Duration
	for range opts.Samples {
		fresh, err := small.copied(ctx, opts)
		if err != nil {
			return result, err
		}
		some, err := o.createSample(ctx, opts, [2]*site{fresh, large})
		if err := errors.Join(err, fresh.remove()); err != nil {
			return result, err
		}
		for i := range some {
			taken[i] = append(taken[i], some[i]...)
		}
	}
	return o.result(taken), nil
}

func (o operation) createSample(ctx context.Context, opts Options, sites [2]*site) (taken [2][]time.Duration, err error) {
	for _, s := range sites {
		if err := s.fillLog(ctx); err != nil {
			return taken, err
		}
	}
	begin := time.Now()
	for n := 0; n < 2 || n < createTurns && time.Since(begin) < opts.Duration; n++ {
		for i, s := range sites {
			some, err := o.creates(ctx, s)
			if err != nil {
				return taken, err
			}
			if n > 0 {
				taken[i] = append(taken[i], some...)
			}
		}
	}
	return taken, nil
}

// creates has the callers create one store's turn and returns how long each took.
func (o operation) creates(ctx context.Context, s *site) ([]time.Duration, error) {
	callers := max(1, o.callers)
	taken, errs := make([][]time.Duration, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range createTurn / callers {
				start := time.Now()
				if errs[i] = errors.Join(o.call(ctx, s, i), ctx.Err()); errs[i] != nil {
					return
				}
				taken[i] = append(taken[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	return slices.Concat(taken...), errors.Join(errs...)
}

func (o operation) result(taken [2][]time.Duration) GrowthOperation {
	r := GrowthOperation{Name: o.name, Level: o.level, Callers: max(1, o.callers), Small: timesOf(taken[0]), Large: timesOf(taken[1])}
	r.Ratio = r.Large.P50 / r.Small.P50
	return r
}

// timesOf sums up how long calls took.
func timesOf(taken []time.Duration) Times {
	if len(taken) == 0 {
		return Times{}
	}
	slices.Sort(taken)
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	var sum time.Duration
	for _, d := range taken {
		sum += d
	}
	return Times{
		Calls: len(taken), Mean: micros(sum) / float64(len(taken)),
		P50: micros(taken[len(taken)/2]), P99: micros(taken[len(taken)*99/100]), Max: micros(taken[len(taken)-1]),
	}
}
