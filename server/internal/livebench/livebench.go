// Package livebench measures live delivery: how late an event reaches a thousand
// subscribers, how fast they replay, and what an idle one costs in memory. Each
// figure stands beside the same of a bare fan-out, a handler of package net/http
// that writes the same bytes from memory. It appends nothing to a disk: what a
// durable append takes is part of our latency and not of its. The server is a process of its own, a
// new one for each sample, and the samples are taken by turns.
package livebench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Options configures [Run]. Only Dir and Server are required.
type Options struct {
	// Dir is where the data goes meanwhile; it should be on a disk.
	Dir string
	// Server is the command line that runs [Serve]; the kind, the folder and the
	// number of events are added to it.
	Server []string
	// Samples is how many samples each figure has; default 5.
	Samples int
	// Subscribers read live and replay; default 1,000.
	Subscribers int
	// Idle is how many subscribers do nothing while memory is measured; default 10,000.
	Idle int
	// Events is how many are appended live, at Rate a second; default 150 and 50.
	Events, Rate int
	// Replayed is the length of the stream that is replayed; default 2,000.
	Replayed int
	// Still is how many subscribers read nothing of a stream of Long events, which
	// another replays meanwhile, when it is measured what others notice of them;
	// default 1,000 and 100,000.
	Still, Long int
	// Only restricts to one of "latency", "replay", "memory", "beside"; empty: all.
	Only string
	// Progress is told of each sample.
	Progress func(format string, args ...any)
}

// Run takes the samples.
func Run(ctx context.Context, o Options) (Report, error) {
	for _, d := range []struct {
		value *int
		def   int
	}{{&o.Samples, 5}, {&o.Subscribers, 1_000}, {&o.Idle, 10_000}, {&o.Events, 150}, {&o.Rate, 50}, {&o.Replayed, 2_000}, {&o.Still, 1_000}, {&o.Long, 100_000}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if o.Dir == "" || len(o.Server) == 0 {
		return Report{}, errors.New("livebench: Options.Dir and Options.Server must be set")
	}
	if err := raiseFileLimit(); err != nil {
		return Report{}, err
	}
	report := newReport(o)
	for _, part := range []struct {
		name    string
		kinds   []string
		measure func(context.Context, Options, string, *Sample) error
	}{
		{"latency", []string{"bare", "sse", "websocket"}, measureLatency},
		{"replay", []string{"bare", "sse", "websocket"}, measureReplay},
		{"memory", []string{"bare", "sse", "websocket"}, measureMemory},
		{"beside", []string{"alone", "beside"}, measureBeside},
	} {
		if o.Only != "" && o.Only != part.name {
			continue
		}
		for i := range o.Samples {
			kinds := slices.Clone(part.kinds)
			if i%2 == 1 { // none is always the one that comes after another
				slices.Reverse(kinds)
			}
			for _, kind := range kinds {
				s := Sample{Figure: part.name, Kind: kind}
				if err := part.measure(ctx, o, kind, &s); err != nil {
					return report, fmt.Errorf("livebench: %s, %s: %w", part.name, kind, err)
				}
				report.Samples = append(report.Samples, s)
				o.Progress("%s %d/%d %s", part.name, i+1, o.Samples, s)
			}
		}
	}
	report.finish()
	return report, nil
}

// process is a server under measurement.
type process struct {
	ready
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	dir string
}

func start(ctx context.Context, o Options, kind string, events int) (p *process, err error) {
	if kind != "bare" {
		kind = "taskbridge"
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	p = &process{}
	if p.dir, err = os.MkdirTemp(o.Dir, "livebench-"); err != nil {
		return nil, err
	}
	args := slices.Concat(o.Server[1:], []string{kind, filepath.Join(p.dir, "data"), strconv.Itoa(events)})
	p.cmd = exec.CommandContext(ctx, o.Server[0], args...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	p.enc, p.dec = json.NewEncoder(p.in), json.NewDecoder(out)
	if err := p.dec.Decode(&p.ready); err != nil {
		return nil, errors.Join(fmt.Errorf("the server does not start: %w", err), p.stop())
	}
	return p, nil
}

func (p *process) ask(c command) (answer, error) {
	var a answer
	if err := p.enc.Encode(c); err != nil {
		return a, err
	}
	if err := p.dec.Decode(&a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (p *process) stop() error {
	err := p.in.Close()
	return errors.Join(err, p.cmd.Wait(), os.RemoveAll(p.dir))
}

func measureLatency(ctx context.Context, o Options, kind string, s *Sample) (err error) {
	p, err := start(ctx, o, kind, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	return p.latency(ctx, o, kind, s)
}

func (p *process) latency(ctx context.Context, o Options, kind string, s *Sample) error {
	load, err := subscribe(ctx, p, kind, p.Live, o.Subscribers)
	if err != nil {
		return err
	}
	defer load.close()
	begin := time.Now()
	var writer answer
	written := make(chan error, 1)
	go func() {
		var err error
		writer, err = p.ask(command{Write: o.Events, Rate: o.Rate})
		written <- err
	}()
	latencies, err := load.latencies(o.Events)
	if err = errors.Join(err, <-written); err != nil {
		return err
	}
	s.CPU = float64(writer.CPU.Nanoseconds()) / 1000 / float64(len(latencies))
	slices.Sort(writer.Appends)
	s.AppendP50 = percentile(writer.Appends, 0.50)
	s.AppendP99 = percentile(writer.Appends, 0.99)
	s.Seconds = time.Since(begin).Seconds()
	s.Rate = float64(len(latencies)) / s.Seconds
	slices.Sort(latencies)
	s.P50 = percentile(latencies, 0.50)
	s.P99 = percentile(latencies, 0.99)
	s.Max = percentile(latencies, 1)
	return nil
}

// percentile returns it in milliseconds.
func percentile(sorted []time.Duration, part float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[int(part*float64(len(sorted)-1))].Microseconds()) / 1000
}

func measureReplay(ctx context.Context, o Options, kind string, s *Sample) (err error) {
	p, err := start(ctx, o, kind, o.Replayed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	load, err := dialAll(ctx, p, kind, p.Done, o.Subscribers)
	if err != nil {
		return err
	}
	defer load.close()
	begin := time.Now()
	if err := load.replay(); err != nil {
		return err
	}
	s.Seconds = time.Since(begin).Seconds()
	s.Rate = float64(o.Subscribers) * float64(o.Replayed) / s.Seconds
	return nil
}

func measureMemory(ctx context.Context, o Options, kind string, s *Sample) (err error) {
	p, err := start(ctx, o, kind, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	before, err := p.ask(command{RSS: true})
	if err != nil {
		return err
	}
	begin := time.Now()
	load, err := subscribe(ctx, p, kind, p.Live, o.Idle)
	if err != nil {
		return err
	}
	defer load.close()
	s.Seconds = time.Since(begin).Seconds()
	after, err := p.ask(command{RSS: true})
	if err != nil {
		return err
	}
	s.Bytes = float64(after.RSS-before.RSS) / float64(o.Idle)
	return nil
}
