package sqlitestore

import (
	"context"
	"errors"
	"fmt"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// readers is a bounded pool of connections that only read. Each statement sees
// the file as of the last commit.
type readers struct {
	idle   chan *conn
	closed chan struct{}
}

func openReaders(ctx context.Context, database string, n int) (*readers, error) {
	p := &readers{idle: make(chan *conn, n), closed: make(chan struct{})}
	for range n {
		c, err := openConn(ctx, database, readerSettings)
		if err != nil {
			for range len(p.idle) {
				err = errors.Join(err, (<-p.idle).close())
			}
			return nil, err
		}
		p.idle <- c
	}
	return p, nil
}

// get waits for a connection that is idle; put gives it back.
func (p *readers) get(ctx context.Context) (*conn, error) {
	select {
	case <-p.closed:
		return nil, taskbridge.ErrClosed
	default:
	}
	select {
	case c := <-p.idle:
		return c, nil
	case <-p.closed:
		return nil, taskbridge.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *readers) put(c *conn) { p.idle <- c }

// close waits for the reads that are under way and closes the connections.
func (p *readers) close() error {
	close(p.closed)
	var errs []error
	for range cap(p.idle) {
		if err := (<-p.idle).close(); err != nil {
			errs = append(errs, fmt.Errorf("close of a reader: %w", err))
		}
	}
	return errors.Join(errs...)
}

// read runs f with a reader.
func (s *Store) read(ctx context.Context, f func(*conn) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	c, err := s.readers.get(ctx)
	if err != nil {
		return err
	}
	defer s.readers.put(c)
	return f(c)
}
