package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var endChecks = []check[LifecycleHarness]{
	{"each end is recorded with what it says and closes the run", endRecorded},
	{"the same end again succeeds, another one is ErrTaskFinished", endRepeated},
	{"a result that is no JSON is refused and ends nothing", endInvalid},
	{"a result over the limit is recorded as null with its size beside it", endResultTooLarge},
	{"a message over the limit is cut at a rune, and the end is recorded", endMessageTooLong},
	{"of racing ends one is recorded", endRace},
}

// outcome returns a plain outcome of the status.
func outcome(status taskbridge.TaskStatus) taskbridge.Outcome {
	return taskbridge.Outcome{
		Status:     status,
		Completion: taskbridge.Completion{Result: json.RawMessage(`{"some":"result"}`)},
		Failure:    taskbridge.Failure{Code: "SOME_CODE", Message: "some failure", Retryable: true},
	}
}

// afterEnd are the errors of reports on a run that its own end has closed.
var afterEnd = []error{taskbridge.ErrTaskFinished, taskbridge.ErrClosed}

func endRecorded(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for _, c := range []struct {
		name string
		end  func(run taskbridge.Run) error
		want string
	}{
		{"nothing", func(run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) },
			`TASK_COMPLETED {"result":null}`},
		{"a result", func(run taskbridge.Run) error {
			return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(` { "a" : [ 1.50, "<雪>" ] } `), Message: "done"})
		}, `TASK_COMPLETED {"message":"done","result":{"a":[1.50,"<雪>"]}}`},
		{"a bare value", func(run taskbridge.Run) error {
			return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`false`)})
		}, `TASK_COMPLETED {"result":false}`},
		{"a failure", func(run taskbridge.Run) error {
			return run.Fail(s.ctx, taskbridge.Failure{Code: "SOME_CODE", Message: "why", Retryable: true})
		}, `TASK_FAILED {"code":"SOME_CODE","message":"why","retryable":true}`},
		{"a failure for good", func(run taskbridge.Run) error {
			return run.Fail(s.ctx, taskbridge.Failure{Code: "SOME_CODE"})
		}, `TASK_FAILED {"code":"SOME_CODE","message":"","retryable":false}`},
		{"a cancellation that nobody asked for", func(run taskbridge.Run) error { return run.Cancelled(s.ctx, "stopped") },
			`TASK_CANCELLED {"message":"stopped","reason":"cancelled by client"}`},
	} {
		id, run := s.running()
		before := s.row(id)
		s.must(c.name, c.end(run))
		s.over(run, afterEnd...)
		row := s.row(id)
		if row.FinishedAt.Before(before.StartedAt) || row.Attempt != 1 || !row.StartedAt.Equal(before.StartedAt) {
			t.Errorf("%s: started at %v, finished at %v, attempt %d", c.name, row.StartedAt, row.FinishedAt, row.Attempt)
		}
		s.expect(id, "TASK_STARTED", c.want)
		if row.Due != (taskbridge.Due{Retention: row.FinishedAt}) {
			t.Errorf("%s: something is still due: %+v", c.name, row.Due)
		}
		s.untouched("the reports after the end", id, func() {
			for _, report := range reports(run)[:4] {
				s.refused(report.name+" after the end", report.do(s.ctx), afterEnd...)
			}
		})
	}
}

func endRepeated(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	ends := map[string]func(run taskbridge.Run) error{
		"Complete": func(run taskbridge.Run) error {
			return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`{"a":1}`)})
		},
		"Complete otherwise": func(run taskbridge.Run) error {
			return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`{"a":2}`)})
		},
		"Fail": func(run taskbridge.Run) error {
			return run.Fail(s.ctx, taskbridge.Failure{Code: "CODE", Message: "m"})
		},
		"Cancelled": func(run taskbridge.Run) error { return run.Cancelled(s.ctx, "m") },
	}
	for name, end := range ends {
		id, run := s.running()
		beside := s.start(id, taskbridge.Claim{ID: "claim", Producer: "beside"})
		s.must(name, end(run))
		s.untouched("the second ends", id, func() {
			for again, another := range ends {
				for _, r := range []taskbridge.Run{run, beside} {
					err := another(r)
					if again == name {
						s.must(again+" again", err)
					} else {
						s.refused(again+" after "+name, err, taskbridge.ErrTaskFinished)
					}
				}
			}
		})
		s.over(beside, taskbridge.ErrTaskFinished)
		s.agree(id)
	}
}

func endInvalid(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.untouched("the refused ends", id, func() {
		for _, result := range []string{"{", "", "nul", `{} {}`, "\"\xff\""} {
			err := run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(result)})
			s.refused(fmt.Sprintf("Complete with %q", result), err, taskbridge.ErrInvalidArgument)
		}
	})
	s.live(run)
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(id, "TASK_STARTED", "TASK_COMPLETED")
}

