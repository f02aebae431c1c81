package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAShutdownCutsStreamsAndTheyResumeWithoutAGap(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	args := []string{
		"--task", `endless=sh -c 'while :; do echo "::taskbridge {\"message\":\"tick\"}"; sleep 0.05; done'`,
		"--process-max-running", "1", "--process-grace", "1s",
	}
	s := launch(t, dir, args...)

	create := func(key, taskType, input string) string {
		t.Helper()
		task, err := c.create(s.url, key, taskType, input)
		if err != nil {
			t.Fatal(err)
		}
		return task.TaskID
	}
	demo := create("demo", "demo", `{"ticks":1000,"tickMillis":20}`)
	running := create("running", "endless", `{}`)
	waiting := create("waiting", "endless", `{}`)
	mark := "TASKBRIDGE_TASK_ID=" + running

	// Each stream is followed until the shutdown cuts it, one long poll waits.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var (
		following sync.WaitGroup
		seen      = map[string][]event{}
		mu        sync.Mutex
		flowing   = make(chan struct{}, 2)
	)
	for _, id := range []string{demo, running} {
		following.Go(func() {
			err := c.follow(ctx, s.url, id, "", func(e event) {
				mu.Lock()
				defer mu.Unlock()
				if seen[id] = append(seen[id], e); len(seen[id]) == 5 {
					flowing <- struct{}{}
				}
			})
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the stream of %s ended with %v, it should have been cut", id, err)
			}
		})
	}
	following.Go(func() {
		err := c.follow(ctx, s.url, waiting, "", func(e event) { t.Errorf("a task that waits: %s", e.raw) })
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the empty stream ended with %v, it should have been cut", err)
		}
	})
	for range 2 {
		<-flowing
	}
	polled, sent := make(chan error, 1), make(chan struct{})
	go func() {
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(sent) }})
		r, err := http.NewRequestWithContext(traced, http.MethodGet, s.url+"/api/v1/tasks/"+waiting+"/events?waitTimeoutMs=60000", nil)
		if err != nil {
			polled <- err
			return
		}
		response, err := c.http.Do(r)
		if err != nil {
			polled <- err
			return
		}
		body, err := io.ReadAll(response.Body)
		if err == nil && (response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"events":[]`)) {
			err = fmt.Errorf("answered %d: %s", response.StatusCode, body)
		}
		polled <- errors.Join(err, response.Body.Close())
	}()
	// The poll must be under way before the shutdown begins; requests behind it
	// give the server the time to read it.
	<-sent
	for range 20 {
		if _, err := c.task(s.url, waiting); err != nil {
			t.Fatal(err)
		}
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	following.Wait()
	if err := <-polled; err != nil {
		t.Errorf("the waiting poll: %v", err)
	}
	if left := processesWith(t, mark); len(left) > 0 {
		t.Errorf("left behind: %+v", left)
	}
	for _, want := range []string{"shutting down", "the server has ended"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("no %q in the log", want)
		}
	}
	for _, unwanted := range []string{"level=ERROR", "level=WARN"} {
		if strings.Contains(s.log.String(), unwanted) {
			t.Errorf("%s in the log of a shutdown in good order", unwanted)
		}
	}

	// The next server goes on where this one was.
	s = launch(t, dir, args...)
	for _, id := range []string{demo, running} {
		cursor := seen[id][len(seen[id])-1].EventID
		err := c.follow(ctx, s.url, id, cursor, func(e event) { seen[id] = append(seen[id], e) })
		if err != nil {
			t.Errorf("the resumed stream of %s: %v", id, err)
		}
		all, err := c.events(s.url, id)
		if err != nil {
			t.Fatal(err)
		}
		checkStream(t, id, all)
		if got, want := rawOf(seen[id]), rawOf(all); got != want {
			t.Errorf("%s: seen\n%s\nthe stream is\n%s", id, got, want)
		}
		final, err := c.task(s.url, id)
		if err != nil || final.Status != "FAILED" || final.Failure == nil || final.Failure.Code != "EXECUTOR_LOST" || !final.Failure.Retryable {
			t.Errorf("row %+v, %v", final, err)
		}
	}
	// What had not started runs now.
	stopped := errors.New("seen enough")
	runs, done := context.WithCancelCause(ctx)
	_ = c.follow(runs, s.url, waiting, "", func(e event) { // ended by the cancellation
		if e.Type == "TASK_MESSAGE" {
			done(stopped)
		}
	})
	if !errors.Is(context.Cause(runs), stopped) {
		t.Errorf("the task that waited does not run: %v", context.Cause(runs))
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func rawOf(events []event) string {
	var raw []string
	for _, e := range events {
		raw = append(raw, e.raw)
	}
	return strings.Join(raw, "\n")
}

// checkStream checks what holds for every stream that has ended: sequence
// numbers from 1 without a hole, one start at most, one end, nothing behind it.
func checkStream(t *testing.T, id string, events []event) {
	t.Helper()
	if len(events) == 0 || !events[len(events)-1].terminal() {
		t.Errorf("the stream of %s has not ended: %s", id, rawOf(events))
	}
	starts := 0
	for i, e := range events {
		if !strings.HasPrefix(e.EventID, fmt.Sprintf("%d-", i+1)) {
			t.Errorf("%s: event %d has the id %s", id, i+1, e.EventID)
		}
		if e.terminal() && i < len(events)-1 {
			t.Errorf("%s: an end before the end: %s", id, rawOf(events))
		}
		if e.Type == "TASK_STARTED" {
			if starts++; i > 0 {
				t.Errorf("%s: the start is event %d", id, i+1)
			}
		}
	}
	if starts > 1 {
		t.Errorf("%s has started %d times: %s", id, starts, rawOf(events))
	}
}

func TestASecondSignalEndsTheServerAtOnce(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	s := launch(t, dir, "--process-grace", "1h", "--drain-timeout", "1h",
		"--task", `deaf=sh -c 'trap "" TERM; echo "::taskbridge {\"progress\":1}"; while :; do sleep 1; done'`)
	task, err := c.create(s.url, "deaf", "deaf", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	working := errors.New("it is at work")
	runs, seen := context.WithCancelCause(ctx)
	_ = c.follow(runs, s.url, task.TaskID, "", func(e event) { // ended by the cancellation
		if e.Type == "TASK_PROGRESS" {
			seen(working)
		}
	})
	left := processesWith(t, "TASKBRIDGE_TASK_ID="+task.TaskID)
	if !errors.Is(context.Cause(runs), working) || len(left) == 0 {
		t.Fatalf("the task does not run: %v, %+v", context.Cause(runs), left)
	}

	signal := func() {
		if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	<-s.log.line("shutting down")
	<-time.After(400 * time.Millisecond) // a signal right behind the first is the same wish
	signal()
	select {
	case <-s.exited:
	case <-ctx.Done():
		t.Fatal("it does not end")
	}
	if status := s.command.ProcessState.ExitCode(); status != 1 {
		t.Errorf("exit status %d", status)
	}

	// The next one ends what this one has left.
	s = launch(t, dir, "--process-grace", "100ms")
	for _, p := range left {
		if p.alive() {
			t.Errorf("still alive: %+v", p)
		}
	}
	if final, err := c.task(s.url, task.TaskID); err != nil || final.Status != "FAILED" || final.Failure.Code != "EXECUTOR_LOST" {
		t.Errorf("row %+v, %v", final, err)
	}
}
