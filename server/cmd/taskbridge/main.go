// The command taskbridge runs a TaskBridge server.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/taskbridge/taskbridge/server/internal/app"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

const usage = `TaskBridge stands between clients and work that takes long.

Usage:
  taskbridge serve [flags]   run the server; --help shows the flags
  taskbridge keygen [flags]  make an API key; --help shows the flags
  taskbridge health [flags]  ask a server whether it answers; --help shows the flags
  taskbridge report KIND …   report on a task from a script; --help shows how
  taskbridge version         say which version this is
  taskbridge help            say this
`

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // the server could not start or go on, or not end in good order
	exitUsage  = 2 // the arguments or the configuration are wrong
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(args, environ []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return serve(args, environ, stdout, stderr)
	case "keygen":
		return keygen(args, stdout, stderr)
	case "health":
		return health(args, environ, stdout, stderr)
	case "report":
		return reportOn(args, environ, os.Stdin, stdout, stderr)
	case "version", "--version":
		return show(stdout, stderr, version()+"\n")
	case "help", "--help", "-h":
		return show(stdout, stderr, usage)
	case "":
		say(stderr, usage)
	default:
		say(stderr, fmt.Sprintf("taskbridge: unknown command %q\n\n%s", command, usage))
	}
	return exitUsage
}

// say writes to standard error. Where that fails nobody is left to be told.
func say(stderr io.Writer, text string) { _, _ = io.WriteString(stderr, text) }

func complain(stderr io.Writer, err error) { say(stderr, fmt.Sprintf("taskbridge: %v\n", err)) }

func show(stdout, stderr io.Writer, text string) int {
	if _, err := io.WriteString(stdout, text); err != nil {
		complain(stderr, err)
		return exitFailed
	}
	return exitOK
}

func serve(args, environ []string, stdout, stderr io.Writer) int {
	c, err := config.Load(args, environ)
	if errors.Is(err, config.ErrHelp) {
		if err := config.Help(stdout); err != nil {
			complain(stderr, err)
			return exitFailed
		}
		return exitOK
	}
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	logger := newLogger(stderr, c)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		logger.Info("signal received", "signal", (<-signals).String())
		first := time.Now()
		stop()
		for again := range signals {
			if time.Since(first) > sameWish {
				logger.Warn("second signal received, ending at once", "signal", again.String())
				os.Exit(exitFailed)
			}
		}
	}()
	app.Version, app.Revision = build()
	if err := app.Run(ctx, c, logger); err != nil {
		logger.Error("the server has ended", "error", err)
		return exitFailed
	}
	logger.Info("the server has ended")
	return exitOK
}

// sameWish is the time within which a second signal says nothing new: timeout(1)
// signals its command and then the group that the command is in.
const sameWish = 250 * time.Millisecond

func newLogger(w io.Writer, c *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// version says what this is and where it runs.
func version() string {
	version, revision := build()
	if revision != "" {
		revision = " " + revision
	}
	return fmt.Sprintf("taskbridge %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// build returns the module's version, where it was installed at one, and the
// commit.
func build() (version, revision string) {
	version, modified := "devel", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			version = v
		}
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = setting.Value[:min(12, len(setting.Value))]
			case setting.Key == "vcs.modified" && setting.Value == "true":
				modified = "+changes"
			}
		}
	}
	return version, revision + modified
}
