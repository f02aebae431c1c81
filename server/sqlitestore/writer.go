package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxLogBytes is the size that the write-ahead log is cut back to, by force if
// need be. Without readers in the way it stays at a quarter of this.
const maxLogBytes = 64 << 20

// logCheckEvery is after how many batches the log's size is looked at.
const logCheckEvery = 1024

// writer is the one goroutine that writes. It commits the operations that wait
// together: a disk syncs a hundred rows as fast as one.
type writer struct {
	store    *Store
	database string
	maxBatch int
	maxLog   int64 // see maxLogBytes
	queue    chan request
	done     chan struct{}
	closeErr error // set before done is closed

	// failing: the last transaction was not committed.
	failing atomic.Bool

	// What follows belongs to the goroutine.

	conn  *conn // nil: to be opened again
	heads *cache[*streamHead]
	rows  *cache[taskState]
	// lastNo is the highest number that a task, or a stream of one, has had;
	// firstNo the lowest of a stream without a task.
	lastNo, firstNo int64
	state           []byte // room for an event's state
	deleted         bool   // the transaction has deleted something large
	batches         int
}

const (
	sqlBegin  = "BEGIN IMMEDIATE"
	sqlCommit = "COMMIT"

	// Numbers of deleted tasks and streams are used again only once nothing of
	// them is left.
	sqlLastNo = `SELECT max(
		coalesce((SELECT max(task_no) FROM tasks), 0),
		coalesce((SELECT max(task_no) FROM task_documents), 0),
		coalesce((SELECT max(stream_no) FROM tombstones), 0),
		coalesce((SELECT max(event_no) FROM events) >> 28, 0))`
	sqlFirstNo = `SELECT min(
		coalesce((SELECT min(stream_no) FROM streams), 0),
		coalesce((SELECT min(stream_no) FROM tombstones), 0),
		coalesce((SELECT min(event_no) FROM events) >> 28, 0))`
)

func newWriter(s *Store, c *conn, database string, opts Options) (*writer, error) {
	w := &writer{
		store:    s,
		database: database,
		maxBatch: opts.MaxBatch,
		maxLog:   maxLogBytes,
		queue:    make(chan request, opts.MaxBatch),
		done:     make(chan struct{}),
		conn:     c,
		heads:    newCache[*streamHead](opts.CachedTasks),
		rows:     newCache[taskState](opts.CachedTasks),
	}
	var err error
	if w.lastNo, err = c.integer(sqlLastNo); err != nil {
		return nil, fmt.Errorf("read of the last number: %w", err)
	}
	if w.firstNo, err = c.integer(sqlFirstNo); err != nil {
		return nil, fmt.Errorf("read of the first number: %w", err)
	}
	return w, nil
}

func (w *writer) start() {
	go func() {
		defer close(w.done)
		w.run()
	}()
}

