package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// readers is a bounded pool of connections that only read. Each statement sees
// the file as of the last commit.
//
// The connection that was given back last is the next to be taken: each has a
// cache of pages of its own, and a server with little to do uses one of them.
type readers struct {
	size   int
	slots  chan struct{} // one for each connection that is idle
	closed chan struct{}

	mu   sync.Mutex
	idle []*conn
}

func openReaders(ctx context.Context, database string, n int) (*readers, error) {
	p := &readers{size: n, slots: make(chan struct{}, n), closed: make(chan struct{})}
	for range n {
		c, err := openConn(ctx, database, readerSettings)
		if err != nil {
			for _, c := range p.idle {
				err = errors.Join(err, c.close())
			}
			return nil, err
		}
		p.put(c)
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
	case <-p.slots:
		return p.take(), nil
	case <-p.closed:
		return nil, taskbridge.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take returns a connection to who has got its slot.
func (p *readers) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	c := p.idle[last]
	p.idle = p.idle[:last]
	return c
}

func (p *readers) put(c *conn) {
	p.mu.Lock()
	p.idle = append(p.idle, c)
	p.mu.Unlock()
	p.slots <- struct{}{}
}

// close waits for the reads that are under way and closes the connections.
func (p *readers) close() error {
	close(p.closed)
	var errs []error
	for range p.size {
		<-p.slots
		if err := p.take().close(); err != nil {
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
