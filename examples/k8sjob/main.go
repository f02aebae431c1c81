// Command k8sjob is a batch job for Kubernetes: it fetches a list of texts, counts
// their words and says which are the most frequent. It shows all that a container
// needs in order to be a task's work: it reads its input, a JSON object, from a file,
// and prints lines that begin with "::taskbridge " and carry JSON. It knows neither
// TaskBridge nor Kubernetes. job.yaml is its template, README.md says how to run it.
//
// Input: {"urls": ["https://…", …], "top": 10}. 1 to 1,000 addresses; top is at most
// 100, and 10 where it is absent.
//
// Result: {"documents", "words", "distinct", "top": [{"word", "count"}, …]}. Words of
// the same count are in the order of the alphabet.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
)

// Failure codes of this task.
const (
	codeInvalidInput = "INVALID_INPUT"
	codeNoText       = "NO_TEXT"
	codeUnavailable  = "UNAVAILABLE"
)

// Exit statuses. The Job's podFailurePolicy tries no other pod after exitFinal.
const (
	exitRetryable = 1
	exitFinal     = 2
)

func main() {
	// Kubernetes sends SIGTERM when the task is cancelled, and SIGKILL after a grace.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	status, err := run(ctx, os.Getenv("TASKBRIDGE_INPUT_FILE"), reporter{os.Stdout})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "k8sjob:", err)
		os.Exit(status)
	}
}

// input is what the client of the task asks for.
type input struct {
	URLs []string `json:"urls"`
	Top  int      `json:"top"`
}

func readInput(path string) (input, error) {
	in := input{Top: 10}
	content, err := os.ReadFile(path)
	if err != nil {
		return in, err
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return in, fmt.Errorf("the input is no JSON object of this task: %w", err)
	}
	switch {
	case len(in.URLs) == 0 || len(in.URLs) > 1000:
		return in, errors.New("urls must be 1 to 1,000 addresses")
	case in.Top < 1 || in.Top > 100:
		return in, errors.New("top must be from 1 to 100")
	}
	for _, address := range in.URLs {
		if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return in, fmt.Errorf("%q is no http or https address", address)
		}
	}
	return in, nil
}

// run does the task. A failure of the task is printed on out and returned too, with
// the exit status, which says whether another pod may do better.
func run(ctx context.Context, path string, out reporter) (status int, err error) {
	in, err := readInput(path)
	if err != nil {
		return exitFinal, errors.Join(err, out.fail(codeInvalidInput, err, false))
	}
	counts := newCounter()
	for i, address := range in.URLs {
		err := counts.add(ctx, address)
		switch {
		case ctx.Err() != nil:
			return exitRetryable, errors.New("told to stop") // nothing is left to be said
		case errors.Is(err, errNoText):
			return exitFinal, errors.Join(err, out.fail(codeNoText, err, false))
		case err != nil:
			return exitRetryable, errors.Join(err, out.fail(codeUnavailable, err, true))
		}
		done := i + 1
		if err := out.progress(100*float64(done)/float64(len(in.URLs)), fmt.Sprintf("%d of %d texts", done, len(in.URLs))); err != nil {
			return exitRetryable, err
		}
	}
	return exitRetryable, out.print(map[string]any{"result": counts.result(in.Top)})
}

// reporter prints the lines that TaskBridge reads, each in one write: a report that
// waits in a buffer is no news.
type reporter struct{ w io.Writer }

func (r reporter) print(report map[string]any) error {
	line, err := json.Marshal(report)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.w, "::taskbridge %s\n", line)
	return err
}

func (r reporter) progress(percent float64, message string) error {
	return r.print(map[string]any{"progress": percent, "message": message})
}

func (r reporter) fail(code string, err error, retryable bool) error {
	return r.print(map[string]any{"fail": map[string]any{"code": code, "message": err.Error(), "retryable": retryable}})
}
