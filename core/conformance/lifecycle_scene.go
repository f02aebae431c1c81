package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// scene is a lifecycle with its stores, for one check.
type scene struct {
	t         *testing.T
	ctx       context.Context
	stores    taskbridge.Stores
	lifecycle taskbridge.TaskLifecycle
	remote    bool
	tasks     int // made so far
}

// set makes a scene. The options' stores are the harness's own unless given.
func set(t *testing.T, h LifecycleHarness, opts taskbridge.LifecycleOptions) *scene {
	t.Helper()
	s := &scene{t: t, ctx: deadline(t), stores: opts.Stores, remote: h.Remote}
	if s.stores.Tasks == nil {
		s.stores = h.NewStores(t)
		opts.Stores = s.stores
	}
	s.lifecycle = h.New(t, opts)
	return s
}

// accepted makes a row as the creation service leaves it while it submits.
func (s *scene) accepted(edit ...func(*taskbridge.Task)) taskbridge.Task {
	s.t.Helper()
	s.tasks++
	task := newTask("owner", fmt.Sprintf("key-%d", s.tasks))
	task.Input = json.RawMessage(`{"some":"input"}`)
	now := time.Now().UTC().Truncate(time.Microsecond)
	task.CreatedAt, task.UpdatedAt = now, now
	task.Submission = taskbridge.Submission{
		State: taskbridge.SubmissionClaimed, LeaseUntil: now.Add(time.Hour), Deadline: now.Add(2 * time.Hour), Tries: 1,
	}
	task.Due.Submission = now.Add(time.Hour)
	for _, e := range edit {
		e(&task)
	}
	return create(s.ctx, s.t, s.stores.Tasks, task)
}

// tryEdit changes the row, over conflicts. It may be called from any goroutine.
func (s *scene) tryEdit(taskID string, f func(*taskbridge.Task)) error {
	for {
		row, err := s.stores.Tasks.GetTask(s.ctx, taskID)
		if err != nil {
			return err
		}
		f(&row)
		if _, err = s.stores.Tasks.UpdateTask(s.ctx, row); !errors.Is(err, taskbridge.ErrRevisionConflict) {
			return err
		}
	}
}

func (s *scene) edit(taskID string, f func(*taskbridge.Task)) {
	s.t.Helper()
	s.must("change of the row", s.tryEdit(taskID, f))
}

// intent stores a client's wish for cancellation.
func intent(reason string) func(*taskbridge.Task) {
	return func(row *taskbridge.Task) {
		row.Cancellation = taskbridge.Cancellation{RequestedAt: row.UpdatedAt, Reason: reason}
	}
}

func (s *scene) requestCancel(taskID, reason string) {
	s.t.Helper()
	s.edit(taskID, intent(reason))
}

func (s *scene) row(taskID string) taskbridge.Task {
	s.t.Helper()
	return get(s.ctx, s.t, s.stores.Tasks, taskID)
}

func (s *scene) events(taskID string) []taskbridge.Event {
	s.t.Helper()
	return readAll(s.ctx, s.t, s.stores.Events, taskID)
}

// start starts a run that must be let to. It is closed with the test.
func (s *scene) start(taskID string, claim taskbridge.Claim) taskbridge.Run {
	s.t.Helper()
	run, err := s.lifecycle.Start(s.ctx, taskID, claim)
	if err != nil {
		s.t.Fatalf("Start of claim %q: %v", claim.ID, err)
	}
	s.t.Cleanup(func() { _ = run.Close() }) // its own check asks for the error
	return run
}

// running makes a row and starts its first attempt, of the claim "claim".
func (s *scene) running(edit ...func(*taskbridge.Task)) (id string, run taskbridge.Run) {
	s.t.Helper()
	id = s.accepted(edit...).ID
	return id, s.start(id, taskbridge.Claim{ID: "claim"})
}

// must fails the test at once on an error.
func (s *scene) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// refused fails unless the error matches one of those wanted.
func (s *scene) refused(what string, err error, wanted ...error) {
	s.t.Helper()
	if !slices.ContainsFunc(wanted, func(want error) bool { return errors.Is(err, want) }) {
		s.t.Errorf("%s: %v, want %v", what, err, errors.Join(wanted...))
	}
}

// expect fails unless the stream has these events, each written as its type and,
// where the payload counts, a space and the payload. Then it checks that row and
// stream agree.
func (s *scene) expect(taskID string, want ...string) {
	s.t.Helper()
	var got []string
	for i, e := range s.events(taskID) {
		line := string(e.Type)
		if i < len(want) && len(want[i]) > len(line) {
			line += " " + normal(s.t, e)
		}
		got = append(got, line)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("the stream is\n\t%q, want\n\t%q", got, want)
	}
	s.agree(taskID)
}

// normal is the payload with its keys in order, and without the level of a
// message that has the default one.
func normal(t *testing.T, e taskbridge.Event) string {
	t.Helper()
	var members map[string]any
	decoder := json.NewDecoder(bytes.NewReader(e.Payload))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		t.Fatalf("the payload of %s is %s: %v", e.Type, e.Payload, err)
	}
	if e.Type == taskbridge.EventMessage && members["level"] == string(taskbridge.LevelInfo) {
		delete(members, "level")
	}
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(members); err != nil {
		t.Fatalf("encode: %v", err)
	}
	return string(bytes.TrimSpace(buf.Bytes()))
}

