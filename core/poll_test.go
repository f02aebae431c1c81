package taskbridge_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

func (h *host) poll(request taskbridge.PollRequest) taskbridge.PollResult {
	h.t.Helper()
	result, err := h.Polling.PollEvents(h.t.Context(), me, request)
	h.must(err)
	return result
}

func TestPagesOfAPollJoinToTheStream(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	h.progress(run, 30)
	h.complete(run)
	all := h.events(id)
	for size := 1; size <= 40; size++ {
		var got []taskbridge.Event
		var cursor taskbridge.Cursor
		for {
			page := h.poll(taskbridge.PollRequest{TaskID: id, After: cursor, MaxEvents: size})
			got = append(got, page.Events...)
			cursor = page.Next
			if len(page.Events) > size {
				t.Fatalf("%d events on a page of %d", len(page.Events), size)
			}
			if !page.HasMore {
				break
			}
		}
		if len(got) != len(all) {
			t.Fatalf("pages of %d give %d events, want %d", size, len(got), len(all))
		}
		for i := range got {
			if got[i].ID() != all[i].ID() {
				t.Fatalf("pages of %d: event %d is %s, want %s", size, i, got[i].ID(), all[i].ID())
			}
		}
		if page := h.poll(taskbridge.PollRequest{TaskID: id, After: cursor}); len(page.Events) != 0 || page.Next != cursor || page.HasMore || page.Status != taskbridge.StatusCompleted {
			t.Fatalf("behind the end: %+v", page)
		}
	}
}

func TestALongPollReturnsWithTheFirstEventOrAfterItsWholeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		begin := time.Now()
		if page := h.poll(taskbridge.PollRequest{TaskID: id, Wait: 20 * time.Second}); len(page.Events) != 0 || time.Since(begin) != 20*time.Second {
			t.Errorf("%d events after %s", len(page.Events), time.Since(begin))
		}
		var run taskbridge.Run
		begin = time.Now()
		go func() {
			<-time.After(5 * time.Second)
			run = h.start(id, "c")
		}()
		page := h.poll(taskbridge.PollRequest{TaskID: id, Wait: 20 * time.Second})
		if len(page.Events) != 1 || time.Since(begin) != 5*time.Second || page.Status != taskbridge.StatusRunning {
			t.Errorf("%d events, %s, after %s", len(page.Events), page.Status, time.Since(begin))
		}
		synctest.Wait()
		h.complete(run)
		page = h.poll(taskbridge.PollRequest{TaskID: id, After: page.Next})
		begin = time.Now()
		page = h.poll(taskbridge.PollRequest{TaskID: id, After: page.Next, Wait: 7 * time.Second})
		if len(page.Events) != 0 || time.Since(begin) != 7*time.Second || page.Status != taskbridge.StatusCompleted {
			t.Errorf("on a finished stream: %d events, %s, after %s", len(page.Events), page.Status, time.Since(begin))
		}
	})
}

