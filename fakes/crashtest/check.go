package crashtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// far is later than anything that is owed.
const far = 1000 * time.Hour

// owes reports whether anything is owed to any task, now or ever, except that
// ended ones are to disappear one day.
func (w *world) owes() bool {
	w.t.Helper()
	for _, kind := range taskbridge.DueKinds() {
		if kind == taskbridge.DueRetention {
			continue
		}
		ids, err := w.backend.Stores.Tasks.DueTasks(w.ctx, kind, w.clock.Now().Add(far), 1)
		mustNotBe(w.t, err, "ask what is owed")
		if len(ids) > 0 {
			return true
		}
	}
	return false
}

// ended reports whether every task has its end and nothing is owed to any.
func (w *world) ended() bool {
	w.t.Helper()
	for _, row := range w.rows() {
		if !row.Status.Terminal() {
			return false
		}
	}
	return !w.owes()
}

// checkEnd checks all that must be true of a task that has ended: its stream,
// its row, and that what clients are told agrees with both.
func (p *process) checkEnd(taskID string) (taskbridge.Task, []taskbridge.Event) {
	w, t := p.world, p.world.t
	t.Helper()
	row, events := w.row(taskID), w.events(taskID)
	if !row.Status.Terminal() {
		t.Errorf("the task has not ended: %s", describe(row))
		return row, events
	}
	state, err := w.backend.Stores.Events.StreamState(w.ctx, taskID)
	mustNotBe(t, err, "read the stream's state")
	if row.Controls != state.Controls {
		t.Errorf("the row asks for %d control events, the stream has %d", row.Controls, state.Controls)
	}
	if len(events) == 0 {
		t.Errorf("the stream of a task that is %s is empty", row.Status)
		return row, events
	}
	first := events[0].Sequence
	if first != state.First {
		t.Errorf("the first event has number %d, the stream's state says %d", first, state.First)
	}
	for i, e := range events {
		if e.Sequence != first+int64(i) {
			t.Errorf("event %d has number %d, the first has %d", i, e.Sequence, first)
		}
		if e.Type.Terminal() != (i == len(events)-1) {
			t.Errorf("%s is event %d of %d", e.Type, i+1, len(events))
		}
		if e.Type == taskbridge.EventStarted && e.Sequence != 1 {
			t.Errorf("TASK_STARTED has number %d", e.Sequence)
		}
		if tag := taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload); tag != e.Tag {
			t.Errorf("event %d has tag %s, its content gives %s", e.Sequence, e.Tag, tag)
		}
		if err := taskbridge.ValidatePayload(e.Type, e.Payload); err != nil {
			t.Errorf("event %d, %s %s: %v", e.Sequence, e.Type, e.Payload, err)
		}
	}
	last := events[len(events)-1]
	if last.Type.Status() != row.Status {
		t.Errorf("the stream ends %s, the row is %s", last.Type, row.Status)
	}
	if !sameJSON(last.Payload, row.Terminal) {
		t.Errorf("the terminal event has %s, the row %s", last.Payload, row.Terminal)
	}
	if started := slices.ContainsFunc(events, func(e taskbridge.Event) bool { return e.Type == taskbridge.EventStarted }); first == 1 && started != !row.StartedAt.IsZero() {
		t.Errorf("TASK_STARTED is in the stream: %v; the row was started at %s", started, row.StartedAt)
	}
	if first == 1 && row.Status == taskbridge.StatusCompleted && events[0].Type != taskbridge.EventStarted {
		t.Errorf("the stream of a completed task begins with %s", events[0].Type)
	}
	p.checkReaders(row, events)
	return row, events
}

// checkReaders reads the stream as clients do.
func (p *process) checkReaders(row taskbridge.Task, events []taskbridge.Event) {
	t := p.world.t
	t.Helper()
	var polled []taskbridge.Event
	for after := (taskbridge.Cursor{}); ; {
		page, err := p.bridge.Polling.PollEvents(p.ctx, client, taskbridge.PollRequest{
			TaskID: row.ID, After: after, MaxEvents: 2, GapError: true,
		})
		mustNotBe(t, err, "poll")
		polled = append(polled, page.Events...)
		if page.Status != row.Status {
			t.Errorf("a poll says that the task is %s, the row is %s", page.Status, row.Status)
		}
		if len(page.Events) == 0 || !page.HasMore {
			break
		}
		after = page.Next
	}
	if !sameEvents(polled, events) {
		t.Errorf("polling gives %s, the stream is %s", ids(polled), ids(events))
	}

	subscription, err := p.bridge.Subscription.Subscribe(p.ctx, client, taskbridge.SubscribeRequest{TaskID: row.ID, GapError: true})
	mustNotBe(t, err, "subscribe")
	defer subscription.Close()
	var streamed [][]byte
	for {
		frames, err := subscription.Next(p.ctx, time.Minute)
		if errors.Is(err, io.EOF) {
			break
		}
		mustNotBe(t, err, "read a subscription")
		for _, f := range frames {
			streamed = append(streamed, f.Envelope)
		}
	}
	var envelopes [][]byte
	for _, e := range events {
		envelopes = append(envelopes, e.AppendEnvelope(nil))
	}
	if !slices.EqualFunc(streamed, envelopes, bytes.Equal) {
		t.Errorf("a subscription gives\n%s\nthe stream is\n%s", bytes.Join(streamed, []byte("\n")), bytes.Join(envelopes, []byte("\n")))
	}
}

// checkRefused checks that no new execution of an ended task may begin.
func (p *process) checkRefused(taskID string) {
	t := p.world.t
	t.Helper()
	before := len(p.world.events(taskID))
	if _, err := p.begin(taskID, "too late"); !refusedToRun(err) {
		t.Errorf("the start of a task that is %s: %v, want ErrNotRunnable", p.world.row(taskID).Status, err)
	}
	if after := len(p.world.events(taskID)); after != before {
		t.Errorf("a refused start has made the stream grow from %d to %d events", before, after)
	}
}

// describe says of a row what matters here.
func describe(row taskbridge.Task) string {
	return fmt.Sprintf("%s %s, revision %d, attempt %d, submission %+v, cancellation %+v, due %+v",
		row.Status, row.Terminal, row.Revision, row.Attempt, row.Submission, row.Cancellation, row.Due)
}

func ids(events []taskbridge.Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, e.ID()+" "+string(e.Type))
	}
	return list
}

func sameEvents(a, b []taskbridge.Event) bool {
	return slices.EqualFunc(a, b, func(a, b taskbridge.Event) bool {
		return a.ID() == b.ID() && bytes.Equal(a.AppendEnvelope(nil), b.AppendEnvelope(nil))
	})
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, errP := json.Marshal(x)
	q, errQ := json.Marshal(y)
	return errP == nil && errQ == nil && bytes.Equal(p, q)
}