// agree fails where row and stream tell different stories, or either breaks a
// rule that holds for every task.
func (s *scene) agree(taskID string) {
	s.t.Helper()
	row, events := s.row(taskID), s.events(taskID)
	state := streamState(s.ctx, s.t, s.stores.Events, taskID)
	if row.Controls != state.Controls {
		s.t.Errorf("the row asks for %d control events, the stream has %d", row.Controls, state.Controls)
	}
	starts, ends := 0, 0
	for _, e := range events {
		if e.Type == taskbridge.EventStarted {
			starts++
		}
		if err := taskbridge.ValidatePayload(e.Type, e.Payload); err != nil {
			s.t.Errorf("event %d, %s %s: %v", e.Sequence, e.Type, e.Payload, err)
		}
		if tag := taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload); tag != e.Tag {
			s.t.Errorf("event %d, %s: its tag is %s, want %s", e.Sequence, e.Type, e.Tag, tag)
		}
		if !e.Type.Terminal() {
			continue
		}
		ends++
		if e.Sequence != int64(len(events)) || e.Type.Status() != row.Status || !bytes.Equal(e.Payload, row.Terminal) || !e.CreatedAt.Equal(row.FinishedAt) {
			s.t.Errorf("event %d of %d is %s %s of %v, and the row is %s %s of %v", e.Sequence, len(events),
				e.Type, e.Payload, e.CreatedAt, row.Status, row.Terminal, row.FinishedAt)
		}
	}
	if want := row.Status.Terminal(); want != (ends == 1) || ends > 1 || want != state.Ended || want != (row.Terminal != nil) || want == row.FinishedAt.IsZero() {
		s.t.Errorf("the row is %s, finished at %v, with the payload %s; the stream has %d terminal events", row.Status, row.FinishedAt, row.Terminal, ends)
	}
	if want := !row.StartedAt.IsZero(); want != (starts == 1) || starts > 1 {
		s.t.Errorf("the row started at %v and the stream has TASK_STARTED %d times", row.StartedAt, starts)
	}
	if row.Status == taskbridge.StatusAccepted && row.Attempt > 0 || row.Status == taskbridge.StatusRunning && row.StartedAt.IsZero() {
		s.t.Errorf("the row is %s in attempt %d, started at %v", row.Status, row.Attempt, row.StartedAt)
	}
}

// untouched fails where a call that was refused has left something behind.
func (s *scene) untouched(what string, taskID string, f func()) {
	s.t.Helper()
	row, state := s.row(taskID), streamState(s.ctx, s.t, s.stores.Events, taskID)
	f()
	after := s.row(taskID)
	if late := after.Starts - row.Starts; s.remote && late > 0 {
		// Copies of the start before, which are counted and change nothing else.
		row.Starts, row.Revision, row.UpdatedAt = after.Starts, row.Revision+late, after.UpdatedAt
	}
	same(s.t, "the row after "+what, row, after)
	same(s.t, "the stream after "+what, state, streamState(s.ctx, s.t, s.stores.Events, taskID))
}

// awaitStream waits until the stream holds what ok looks for.
func (s *scene) awaitStream(what, taskID string, ok func([]taskbridge.Event) bool) {
	s.t.Helper()
	wake, woken := signal()
	stop, err := s.stores.Events.WatchEvents(s.ctx, taskID, wake)
	s.must("WatchEvents", err)
	defer stop()
	for !ok(s.events(taskID)) {
		await(s.ctx, s.t, what, woken)
	}
}

// over fails unless the run is, or soon will be, over for the wanted reason.
func (s *scene) over(run taskbridge.Run, wanted ...error) {
	s.t.Helper()
	await(s.ctx, s.t, "Run.Done", run.Done())
	s.refused("Run.Err", run.Err(), wanted...)
}

// live fails if the run is over.
func (s *scene) live(run taskbridge.Run) {
	s.t.Helper()
	select {
	case <-run.Done():
		s.t.Errorf("the run is over: %v", run.Err())
	default:
		if err := run.Err(); err != nil {
			s.t.Errorf("Run.Err before Done: %v", err)
		}
	}
}

// reports returns a call of each method that reports, none of which may succeed
// on a run that is over.
func reports(run taskbridge.Run) []call {
	return []call{
		{"Progress", func(ctx context.Context) error { return run.Progress(ctx, taskbridge.Progress{Percent: 1}) }},
		{"Message", func(ctx context.Context) error { return run.Message(ctx, taskbridge.Message{Text: "late"}) }},
		{"Token", func(ctx context.Context) error { return run.Token(ctx, "late") }},
		{"Suspend", func(ctx context.Context) error { return run.Suspend(ctx, suspension("late")) }},
		{"Complete", func(ctx context.Context) error {
			return run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`"late"`)})
		}},
		{"Fail", func(ctx context.Context) error {
			return run.Fail(ctx, taskbridge.Failure{Code: "LATE", Message: "late"})
		}},
		{"Cancelled", func(ctx context.Context) error { return run.Cancelled(ctx, "late") }},
	}
}

// allRefused fails unless every report of the run is refused with one of the
// wanted errors.
func (s *scene) allRefused(run taskbridge.Run, wanted ...error) {
	s.t.Helper()
	for _, c := range reports(run) {
		s.refused(c.name, c.do(s.ctx), wanted...)
	}
}

func suspension(id string) taskbridge.Suspension {
	return taskbridge.Suspension{
		SuspendID: id, Kind: taskbridge.SuspendUserAction, ReasonCode: "APPROVAL",
		AllowedActions: []string{"APPROVE", "REJECT"}, SchemaVersion: 1,
	}
}