func TestALongPollWhoseContextEndsIsAnEmptyPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		page, err := h.Polling.PollEvents(ctx, me, taskbridge.PollRequest{TaskID: id, Wait: time.Minute})
		if err != nil || len(page.Events) != 0 {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

func TestAPollAfterAGapBeginsAgainBehindAWarning(t *testing.T) {
	stores := atomicStores()
	h := newHost(t, stores)
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	h.progress(run, 5)
	all := h.events(id)
	stores.Events.(*memory.Store).Events.Truncate(id, 3)
	lost := cursorOf(t, all[5])

	_, err := h.Polling.PollEvents(t.Context(), me, taskbridge.PollRequest{TaskID: id, After: lost, GapError: true})
	var gap *taskbridge.GapError
	if !errors.As(err, &gap) || gap.FirstEventID != all[0].ID() || gap.LastEventID != all[2].ID() {
		t.Errorf("%v", err)
	}
	page := h.poll(taskbridge.PollRequest{TaskID: id, After: lost, MaxEvents: 2})
	if len(page.Events) != 2 || page.Events[0].ID() != "0-0" || page.Events[1].ID() != all[0].ID() || !page.HasMore {
		t.Errorf("%+v", page)
	}
	if err := taskbridge.ValidatePayload(page.Events[0].Type, page.Events[0].Payload); err != nil {
		t.Error(err)
	}
	page = h.poll(taskbridge.PollRequest{TaskID: id, After: lost, MaxEvents: 1})
	if len(page.Events) != 1 || page.Next != (taskbridge.Cursor{}) || !page.HasMore {
		t.Errorf("a page of one: %+v", page)
	}
	stores.Events.(*memory.Store).Events.Truncate(id, 0)
	if page := h.poll(taskbridge.PollRequest{TaskID: id, After: lost}); len(page.Events) != 2 || page.Events[1].Type != taskbridge.EventStarted {
		t.Errorf("with everything lost, the warning and what the row knows are expected: %+v", page)
	}
}

func TestPollsOutOfRangeAreRefused(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	for _, request := range []taskbridge.PollRequest{
		{TaskID: id, MaxEvents: -1}, {TaskID: id, MaxEvents: 501}, {TaskID: id, Wait: -1}, {TaskID: id, Wait: time.Minute + 1},
	} {
		if _, err := h.Polling.PollEvents(t.Context(), me, request); !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("%+v: %v", request, err)
		}
	}
}

func TestGetTaskWaitsForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		run := h.start(id, "c")
		begin := time.Now()
		row, err := h.Query.GetTask(t.Context(), me, id, 10*time.Second)
		if err != nil || row.Status != taskbridge.StatusRunning || time.Since(begin) != 10*time.Second {
			t.Errorf("%s, %v after %s", row.Status, err, time.Since(begin))
		}
		begin = time.Now()
		go func() {
			<-time.After(4 * time.Second)
			h.complete(run)
		}()
		row, err = h.Query.GetTask(t.Context(), me, id, 10*time.Second)
		if err != nil || row.Status != taskbridge.StatusCompleted || time.Since(begin) != 4*time.Second {
			t.Errorf("%s, %v after %s", row.Status, err, time.Since(begin))
		}
		if result, ok := row.Result(); !ok || string(result) != `"done"` {
			t.Errorf("result %s", result)
		}
	})
}

func TestListsPageThroughTheOwnTasksNewestFirst(t *testing.T) {
	h := newHost(t, atomicStores())
	var want []string
	for i := range 25 {
		want = append([]string{h.create(string(rune('a' + i)))}, want...)
	}
	if _, err := h.Creation.CreateTask(t.Context(), taskbridge.Principal{Subject: "you"}, taskbridge.CreateTaskRequest{ClientRequestID: "x", TaskType: "work"}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	request := taskbridge.ListTasksRequest{Limit: 10}
	for pages := 1; ; pages++ {
		result, err := h.Query.ListTasks(t.Context(), me, request)
		h.must(err)
		for _, row := range result.Tasks {
			if row.Owner != "me" || seen[row.ID] {
				t.Errorf("%s of %s, seen %v", row.ID, row.Owner, seen[row.ID])
			}
			seen[row.ID] = true
		}
		request.Cursor = result.NextCursor
		if request.Cursor == "" {
			if pages != 3 || len(seen) != len(want) {
				t.Errorf("%d tasks on %d pages", len(seen), pages)
			}
			break
		}
	}
	for _, request := range []taskbridge.ListTasksRequest{{Limit: -1}, {Limit: 201}, {Statuses: []taskbridge.TaskStatus{"DONE"}}} {
		if _, err := h.Query.ListTasks(t.Context(), me, request); !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("%+v: %v", request, err)
		}
	}
	for _, cursor := range []string{"!", "YQ", "MTIz", "MTIzIC4u", "IA"} {
		if _, err := h.Query.ListTasks(t.Context(), me, taskbridge.ListTasksRequest{Cursor: cursor}); !errors.Is(err, taskbridge.ErrInvalidCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}
