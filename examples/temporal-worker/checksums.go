package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	taskbridge "github.com/taskbridge/taskbridge/core"

	temporaladapter "github.com/taskbridge/taskbridge/adapters/temporal"
)

// partSize is how many files one activity reads.
const partSize = 50

// Summary is the result of a task, and of each of its parts.
type Summary struct {
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Checksums is the workflow. What it has to remember, the sums of the parts that are
// done, is in its own history; what it reports is for clients to see.
func Checksums(ctx workflow.Context, task temporaladapter.Input) (Summary, error) {
	var input struct{ Dir string }
	if err := json.Unmarshal(task.Input, &input); err != nil || !fs.ValidPath(input.Dir) {
		// The type becomes the task's code.
		return Summary{}, temporal.NewNonRetryableApplicationError("dir must be the path of a folder below the root, as in doc/go", "INVALID_INPUT", nil)
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 5},
	})
	var files *Files // its methods name the activities
	var count int
	if err := workflow.ExecuteActivity(ctx, files.Count, input.Dir).Get(ctx, &count); err != nil {
		return Summary{}, err
	}
	total, parts := Summary{}, sha256.New()
	for from := 0; from < count; from += partSize {
		var part Summary
		if err := workflow.ExecuteActivity(ctx, files.Sum, input.Dir, from).Get(ctx, &part); err != nil {
			return Summary{}, err // a cancellation comes here, too
		}
		total.Files += part.Files
		total.Bytes += part.Bytes
		_, _ = io.WriteString(parts, part.SHA256) // never fails
		err := temporaladapter.ReportProgress(ctx, taskbridge.Progress{
			Percent: 100 * float64(total.Files) / float64(max(count, total.Files)),
			Message: fmt.Sprintf("%d of %d files", total.Files, count),
		})
		if err != nil {
			workflow.GetLogger(ctx).Warn("progress not reported", "error", err) // the work matters more
		}
	}
	total.SHA256 = fmt.Sprintf("%x", parts.Sum(nil))
	return total, nil
}

// Files are the activities, on the files below a root.
type Files struct{ root fs.FS }

// Count says how many files a folder has.
func (f *Files) Count(ctx context.Context, dir string) (int, error) {
	names, err := f.list(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, temporal.NewNonRetryableApplicationError("there is no such folder below the root", "NO_SUCH_FOLDER", nil)
	}
	if err != nil {
		return 0, err
	}
	err = temporaladapter.ReporterFromContext(ctx).Message(ctx, taskbridge.Message{Text: fmt.Sprintf("%d files in %s", len(names), dir)})
	return len(names), err
}

// Sum computes the part that begins with the file of that number.
func (f *Files) Sum(ctx context.Context, dir string, from int) (Summary, error) {
	names, err := f.list(ctx, dir)
	if err != nil {
		return Summary{}, err
	}
	part, list := Summary{}, sha256.New()
	for _, name := range names[min(from, len(names)):min(from+partSize, len(names))] {
		if err := ctx.Err(); err != nil {
			return part, err
		}
		sum, size, err := f.sum(name)
		if err != nil {
			return part, err
		}
		part.Files++
		part.Bytes += size
		if _, err := fmt.Fprintf(list, "%s  %s\n", sum, name); err != nil {
			return part, err
		}
	}
	part.SHA256 = fmt.Sprintf("%x", list.Sum(nil))
	return part, nil
}

// list returns the regular files of a folder in the order of their paths' bytes.
func (f *Files) list(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(f.root, dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, name)
		}
		return errors.Join(err, ctx.Err())
	})
	slices.Sort(names)
	return names, err
}

func (f *Files) sum(name string) (sum string, size int64, err error) {
	file, err := f.root.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = file.Close() }() // only read from
	hash := sha256.New()
	size, err = io.Copy(hash, file)
	return fmt.Sprintf("%x", hash.Sum(nil)), size, err
}
