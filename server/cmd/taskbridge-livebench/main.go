// Command taskbridge-livebench measures live delivery beside a bare fan-out and
// prints a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/taskbridge/taskbridge/server/internal/livebench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "taskbridge-livebench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) == 5 && os.Args[1] == "serve" { // as it runs itself
		events, err := strconv.Atoi(os.Args[4])
		if err != nil {
			return err
		}
		return livebench.Serve(ctx, os.Args[2], os.Args[3], events, os.Stdin, os.Stdout)
	}
	var opts livebench.Options
	path := flag.String("json", filepath.Join("bench-results", "livebench.json"), "write the report to `FILE`")
	quick := flag.Bool("quick", false, "a few seconds that prove that it works; the figures say nothing")
	flag.StringVar(&opts.Dir, "dir", "", "keep the data in `DIR` meanwhile, on a disk; default beside the report")
	flag.StringVar(&opts.Only, "only", "", "measure only `FIGURE`: latency, replay, memory or beside")
	flag.IntVar(&opts.Samples, "samples", 0, "samples of a figure; default 5")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *quick {
		opts.Samples, opts.Subscribers, opts.Idle, opts.Events, opts.Replayed, opts.Still, opts.Long = 1, 20, 50, 20, 100, 20, 1000
	}
	if opts.Dir == "" {
		opts.Dir = filepath.Dir(*path)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	opts.Server = []string{self, "serve"}
	opts.Progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	report, err := livebench.Run(ctx, opts)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteTable(os.Stdout), report.WriteJSON(*path))
}
