package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// Bounds of what is read of an answer.
const (
	maxStartAnswer = 64 << 20 // with the task's input
	maxAnswer      = 1 << 20
)

// request is one request of the worker API, for any number of tries.
type request struct {
	method, route string // below the task: "/start"
	taskID        string
	body          []byte
	wait          time.Duration // for how long the server may hold the answer back
	most          int64         // bytes of the answer
}

// encode makes a body: nothing is escaped for HTML, so that sizes are what they
// will be on the server.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return buf.Bytes(), nil
}

// try sends the request once. The error is an [*Error] for an answer that says
// something, and otherwise a *passing.
func (l *Lifecycle) try(ctx context.Context, req request, token string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, req.wait+l.opts.RequestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, req.method, l.opts.URL+workerapi.BasePath+req.taskID+req.route, bytes.NewReader(req.body))
	if err != nil {
		return &passing{err: err, untouched: true}
	}
	r.Header.Set("Accept", "application/json")
	if req.method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := l.opts.HTTPClient.Do(r)
	if err != nil {
		dial := new(net.OpError)
		return &passing{err: err, untouched: errors.As(err, &dial) && dial.Op == "dial"}
	}
	defer func() { _ = response.Body.Close() }() // what was read counts
	body, err := io.ReadAll(io.LimitReader(response.Body, req.most+1))
	switch {
	case err != nil:
		return &passing{err: fmt.Errorf("read the answer %s: %w", response.Status, err)}
	case int64(len(body)) > req.most:
		return &passing{err: fmt.Errorf("the answer %s has more than %d bytes", response.Status, req.most)}
	case response.StatusCode != http.StatusOK:
		return refusal(response, body, l.opts.Clock.Now())
	case !isJSON(response):
		return &passing{err: fmt.Errorf("the answer is %q and not JSON", response.Header.Get("Content-Type"))}
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return &passing{err: fmt.Errorf("the answer is not the worker API's: %w", err)}
	}
	if told, ok := answer.(interface{ complaint(request) string }); ok {
		if complaint := told.complaint(req); complaint != "" {
			return &passing{err: errors.New("the answer is not the worker API's: " + complaint)}
		}
	}
	return nil
}

func isJSON(r *http.Response) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// attemptAnswer and startAnswer are the answers that must name the task and
// bring a token: anything else is some other server's JSON.
type attemptAnswer struct{ workerapi.AttemptResponse }

func (a *attemptAnswer) complaint(req request) string {
	if a.TaskID != req.taskID || a.Attempt < 1 || a.Token == "" {
		return "it has no attempt of the task"
	}
	return ""
}

type startAnswer struct{ workerapi.StartResponse }

func (a *startAnswer) complaint(req request) string {
	if a.AttemptResponse.TaskID != req.taskID || a.Task.TaskID != req.taskID || a.Attempt < 1 || a.Token == "" {
		return "it has no attempt of the task"
	}
	return ""
}

// retryAfter reads the header, in seconds or as a time; 0: not there.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
