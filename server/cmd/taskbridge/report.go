package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/taskbridge/taskbridge/core/workerapi"
	"github.com/taskbridge/taskbridge/server/internal/report"
)

const reportHelp = `Report on a task from a script: what the work does, how far it is, how it ends.

Usage:
  taskbridge report start                      begin; prints the attempt's number
  taskbridge report input                      print the task's input
  taskbridge report progress PERCENT           0 to 100; --stage, --message
  taskbridge report message TEXT               --level info, warning or debug
  taskbridge report result [JSON]              end COMPLETED; - reads the result from
                                               standard input, @FILE from a file
  taskbridge report fail TEXT                  end FAILED; --code, --retryable
  taskbridge report cancelled [TEXT]           end CANCELLED, after a cancellation
  taskbridge report check                      ask whether to go on; --wait

The first report starts the attempt where nothing else has. All reports on one
execution of the work share a state file.

Exit status: 0 recorded; 1 it could not be (the server was away for longer than
--timeout, or the report was refused); 2 the arguments are wrong; 3 stop: the
task has ended, runs elsewhere or must not be begun; 4 from check, and with
--cancel-status from every report: go on no longer, a cancellation was asked for.

`

// Exit statuses of report alone.
const (
	exitStop      = 3
	exitCancelled = 4
)

// reportFlags are what the words after the kind of report may be.
type reportFlags struct {
	opts                        report.Options
	stage, message, level, code string
	retryable, cancelStatus     bool
	wait                        time.Duration
}

// reportOn makes one report.
func reportOn(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var f reportFlags
	flags := f.flagSet(environ)
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) || err == nil && flags.NArg() == 0 {
		status := show(stdout, stderr, reportHelp+flags.FlagUsages())
		if err == nil {
			return exitUsage
		}
		return status
	}
	var r workerapi.Report
	if err == nil {
		r, err = f.report(flags.Arg(0), flags.Args()[1:], stdin)
	}
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.opts.Timeout+f.wait)
	defer cancel()
	answer, cancelled, err := f.perform(ctx, flags.Arg(0), r)
	switch {
	case errors.Is(err, report.ErrStop):
		complain(stderr, err)
		return exitStop
	case err != nil:
		complain(stderr, err)
		return exitFailed
	}
	if status := show(stdout, stderr, answer); status != exitOK {
		return status
	}
	if cancelled && (f.cancelStatus || flags.Arg(0) == "check") {
		return exitCancelled
	}
	return exitOK
}

