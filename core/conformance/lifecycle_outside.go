package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var outsideChecks = []check[LifecycleHarness]{
	{"a notice is a message before, beside and between runs, and changes nothing else", noticeAnywhere},
	{"a notice that may not be recorded is refused", noticeRefused},
	{"a notice under an ordinal is there once, however often it is made", noticeOnce},
	{"settling ends a task from ACCEPTED and from RUNNING, a completion after TASK_STARTED", settleEnds},
	{"settling as cancelled tells the client's reason", settleCancelled},
	{"settling fences every attempt", settleFences},
	{"settling a task that has ended is ErrTaskFinished and changes nothing", settleEnded},
	{"an outcome that is none is refused", settleInvalid},
	{"settling and the work's own end race for one end", settleRace},
}

func noticeAnywhere(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	row := s.accepted()
	s.must("Notice", s.lifecycle.Notice(s.ctx, row.ID, taskbridge.Message{Text: "image is being pulled", Level: taskbridge.LevelDebug}))
	same(t, "the row after a notice", row, s.row(row.ID))
	run := s.start(row.ID, taskbridge.Claim{ID: "claim"})
	s.must("Notice", s.lifecycle.Notice(s.ctx, row.ID, taskbridge.Message{Text: "node is low on memory", Level: taskbridge.LevelWarning}))
	s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: 50}))
	second := s.start(row.ID, taskbridge.Claim{ID: "second"})
	s.must("Notice", s.lifecycle.Notice(s.ctx, row.ID, taskbridge.Message{Text: "again"}))
	s.must("Complete", second.Complete(s.ctx, taskbridge.Completion{}))
	s.expect(row.ID, `TASK_MESSAGE {"level":"debug","message":"image is being pulled"}`, "TASK_STARTED",
		`TASK_MESSAGE {"level":"warning","message":"node is low on memory"}`, "TASK_PROGRESS", "TASK_MESSAGE",
		`TASK_MESSAGE {"message":"again"}`, "TASK_COMPLETED")

	// Before any start: a task that never runs.
	never := s.accepted().ID
	for n := range 3 {
		s.must("Notice", s.lifecycle.Notice(s.ctx, never, taskbridge.Message{Text: fmt.Sprint(n)}))
	}
	s.must("Settle", s.lifecycle.Settle(s.ctx, never, outcome(taskbridge.StatusFailed)))
	s.expect(never, `TASK_MESSAGE {"message":"0"}`, `TASK_MESSAGE {"message":"1"}`, `TASK_MESSAGE {"message":"2"}`, "TASK_FAILED")
}

func noticeRefused(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	s.untouched("the refused notice", id, func() {
		err := s.lifecycle.Notice(s.ctx, id, taskbridge.Message{Text: "m", Level: "loud"})
		s.refused("Notice of an odd level", err, taskbridge.ErrInvalidArgument)
	})
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.untouched("the late notice", id, func() {
		err := s.lifecycle.Notice(s.ctx, id, taskbridge.Message{Text: "m"})
		s.refused("Notice after the end", err, taskbridge.ErrTaskFinished)
	})
}

