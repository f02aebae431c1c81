// Command checksums is a task for the process adapter: it computes the SHA-256
// of every file of a folder and reports how far it is.
//
// It shows all that a command needs in order to be a task: it reads its input,
// a JSON object, from standard input, and prints lines that begin with
// "::taskbridge " and carry JSON.
//
//	taskbridge serve --task 'checksums=/path/to/checksums'
//
// Input: {"dir": "/usr/share/doc", "filesPerSecond": 500}. dir is required and
// absolute; filesPerSecond spares a busy disk, 0 or absent is as fast as it goes.
//
// Result: {"dir", "files", "bytes", "sha256"}, the last being the SHA-256 of
// the list that sha256sum would print for the same files sorted by path:
//
//	cd DIR && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
//
// Symbolic links and special files are left out.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Failure codes of this task.
const (
	codeInvalidInput = "INVALID_INPUT"
	codeUnreadable   = "UNREADABLE"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	if err := run(os.Stdin, reporter{out}); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "checksums:", err)
		os.Exit(1)
	}
}

// input is what the client of the task asks for.
type input struct {
	Dir            string  `json:"dir"`
	FilesPerSecond float64 `json:"filesPerSecond"`
}

func readInput(r io.Reader) (input, error) {
	var in input
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return in, fmt.Errorf("input is no JSON object of this task: %w", err)
	}
	switch {
	case !filepath.IsAbs(in.Dir):
		return in, errors.New("dir must be an absolute path")
	case in.FilesPerSecond < 0:
		return in, errors.New("filesPerSecond must not be negative")
	}
	return in, nil
}

// run does the task. A failure of the task is reported on out and returned too,
// so that the exit status says it as well.
func run(stdin io.Reader, out reporter) error {
	in, err := readInput(stdin)
	if err != nil {
		return errors.Join(err, out.fail(codeInvalidInput, err))
	}
	files, err := listFiles(in.Dir)
	if err != nil {
		return errors.Join(err, out.fail(codeUnreadable, err))
	}
	result, err := sumAll(in, files, out)
	if err != nil {
		return errors.Join(err, out.fail(codeUnreadable, err))
	}
	return out.print(map[string]any{"result": result})
}

// reporter prints the lines that TaskBridge reads. Each is flushed: a report
// that waits in a buffer is no news.
type reporter struct{ w *bufio.Writer }

func (r reporter) print(report map[string]any) error {
	line, err := json.Marshal(report)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(r.w, "::taskbridge %s\n", line); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r reporter) progress(percent float64, message string) error {
	return r.print(map[string]any{"progress": percent, "message": message})
}

func (r reporter) fail(code string, err error) error {
	return r.print(map[string]any{"fail": map[string]any{
		"code": code, "message": err.Error(), "retryable": false,
	}})
}
