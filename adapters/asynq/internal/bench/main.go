// Command bench measures the asynq adapter beside bare asynq, on the same Redis in
// the same run: what the bridge in front costs. Redis, bridge and workers share
// the machine. "make bench-asynq" runs it.
//
//	latency     from the call that creates a task to the first line of its
//	            handler, one task at a time, all idle, TaskCheckInterval 10 ms
//	throughput  tasks a second from the first creation to the last end, handlers
//	            that do nothing, 16 callers and 16 places; and what this process
//	            and Redis together use of the processors for one of them
//
// "local" has the worker in the server's process, "remote" over the worker API.
// The stores are in memory: what a durable one costs is in the server's own
// figures.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"text/tabwriter"
	"time"
)

// options are the command's flags.
type options struct {
	samples, tasks int
	rounds         int
	json           string
}

func main() {
	var o options
	flag.IntVar(&o.samples, "samples", 300, "how many latencies are measured of each")
	flag.IntVar(&o.tasks, "tasks", 5000, "how many tasks a round of throughput has")
	flag.IntVar(&o.rounds, "rounds", 3, "how many rounds of throughput; the median counts")
	flag.StringVar(&o.json, "json", "", "a file for the figures as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figures are what is measured of one contender.
type figures struct {
	Name       string  `json:"name"`
	P50Millis  float64 `json:"p50Millis"`
	P99Millis  float64 `json:"p99Millis"`
	TasksASec  float64 `json:"tasksPerSecond"`
	OfBareRate float64 `json:"ofBare"`
	CPUMicros  float64 `json:"cpuMicrosPerTask"`
}

func run(ctx context.Context, o options, out io.Writer) error {
	redis, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.stop()
	var all []figures
	contenders := []func(context.Context, *redisServer) (contender, error){newBare, newLocal, newRemote}
	made := make([]contender, len(contenders))
	for i, start := range contenders {
		c, err := start(ctx, redis)
		if err != nil {
			return err
		}
		defer c.close()
		made[i] = c
	}
	latencies := make([][]time.Duration, len(made))
	for range o.samples {
		// In turn, so that what disturbs the machine disturbs all alike.
		for i, c := range made {
			sample, err := latency(ctx, c)
			if err != nil {
				return err
			}
			latencies[i] = append(latencies[i], sample)
		}
	}
	rates, used := make([][]float64, len(made)), make([]time.Duration, len(made))
	for range o.rounds {
		for i, c := range made {
			before, err := cpuTime(redis.command.Process.Pid)
			if err != nil {
				return err
			}
			rate, err := throughput(ctx, c, o.tasks)
			if err != nil {
				return err
			}
			after, err := cpuTime(redis.command.Process.Pid)
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], rate)
			used[i] += after - before
		}
	}
	bare := median(rates[0])
	for i, c := range made {
		rate := median(rates[i])
		all = append(all, figures{
			Name: c.name(), P50Millis: millis(percentile(latencies[i], 50)), P99Millis: millis(percentile(latencies[i], 99)),
			TasksASec: rate, OfBareRate: rate / bare, CPUMicros: float64(used[i].Microseconds()) / float64(o.rounds*o.tasks),
		})
	}
	if err := show(out, o, all); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(data, '\n'), 0o600)
}

func show(out io.Writer, o options, all []figures) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\t\n", args...) } // Flush tells
	line("%d CPUs, %d latencies, %d x %d tasks\tp50\tp99\ttasks/s\tof bare\tCPU a task", runtime.GOMAXPROCS(0), o.samples, o.rounds, o.tasks)
	for _, f := range all {
		line("%s\t%.1f ms\t%.1f ms\t%.0f\t%.2f\t%.0f µs", f.Name, f.P50Millis, f.P99Millis, f.TasksASec, f.OfBareRate, f.CPUMicros)
	}
	bare, local, remote := all[0], all[1], all[2]
	line("aim\t\tbare + 5 ms\t\t0.40\t")
	line("local\t\tbare %+.1f ms\t\t%.2f\t", local.P99Millis-bare.P99Millis, local.OfBareRate)
	line("remote\t\tbare %+.1f ms\t\t%.2f\t", remote.P99Millis-bare.P99Millis, remote.OfBareRate)
	return w.Flush()
}
