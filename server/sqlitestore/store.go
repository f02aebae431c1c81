// Package sqlitestore keeps tasks, events and leases in one SQLite file: the
// durable store of a single server. It needs no C compiler.
//
// All writes go through one goroutine that commits the operations which wait at
// that moment together, each commit synced to the disk before any caller is
// answered; readers have connections of their own and see every commit at once.
// A data folder has one owner: a lock on it is held until Close.
package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [Open]. Only Dir is required.
type Options struct {
	// Dir is the data folder; it is made, for its owner alone, if it is missing.
	Dir string
	// Readers is how many reads run at once; default 4.
	Readers int
	// MaxBatch is how many operations one commit takes at most; default 256.
	MaxBatch int
	// CachedTasks is of how many tasks the state of row and stream is kept in
	// memory, which saves a write up to three reads; default 10,000.
	CachedTasks int
	// Clock is the leases' time; nil means [taskbridge.SystemClock].
	Clock taskbridge.Clock
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, &taskbridge.ArgumentError{Field: "Dir", Reason: "must not be empty"}
	}
	for _, n := range []struct {
		name  string
		value *int
		def   int
	}{
		{"Readers", &o.Readers, 4},
		{"MaxBatch", &o.MaxBatch, 256},
		{"CachedTasks", &o.CachedTasks, 10_000},
	} {
		if *n.value < 0 {
			return o, &taskbridge.ArgumentError{Field: n.name, Reason: "must not be negative"}
		}
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	if o.Clock == nil {
		o.Clock = taskbridge.SystemClock{}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("data folder %s: %w", o.Dir, err)
	}
	o.Dir = dir
	return o, nil
}

var (
	_ taskbridge.AtomicStore   = (*Store)(nil)
	_ taskbridge.Leaser        = (*Store)(nil)
	_ taskbridge.HealthChecker = (*Store)(nil)
)

// Store is a [taskbridge.AtomicStore] and [taskbridge.Leaser] in one SQLite
// file. It is safe for concurrent use.
//
// A call whose context ends while its write waits for its turn has no effect;
// one whose write has begun returns the context's error without knowing the
// outcome. An error of the disk (full, or failing) is returned as it is, also
// with an unknown outcome; later calls try again.
type Store struct {
	clock   taskbridge.Clock
	folder  *folder
	writer  *writer
	readers *readers

	appends       sync.Pool // of *appendEvent
	taskWatchers  hub
	eventWatchers hub

	// sending is held for reading while an operation is handed to the writer,
	// so that Close knows when the last one has been.
	sending sync.RWMutex
	closed  atomic.Bool
	closeFn func() error
}

// Open opens the store in the folder and makes it where it is missing. The
// folder must not be open anywhere else, in this process or another. Leases that
// are found in it belong to a process that has ended and are dropped.
//
// ctx bounds the opening alone. The caller closes the store.
func Open(ctx context.Context, opts Options) (_ *Store, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: %w", err)
	}
	folder, err := openFolder(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: %w", err)
	}
	s := &Store{clock: opts.Clock, folder: folder}
	s.appends.New = func() any { return new(appendEvent) }
	if err := s.open(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlitestore: data folder %s: %w", opts.Dir, err), folder.close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, opts Options) error {
	database := s.folder.database()
	// Made here and not by SQLite, so that nobody else on the machine can read
	// it; the files beside it get the same mode.
	file, err := os.OpenFile(database, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	first, err := openConn(ctx, database, writerSettings)
	if err != nil {
		return err
	}
	if err := errors.Join(prepareDatabase(first), s.folder.sync()); err != nil {
		return errors.Join(err, first.close())
	}
	if s.writer, err = newWriter(s, first, database, opts); err != nil {
		return errors.Join(err, first.close())
	}
	if s.readers, err = openReaders(ctx, database, opts.Readers); err != nil {
		return errors.Join(err, first.close())
	}
	s.closeFn = sync.OnceValue(s.close)
	s.writer.start()
	return nil
}

// Close takes no more operations, finishes those that it has taken, and gives
// the folder back. Every later call of another method gives
// [taskbridge.ErrClosed]; Close may be called more than once.
func (s *Store) Close() error { return s.closeFn() }

func (s *Store) close() error {
	s.sending.Lock() // waits for the senders that saw the store open
	s.closed.Store(true)
	s.sending.Unlock()
	// The readers go first: the connection that closes last moves the log into
	// the database and removes it, and two that close at once each take the other
	// for one that stays.
	errs := []error{s.readers.close()}
	close(s.writer.queue)
	errs = append(errs, s.writer.close(), s.folder.close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sqlitestore: close: %w", err)
	}
	return nil
}

// ready reports why a call may not go on.
func (s *Store) ready(ctx context.Context) error {
	if s.closed.Load() {
		return taskbridge.ErrClosed
	}
	return ctx.Err()
}

// CheckHealth implements [taskbridge.HealthChecker]: the file can be read, and
// written where the last commit failed.
func (s *Store) CheckHealth(ctx context.Context) error {
	if err := s.read(ctx, func(c *conn) error {
		_, err := c.integer(sqlSchemaVersion)
		return err
	}); err != nil {
		return fmt.Errorf("sqlitestore: read: %w", err)
	}
	if !s.writer.failing.Load() {
		return nil
	}
	if err := s.write(ctx, new(probe)); err != nil {
		return fmt.Errorf("sqlitestore: write: %w", err)
	}
	return nil
}

func argumentError(field, reason string) error {
	return &taskbridge.ArgumentError{Field: field, Reason: reason}
}
