package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// idleExecutor takes every task and does nothing.
type idleExecutor struct{}

func (idleExecutor) SubmitTask(context.Context, taskbridge.Task) error { return nil }

func (idleExecutor) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

// newAPI is the server's handler over the store, with an executor that does
// nothing for the type "bench".
func newAPI(store *sqlitestore.Store) (http.Handler, *taskbridge.Bridge, error) {
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"bench": idleExecutor{}})
	if err != nil {
		return nil, nil, err
	}
	bridge, err := taskbridge.New(taskbridge.Options{
		Stores: taskbridge.Stores{Tasks: store, Events: store}, Executors: executors, Leaser: store,
	})
	if err != nil {
		return nil, nil, err
	}
	api, err := httpapi.New(httpapi.Options{
		Bridge: bridge, Authenticator: httpapi.Anyone(taskbridge.Principal{Subject: "bench"}),
	})
	return api, bridge, err
}

// server is an HTTP server on loopback.
type server struct {
	address string
	http    *http.Server
	served  sync.WaitGroup
	err     error
}

func serve(ctx context.Context, handler http.Handler) (*server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{address: listener.Addr().String(), http: &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Hour}}
	s.served.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.err = err
		}
	})
	return s, nil
}

func (s *server) close() error {
	err := s.http.Close()
	s.served.Wait()
	return errors.Join(err, s.err)
}

// client is one connection that sends requests one after the other. It does as
// little as a client can: what is measured shares the machine with it.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func dial(ctx context.Context, address string) (*client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 256<<10)}, nil
}

// post sends a JSON body and returns an error unless the answer has the status.
func (c *client) post(path string, body []byte, status string) error {
	c.out = fmt.Appendf(c.out[:0], "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	return c.exchange(status)
}

// get returns an error unless the answer has the status; its body is in c.body
// until the next request.
func (c *client) get(path, status string) error {
	c.out = fmt.Appendf(c.out[:0], "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path)
	return c.exchange(status)
}

// exchange sends what is in c.out and reads the answer.
func (c *client) exchange(status string) error {
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(line, []byte("HTTP/1.1 "+status+" "))
	answer := string(bytes.TrimSpace(line))
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("the answer %q has no length", answer)
	}
	if c.body, err = c.in.Peek(length); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("the answer is %q with %s", answer, c.body)
	}
	_, err = c.in.Discard(length)
	return err
}
