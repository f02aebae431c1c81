package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// request is one request, which may be sent any number of times.
type request struct {
	method string
	path   string // below the base
	query  url.Values
	header http.Header
	body   []byte        // JSON; nil: none
	wait   time.Duration // how long the server may take on purpose
	taskID string        // for errors
}

// send returns the answer, whatever its status. A credential that is refused is
// renewed once. The caller closes the body.
func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	token, err := c.credentials.get(ctx)
	if err != nil {
		return nil, err
	}
	response, err := c.sendWith(ctx, q, token)
	if err != nil || response.StatusCode != http.StatusUnauthorized || c.credentials.source == nil {
		return response, err
	}
	fresh, err := c.credentials.renew(ctx, token)
	switch {
	case err != nil:
		_ = response.Body.Close()
		return nil, err
	case fresh == token:
		return response, nil
	}
	_ = response.Body.Close() // of no interest any more
	return c.sendWith(ctx, q, fresh)
}

func (c *Client) sendWith(ctx context.Context, q request, token string) (*http.Response, error) {
	address := c.base + q.path
	if len(q.query) > 0 {
		address += "?" + q.query.Encode()
	}
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, address, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return c.http.Do(r)
}

// once sends a request one time and decodes the answer, which must have one of
// the wanted statuses.
func (c *Client) once(ctx context.Context, q request, answer any, want ...int) error {
	limit := c.timeout + q.wait
	limited, dog := c.watch(ctx, limit)
	defer dog.stop()
	dog.arm(limit)
	return silence(ctx, limited, c.exchange(limited, q, answer, want))
}

// silence replaces the error of a context that a watchdog has ended by the reason.
func silence(ctx, limited context.Context, err error) error {
	var reason *silenceError
	if err != nil && ctx.Err() == nil && errors.As(context.Cause(limited), &reason) {
		return reason
	}
	return err
}

func (c *Client) exchange(ctx context.Context, q request, answer any, want []int) error {
	response, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // what matters has been read
	for _, status := range want {
		if response.StatusCode != status {
			continue
		}
		body, err := c.read(response)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, answer); err != nil {
			return unexpected(status, "the answer cannot be understood: %v", err)
		}
		return nil
	}
	return c.refusal(response, q.taskID)
}

// refusal reads the answer as an error. One that is cut short is the connection's
// error: what it would have said is worth asking for again.
func (c *Client) refusal(response *http.Response, taskID string) error {
	body, err := c.read(response)
	if err != nil && !errors.Is(err, ErrAnswerTooLarge) {
		return err
	}
	return decodeError(response, body, taskID, c.clock.Now())
}

// read reads the whole body.
func (c *Client) read(response *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(c.maxBytes)+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > c.maxBytes:
		return nil, ErrAnswerTooLarge
	}
	return body, nil
}