func (f *reportFlags) flagSet(environ []string) *pflag.FlagSet {
	flags := pflag.NewFlagSet("report", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	env := func(name string) string { return variable(environ, name, "") }
	flags.StringVar(&f.stage, "stage", "", "with progress: what is being done")
	flags.StringVar(&f.message, "message", "", "with progress and result: what else there is to say")
	flags.StringVar(&f.level, "level", "", "with message: info, warning or debug")
	flags.StringVar(&f.code, "code", "WORKER_FAILED", "with fail: a stable name of the reason")
	flags.BoolVar(&f.retryable, "retryable", false, "with fail: trying again may help")
	flags.DurationVar(&f.wait, "wait", 0, "with check: time to wait for a cancellation, at most 60s")
	flags.BoolVar(&f.cancelStatus, "cancel-status", false, "exit with 4 if a cancellation was asked for")
	flags.StringVar(&f.opts.URL, "url", env("TASKBRIDGE_URL"), "the server's address; else TASKBRIDGE_URL")
	flags.StringVar(&f.opts.TaskID, "task", env("TASKBRIDGE_TASK_ID"), "the task; else TASKBRIDGE_TASK_ID")
	flags.StringVar(&f.opts.TokenFile, "token-file", env("TASKBRIDGE_TOKEN_FILE"), "file with the token; else TASKBRIDGE_TOKEN_FILE, or the token itself in TASKBRIDGE_TOKEN")
	flags.StringVar(&f.opts.Claim, "claim", env("TASKBRIDGE_CLAIM"), "identity of this execution of the work; else TASKBRIDGE_CLAIM, or a random one in the state file")
	flags.StringVar(&f.opts.StateFile, "state-file", env("TASKBRIDGE_STATE_FILE"), "what the reports share; else TASKBRIDGE_STATE_FILE, or one below the folder for temporary files")
	flags.DurationVar(&f.opts.Timeout, "timeout", 30*time.Second, "time for the report, with its repetitions")
	flags.DurationVar(&f.opts.TryTimeout, "try-timeout", 10*time.Second, "time for a connection, and for the answer to one try")
	f.opts.Token = env("TASKBRIDGE_TOKEN")
	return flags
}

// report makes the report from the words; that of start, input and check is
// empty.
func (f *reportFlags) report(kind string, words []string, stdin io.Reader) (r workerapi.Report, err error) {
	least, most := 0, 0
	switch kind {
	case "start", "input", "check":
	case "progress", "message", "fail":
		least, most = 1, 1
	case "result", "cancelled":
		most = 1
	default:
		return r, fmt.Errorf("there is no report %q", kind)
	}
	if len(words) < least || len(words) > most {
		takes := "one word"
		switch {
		case most == 0:
			takes = "nothing more"
		case least == 0:
			takes = "one word or none"
		}
		return r, fmt.Errorf("%s takes %s, not %d (quote what is one)", kind, takes, len(words))
	}
	if f.opts.Timeout <= 0 || f.opts.TryTimeout <= 0 || f.wait < 0 || f.wait > workerapi.MaxWait {
		return r, errors.New("--timeout and --try-timeout must be more than 0, and --wait from 0 to 60s")
	}
	word := strings.Join(words, "")
	switch kind {
	case "progress":
		percent, err := strconv.ParseFloat(strings.TrimSuffix(word, "%"), 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return r, fmt.Errorf("progress must be a number from 0 to 100, not %q", word)
		}
		return workerapi.Report{Type: workerapi.ReportProgress, Progress: &percent, Stage: f.stage, Message: f.message}, nil
	case "message":
		return workerapi.Report{Type: workerapi.ReportMessage, Message: word, Level: f.level}, nil
	case "fail":
		return workerapi.Report{Type: workerapi.ReportFail, Message: word, Code: f.code, Retryable: f.retryable}, nil
	case "cancelled":
		return workerapi.Report{Type: workerapi.ReportCancelled, Message: word}, nil
	case "result":
		r = workerapi.Report{Type: workerapi.ReportComplete, Message: f.message}
		if len(words) > 0 { // an empty word is no JSON: what was to make the result may have failed
			r.Result, err = result(word, stdin)
		}
	}
	return r, err
}

// maxResult bounds what is read of a result; the server's own bound is lower.
const maxResult = 64 << 20

// result reads the result that a word names.
func result(word string, stdin io.Reader) (json.RawMessage, error) {
	content := []byte(word)
	var err error
	switch {
	case word == "-":
		content, err = io.ReadAll(io.LimitReader(stdin, maxResult+1))
		if len(content) > maxResult {
			err = fmt.Errorf("the result is larger than %d bytes", maxResult)
		}
	case strings.HasPrefix(word, "@"):
		content, err = os.ReadFile(word[1:])
	}
	if err == nil && !json.Valid(content) {
		err = errors.New("the result must be JSON (a text in double quotes, too)")
	}
	return content, err
}

// perform makes the call and says what is to be printed.
func (f *reportFlags) perform(ctx context.Context, kind string, r workerapi.Report) (answer string, cancelled bool, err error) {
	session, err := report.Open(ctx, f.opts)
	if err != nil {
		return "", false, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	switch kind {
	case "start":
		var started workerapi.StartResponse
		if started, err = session.Start(ctx); err == nil {
			answer = strconv.FormatInt(started.Attempt, 10) + "\n"
		}
	case "input":
		var input json.RawMessage
		input, err = session.Input(ctx)
		answer = string(input) + "\n"
	case "check":
		var state workerapi.AttemptResponse
		if state, err = session.Check(ctx, f.wait); err == nil && state.CancellationRequested {
			answer = state.CancelReason + "\n"
		}
	default:
		err = session.Report(ctx, r)
	}
	return answer, session.Cancelled(), err
}