func endResultTooLarge(t *testing.T, h LifecycleHarness) {
	const limit = 1000
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{TerminalPayload: limit}})
	for size, omitted := range map[int]bool{limit / 2: false, limit + 1: true, 100 * limit: true} {
		result := jsonOfSize("result", size)
		want := fmt.Sprintf(`TASK_COMPLETED {"result":%s}`, result)
		if omitted {
			want = fmt.Sprintf(`TASK_COMPLETED {"result":null,"resultOmitted":{"bytes":%d,"limit":%d}}`, size, limit)
		}
		id, run := s.running()
		s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{Result: result}))
		s.expect(id, "TASK_STARTED", want)

		settled, _ := s.running()
		s.must("Settle", s.lifecycle.Settle(s.ctx, settled, taskbridge.Outcome{
			Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: result},
		}))
		s.expect(settled, "TASK_STARTED", want)
	}
}

func endMessageTooLong(t *testing.T, h LifecycleHarness) {
	const limit = 1000
	s := set(t, h, taskbridge.LifecycleOptions{Limits: taskbridge.Limits{TerminalPayload: limit}})
	for _, unit := range []string{"abcdefg", "雪", "\U0001F642x", "\"\n", "\u2028"} {
		long := strings.Repeat(unit, 5000)
		for name, end := range map[string]func(id string, run taskbridge.Run) error{
			"Complete": func(_ string, run taskbridge.Run) error {
				return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`1`), Message: long})
			},
			"Fail": func(_ string, run taskbridge.Run) error {
				return run.Fail(s.ctx, taskbridge.Failure{Code: "CODE", Message: long, Retryable: true})
			},
			"Cancelled": func(_ string, run taskbridge.Run) error { return run.Cancelled(s.ctx, long) },
			"Settle": func(id string, _ taskbridge.Run) error {
				return s.lifecycle.Settle(s.ctx, id, taskbridge.Outcome{
					Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: "CODE", Message: long, Retryable: true},
				})
			},
		} {
			id, run := s.running()
			s.must(name, end(id, run))
			row := s.row(id)
			var payload struct {
				Message, Code string
				Retryable     bool
			}
			if err := json.Unmarshal(row.Terminal, &payload); err != nil {
				t.Fatalf("%s: the payload is %s: %v", name, row.Terminal, err)
			}
			if len(row.Terminal) > limit || !utf8.Valid(row.Terminal) {
				t.Errorf("%s: the payload has %d bytes, want valid UTF-8 of at most %d: %q", name, len(row.Terminal), limit, row.Terminal)
			}
			if row.Status == taskbridge.StatusFailed {
				// The beginning is kept, as much as there is room for.
				kept := 0
				for kept < len(payload.Message) && payload.Message[kept] == long[kept] {
					kept++
				}
				if kept < limit/20 || payload.Code != "CODE" || !payload.Retryable {
					t.Errorf("%s: %d bytes of the message are left: %s", name, kept, row.Terminal)
				}
			}
			s.agree(id)
		}
	}
}

func endRace(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for range 20 {
		id, run := s.running()
		beside := s.start(id, taskbridge.Claim{ID: "claim", Producer: "beside"})
		ends := []func() error{
			func() error { return run.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`1`)}) },
			func() error { return run.Fail(s.ctx, taskbridge.Failure{Code: "CODE"}) },
			func() error { return beside.Cancelled(s.ctx, "") },
			func() error { return beside.Complete(s.ctx, taskbridge.Completion{Result: json.RawMessage(`2`)}) },
			func() error { return s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed)) },
			func() error {
				if err := s.tryEdit(id, intent("race")); err != nil {
					return err
				}
				_, err := s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: "late"})
				if errors.Is(err, taskbridge.ErrNotRunnable) {
					return nil // it has ended the task, or came too late to
				}
				return err
			},
		}
		errs := make([]error, len(ends))
		together(len(ends), func(i int) { errs[i] = ends[i]() })
		won := 0
		for i, err := range errs[:5] {
			if err == nil {
				won++
			} else {
				s.refused(fmt.Sprintf("end %d", i), err, taskbridge.ErrTaskFinished, taskbridge.ErrClosed)
			}
		}
		s.must("the late start", errs[5])
		if row := s.row(id); won > 1 || won == 0 && row.Status != taskbridge.StatusCancelled {
			t.Errorf("%d of the ends won, and the row is %s", won, row.Status)
		}
		s.agree(id)
		if t.Failed() {
			return
		}
	}
}