// run commits batch after batch until the queue is closed and empty.
func (w *writer) run() {
	batch := make([]request, 0, w.maxBatch)
	for first := range w.queue {
		batch = append(batch[:0], first)
		for more := true; more && len(batch) < w.maxBatch; {
			select {
			case r, open := <-w.queue:
				if more = open; open {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		w.process(batch)
		clear(batch)
	}
	if w.conn != nil {
		// A clean end leaves one file, with nothing to be done at the next start.
		if err := w.conn.script("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			w.closeErr = fmt.Errorf("last checkpoint: %w", err)
		}
		w.closeErr = errors.Join(w.closeErr, w.conn.close())
	}
}

// close waits for the end of the queue, which has been closed.
func (w *writer) close() error {
	<-w.done
	return w.closeErr
}

// process runs the batch in one transaction. Where one of its operations fails
// against expectation, each is run in a transaction of its own, so that only
// those fail that must.
func (w *writer) process(batch []request) {
	taken := batch[:0]
	for _, r := range batch {
		if r.base().begin() {
			taken = append(taken, r)
		}
	}
	if len(taken) == 0 {
		return
	}
	err := w.transact(taken)
	var culprit *operationError
	if len(taken) > 1 && errors.As(err, &culprit) {
		for i := range taken {
			w.answer(taken[i:i+1], w.transact(taken[i:i+1]))
		}
	} else {
		w.answer(taken, err)
	}
	if w.batches++; w.batches%logCheckEvery == 0 {
		w.boundLog()
	}
}

// answer tells the callers. Watchers are told first: who knows that a call has
// returned may count on them.
func (w *writer) answer(batch []request, err error) {
	for _, r := range batch {
		if err == nil && r.base().refusal == nil {
			r.committed(w.store)
		}
	}
	for _, r := range batch {
		o := r.base()
		if err != nil {
			o.done <- err
		} else {
			o.done <- o.refusal
		}
	}
}

// operationError is what kept one operation from being applied.
type operationError struct{ err error }

func (e *operationError) Error() string { return e.err.Error() }
func (e *operationError) Unwrap() error { return e.err }

func (w *writer) transact(batch []request) error {
	if err := w.begin(); err != nil {
		w.failing.Store(true)
		return fmt.Errorf("begin of a transaction: %w", err)
	}
	w.deleted = false
	for _, r := range batch {
		r.base().refusal = nil
		if err := r.apply(w); err != nil {
			w.undo()
			return &operationError{err}
		}
	}
	if w.deleted {
		// Once a commit, however many deletions are in it.
		if err := giveBack(w.conn); err != nil {
			w.undo()
			return &operationError{fmt.Errorf("giving pages back: %w", err)}
		}
	}
	if err := w.conn.exec(sqlCommit); err != nil {
		w.undo()
		return fmt.Errorf("commit: %w", err)
	}
	w.failing.Store(false)
	return nil
}

// begin begins a transaction, on a new connection where the old one does not.
func (w *writer) begin() error {
	if w.conn != nil {
		err := w.conn.exec(sqlBegin)
		if err == nil || isBusy(err) {
			return err
		}
		w.drop()
	}
	c, err := openConn(background, w.database, writerSettings)
	if err != nil {
		return err
	}
	w.conn = c
	err = w.conn.exec(sqlBegin)
	return err
}

// undo makes the transaction undone, in the file and in memory.
func (w *writer) undo() {
	w.failing.Store(true)
	w.forget()
	if w.conn.rollback() != nil {
		w.drop()
	}
}

func (w *writer) forget() {
	w.heads.clear()
	w.rows.clear()
}

// drop gives up a connection that cannot be used. That its closing fails too is
// no news.
func (w *writer) drop() {
	w.forget()
	_ = w.conn.close()
	w.conn = nil
}

// boundLog cuts back a log that readers have kept from being begun anew for too
// long. It waits for the reads that are under way.
func (w *writer) boundLog() {
	log, err := os.Stat(w.database + "-wal")
	if err != nil || log.Size() <= w.maxLog || w.conn == nil {
		return
	}
	// Where it fails it is tried again the next time.
	_ = w.conn.script("PRAGMA wal_checkpoint(TRUNCATE)")
}

// rollback ends the connection's transaction. SQLite may have done so itself.
func (c *conn) rollback() error {
	err := c.script("ROLLBACK")
	if err != nil && strings.Contains(err.Error(), "no transaction is active") {
		return nil
	}
	return err
}

func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// request is an operation on the file, with its arguments and results.
type request interface {
	base() *operation
	// apply does the work in the writer's transaction. A refusal is put into the
	// operation before anything is written; an error is what SQLite reports, and
	// undoes the transaction.
	apply(w *writer) error
	// committed is called once the work is durable, if it was not refused.
	committed(s *Store)
}

// operation is the part of a request that caller and writer share. Its zero value
// is ready.
type operation struct {
	stage   atomic.Int32
	done    chan error
	refusal error
}

// The stages of an operation. Who leaves stageWaiting first decides whether it
// runs.
const (
	stageWaiting int32 = iota
	stageBegun
	stageAbandoned
)

func (o *operation) base() *operation { return o }
func (o *operation) begin() bool      { return o.stage.CompareAndSwap(stageWaiting, stageBegun) }
func (o *operation) abandon() bool    { return o.stage.CompareAndSwap(stageWaiting, stageAbandoned) }

// write has the writer do the request and returns once it is durable, refused or
// failed, or ctx has ended. Results may be read unless ctx's error came back.
func (s *Store) write(ctx context.Context, r request) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	o := r.base()
	if o.done == nil {
		o.done = make(chan error, 1)
	}
	o.stage.Store(stageWaiting)
	if err := s.send(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
	}
	if o.abandon() {
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	default:
		return fmt.Errorf("the outcome is unknown: %w", ctx.Err())
	}
}

func (s *Store) send(ctx context.Context, r request) error {
	s.sending.RLock()
	defer s.sending.RUnlock()
	if s.closed.Load() {
		return taskbridge.ErrClosed
	}
	select {
	case s.writer.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe writes something that is there already.
type probe struct{ operation }

func (p *probe) apply(w *writer) error {
	return w.conn.script(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
}

func (p *probe) committed(*Store) {}
