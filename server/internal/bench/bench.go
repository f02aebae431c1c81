// Package bench measures the server's promises of speed, each beside its ceiling:
// what the machine gives to bare code that does the same to the disk or the wire.
// The two are measured by turns in one run, so that a figure says how much of the
// ceiling is reached, whatever the machine and whatever else it does.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Options configures [Run]. Only Dir is required.
type Options struct {
	// Dir is where the data goes while it is measured; it is made where it is
	// missing. It should be on a disk: memory syncs in no time.
	Dir string
	// Duration is how long one sample is measured; default 2 s.
	Duration time.Duration
	// Samples is how many samples a figure and its ceiling have each; default 5.
	Samples int
	// Callers is how many callers or clients work at once; default 64.
	Callers int
	// Events is the length of the stream that is replayed; default 10,000.
	Events int
	// Tasks is how many finished tasks the large store of the growth has, a
	// multiple of a thousand; default 1,000,000.
	Tasks int
	// RetireFor is for how long retention goes on at most; default 1 min.
	RetireFor time.Duration
	// Only restricts to the figures with these names; empty: all.
	Only []string
	// Progress is told of each sample; nil: nobody is.
	Progress func(format string, args ...any)
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("bench: Options.Dir must not be empty")
	}
	if o.Duration < 0 || o.Samples < 0 || o.Callers < 0 || o.Events < 0 || o.Tasks < 0 || o.RetireFor < 0 {
		return o, errors.New("bench: a negative number among the options")
	}
	o.Duration = cmp.Or(o.Duration, 2*time.Second)
	o.Samples = cmp.Or(o.Samples, 5)
	o.Callers = cmp.Or(o.Callers, 64)
	o.Events = cmp.Or(o.Events, 10_000)
	o.RetireFor = cmp.Or(o.RetireFor, time.Minute)
	o.Tasks = cmp.Or(o.Tasks, 1_000_000)
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	if o.Tasks%smallStore != 0 {
		return o, fmt.Errorf("bench: Options.Tasks must be a multiple of %d", smallStore)
	}
	for _, name := range o.Only {
		if name != growthName && name != tokensName && !slices.ContainsFunc(figures, func(f figure) bool { return f.name == name }) {
			return o, fmt.Errorf("bench: there is no figure %q", name)
		}
	}
	return o, nil
}

// figure is one thing to be measured.
type figure struct {
	name, title, unit string
	// ceilingTitle says what the ceiling is.
	ceilingTitle string
	// aim is the part of the ceiling that is to be reached.
	aim float64
	// prepare makes the two that are sampled by turns.
	prepare func(ctx context.Context, o Options, dir string) (measured, ceiling sampler, err error)
}

// sampler measures once and returns a rate, the figure's unit a second.
type sampler interface {
	sample(ctx context.Context, dir string) (float64, error)
	close() error
}

var figures = []figure{
	{
		name: "append", title: "durable appends through the lifecycle", unit: "events/s",
		ceilingTitle: "bare group-committing insert loop", aim: 0.8, prepare: prepareAppends,
	},
	{
		name: "create", title: "tasks created over HTTP, durable", unit: "tasks/s",
		ceilingTitle: "bare group-committing insert loop", aim: 0.4, prepare: prepareCreates,
	},
	{
		name: "replay", title: "replay of a stream over HTTP, one client", unit: "events/s",
		ceilingTitle: "bare scan and write of the same rows", aim: 0.5, prepare: prepareReplay,
	},
	{
		name: "reports", title: "reports of workers elsewhere, durable", unit: "reports/s",
		ceilingTitle: "durable appends in this process", aim: 0.7, prepare: prepareReports,
	},
}

// Run measures the figures one after the other and then the growth.
func Run(ctx context.Context, opts Options) (Report, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return Report{}, err
	}
	report := newReport(opts)
	for _, f := range figures {
		if len(opts.Only) > 0 && !slices.Contains(opts.Only, f.name) {
			continue
		}
		result, err := f.run(ctx, opts)
		if err != nil {
			return report, fmt.Errorf("bench: %s: %w", f.name, err)
		}
		report.Figures = append(report.Figures, result)
	}
	if len(opts.Only) == 0 || slices.Contains(opts.Only, tokensName) {
		if report.Tokens, err = measureTokens(ctx, opts); err != nil {
			return report, fmt.Errorf("bench: %s: %w", tokensName, err)
		}
	}
	if len(opts.Only) == 0 || slices.Contains(opts.Only, growthName) {
		if report.Growth, err = measureGrowth(ctx, opts); err != nil {
			return report, fmt.Errorf("bench: %s: %w", growthName, err)
		}
	}
	return report, nil
}

func (f figure) run(ctx context.Context, opts Options) (result Figure, err error) {
	dir, err := scratch(opts.Dir)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	measured, ceiling, err := f.prepare(ctx, opts, dir)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, measured.close(), ceiling.close()) }()
	result = Figure{Name: f.name, Title: f.title, Unit: f.unit, CeilingTitle: f.ceilingTitle, Aim: f.aim}
	for i := range opts.Samples {
		turn := []struct {
			what    string
			sampler sampler
			samples *[]float64
		}{{"ceiling", ceiling, &result.CeilingSamples}, {"measured", measured, &result.Samples}}
		if i%2 == 1 { // neither is always the one that comes after the other
			slices.Reverse(turn)
		}
		for _, t := range turn {
			rate, err := sampleIn(ctx, opts.Dir, t.sampler)
			if err != nil {
				return result, fmt.Errorf("%s: %w", t.what, err)
			}
			*t.samples = append(*t.samples, rate)
			opts.Progress("%s %d/%d %s: %.0f %s", f.name, i+1, opts.Samples, t.what, rate, f.unit)
		}
	}
	result.finish()
	return result, nil
}

// sampleIn takes one sample in an empty folder of its own.
func sampleIn(ctx context.Context, dir string, s sampler) (rate float64, err error) {
	if dir, err = scratch(dir); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return s.sample(ctx, dir)
}

func scratch(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, "bench-")
}
