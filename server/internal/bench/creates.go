package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func prepareCreates(_ context.Context, o Options, _ string) (measured, ceiling sampler, err error) {
	return &creates{o}, &insertLoop{o}, nil
}

// creates measures POST /api/v1/tasks: each client has a connection of its own
// and waits for the answer before it sends the next request.
type creates struct{ opts Options }

func (c *creates) close() error { return nil }

func (c *creates) sample(ctx context.Context, dir string) (rate float64, err error) {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	api, bridge, err := newAPI(store)
	if err != nil {
		return 0, err
	}
	defer bridge.Subscription.Close()
	s, err := serve(ctx, api)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	var clients []*client
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.conn.Close())
		}
	}()
	return rateOf(ctx, c.opts, func(ctx context.Context, i int) (func() error, error) {
		c, err := dial(ctx, s.address)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
		n := 0
		var body []byte
		return func() error {
			n++
			body = fmt.Appendf(body[:0], `{"clientRequestId":"client-%d-%d","taskType":"bench","input":{"files":["a.txt","b.txt"],"depth":3},"metadata":{"from":"bench"}}`, i, n)
			return c.post("/api/v1/tasks", body, "201")
		}, nil
	})
}
