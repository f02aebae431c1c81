package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// errUnauthenticated: the token is not taken.
var errUnauthenticated = errors.New("the token is not taken")

// maxAnswer bounds what is read of an answer: an input and what is around it.
const maxAnswer = 64 << 20

// Pauses between two tries, apart from what the server asks for.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// api makes calls of the worker API, repeated until the context ends.
type api struct {
	base   string
	client http.Client
}

// newAPI makes one whose tries are given up after tryTimeout without a connection, or
// without an answer that begins: a server that moves to another machine leaves
// connections behind on which nothing comes any more.
func newAPI(server, taskID string, tryTimeout time.Duration) *api {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: tryTimeout}).DialContext
	transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = tryTimeout, tryTimeout
	return &api{
		base: strings.TrimSuffix(server, "/") + workerapi.BasePath + url.PathEscape(taskID) + "/",
		client: http.Client{
			Transport: transport,
			// A token goes where it was meant to go.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (a *api) post(ctx context.Context, path, token string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return a.call(ctx, http.MethodPost, path, token, body, answer)
}

func (a *api) get(ctx context.Context, path, token string, answer any) error {
	return a.call(ctx, http.MethodGet, path, token, nil, answer)
}

// call repeats the same request until there is an answer that counts.
func (a *api) call(ctx context.Context, method, path, token string, body []byte, answer any) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		wait, err := a.try(ctx, method, path, token, body, answer)
		if wait < 0 {
			return err
		}
		// Half of it at random, so that workers that lost the server together do not
		// come back together.
		timer := time.NewTimer(max(wait, pause/2+rand.N(pause)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
}

// try makes the request once. A wait of 0 or more says that it may be made again
// after that time.
func (a *api) try(ctx context.Context, method, path, token string, body []byte, answer any) (wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", "taskbridge-report")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(r)
	if err != nil {
		return 0, err
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return 0, err
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(content, answer); err != nil {
			return 0, fmt.Errorf("the answer is cut or none of this server's: %w", err)
		}
		return -1, nil
	}
	return refusal(response, content)
}

// refusal says what an answer that is none of success means.
func refusal(response *http.Response, content []byte) (wait time.Duration, err error) {
	var p workerapi.Problem
	said := response.Status
	if json.Unmarshal(content, &p) == nil && p.Code != "" {
		said = p.Code + ": " + p.Message
	}
	switch {
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode >= 500, response.StatusCode == http.StatusRequestTimeout:
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if err != nil || seconds < 0 || seconds > 60 {
			seconds = 0
		}
		return time.Duration(seconds) * time.Second, errors.New(said)
	case response.StatusCode == http.StatusUnauthorized:
		return -1, fmt.Errorf("%w: %s", errUnauthenticated, said)
	case response.StatusCode == http.StatusConflict, response.StatusCode == http.StatusNotFound && p.Code == "TASK_NOT_FOUND":
		return -1, fmt.Errorf("%w: %s", ErrStop, said)
	}
	return -1, fmt.Errorf("%w: %s", ErrRefused, said)
}
