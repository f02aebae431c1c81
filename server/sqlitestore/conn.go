package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"modernc.org/sqlite"
)

// conn is one connection with its prepared statements, used by one goroutine at
// a time. It talks to the driver without package sql between them: what that
// would add, a pool and conversions, is not needed for connections that each
// have a role for life.
type conn struct {
	raw        driver.Conn
	statements map[string]*statement
}

// statement is a prepared statement and the room for its arguments.
type statement struct {
	raw interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}
	args []driver.NamedValue
	row  []driver.Value
}

// Settings of a connection, as parameters of the driver.
var (
	writerSettings = url.Values{
		// A later retention gives pages back in bounded steps; only a file that
		// was made for it can.
		"_auto_vacuum": {"incremental"},
		"_journal":     {"wal"},
		"_synchronous": {"full"},
		"_pragma": {
			"busy_timeout(5000)",
			// Pages of the log that are copied into the file at once. A page that
			// many commits changed is copied once, so that a larger number saves
			// work; the time for it is one commit's delay.
			"wal_autocheckpoint(4000)",
			fmt.Sprintf("journal_size_limit(%d)", maxLogBytes),
			"cache_size(-32768)", // KiB
		},
	}
	readerSettings = url.Values{
		"_query_only": {"true"},
		"_pragma":     {"busy_timeout(5000)", "cache_size(-8192)"},
	}
)

// background is the context of statements that run to their end once begun. The
// driver starts no watching goroutine for it.
var background = context.Background()

func openConn(ctx context.Context, database string, settings url.Values) (*conn, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(database), RawQuery: settings.Encode()}
	connector, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", database, err)
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", database, err)
	}
	return &conn{raw: raw, statements: make(map[string]*statement)}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.statements {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// script runs SQL text of any number of statements once.
func (c *conn) script(sql string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(background, sql, nil)
	return err
}

// statement returns the text prepared, which happens once a connection. Texts
// are constants or combinations of few parts, so that there are not many.
func (c *conn) statement(sql string) (*statement, error) {
	if s, ok := c.statements[sql]; ok {
		return s, nil
	}
	raw, err := c.raw.Prepare(sql)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", sql, err)
	}
	s := new(statement)
	var ok bool
	if s.raw, ok = raw.(interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}); !ok {
		return nil, fmt.Errorf("the driver's statement is a %T", raw)
	}
	c.statements[sql] = s
	return s, nil
}

// bind fills the statement's arguments. A value is an int64, a string, a []byte
// (which is copied when the statement runs) or nil.
func (s *statement) bind(values ...driver.Value) {
	s.args = s.args[:0]
	s.add(values...)
}

// add binds further arguments.
func (s *statement) add(values ...driver.Value) {
	for _, v := range values {
		s.args = append(s.args, driver.NamedValue{Ordinal: len(s.args) + 1, Value: v})
	}
}

// run executes the statement with the arguments that are bound and returns how
// many rows it changed.
func (s *statement) run() (int64, error) {
	result, err := s.raw.ExecContext(background, s.args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// exec prepares, binds and runs.
func (c *conn) exec(sql string, values ...driver.Value) error {
	s, err := c.statement(sql)
	if err != nil {
		return err
	}
	s.bind(values...)
	_, err = s.run()
	return err
}

// query prepares, binds and calls each for every row, in order. The row's slice
// is used again for the next one; what is in it stays.
func (c *conn) query(ctx context.Context, sql string, each func(row []driver.Value) error, values ...driver.Value) (err error) {
	s, err := c.statement(sql)
	if err != nil {
		return err
	}
	s.bind(values...)
	rows, err := s.raw.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		if err := rows.Next(s.row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(s.row); err != nil {
			return err
		}
	}
}

// integer returns the first column of the only row of a query, 0 for NULL.
func (c *conn) integer(sql string, values ...driver.Value) (n int64, err error) {
	err = c.query(background, sql, func(row []driver.Value) error {
		n = integer(row[0])
		return nil
	}, values...)
	return n, err
}
