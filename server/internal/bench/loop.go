package bench

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
	"modernc.org/sqlite"
)

// progress is what the work reports, again and again; progressPayload is how the
// lifecycle stores it.
var (
	progress        = taskbridge.Progress{Percent: 42.5, Stage: "hashing", Message: "file 1234 of 5678"}
	progressPayload = []byte(`{"progress":42.5,"stage":"hashing","message":"file 1234 of 5678"}`)
)

// rawConn opens the store's file as the store's writer does, and nothing else.
func rawConn(ctx context.Context, dir string) (driver.Conn, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(filepath.Join(dir, "taskbridge.db")), RawQuery: url.Values{
		"_journal":     {"wal"},
		"_synchronous": {"full"},
		"_pragma":      {"busy_timeout(5000)", "wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-32768)"},
	}.Encode()}
	connector, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

// insertLoop is the ceiling of durable writing: callers hand rows of the table
// events to one goroutine, which inserts all that wait in one transaction, by a
// prepared statement and nothing else, syncs, and answers.
type insertLoop struct{ opts Options }

// loopRow is a row on its way; its caller uses it again.
type loopRow struct {
	stream, sequence int64
	done             chan error
}

func (l *insertLoop) close() error { return nil }

func (l *insertLoop) sample(ctx context.Context, dir string) (rate float64, err error) {
	// The store makes the table, so that its shape is the same.
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	if err := store.Close(); err != nil {
		return 0, err
	}
	c, err := rawConn(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()

	rows := make(chan *loopRow, l.opts.Callers)
	var writer sync.WaitGroup
	var writeErr error
	writer.Go(func() { writeErr = insertRows(c, rows) })
	rate, err = rateOf(ctx, l.opts, func(ctx context.Context, caller int) (func() error, error) {
		row := &loopRow{stream: int64(caller + 1), done: make(chan error, 1)}
		return func() error {
			row.sequence++
			rows <- row
			return <-row.done
		}, nil
	})
	close(rows)
	writer.Wait()
	return rate, errors.Join(err, writeErr)
}

// insertRows is the loop.
func insertRows(c driver.Conn, rows <-chan *loopRow) (err error) {
	ctx := context.Background()
	var statements [3]driver.StmtExecContext
	var prepared []driver.Stmt
	defer func() {
		for _, s := range prepared {
			err = errors.Join(err, s.Close())
		}
	}()
	for i, sql := range []string{
		"BEGIN IMMEDIATE",
		"INSERT INTO events (event_no, type, created_at, attempt, tag, state, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
		"COMMIT",
	} {
		s, err := c.Prepare(sql)
		if err != nil {
			for row := range rows {
				row.done <- err
			}
			return err
		}
		prepared = append(prepared, s)
		statements[i] = s.(driver.StmtExecContext)
	}
	args := make([]driver.NamedValue, 7)
	for i := range args {
		args[i].Ordinal = i + 1
	}
	state := make([]byte, 20) // about what the store's rows have
	commit := func(batch []*loopRow) error {
		if _, err := statements[0].ExecContext(ctx, nil); err != nil {
			return err
		}
		for _, row := range batch {
			args[0].Value = row.stream<<28 + row.sequence
			args[1].Value = int64(2)
			args[2].Value = time.Now().UnixMicro()
			args[3].Value = int64(1)
			args[4].Value = row.sequence * 0x9e3779b1 & 0xffffffff // as long as a tag
			args[5].Value = state
			args[6].Value = progressPayload
			if _, err := statements[1].ExecContext(ctx, args); err != nil {
				return err
			}
		}
		_, err := statements[2].ExecContext(ctx, nil)
		return err
	}
	var failed error
	batch := make([]*loopRow, 0, 256)
	for row := range rows {
		batch = append(batch[:0], row)
		for more := true; more && len(batch) < cap(batch); {
			select {
			case row, open := <-rows:
				if more = open; open {
					batch = append(batch, row)
				}
			default:
				more = false
			}
		}
		if failed == nil {
			failed = commit(batch)
		}
		for _, row := range batch {
			row.done <- failed
		}
	}
	return failed
}

// rateOf has the callers each call a function of their own, again and again, for
// the length of a sample, and returns how many calls there were a second.
func rateOf(ctx context.Context, opts Options, caller func(ctx context.Context, i int) (func() error, error)) (float64, error) {
	calls := make([]func() error, opts.Callers)
	for i := range calls {
		var err error
		if calls[i], err = caller(ctx, i); err != nil {
			return 0, err
		}
	}
	var (
		wg    sync.WaitGroup
		total atomic.Int64
		over  atomic.Bool
		errs  = make([]error, len(calls))
	)
	begin := time.Now()
	for i, call := range calls {
		wg.Go(func() {
			n := int64(0)
			for !over.Load() && errs[i] == nil {
				errs[i] = call()
				n++
			}
			total.Add(n)
		})
	}
	timer := time.NewTimer(opts.Duration)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	over.Store(true)
	wg.Wait()
	elapsed := time.Since(begin)
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return 0, fmt.Errorf("a call failed: %w", err)
	}
	return float64(total.Load()) / elapsed.Seconds(), nil
}
