package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

const (
	defaultReload   = 2 * time.Second
	defaultStale    = 5 * time.Minute
	maxWatchedBytes = 4 << 20

	// A file that has changed is read until two readings agree: one that is
	// written in place, and not replaced, would be seen cut off, and a list of
	// keys that is cut off between two entries is a valid list.
	settlePause = 100 * time.Millisecond
	settleTries = 5
)

// watchOptions tells what to watch. Zero durations mean the defaults.
type watchOptions[T any] struct {
	path   string
	what   string // what the file is called in errors and logs
	decode func(raw []byte) (T, error)
	reload time.Duration
	stale  time.Duration
	clock  taskbridge.Clock
	logger *slog.Logger
}

// watched is a file's decoded content, kept up to date. The file is read every
// time and compared by content: unlike notifications and times of change, that
// sees every kind of replacement on every file system (Kubernetes swaps a
// symlink above the file), and these files are small.
//
// While the file is missing, cannot be read or does not decode, the last good
// content stays valid for a limited time; see [watched.get].
type watched[T any] struct {
	opts watchOptions[T]
	// last is what the last good reading gave.
	last atomic.Pointer[reading[T]]
	// trouble is the error that was logged last, "" for none.
	trouble string
	cancel  context.CancelFunc
	done    chan struct{}
}

type reading[T any] struct {
	value T
	sum   [sha256.Size]byte
	at    time.Time
}

// watch reads the file, which must be good, and starts to watch it.
func watch[T any](opts watchOptions[T]) (*watched[T], error) {
	if opts.reload == 0 {
		opts.reload = defaultReload
	}
	if opts.stale == 0 {
		opts.stale = defaultStale
	}
	opts.clock, opts.logger = orDefaults(opts.clock, opts.logger)
	switch {
	case opts.path == "":
		return nil, fmt.Errorf("the %s has no path", opts.what)
	case opts.reload < 0 || opts.stale < 0:
		return nil, fmt.Errorf("the times of the %s must not be negative", opts.what)
	case opts.stale < opts.reload:
		return nil, fmt.Errorf("the %s must not count as stale (after %s) before it is read again (after %s)",
			opts.what, opts.stale, opts.reload)
	}
	w := &watched[T]{opts: opts, done: make(chan struct{})}
	at := opts.clock.Now()
	raw, err := readWatched(opts.path)
	if err == nil {
		err = w.take(raw, at)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s %s: %w", opts.what, opts.path, err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:gosec // close calls it
	w.cancel = cancel
	go w.run(ctx)
	return w, nil
}

// get returns the content of the last good reading, or [ErrUnavailable] if that
// is older than the limit: what was taken off the file meanwhile must not be
// good for ever.
func (w *watched[T]) get() (T, error) {
	last := w.last.Load()
	if age := w.opts.clock.Now().Sub(last.at); age > w.opts.stale {
		var none T
		return none, unavailable("the %s could not be read for %s", w.opts.what, age.Truncate(time.Second))
	}
	return last.value, nil
}

// close ends the watching and waits for it.
func (w *watched[T]) close() {
	w.cancel()
	<-w.done
}

func (w *watched[T]) run(ctx context.Context) {
	defer close(w.done)
	for {
		if !wait(ctx, w.opts.clock, w.opts.reload) {
			return
		}
		if err := w.poll(ctx); ctx.Err() == nil {
			w.report(err)
		}
	}
}

// wait reports whether d passed before the context ended.
func wait(ctx context.Context, clock taskbridge.Clock, d time.Duration) bool {
	timer := clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *watched[T]) poll(ctx context.Context) error {
	at := w.opts.clock.Now()
	raw, err := readWatched(w.opts.path)
	if err != nil {
		return err
	}
	if last := w.last.Load(); sha256.Sum256(raw) == last.sum {
		w.last.Store(&reading[T]{last.value, last.sum, at})
		return nil
	}
	if raw, at, err = w.settle(ctx, raw); err != nil {
		return err
	}
	if err := w.take(raw, at); err != nil {
		return err
	}
	w.opts.logger.Info("a file was read again", "what", w.opts.what, "path", w.opts.path)
	return nil
}

var errUnsettled = errors.New("it is being written to")

func (w *watched[T]) settle(ctx context.Context, raw []byte) ([]byte, time.Time, error) {
	for range settleTries {
		if !wait(ctx, w.opts.clock, settlePause) {
			return nil, time.Time{}, ctx.Err()
		}
		at := w.opts.clock.Now()
		again, err := readWatched(w.opts.path)
		if err != nil {
			return nil, at, err
		}
		if string(again) == string(raw) {
			return again, at, nil
		}
		raw = again
	}
	return nil, time.Time{}, errUnsettled
}

func (w *watched[T]) take(raw []byte, at time.Time) error {
	value, err := w.opts.decode(raw)
	if err != nil {
		return err
	}
	w.last.Store(&reading[T]{value, sha256.Sum256(raw), at})
	return nil
}

// report logs a trouble when it begins or becomes another, and its end.
func (w *watched[T]) report(err error) {
	switch {
	case err == nil && w.trouble != "":
		w.trouble = ""
		w.opts.logger.Info("a file is good again", "what", w.opts.what, "path", w.opts.path)
	case err != nil && w.trouble != err.Error():
		w.trouble = err.Error()
		w.opts.logger.Error("a file cannot be used; what it said before stays valid for a limited time, then nobody is let in",
			"what", w.opts.what, "path", w.opts.path, "until", w.last.Load().at.Add(w.opts.stale), "error", err)
	}
}

// readWatched reads a regular file of limited size.
func readWatched(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file") // opening a pipe would block
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read from
	raw, err := io.ReadAll(io.LimitReader(file, maxWatchedBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxWatchedBytes:
		return nil, fmt.Errorf("it has more than %d bytes", maxWatchedBytes)
	}
	return raw, nil
}

func orDefaults(clock taskbridge.Clock, logger *slog.Logger) (taskbridge.Clock, *slog.Logger) {
	if clock == nil {
		clock = taskbridge.SystemClock{}
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return clock, logger
}
