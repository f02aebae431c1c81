package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

func TestARowIsReadWithAllItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			send(w, `{"taskId":"`+taskID+`","clientRequestId":"k","taskType":"report","status":"FAILED","input":{"a":1},"metadata":{},
				"createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:01.5Z","attempt":2,"cancellationRequested":true,
				"startedAt":"2026-01-01T00:00:01Z","finishedAt":"2026-01-01T00:00:01.5Z","cancelReason":"why not","new":"field",
				"failure":{"code":"BROKEN","message":"it broke","retryable":true}}`)
		}}}
		task, err := connect(t, s).Get(t.Context(), taskID)
		if err != nil {
			t.Fatal(err)
		}
		if task.Status != taskbridge.StatusFailed || *task.Failure != (taskbridge.Failure{Code: "BROKEN", Message: "it broke", Retryable: true}) ||
			task.Attempt != 2 || !task.CancellationRequested || task.CancelReason != "why not" || string(task.Input) != `{"a":1}` ||
			!task.FinishedAt.Equal(time.Date(2026, 1, 1, 0, 0, 1, 5e8, time.UTC)) || task.Result != nil {
			t.Errorf("%+v", task)
		}
	})
}

func TestWaitingGoesOnThroughOutagesToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var preferred []string
		running := func(w http.ResponseWriter, r *http.Request) {
			preferred = append(preferred, r.Header.Get("Prefer"))
			pass(25 * time.Second)
			row(taskbridge.StatusRunning)(w, r)
		}
		steps := slices.Repeat([]http.HandlerFunc{running}, 10)
		steps = append(steps, slices.Repeat([]http.HandlerFunc{abort}, 200)...)
		steps = append(steps, refuse(503, "UNAVAILABLE", "2"), running, row(taskbridge.StatusCompleted))
		s := &script{steps: steps}
		task, err := connect(t, s).Wait(t.Context(), taskID)
		if err != nil || task.Status != taskbridge.StatusCompleted || string(task.Result) != "null" {
			t.Errorf("%+v, %v", task, err)
		}
		if len(preferred) != 11 || slices.ContainsFunc(preferred, func(p string) bool { return p != "wait=25" }) {
			t.Errorf("%q", preferred)
		}
	})
}

func TestWaitingOnAServerThatDoesNotWaitDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := &script{steps: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			status := taskbridge.StatusRunning
			if time.Since(begun) > 10*time.Minute {
				status = taskbridge.StatusCancelled
			}
			row(status)(w, r)
		}}}
		if task, err := connect(t, s).Wait(t.Context(), taskID); err != nil || task.Status != taskbridge.StatusCancelled {
			t.Errorf("%+v, %v", task, err)
		}
		if len(s.lines) > 150 {
			t.Errorf("%d requests in ten minutes", len(s.lines))
		}
	})
}

func TestATaskThatIsNotThereIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{refuse(404, "TASK_NOT_FOUND", "")}}
		if _, err := connect(t, s).Wait(t.Context(), taskID); !errors.Is(err, taskbridge.ErrTaskNotFound) || len(s.lines) != 1 {
			t.Errorf("%v after %d requests", err, len(s.lines))
		}
	})
}

// list answers with three pages of two tasks.
func list(w http.ResponseWriter, r *http.Request) {
	number, next := 0, "c1"
	switch r.URL.Query().Get("cursor") {
	case "c1":
		number, next = 1, "c/2"
	case "c/2":
		number, next = 2, ""
	}
	tasks := []map[string]any{}
	for i := range 2 {
		tasks = append(tasks, map[string]any{"taskId": fmt.Sprintf("t%d", 2*number+i), "status": "RUNNING"})
	}
	page := map[string]any{"tasks": tasks}
	if next != "" {
		page["nextCursor"] = next
	}
	answer(w, http.StatusOK, page)
}

func TestAListGoesOverAllPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{list, abort, list}}
		c := connect(t, s)
		filter := client.ListFilter{
			Statuses: []taskbridge.TaskStatus{taskbridge.StatusRunning, taskbridge.StatusAccepted}, Types: []string{"a b", "c"}, PageSize: 2,
		}
		var ids []string
		for task, err := range c.List(t.Context(), filter) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, task.TaskID)
		}
		if want := []string{"t0", "t1", "t2", "t3", "t4", "t5"}; !slices.Equal(ids, want) {
			t.Errorf("%q", ids)
		}
		if last := s.lines[len(s.lines)-1]; last != "GET /api/v1/tasks?cursor=c%2F2&limit=2&status=RUNNING&status=ACCEPTED&taskType=a+b&taskType=c" {
			t.Error(last)
		}
		before := len(s.lines)
		for _, err := range c.List(t.Context(), filter) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if n := len(s.lines) - before; n != 1 {
			t.Errorf("%d requests for the first task", n)
		}
		page, err := c.ListPage(t.Context(), client.ListFilter{}, "c1")
		if err != nil || len(page.Tasks) != 2 || page.NextCursor != "c/2" {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

func TestAListThatLeadsNowhereEnds(t *testing.T) {
	task := map[string]any{"taskId": "t", "status": "RUNNING"}
	for name, c := range map[string]struct {
		tasks []map[string]any
		next  func(cursor string) string
		want  int
	}{
		"the same page again":        {[]map[string]any{task}, func(string) string { return "c" }, 2},
		"empty pages with new names": {[]map[string]any{}, func(cursor string) string { return cursor + "c" }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					answer(w, http.StatusOK, map[string]any{"tasks": c.tasks, "nextCursor": c.next(r.URL.Query().Get("cursor"))})
				})
				tasks, errs := 0, 0
				for _, err := range connect(t, handler).List(t.Context(), client.ListFilter{}) {
					switch {
					case err == nil:
						tasks++
					case errors.Is(err, client.ErrUnexpectedAnswer):
						errs++
					default:
						t.Error(err)
					}
				}
				if tasks != c.want || errs != 1 {
					t.Errorf("%d tasks, %d errors", tasks, errs)
				}
			})
		})
	}
}

func TestAListEndsAfterItsFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{list, refuse(403, "TASK_OWNERSHIP_ERROR", "")}}
		tasks, errs := 0, 0
		for _, err := range connect(t, s).List(t.Context(), client.ListFilter{}) {
			switch {
			case err == nil:
				tasks++
			case errors.Is(err, taskbridge.ErrForbidden):
				errs++
			default:
				t.Error(err)
			}
		}
		if tasks != 2 || errs != 1 {
			t.Errorf("%d tasks, %d errors", tasks, errs)
		}
	})
}

func TestACancellationIsTriedAgainAndSaysWhatCameOfIt(t *testing.T) {
	for _, status := range []client.CancelStatus{client.CancellationRequested, client.AlreadyTerminal} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{steps: []http.HandlerFunc{abort, refuse(503, "UNAVAILABLE", "1"), func(w http.ResponseWriter, _ *http.Request) {
				answer(w, http.StatusAccepted, map[string]any{"taskId": taskID, "status": status})
			}}}
			got, err := connect(t, s).Cancel(t.Context(), taskID, "enough")
			if err != nil || got != status || len(s.bodies) != 3 || s.bodies[2] != `{"reason":"enough"}` {
				t.Errorf("%s, %v, %q", got, err, s.bodies)
			}
			if _, err := connect(t, s).Cancel(t.Context(), taskID, ""); err != nil || s.bodies[3] != `{}` {
				t.Errorf("%v, %q", err, s.bodies)
			}
		})
	}
}

func TestWhatIsNoTaskIDIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{accept}}
		c := connect(t, s)
		for _, id := range []string{"", "..", "a/b", "a..b", "a?b", "ä"} {
			_, get := c.Get(t.Context(), id)
			_, wait := c.Wait(t.Context(), id)
			_, cancel := c.Cancel(t.Context(), id, "")
			for _, err := range []error{get, wait, cancel} {
				if !errors.Is(err, taskbridge.ErrInvalidArgument) {
					t.Errorf("%q: %v", id, err)
				}
			}
		}
		if len(s.lines) > 0 {
			t.Errorf("%q", s.lines)
		}
	})
}

// one makes a bridge of a task that ends with the event, reached by Do.
func one(t *testing.T, end taskbridge.EventType, payload string) (*client.Client, *bridge) {
	t.Helper()
	b := newBridge(t, story(3, ordered)...)
	b.events[2].Type, b.events[2].Payload = end, []byte(payload)
	b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			accept(w, r)
		}
		return r.Method == http.MethodPost
	}
	return connect(t, b), b
}

func TestDoReturnsTheResultOrTheReasonWhyThereIsNone(t *testing.T) {
	for _, c := range []struct {
		end           taskbridge.EventType
		payload, want string
		wantErr       *client.TaskError
	}{
		{taskbridge.EventCompleted, `{"result":{"x":[1]},"code":7,"message":false}`, `{"x":[1]}`, nil},
		{taskbridge.EventCompleted, `{"result":null,"resultOmitted":{"bytes":9,"limit":1}}`, `null`, nil},
		{taskbridge.EventFailed, `{"code":"BROKEN","message":"it broke","retryable":true}`, "", &client.TaskError{
			TaskID: taskID, Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: "BROKEN", Message: "it broke", Retryable: true},
		}},
		{taskbridge.EventCancelled, `{"reason":"enough"}`, "", &client.TaskError{
			TaskID: taskID, Status: taskbridge.StatusCancelled, Reason: "enough",
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			doer, b := one(t, c.end, c.payload)
			var seen []client.Event
			outcome, err := doer.Do(t.Context(), client.CreateRequest{TaskType: "x"}, func(e client.Event) { seen = append(seen, e) })
			same(t, seen, b.events)
			var failed *client.TaskError
			switch {
			case c.wantErr == nil && (err != nil || string(outcome.Result) != c.want || outcome.TaskID != taskID || outcome.Event.ID != ordered(3)):
				t.Errorf("%+v, %v", outcome, err)
			case c.wantErr != nil && (!errors.As(err, &failed) || *failed != *c.wantErr):
				t.Errorf("%+v", err)
			case c.wantErr != nil && !strings.Contains(err.Error(), taskID):
				t.Error(err)
			}
		})
	}
}
