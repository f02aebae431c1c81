package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"

	taskbridge "github.com/taskbridge/taskbridge/core"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
)

// checksums is the work, on the files below a root.
type checksums struct{ files fs.FS }

// summary is the result of a task.
type summary struct {
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// handle does one task. It is an asynqadapter.HandlerFunc. Doing it twice does no
// harm, and so nothing has to be done against that.
func (c checksums) handle(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (any, error) {
	var input struct{ Dir string }
	if err := json.Unmarshal(task.Input, &input); err != nil || !fs.ValidPath(input.Dir) {
		// Trying again would not help: Fail spares asynq the retries.
		return nil, asynqadapter.Fail("INVALID_INPUT", "dir must be the path of a folder below the root, as in doc/go", false)
	}
	names, err := c.list(ctx, input.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, asynqadapter.Fail("NO_SUCH_FOLDER", "there is no such folder below the root", false)
	}
	if err != nil {
		return nil, err // asynq tries again, and the client sees a warning
	}
	result := summary{Files: len(names)}
	list := sha256.New()
	reported := 0
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err // cancelled, replaced, or the worker shuts down
		}
		size, err := c.sum(list, name)
		if err != nil {
			return nil, err
		}
		result.Bytes += size
		if percent := 100 * (i + 1) / len(names); percent > reported {
			reported = percent
			progress := taskbridge.Progress{Percent: float64(percent), Message: fmt.Sprintf("%d of %d files", i+1, len(names))}
			if err := run.Progress(ctx, progress); err != nil && !errors.Is(err, taskbridge.ErrStreamFull) {
				return nil, err
			}
		}
	}
	result.SHA256 = fmt.Sprintf("%x", list.Sum(nil))
	return result, nil
}

// list returns the regular files of a folder in the order of their paths' bytes.
func (c checksums) list(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(c.files, dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, name)
		}
		return errors.Join(err, ctx.Err())
	})
	slices.Sort(names)
	return names, err
}

// sum adds a file's line to the list.
func (c checksums) sum(list hash.Hash, name string) (size int64, err error) {
	file, err := c.files.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // only read from
	sum := sha256.New()
	if size, err = io.Copy(sum, file); err != nil {
		return size, err
	}
	_, err = fmt.Fprintf(list, "%x  %s\n", sum.Sum(nil), name)
	return size, err
}
