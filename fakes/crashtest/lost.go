package crashtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// lossStory is a task with five messages in its stream, some of which will be
// lost.
type lossStory struct {
	*world
	p   *process
	id  string
	run taskbridge.Run
}

func newLossStory(t *testing.T, h Harness) *lossStory {
	t.Helper()
	w := newWorld(t, h)
	s := &lossStory{world: w, p: w.start(outside(fakes.NewScriptedExecutor()))}
	created, err := s.p.create()
	mustNotBe(t, err, "create")
	s.id = created.Task.ID
	s.run, err = s.p.begin(s.id, "first")
	mustNotBe(t, err, "start")
	for i := range 5 {
		mustNotBe(t, s.run.Message(s.p.ctx, taskbridge.Message{Text: fmt.Sprintf("message %d", i)}), "report")
	}
	return s
}

func cursorOf(e taskbridge.Event) taskbridge.Cursor {
	return taskbridge.Cursor{Sequence: e.Sequence, Tag: e.Tag}
}

// wantGap polls and subscribes with a cursor that can't be honoured, both ways.
func (s *lossStory) wantGap(after taskbridge.Cursor) {
	t := s.t
	t.Helper()
	there := s.events(s.id)
	first, last := there[0].ID(), there[len(there)-1].ID()
	_, err := s.p.bridge.Polling.PollEvents(s.p.ctx, client, taskbridge.PollRequest{TaskID: s.id, After: after, GapError: true})
	wantGapError(t, "poll", err, first, last)
	if subscription, err := s.p.bridge.Subscription.Subscribe(s.p.ctx, client, taskbridge.SubscribeRequest{TaskID: s.id, After: after, GapError: true}); err == nil {
		subscription.Close()
		t.Error("subscribe: no gap was noticed")
	} else {
		wantGapError(t, "subscribe", err, first, last)
	}

	// Without that wish the stream starts again behind a warning.
	page, err := s.p.bridge.Polling.PollEvents(s.p.ctx, client, taskbridge.PollRequest{TaskID: s.id, After: after})
	mustNotBe(t, err, "poll")
	if len(page.Events) == 0 || page.Events[0].Type != taskbridge.EventMessage || page.Events[0].ID() != "0-0" || !sameEvents(page.Events[1:], there) {
		t.Errorf("a poll behind a gap gives %s, the stream is %s", ids(page.Events), ids(there))
	}
	subscription, err := s.p.bridge.Subscription.Subscribe(s.p.ctx, client, taskbridge.SubscribeRequest{TaskID: s.id, After: after})
	mustNotBe(t, err, "subscribe")
	defer subscription.Close()
	var got []string
	for len(got) < 1+len(there) {
		frames, err := subscription.Next(s.p.ctx, time.Hour)
		mustNotBe(t, err, "read a subscription")
		for _, f := range frames {
			got = append(got, f.EventID)
		}
	}
	want := []string{"0-0"}
	for _, e := range there {
		want = append(want, e.ID())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a subscription behind a gap gives %s, want %s", got, want)
	}
}

func wantGapError(t *testing.T, what string, err error, first, last string) {
	t.Helper()
	var gap *taskbridge.GapError
	if !errors.As(err, &gap) {
		t.Errorf("%s: %v, want a gap", what, err)
	} else if gap.FirstEventID != first || gap.LastEventID != last {
		t.Errorf("%s: %v, the stream holds %s to %s", what, gap, first, last)
	}
}

