package livebench

import (
	"context"
	"errors"
	"net"
	"sync"
)

// measureBeside is measureLatency of event streams: "alone", or "beside" a reader
// that replays a long stream over and over and many that ask for it and read
// nothing. They get another task's stream: what they have in common with those
// who are measured is the server.
func measureBeside(ctx context.Context, o Options, kind string, s *Sample) (err error) {
	events := 2
	if kind == "beside" {
		events = o.Long
	}
	p, err := start(ctx, o, "sse", events)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if kind == "beside" {
		stop, err := p.company(ctx, o.Still)
		if err != nil {
			return err
		}
		defer func() { s.Replays = stop() }()
	}
	return p.latency(ctx, o, "sse", s)
}

// company opens the streams that others are not to notice; stop closes them and
// returns how often the long stream was replayed to its end.
func (p *process) company(ctx context.Context, still int) (stop func() (replays int), err error) {
	standing, err := dialAll(ctx, p, "sse", p.Done, still)
	if err != nil {
		return nil, err
	}
	for _, s := range standing.clients {
		err = errors.Join(err, s.conn.(*net.TCPConn).SetReadBuffer(4<<10))
		_, failed := s.conn.Write(s.request)
		err = errors.Join(err, failed)
	}
	if err != nil {
		standing.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var replaying sync.WaitGroup
	replays := 0
	replaying.Go(func() {
		for ctx.Err() == nil {
			l, err := dialAll(ctx, p, "sse", p.Done, 1)
			if err != nil {
				return
			}
			unhook := context.AfterFunc(ctx, l.close)
			if err = l.replay(); err == nil {
				replays++
			}
			unhook()
			l.close()
		}
	})
	return func() int {
		cancel()
		replaying.Wait()
		standing.close()
		return replays
	}, nil
}