func noticeOnce(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	numbered, ok := s.lifecycle.(taskbridge.NumberedNoticer)
	if !ok {
		return // an option
	}
	id, run := s.running()
	text := func(text string) taskbridge.Message { return taskbridge.Message{Text: text} }
	for range 2 { // as two processes would
		s.must("NoticeOnce", numbered.NoticeOnce(s.ctx, id, "image", 3, text("no image")))
		s.must("NoticeOnce", numbered.NoticeOnce(s.ctx, id, "quota", 1, text("no room")))
		s.must("NoticeOnce", numbered.NoticeOnce(s.ctx, id, "image", 4, text("no image again")))
	}
	s.untouched("what is refused", id, func() {
		for source, ordinal := range map[string]int64{"image": 0, "": 9, "\x00": 9, "\xff": 9} {
			err := numbered.NoticeOnce(s.ctx, id, source, ordinal, text("m"))
			s.refused("NoticeOnce", err, taskbridge.ErrInvalidArgument)
		}
		s.refused("NoticeOnce of nobody's task", numbered.NoticeOnce(s.ctx, "000-nobody", "image", 9, text("m")), taskbridge.ErrTaskNotFound)
	})
	s.must("Complete", run.Complete(s.ctx, taskbridge.Completion{}))
	s.refused("NoticeOnce after the end", numbered.NoticeOnce(s.ctx, id, "image", 5, text("m")), taskbridge.ErrTaskFinished)
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"no image"}`, `TASK_MESSAGE {"message":"no room"}`,
		`TASK_MESSAGE {"message":"no image again"}`, "TASK_COMPLETED")
}

func settleEnds(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for _, c := range []struct {
		outcome       taskbridge.Outcome
		want          string
		startsIfNever bool
	}{
		{outcome(taskbridge.StatusCompleted), `TASK_COMPLETED {"result":{"some":"result"}}`, true},
		{taskbridge.Outcome{Status: taskbridge.StatusCompleted}, `TASK_COMPLETED {"result":null}`, true},
		{outcome(taskbridge.StatusFailed), `TASK_FAILED {"code":"SOME_CODE","message":"some failure","retryable":true}`, false},
		{taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: "evicted"}, `TASK_CANCELLED {"message":"evicted","reason":"cancelled by client"}`, false},
	} {
		never := s.accepted().ID
		s.must("Settle", s.lifecycle.Settle(s.ctx, never, c.outcome))
		if c.startsIfNever {
			s.expect(never, "TASK_STARTED {}", c.want)
		} else {
			s.expect(never, c.want)
		}
		if row := s.row(never); row.Status != c.outcome.Status || row.Attempt != 0 {
			t.Errorf("the row is %s in attempt %d, want %s in none", row.Status, row.Attempt, c.outcome.Status)
		}

		id, _ := s.running()
		s.must("Settle", s.lifecycle.Settle(s.ctx, id, c.outcome))
		s.expect(id, "TASK_STARTED {}", c.want)
		if row := s.row(id); row.Status != c.outcome.Status || row.Due != (taskbridge.Due{Retention: row.FinishedAt}) {
			t.Errorf("the row is %s and owed %+v, want %s and nothing but its retirement", row.Status, row.Due, c.outcome.Status)
		}
	}
}

func settleCancelled(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	never := s.accepted(intent("no longer needed")).ID
	s.must("Settle", s.lifecycle.Settle(s.ctx, never, outcome(taskbridge.StatusCancelled)))
	s.expect(never, `TASK_CANCELLED {"reason":"no longer needed"}`)

	id, _ := s.running()
	s.requestCancel(id, "too slow")
	s.must("Settle", s.lifecycle.Settle(s.ctx, id, taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: "killed"}))
	s.expect(id, "TASK_STARTED", `TASK_CANCELLED {"message":"killed","reason":"too slow"}`)

	// An intent does not make another end a cancellation.
	late, _ := s.running()
	s.requestCancel(late, "too late")
	s.must("Settle", s.lifecycle.Settle(s.ctx, late, outcome(taskbridge.StatusCompleted)))
	s.expect(late, "TASK_STARTED", `TASK_COMPLETED {"result":{"some":"result"}}`)
}

func settleFences(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	id, run := s.running()
	beside := s.start(id, taskbridge.Claim{ID: "claim", Producer: "beside"})
	s.must("Settle", s.lifecycle.Settle(s.ctx, id, outcome(taskbridge.StatusFailed)))
	s.untouched("the reports after the end", id, func() {
		for _, r := range []taskbridge.Run{run, beside} {
			s.over(r, taskbridge.ErrTaskFinished)
			s.allRefused(r, taskbridge.ErrTaskFinished)
		}
	})
	s.notRunnable(id, taskbridge.Claim{ID: "claim"})
}

func settleEnded(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	statuses := []taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusFailed, taskbridge.StatusCancelled}
	for _, first := range statuses {
		id, _ := s.running()
		s.must("Settle", s.lifecycle.Settle(s.ctx, id, outcome(first)))
		s.untouched("the second settling", id, func() {
			for _, second := range statuses {
				s.refused(fmt.Sprintf("Settle %s after %s", second, first), s.lifecycle.Settle(s.ctx, id, outcome(second)), taskbridge.ErrTaskFinished)
			}
		})
	}
}

func settleInvalid(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	never := s.accepted().ID
	id, _ := s.running()
	broken := outcome(taskbridge.StatusCompleted)
	broken.Completion.Result = json.RawMessage(`{"broken":`)
	for _, id := range []string{never, id} {
		s.untouched("the refused settling", id, func() {
			for _, bad := range []taskbridge.Outcome{{}, outcome(taskbridge.StatusRunning), outcome(taskbridge.StatusAccepted), outcome("ENDED"), broken} {
				err := s.lifecycle.Settle(s.ctx, id, bad)
				s.refused(fmt.Sprintf("Settle of status %q, result %s", bad.Status, bad.Completion.Result), err, taskbridge.ErrInvalidArgument)
			}
		})
	}
}

func settleRace(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{})
	for round := range 20 {
		// Against a first start and the end that follows it.
		id := s.accepted().ID
		var started, settled error
		together(2, func(i int) {
			if i == 1 {
				settled = s.lifecycle.Settle(s.ctx, id, outcome([]taskbridge.TaskStatus{taskbridge.StatusCompleted, taskbridge.StatusCancelled}[round%2]))
				return
			}
			run, err := s.lifecycle.Start(s.ctx, id, taskbridge.Claim{ID: "claim"})
			if started = err; err == nil {
				started = errors.Join(run.Fail(s.ctx, taskbridge.Failure{Code: "CODE"}), run.Close())
			}
		})
		switch status := s.row(id).Status; {
		case settled == nil && status != taskbridge.StatusFailed:
			s.refused("the start or end that lost", started, taskbridge.ErrNotRunnable, taskbridge.ErrTaskFinished)
		case started == nil && status == taskbridge.StatusFailed:
			s.refused("the settling that lost", settled, taskbridge.ErrTaskFinished)
		default:
			t.Errorf("the task is %s, Start and Fail: %v, Settle: %v", status, started, settled)
		}
		s.agree(id)
	}
}
