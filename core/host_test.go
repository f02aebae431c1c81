package taskbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

var me = taskbridge.Principal{Subject: "me"}

// idleExecutor takes every task and does nothing: the test plays the worker.
type idleExecutor struct {
	mu        sync.Mutex
	submitted []string
	cancelled []string
}

func (e *idleExecutor) SubmitTask(_ context.Context, task taskbridge.Task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.submitted = append(e.submitted, task.ID)
	return nil
}

func (e *idleExecutor) RequestCancellation(_ context.Context, task taskbridge.Task, _ string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancelled = append(e.cancelled, task.ID)
	return nil
}

// host is a bridge over some stores, as an application would have it.
type host struct {
	*taskbridge.Bridge
	t         *testing.T
	stores    taskbridge.Stores
	lifecycle *taskbridge.LocalLifecycle
	executor  *idleExecutor
}

func atomicStores() taskbridge.Stores {
	store := memory.NewStore(memory.Options{})
	return taskbridge.Stores{Tasks: store, Events: store}
}

func newHost(t *testing.T, stores taskbridge.Stores, configure ...func(*taskbridge.Options)) *host {
	t.Helper()
	h := &host{t: t, stores: stores, executor: &idleExecutor{}}
	var err error
	h.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	h.must(err)
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"work": h.executor})
	h.must(err)
	options := taskbridge.Options{Stores: stores, Executors: router}
	for _, c := range configure {
		c(&options)
	}
	h.Bridge, err = taskbridge.New(options)
	h.must(err)
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) create(key string) string {
	h.t.Helper()
	result, err := h.Creation.CreateTask(h.t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: key, TaskType: "work"})
	h.must(err)
	return result.Task.ID
}

func (h *host) start(taskID, claim string) taskbridge.Run {
	h.t.Helper()
	run, err := h.lifecycle.Start(h.t.Context(), taskID, taskbridge.Claim{ID: claim})
	h.must(err)
	return run
}

// progress reports n steps, numbered in their messages from 0.
func (h *host) progress(run taskbridge.Run, n int) {
	h.t.Helper()
	for i := range n {
		h.must(run.Progress(h.t.Context(), taskbridge.Progress{Percent: float64(i % 101), Message: fmt.Sprint(i)}))
	}
}

func (h *host) complete(run taskbridge.Run) {
	h.t.Helper()
	h.must(run.Complete(h.t.Context(), taskbridge.Completion{Result: json.RawMessage(`"done"`)}))
}

func (h *host) events(taskID string) []taskbridge.Event {
	h.t.Helper()
	events, err := h.stores.Events.ReadEvents(h.t.Context(), taskID, 0, 1_000_000)
	h.must(err)
	return events
}

func (h *host) row(taskID string) taskbridge.Task {
	h.t.Helper()
	row, err := h.stores.Tasks.GetTask(h.t.Context(), taskID)
	h.must(err)
	return row
}

func (h *host) subscribe(taskID string, after taskbridge.Cursor) *taskbridge.Subscription {
	h.t.Helper()
	sub, err := h.Subscription.Subscribe(h.t.Context(), me, taskbridge.SubscribeRequest{TaskID: taskID, After: after, GapError: true})
	h.must(err)
	return sub
}

// follow takes frames until the stream ends.
func follow(ctx context.Context, sub *taskbridge.Subscription) ([]taskbridge.Frame, error) {
	var all []taskbridge.Frame
	for {
		frames, err := sub.Next(ctx, time.Minute)
		all = append(all, frames...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func cursorOf(t *testing.T, e taskbridge.Event) taskbridge.Cursor {
	t.Helper()
	c, err := taskbridge.ParseCursor(e.ID())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantFrames checks that the frames are exactly the events.
func wantFrames(t *testing.T, frames []taskbridge.Frame, events []taskbridge.Event) {
	t.Helper()
	if len(frames) != len(events) {
		t.Fatalf("%d frames, want %d", len(frames), len(events))
	}
	for i, f := range frames {
		if want := string(events[i].AppendEnvelope(nil)); string(f.Envelope) != want || f.EventID != events[i].ID() {
			t.Fatalf("frame %d is %s (%s), want %s", i, f.Envelope, f.EventID, want)
		}
	}
}
