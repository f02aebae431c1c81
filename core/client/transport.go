package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// errCutShort: a stream has ended in good form before its terminal event, which
// something on the way must have done.
var errCutShort = errors.New("the stream has ended before the task did")

// stream reads one stream of server-sent events. over: the loop is at its end.
func (f *follower) stream(ctx context.Context) (over bool, err error) {
	c := f.client
	limited, dog := c.watch(ctx, min(f.opts.FirstByte, f.opts.Silence))
	defer dog.stop()
	dog.arm(f.opts.FirstByte)

	q := request{
		method: http.MethodGet, path: "/" + f.taskID + "/events/stream", query: url.Values{"gap": {"error"}}, taskID: f.taskID,
		header: http.Header{
			"Accept": {"text/event-stream"}, "Cache-Control": {"no-cache"},
			"Accept-Encoding": {"identity"}, // what compresses may hold back
		},
	}
	if f.at.id != "" {
		q.header.Set("Last-Event-ID", f.at.id)
	}
	response, err := c.send(limited, q)
	if err != nil {
		return false, f.heldBack(silence(ctx, limited, err))
	}
	defer func() { _ = response.Body.Close() }() // it is given up either way
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode == http.StatusNoContent:
		if over, err = f.noMore(response.StatusCode); err != nil {
			err = &unusable{err}
		}
		return over, err
	case response.StatusCode/100 != 2:
		return false, silence(ctx, limited, c.refusal(response, f.taskID))
	case response.StatusCode != http.StatusOK, mediaType != "text/event-stream":
		return false, &unusable{unexpected(response.StatusCode, "the stream is of the type %q", mediaType)}
	}
	body := &watchedBody{body: response.Body, dog: dog, silence: f.opts.Silence}
	over, err = f.read(ctx, newBlockReader(body, c.maxBytes))
	err = silence(ctx, limited, err)
	if !body.alive {
		err = f.heldBack(err)
	}
	return over, err
}

// heldBack says that a stream which did not show a byte in time is of no use.
func (f *follower) heldBack(err error) error {
	var silent *silenceError
	if errors.As(err, &silent) {
		return &unusable{err}
	}
	return err
}

// read yields what comes. The stream has shown its worth with a new event, or by
// lasting longer than the longest pause before another: one that ends behind a
// heartbeat, or behind what was read before, is not opened again and again at once.
func (f *follower) read(ctx context.Context, blocks *blockReader) (over bool, err error) {
	opened := f.client.clock.Now()
	for {
		b, err := blocks.next()
		switch {
		case errors.Is(err, io.EOF):
			return false, errCutShort
		case errors.Is(err, errEventTooLarge):
			return false, &unusable{err}
		case err != nil:
			return false, err
		case b.event != "" && b.event != "message":
			continue // nothing of ours
		}
		e, live, err := decodeBlock(b, f.taskID)
		if err != nil {
			return false, err
		}
		before := f.at.id
		if !live {
			over, err = f.take(ctx, e)
		}
		if f.at.id != before || f.client.clock.Now().Sub(opened) > f.client.retry.MaxDelay {
			f.streamed()
		}
		if over || err != nil {
			return over, err
		}
	}
}

// poll makes one long poll.
func (f *follower) poll(ctx context.Context) (over bool, err error) {
	c := f.client
	wait := f.opts.PollWait
	if f.atEnd {
		wait = 0 // the task has ended: what is there is there
	}
	q := request{
		method: http.MethodGet, path: "/" + f.taskID + "/events", taskID: f.taskID, wait: wait,
		query: url.Values{
			"gap": {"error"}, "maxEvents": {strconv.Itoa(f.pageSize)},
			"waitTimeoutMs": {strconv.FormatInt(wait.Milliseconds(), 10)},
		},
	}
	if f.at.id != "" {
		q.query.Set("afterEventId", f.at.id)
	}
	var page struct {
		TaskID  string                `json:"taskId"`
		Events  []Event               `json:"events"`
		HasMore bool                  `json:"hasMore"`
		Status  taskbridge.TaskStatus `json:"status"`
	}
	asked := c.clock.Now()
	err = c.once(ctx, q, &page, http.StatusOK)
	switch {
	case errors.Is(err, ErrAnswerTooLarge) && f.pageSize > 1:
		f.pageSize = max(1, f.pageSize/4)
		return false, nil
	case err != nil:
		return false, err
	case page.TaskID != f.taskID || page.Events == nil:
		return false, unexpected(http.StatusOK, "the answer is not a page of the task's events")
	}
	for _, e := range page.Events {
		if err := e.check(f.taskID); err != nil {
			return false, unexpected(http.StatusOK, "%v", err)
		}
	}
	before := f.at.id
	for _, e := range page.Events {
		if over, err := f.take(ctx, e); over || err != nil {
			return over, f.wrapped(err)
		}
	}
	switch ended := page.Status.Terminal() && !page.HasMore; {
	case ended && f.atEnd: // asked once more after that was known
		return f.noMore(http.StatusOK)
	case ended && f.at.id == before:
		f.atEnd = true
		return false, nil
	}
	f.pace.answered()
	if f.at.id != before {
		return false, nil
	}
	return false, f.pace.unless(ctx, asked, wait)
}

func (f *follower) wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("a page of events: %w", err)
}
