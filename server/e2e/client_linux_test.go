package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	goclient "github.com/taskbridge/taskbridge/core/client"
)

// goClient is the Go client of whatever server is at the place.
func goClient(t *testing.T, where *place) *goclient.Client {
	t.Helper()
	transport := &http.Transport{
		// A client knows one address; the server gets another port each time.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			url, _ := where.now()
			return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(url, "http://"))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := goclient.New(goclient.Options{
		URL: "http://localhost", HTTPClient: &http.Client{Transport: transport},
		Retry: goclient.Retry{MinDelay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheGoClientDoesATask(t *testing.T) {
	s, where := launch(t, t.TempDir()), &place{moved: make(chan struct{})}
	where.move(s.url)
	c := goClient(t, where)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	var types []taskbridge.EventType
	outcome, err := c.Do(ctx, goclient.CreateRequest{
		TaskType: "demo", Input: map[string]any{"ticks": 3, "tickMillis": 5, "result": "done"}, Metadata: json.RawMessage(`{"for":"e2e"}`),
	}, func(e goclient.Event) { types = append(types, e.Type) })
	if err != nil || string(outcome.Result) != `"done"` {
		t.Fatalf("%+v, %v", outcome, err)
	}
	if n := len(types); n < 3 || types[0] != taskbridge.EventStarted || types[n-1] != taskbridge.EventCompleted {
		t.Errorf("%v", types)
	}
	task, err := c.Get(ctx, outcome.TaskID)
	if err != nil || task.Status != taskbridge.StatusCompleted || string(task.Metadata) != `{"for":"e2e"}` || string(task.Result) != `"done"` {
		t.Errorf("%+v, %v", task, err)
	}
	// Behind the terminal event there is nothing.
	for e, err := range c.Follow(ctx, outcome.TaskID, goclient.FollowOptions{After: outcome.Event.ID}) {
		t.Errorf("%+v, %v", e, err)
	}

	_, err = c.Do(ctx, goclient.CreateRequest{TaskType: "demo", Input: map[string]any{"ticks": 5, "tickMillis": 5, "failAfterTicks": 2}}, nil)
	var failed *goclient.TaskError
	if !errors.As(err, &failed) || failed.Failure.Code != "DEMO_FAILED" {
		t.Errorf("%v", err)
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestTheGoClientFollowsATaskAcrossAKillOfTheServer(t *testing.T) {
	dir, where := t.TempDir(), &place{moved: make(chan struct{})}
	s := launch(t, dir)
	where.move(s.url)
	c := goClient(t, where)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	wish := goclient.CreateRequest{ClientRequestID: "long", TaskType: "demo", Input: map[string]any{"ticks": 2000, "tickMillis": 20}}
	created, err := c.Create(ctx, wish)
	if err != nil || created.Deduplicated || created.ClientRequestID != "long" {
		t.Fatalf("%+v, %v", created, err)
	}
	// One waits meanwhile, through the same.
	waited := make(chan goclient.Task, 1)
	go func() {
		task, err := c.Wait(ctx, created.TaskID)
		if err != nil {
			t.Error(err)
		}
		waited <- task
	}()
	restart := func(stop func()) {
		stop()
		s = begin(t, dir)
		s.await()
		where.move(s.url)
	}
	var events []goclient.Event
	for e, err := range c.Follow(ctx, created.TaskID, goclient.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, e); len(events) == 5 {
			restart(s.kill)
		}
	}
	stored, err := newClient(t).events(s.url, created.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	checkStream(t, created.TaskID, stored)
	if seen := asStored(t, events); rawOf(seen) != rawOf(stored) {
		t.Errorf("seen\n%s\nstored\n%s", rawOf(seen), rawOf(stored))
	}
	if _, err := events[len(events)-1].Outcome(); err == nil || !strings.Contains(err.Error(), "EXECUTOR_LOST") {
		t.Errorf("%v", err)
	}
	if task := <-waited; task.Status != taskbridge.StatusFailed || task.Failure == nil || task.Failure.Code != "EXECUTOR_LOST" {
		t.Errorf("%+v", task)
	}

	// After a shutdown too, the key finds the task.
	restart(func() {
		if status := s.terminate(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
	again, err := c.Create(ctx, wish)
	if err != nil || again.TaskID != created.TaskID || !again.Deduplicated || again.Status != taskbridge.StatusFailed {
		t.Errorf("%+v, %v", again, err)
	}
	wish.Input = map[string]any{"ticks": 1}
	if _, err := c.Create(ctx, wish); !errors.Is(err, taskbridge.ErrIdempotencyConflict) {
		t.Errorf("%v", err)
	}
}

// asStored is what the client has seen as the server sends it.
func asStored(t *testing.T, events []goclient.Event) []event {
	t.Helper()
	stored := make([]event, len(events))
	for i, e := range events {
		raw, err := json.Marshal(e)
		if err == nil {
			stored[i], err = decodeEvent(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return stored
}

// pollsOnly is a proxy that streams do not get through.
type pollsOnly struct{ http.RoundTripper }

func (p pollsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/stream") {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/html"}}, Body: http.NoBody, Request: r}, nil
	}
	return p.RoundTripper.RoundTrip(r)
}

func TestTheGoClientPollsWhereStreamsDoNotGetThrough(t *testing.T) {
	s, through := launch(t, t.TempDir()), newClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := goclient.New(goclient.Options{URL: s.url, HTTPClient: &http.Client{Transport: pollsOnly{through.http.Transport}}})
	if err != nil {
		t.Fatal(err)
	}
	var events []goclient.Event
	outcome, err := c.Do(ctx, goclient.CreateRequest{
		TaskType: "demo", Input: map[string]any{"ticks": 300, "tickMillis": 5, "result": "done"},
	}, func(e goclient.Event) { events = append(events, e) })
	if err != nil || string(outcome.Result) != `"done"` {
		t.Fatalf("%+v, %v", outcome, err)
	}
	stored, err := through.events(s.url, outcome.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	if seen := asStored(t, events); rawOf(seen) != rawOf(stored) {
		t.Errorf("seen\n%s\nstored\n%s", rawOf(seen), rawOf(stored))
	}
	for e, err := range c.Follow(ctx, outcome.TaskID, goclient.FollowOptions{After: outcome.Event.ID}) {
		t.Errorf("behind the end: %+v, %v", e, err)
	}
}

func TestTheGoClientCancelsListsAndIsRefused(t *testing.T) {
	s, where := launch(t, t.TempDir()), &place{moved: make(chan struct{})}
	where.move(s.url)
	c := goClient(t, where)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	var ids []string
	for range 5 {
		created, err := c.Create(ctx, goclient.CreateRequest{TaskType: "demo", Input: map[string]any{"ticks": 3000, "tickMillis": 20}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append([]string{created.TaskID}, ids...) // newest first
	}
	var listed []string
	for task, err := range c.List(ctx, goclient.ListFilter{Types: []string{"demo"}, PageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, task.TaskID)
	}
	if strings.Join(listed, " ") != strings.Join(ids, " ") {
		t.Errorf("listed %q of %q", listed, ids)
	}

	var last goclient.Event
	for e, err := range c.Follow(ctx, ids[0], goclient.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if last.ID == "" {
			if status, err := c.Cancel(ctx, ids[0], "enough"); err != nil || status != goclient.CancellationRequested {
				t.Errorf("%s, %v", status, err)
			}
		}
		last = e
	}
	var cancelled *goclient.TaskError
	if _, err := last.Outcome(); !errors.As(err, &cancelled) || cancelled.Reason != "enough" {
		t.Errorf("%+v, %v", last, err)
	}
	if status, err := c.Cancel(ctx, ids[0], "again"); err != nil || status != goclient.AlreadyTerminal {
		t.Errorf("%s, %v", status, err)
	}

	if _, err := c.Get(ctx, "000-nosuchtask"); !errors.Is(err, taskbridge.ErrTaskNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.Create(ctx, goclient.CreateRequest{TaskType: "nosuchtype"}); !errors.Is(err, taskbridge.ErrUnknownTaskType) {
		t.Errorf("%v", err)
	}
	if _, err := c.Create(ctx, goclient.CreateRequest{TaskType: "demo", Input: []int{1}}); !errors.Is(err, taskbridge.ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
	for after, want := range map[string]error{"9-00000000": taskbridge.ErrEventGap, "rubbish!": taskbridge.ErrInvalidArgument} {
		n := 0
		for e, err := range c.Follow(ctx, ids[0], goclient.FollowOptions{After: after}) {
			if !errors.Is(err, want) {
				t.Errorf("after %s: %+v, %v", after, e, err)
			}
			var gap *taskbridge.GapError
			if errors.As(err, &gap) && gap.LastEventID != last.ID {
				t.Errorf("%+v", gap)
			}
			n++
		}
		if n != 1 {
			t.Errorf("after %s: %d elements", after, n)
		}
	}
}
