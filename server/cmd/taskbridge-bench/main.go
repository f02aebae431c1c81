// Command taskbridge-bench measures the server's promises of speed, each beside
// its ceiling, and prints a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"github.com/taskbridge/taskbridge/server/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "taskbridge-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var opts bench.Options
	path := flag.String("json", filepath.Join("bench-results", "bench.json"), "write the report to `FILE`")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the whole run to `FILE`")
	only := flag.String("only", "", "measure only these `FIGURES`, separated by commas: append, create, replay, reports, tokens, growth")
	flag.StringVar(&opts.Dir, "dir", "", "keep the data in `DIR` meanwhile, on a disk; default beside the report")
	flag.DurationVar(&opts.Duration, "duration", 0, "length of a sample; default 2s")
	flag.IntVar(&opts.Samples, "samples", 0, "samples of a figure; default 5")
	flag.IntVar(&opts.Callers, "callers", 0, "callers at once; default 64")
	flag.IntVar(&opts.Tasks, "tasks", 0, "finished tasks of the large store whose growth is measured; default 1,000,000")
	flag.DurationVar(&opts.RetireFor, "retire-for", 0, "for how long retention deletes half of them at most; default 1m")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if opts.Dir == "" {
		opts.Dir = filepath.Dir(*path)
	}
	if *only != "" {
		opts.Only = strings.Split(*only, ",")
	}
	opts.Progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, f.Close())
		}()
	}
	report, err := bench.Run(ctx, opts)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteTable(os.Stdout), report.WriteJSON(*path))
}
