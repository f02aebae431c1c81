package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var reportChecks = []check[LifecycleHarness]{
	{"progress and messages are recorded with what they say", reportPayloads},
	{"what may not be recorded is refused by name, and the run goes on", reportRefusals},
	{"reports are recorded in the order of the calls", reportOrder},
	{"reports of many goroutines are all recorded, each goroutine's in order", reportConcurrently},
	{"a report whose context has ended is not recorded", reportCancelledContext},
}

func reportPayloads(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	var want []string
	for _, c := range []struct {
		progress taskbridge.Progress
		want     string
	}{
		{taskbridge.Progress{}, `{"progress":0}`},
		{taskbridge.Progress{Percent: 100}, `{"progress":100}`},
		{taskbridge.Progress{Percent: 33.25, Stage: "stage", Message: "message"}, `{"message":"message","progress":33.25,"stage":"stage"}`},
		{taskbridge.Progress{Percent: 1, Message: `<&> "雪"`}, `{"message":"<&> \"雪\"","progress":1}`},
	} {
		s.must("Progress", run.Progress(s.ctx, c.progress))
		want = append(want, "TASK_PROGRESS "+c.want)
	}
	for _, c := range []struct {
		message taskbridge.Message
		want    string
	}{
		{taskbridge.Message{Text: "none"}, `{"message":"none"}`},
		{taskbridge.Message{Text: "info", Level: taskbridge.LevelInfo}, `{"message":"info"}`},
		{taskbridge.Message{Text: "warning", Level: taskbridge.LevelWarning}, `{"level":"warning","message":"warning"}`},
		{taskbridge.Message{Text: "one\nanother", Level: taskbridge.LevelDebug}, `{"level":"debug","message":"one\nanother"}`},
	} {
		s.must("Message", run.Message(s.ctx, c.message))
		want = append(want, "TASK_MESSAGE "+c.want)
	}
	s.expect(id, append([]string{"TASK_STARTED"}, want...)...)
	for _, e := range s.events(id) {
		if e.Attempt != 1 {
			t.Errorf("event %d is of attempt %d, want 1", e.Sequence, e.Attempt)
		}
	}
}

func reportRefusals(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{EventPayload: 500}})
	id, run := s.running()
	s.untouched("the refused reports", id, func() {
		for _, percent := range []float64{-0.01, 100.01, math.NaN(), math.Inf(1), math.Inf(-1)} {
			err := run.Progress(s.ctx, taskbridge.Progress{Percent: percent})
			s.refused(fmt.Sprintf("Progress of %v", percent), err, taskbridge.ErrInvalidArgument)
			if argument := new(taskbridge.ArgumentError); !errors.As(err, &argument) {
				t.Errorf("Progress of %v: %v does not name the argument", percent, err)
			}
		}
		s.refused("Message of an odd level", run.Message(s.ctx, taskbridge.Message{Text: "m", Level: "loud"}), taskbridge.ErrInvalidArgument)
		long := strings.Repeat("x", 500)
		for name, err := range map[string]error{
			"Message":  run.Message(s.ctx, taskbridge.Message{Text: long}),
			"Progress": run.Progress(s.ctx, taskbridge.Progress{Message: long}),
			"Notice":   s.lifecycle.Notice(s.ctx, id, taskbridge.Message{Text: long}),
		} {
			s.refused(name+" over the limit", err, taskbridge.ErrPayloadTooLarge)
			if size := new(taskbridge.SizeError); !errors.As(err, &size) || size.Limit != 500 || size.Bytes <= 500 {
				t.Errorf("%s over the limit: %v does not tell the sizes", name, err)
			}
		}
	})
	s.live(run)
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "fine"}))
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"fine"}`)
}

func reportOrder(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	want := []string{"TASK_STARTED"}
	for n := range 100 {
		if n%3 == 0 {
			s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: fmt.Sprint(n)}))
			want = append(want, fmt.Sprintf(`TASK_MESSAGE {"message":"%d"}`, n))
		} else {
			s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: float64(n)}))
			want = append(want, fmt.Sprintf(`TASK_PROGRESS {"progress":%d}`, n))
		}
	}
	s.expect(id, want...)
}

func reportConcurrently(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	const callers, each = 16, 10
	var errs [callers]error
	together(callers, func(i int) {
		for n := range each {
			errs[i] = errors.Join(errs[i], run.Message(s.ctx, taskbridge.Message{Text: fmt.Sprintf("%d %d", i, n)}))
		}
	})
	s.must("Message", errors.Join(errs[:]...))
	var next [callers]int
	for _, e := range s.events(id)[1:] {
		var i, n int
		if _, err := fmt.Sscanf(string(e.Payload), `{"message":"%d %d`, &i, &n); err != nil {
			t.Fatalf("the message is %s: %v", e.Payload, err)
		}
		if n != next[i] {
			t.Errorf("message %d of goroutine %d came where %d was to come", n, i, next[i])
		}
		next[i]++
	}
	for i, n := range next {
		if n != each {
			t.Errorf("%d messages of goroutine %d were recorded, want %d", n, i, each)
		}
	}
	s.agree(id)
}

func reportCancelledContext(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.untouched("the reports without a context", id, func() {
		for _, c := range reports(run) {
			if err := c.do(cancelled()); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", c.name, err)
			}
		}
		s.refused("Notice", s.lifecycle.Notice(cancelled(), id, taskbridge.Message{Text: "m"}), context.Canceled)
		s.refused("Settle", s.lifecycle.Settle(cancelled(), id, outcome(taskbridge.StatusFailed)), context.Canceled)
	})
	s.live(run)
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "fine"}))
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"fine"}`)
}