func runLostEvents(t *testing.T, h Harness) {
	t.Run("a cursor in a lost tail is noticed", func(t *testing.T) {
		s := newLossStory(t, h)
		if s.backend.Truncate == nil {
			missing(t, "Backend.Truncate")
			return
		}
		events := s.events(s.id)
		mustNotBe(t, s.backend.Truncate(s.ctx, s.id, 4), "truncate")
		s.wantGap(cursorOf(events[5]))
		s.wantGap(cursorOf(events[4]))
		// The last one that is there is no gap.
		page, err := s.p.bridge.Polling.PollEvents(s.p.ctx, client, taskbridge.PollRequest{TaskID: s.id, After: cursorOf(events[3]), GapError: true})
		if err != nil || len(page.Events) != 0 {
			t.Errorf("a poll behind the last event: %s, %v", ids(page.Events), err)
		}
	})
	t.Run("a cursor of a history that was written over is noticed", func(t *testing.T) {
		s := newLossStory(t, h)
		if s.backend.Truncate == nil {
			missing(t, "Backend.Truncate")
			return
		}
		events := s.events(s.id)
		mustNotBe(t, s.backend.Truncate(s.ctx, s.id, 4), "truncate")
		s.clock.Advance(time.Second)
		for range 4 {
			mustNotBe(t, s.p.lifecycle.Notice(s.p.ctx, s.id, taskbridge.Message{Text: "after the loss"}), "notice")
		}
		s.wantGap(cursorOf(events[4]))
		s.wantGap(cursorOf(events[5]))
	})
	t.Run("an open subscription notices that its history was written over", func(t *testing.T) {
		s := newLossStory(t, h)
		if s.backend.Truncate == nil {
			missing(t, "Backend.Truncate")
			return
		}
		subscription, err := s.p.bridge.Subscription.Subscribe(s.p.ctx, client, taskbridge.SubscribeRequest{TaskID: s.id, GapError: true})
		mustNotBe(t, err, "subscribe")
		defer subscription.Close()
		for seen := 0; seen < 6; {
			frames, err := subscription.Next(s.p.ctx, time.Hour)
			mustNotBe(t, err, "read a subscription")
			seen += len(frames)
		}
		mustNotBe(t, s.backend.Truncate(s.ctx, s.id, 3), "truncate")
		s.clock.Advance(time.Second)
		for range 6 {
			mustNotBe(t, s.p.lifecycle.Notice(s.p.ctx, s.id, taskbridge.Message{Text: "after the loss"}), "notice")
		}
		for {
			frames, err := subscription.Next(s.p.ctx, time.Hour)
			if err == nil && len(frames) > 0 {
				t.Fatalf("an event of another history was delivered: %s", frames[0].Envelope)
			}
			if err != nil {
				var gap *taskbridge.GapError
				if !errors.As(err, &gap) {
					t.Errorf("read a subscription: %v, want a gap", err)
				}
				return
			}
		}
	})
	t.Run("a cursor in a trimmed head is noticed", func(t *testing.T) {
		s := newLossStory(t, h)
		if s.backend.Trim == nil {
			missing(t, "Backend.Trim")
			return
		}
		events := s.events(s.id)
		mustNotBe(t, s.backend.Trim(s.ctx, s.id, 4), "trim")
		s.wantGap(cursorOf(events[0]))
		s.wantGap(cursorOf(events[2]))
		mustNotBe(t, s.run.Complete(s.p.ctx, taskbridge.Completion{}), "complete")
		row, _ := s.p.checkEnd(s.id) // beginning with what is there
		if row.Status != taskbridge.StatusCompleted {
			t.Errorf("the task ended %s", row.Status)
		}
	})
	for _, last := range []int64{6, 3, 0} {
		t.Run(fmt.Sprintf("a stream that lost its terminal event is completed from the row, %d events left", last), func(t *testing.T) {
			s := newLossStory(t, h)
			if s.backend.Truncate == nil {
				missing(t, "Backend.Truncate")
				return
			}
			mustNotBe(t, s.run.Complete(s.p.ctx, taskbridge.Completion{Result: []byte(`1`)}), "complete")
			mustNotBe(t, s.backend.Truncate(s.ctx, s.id, last), "truncate")
			page, err := s.p.bridge.Polling.PollEvents(s.p.ctx, client, taskbridge.PollRequest{TaskID: s.id})
			mustNotBe(t, err, "poll")
			if n := len(page.Events); n == 0 || page.Events[n-1].Type != taskbridge.EventCompleted || page.Status != taskbridge.StatusCompleted {
				t.Errorf("a poll gives %s of a task that is %s", ids(page.Events), page.Status)
			}
			s.p.checkEnd(s.id)
		})
	}
	t.Run("a subscription to a stream that lost its terminal event gets it from the row", func(t *testing.T) {
		s := newLossStory(t, h)
		if s.backend.Truncate == nil {
			missing(t, "Backend.Truncate")
			return
		}
		events := s.events(s.id)
		mustNotBe(t, s.run.Complete(s.p.ctx, taskbridge.Completion{Result: []byte(`1`)}), "complete")
		mustNotBe(t, s.backend.Truncate(s.ctx, s.id, 6), "truncate")
		subscription, err := s.p.bridge.Subscription.Subscribe(s.p.ctx, client, taskbridge.SubscribeRequest{TaskID: s.id, After: cursorOf(events[5]), GapError: true})
		mustNotBe(t, err, "subscribe")
		frames, err := subscription.Next(s.p.ctx, time.Hour)
		subscription.Close()
		if err != nil || len(frames) != 1 || !frames[0].Terminal {
			t.Errorf("the subscription gives %d frames, error %v", len(frames), err)
		}
		s.p.checkEnd(s.id)
	})
}
