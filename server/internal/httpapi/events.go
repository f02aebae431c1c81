package httpapi

import (
	"context"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func (a *API) pollEvents(c *call) error {
	request, given, err := decodePoll(c.r)
	if err != nil {
		return err
	}
	request.TaskID = c.taskID
	if request.Wait > 0 {
		defer a.opts.StreamOpened("longpoll")()
	}
	result, err := waiting(a, c, request.Wait, func(ctx context.Context, wait time.Duration) (taskbridge.PollResult, error) {
		request.Wait = wait
		return a.opts.Bridge.Polling.PollEvents(ctx, c.principal, request)
	})
	if err != nil {
		return err
	}
	next := given
	if len(result.Events) > 0 {
		last := result.Next.String()
		next = &last
	}
	a.write(c.w, c.r, eventPage(c.taskID, result, next), http.StatusOK)
	return nil
}

// decodePoll reads the query of a poll; given is the cursor as it came in, nil
// where none did.
func decodePoll(r *http.Request) (request taskbridge.PollRequest, given *string, err error) {
	q, err := parseQuery(r)
	if err != nil {
		return request, nil, err
	}
	if after := q.text("afterEventId"); after != "" {
		given = &after
	}
	if request.After, err = taskbridge.ParseCursor(q.text("afterEventId")); err != nil {
		return request, nil, err
	}
	if request.MaxEvents, err = q.number("maxEvents", 100, 1, 500); err != nil {
		return request, nil, err
	}
	wait, err := q.number("waitTimeoutMs", 0, 0, 60_000)
	if err != nil {
		return request, nil, err
	}
	request.Wait = time.Duration(wait) * time.Millisecond
	request.GapError, err = q.gapError()
	return request, given, err
}
