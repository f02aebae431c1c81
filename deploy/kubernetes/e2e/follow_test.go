package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/core/client"
)

// follower has the events of a task as they come to a client that follows it.
type follower struct {
	task   string
	done   chan struct{}
	mu     sync.Mutex
	events []client.Event
	more   chan struct{} // replaced with each event
	err    error
}

// follow creates a task and follows it to its end.
func follow(ctx context.Context, t *testing.T, c *client.Client, taskType, key string, input any) *follower {
	t.Helper()
	created, err := c.Create(ctx, client.CreateRequest{ClientRequestID: key, TaskType: taskType, Input: input})
	must(t, err)
	f := &follower{task: created.TaskID, done: make(chan struct{}), more: make(chan struct{})}
	go func() {
		defer close(f.done)
		for event, err := range c.Follow(ctx, f.task, client.FollowOptions{}) {
			f.mu.Lock()
			if err != nil {
				f.err = err
			} else {
				f.events = append(f.events, event)
			}
			close(f.more)
			f.more = make(chan struct{})
			f.mu.Unlock()
		}
	}()
	return f
}

// lines returns the events as "TYPE payload".
func (f *follower) lines() (lines []string, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, event := range f.events {
		lines = append(lines, fmt.Sprintf("%s %s", event.Type, event.Payload))
	}
	return lines, f.more
}

// await waits for an event with the text in it.
func (f *follower) await(t *testing.T, text string) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		lines, more := f.lines()
		if slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) }) {
			return
		}
		select {
		case <-more:
		case <-f.done:
			lines, _ := f.lines()
			if slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) }) {
				return
			}
			t.Fatalf("task %s ended (%v) without %q:\n%s", f.task, f.err, text, strings.Join(lines, "\n"))
		case <-timer.C:
			t.Fatalf("task %s: not in time: %q in\n%s", f.task, text, strings.Join(lines, "\n"))
		}
	}
}

// end waits for the end and returns all events.
func (f *follower) end(t *testing.T) []string {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
		lines, _ := f.lines()
		t.Fatalf("task %s has not ended in time:\n%s", f.task, strings.Join(lines, "\n"))
	}
	lines, _ := f.lines()
	if f.err != nil {
		t.Fatalf("task %s: %v\n%s", f.task, f.err, strings.Join(lines, "\n"))
	}
	return lines
}

// outputGone is what may be told of a pod that was stopped: Kubernetes takes its log
// away with it.
const outputGone = "Some of the pod's output may be missing"

// told leaves that out of events.
func told(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, outputGone) })
}

// expect holds events against what they begin with, each of them once and in order.
func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("%s: the events are\n%s\nand were to begin with\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// gates hold up the pods that come to them, each step of each task on its own.
type gates struct {
	url string
	mu  sync.Mutex
	by  map[string]chan struct{}
}

func newGates(t *testing.T) *gates {
	t.Helper()
	g := &gates{by: map[string]chan struct{}{}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-g.at(r.URL.Path):
		case <-r.Context().Done():
		}
	}))
	must(t, server.Listener.Close())
	server.Listener = listen(t)
	server.Start()
	g.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return g
}

func (g *gates) at(path string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by[path] == nil {
		g.by[path] = make(chan struct{})
	}
	return g.by[path]
}

// input is that of a task whose gates have the name.
func (g *gates) input(name string) map[string]string {
	return map[string]string{"gate": g.url + "/" + name}
}

// open lets a task through its steps, now or when it comes to them.
func (g *gates) open(name string, steps ...int) {
	for _, step := range steps {
		close(g.at(fmt.Sprintf("/%s/%d", name, step)))
	}
}
