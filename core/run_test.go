package taskbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// shakyStore loses answers: an operation that it is told to lose takes effect,
// and its caller sees a fault.
type shakyStore struct {
	*memory.Store
	mu       sync.Mutex
	lose     int // so many calls from now on
	refuse   int // after them, so many have no effect either
	attempts int
}

var errFault = errors.New("connection reset")

func (s *shakyStore) fault() (lost, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
	switch {
	case s.lose > 0:
		s.lose--
		return true, false
	case s.refuse > 0:
		s.refuse--
		return false, true
	}
	return false, false
}

func (s *shakyStore) AppendEvent(ctx context.Context, e taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	lost, refused := s.fault()
	if refused {
		return taskbridge.AppendResult{}, errFault
	}
	result, err := s.Store.AppendEvent(ctx, e)
	if lost {
		return taskbridge.AppendResult{}, errFault
	}
	return result, err
}

func (s *shakyStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	lost, refused := s.fault()
	if refused {
		return taskbridge.Task{}, errFault
	}
	row, err := s.Store.UpdateTaskAndAppend(ctx, next, events)
	if lost {
		return taskbridge.Task{}, errFault
	}
	return row, err
}

func (s *shakyStore) plan(lose, refuse int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose, s.refuse = lose, refuse
}

func newShakyHost(t *testing.T) (*host, *shakyStore) {
	store := &shakyStore{Store: memory.NewStore(memory.Options{})}
	return newHost(t, taskbridge.Stores{Tasks: store, Events: store}), store
}

func messages(events []taskbridge.Event) []string {
	var all []string
	for _, e := range events {
		var p struct{ Message string }
		if e.Type == taskbridge.EventMessage && json.Unmarshal(e.Payload, &p) == nil {
			all = append(all, p.Message)
		}
	}
	return all
}

func TestAReportMadeAgainAfterALostAnswerIsNotDoubled(t *testing.T) {
	h, store := newShakyHost(t)
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	for i, plan := range [][2]int{{1, 0}, {0, 1}, {2, 0}, {1, 1}} {
		store.plan(plan[0], plan[1])
		message := taskbridge.Message{Text: fmt.Sprint(i)}
		for {
			err := run.Message(t.Context(), message)
			if err == nil {
				break
			}
			if !errors.Is(err, errFault) {
				t.Fatal(err)
			}
		}
	}
	if got := messages(h.events(id)); strings.Join(got, " ") != "0 1 2 3" {
		t.Errorf("messages %q", got)
	}
}

func TestTheSameMessageTwiceIsTwoMessages(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	h.must(run.Message(t.Context(), taskbridge.Message{Text: "again"}))
	h.must(run.Message(t.Context(), taskbridge.Message{Text: "again"}))
	if got := messages(h.events(id)); len(got) != 2 {
		t.Errorf("messages %q", got)
	}
}

func TestTokensSurviveFaultsInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store := newShakyHost(t)
		id := h.create("a")
		run := h.start(id, "c")
		var want strings.Builder
		for i := range 500 {
			store.plan(i%3, i%2)
			token := fmt.Sprintf("t%d ", i)
			want.WriteString(token)
			h.must(run.Token(t.Context(), token))
			if i%7 == 0 {
				<-time.After(60 * time.Millisecond)
			}
		}
		store.plan(0, 0)
		h.complete(run)
		if got := strings.Join(messages(h.events(id)), ""); got != want.String() {
			t.Errorf("got  %q\nwant %q", got, want.String())
		}
	})
}

func TestATokenThatIsReportedAgainAfterAFaultIsThereOnce(t *testing.T) {
	for _, plan := range [][2]int{{1, 0}, {0, 1}, {1, 3}} {
		synctest.Test(t, func(t *testing.T) {
			h, store := newShakyHost(t)
			id := h.create("a")
			run := h.start(id, "c")
			var want strings.Builder
			for _, letter := range []string{"a", "b", "c"} {
				token := strings.Repeat(letter, 40_000) // more than one event takes
				want.WriteString(token)
				store.plan(plan[0], plan[1])
				for {
					err := run.Token(t.Context(), token)
					if err == nil {
						break
					}
					if !errors.Is(err, errFault) {
						t.Fatal(err)
					}
				}
			}
			store.plan(0, 0)
			h.complete(run)
			if got := strings.Join(messages(h.events(id)), ""); got != want.String() {
				t.Errorf("%d bytes of text, want %d", len(got), want.Len())
			}
		})
	}
}

func TestATokenIsRecordedAfterItsDelayWithoutAnotherReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		run := h.start(id, "c")
		defer run.Close()
		h.must(run.Token(t.Context(), "hel"))
		h.must(run.Token(t.Context(), "lo \xf0\x9f"))
		<-time.After(51 * time.Millisecond)
		synctest.Wait()
		h.must(run.Token(t.Context(), "\x8e\x89"))
		<-time.After(51 * time.Millisecond)
		synctest.Wait()
		if got := messages(h.events(id)); strings.Join(got, "|") != "hello |🎉" {
			t.Errorf("messages %q", got)
		}
	})
}

func TestAnEndIsRecordedThroughFaultsAndOnce(t *testing.T) {
	for _, plan := range [][2]int{{1, 0}, {0, 1}, {3, 0}, {0, 5}, {2, 3}} {
		synctest.Test(t, func(t *testing.T) {
			h, store := newShakyHost(t)
			id := h.create("a")
			run := h.start(id, "c")
			h.must(run.Token(t.Context(), "last words"))
			store.plan(plan[0], plan[1])
			h.complete(run)
			h.complete(run) // safe to repeat
			events := h.events(id)
			if len(events) != 3 || events[2].Type != taskbridge.EventCompleted {
				t.Errorf("%d events, the last %s", len(events), events[len(events)-1].Type)
			}
			if row := h.row(id); row.Status != taskbridge.StatusCompleted || row.Controls != 2 {
				t.Errorf("%s, %d controls", row.Status, row.Controls)
			}
		})
	}
}

// pickyStore refuses messages.
type pickyStore struct{ *memory.Store }

func (s pickyStore) AppendEvent(ctx context.Context, e taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	if e.Type == taskbridge.EventMessage {
		return taskbridge.AppendResult{}, taskbridge.ErrInvalidArgument
	}
	return s.Store.AppendEvent(ctx, e)
}

func TestTokensThatAreRefusedDoNotKeepTheEndFromBeingRecorded(t *testing.T) {
	store := pickyStore{memory.NewStore(memory.Options{})}
	h := newHost(t, taskbridge.Stores{Tasks: store, Events: store})
	id := h.create("a")
	run := h.start(id, "c")
	h.must(run.Token(t.Context(), "last words"))
	h.complete(run)
	if row := h.row(id); row.Status != taskbridge.StatusCompleted {
		t.Errorf("%s", row.Status)
	}
}

func TestAClaimCannotTakeTheNameOfAProducerOfTheService(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	for _, name := range []string{taskbridge.ControlProducer, "notice"} {
		if _, err := h.lifecycle.Start(t.Context(), id, taskbridge.Claim{ID: "c", Producer: name}); !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("%s: %v, want ErrInvalidArgument", name, err)
		}
	}
	h.must(h.lifecycle.Notice(t.Context(), id, taskbridge.Message{Text: "still there"}))
}

func TestASuspensionIsRecordedInCanonicalForm(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	run := h.start(id, "c")
	defer run.Close()
	expires := time.Date(2030, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 2*60*60))
	h.must(run.Suspend(t.Context(), taskbridge.Suspension{
		SuspendID: "s", Kind: taskbridge.SuspendUserAction, ReasonCode: "ask", AllowedActions: []string{"ok"}, SchemaVersion: 1,
		ExpiresAt: &expires, UIHints: json.RawMessage(`{ "a": 1 }`),
	}))
	events := h.events(id)
	const want = `{"suspendId":"s","kind":"USER_ACTION_REQUIRED","reasonCode":"ask","allowedActions":["ok"],"schemaVersion":1,` +
		`"expiresAt":"2030-01-02T01:04:05.123456Z","uiHints":{"a":1}}`
	if got := string(events[len(events)-1].Payload); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s := h.row(id).Suspension; s == nil || !s.ExpiresAt.Equal(expires.Truncate(time.Microsecond)) || string(s.UIHints) != `{"a":1}` {
		t.Errorf("the row has %+v", s)
	}
}

// unreadableStore can stop giving rows out.
type unreadableStore struct {
	*memory.Store
	unreadable atomic.Bool
}

func (s *unreadableStore) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	if s.unreadable.Load() {
		return taskbridge.Task{}, errFault
	}
	return s.Store.GetTask(ctx, taskID)
}

func TestARowThatChangedAndCannotBeReadForAWhileDoesNotFenceTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unreadableStore{Store: memory.NewStore(memory.Options{})}
		h := newHost(t, taskbridge.Stores{Tasks: store, Events: store})
		id := h.create("a")
		run := h.start(id, "c")
		if _, _, err := h.Cancellation.CancelTask(t.Context(), me, id, "enough"); err != nil {
			t.Fatal(err) // the run does not have the row as it is now
		}
		store.unreadable.Store(true)
		suspension := taskbridge.Suspension{
			SuspendID: "s", Kind: taskbridge.SuspendUserAction, ReasonCode: "ask", AllowedActions: []string{"ok"}, SchemaVersion: 1,
		}
		for range 2 {
			if err := run.Suspend(t.Context(), suspension); !errors.Is(err, errFault) {
				t.Errorf("suspension: %v, want the fault", err)
			}
		}
		time.AfterFunc(10*time.Second, func() { store.unreadable.Store(false) })
		h.complete(run)
		if row := h.row(id); row.Status != taskbridge.StatusCompleted {
			t.Errorf("%s", row.Status)
		}
	})
}

func TestAnEndThatCannotBeRecordedIsAnErrorWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store := newShakyHost(t)
		id := h.create("a")
		run := h.start(id, "c")
		store.plan(0, 1_000_000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		err := run.Fail(ctx, taskbridge.Failure{Code: "X", Message: "x"})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFault) || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		store.plan(0, 0)
		h.must(run.Fail(t.Context(), taskbridge.Failure{Code: "X", Message: "x"}))
		if row := h.row(id); row.Status != taskbridge.StatusFailed {
			t.Errorf("%s", row.Status)
		}
	})
}

func TestAStartWhoseAnswerWasLostGivesTheSameAttempt(t *testing.T) {
	h, store := newShakyHost(t)
	id := h.create("a")
	store.plan(1, 0)
	if _, err := h.lifecycle.Start(t.Context(), id, taskbridge.Claim{ID: "c"}); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	run := h.start(id, "c")
	defer run.Close()
	if events := h.events(id); run.Attempt() != 1 || len(events) != 1 {
		t.Errorf("attempt %d, %d events", run.Attempt(), len(events))
	}
}

func TestTheWorkContextEndsWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, atomicStores())
		id := h.create("a")
		run := h.start(id, "c")
		defer run.Close()
		ctx, stop := taskbridge.WorkContext(t.Context(), run)
		defer stop()
		_, _, err := h.Cancellation.CancelTask(t.Context(), me, id, "enough")
		h.must(err)
		<-ctx.Done()
		var cancelled *taskbridge.CancelledError
		if !errors.As(context.Cause(ctx), &cancelled) || cancelled.Reason != "enough" {
			t.Errorf("cause %v", context.Cause(ctx))
		}

		id2 := h.create("b")
		old := h.start(id2, "c")
		defer old.Close()
		ctx2, stop2 := taskbridge.WorkContext(t.Context(), old)
		defer stop2()
		newer := h.start(id2, "d")
		defer newer.Close()
		<-ctx2.Done()
		if !errors.Is(context.Cause(ctx2), taskbridge.ErrStaleAttempt) {
			t.Errorf("cause %v", context.Cause(ctx2))
		}
	})
}

func TestAClaimThatWasFencedStaysFenced(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	first := h.start(id, "first")
	defer first.Close()
	second := h.start(id, "second")
	defer second.Close()
	if _, err := h.lifecycle.Start(t.Context(), id, taskbridge.Claim{ID: "first"}); !errors.Is(err, taskbridge.ErrStaleAttempt) {
		t.Errorf("%v, want ErrStaleAttempt", err)
	}
	h.progress(second, 1)
	if row := h.row(id); row.Attempt != 2 || row.Claim != "second" {
		t.Errorf("attempt %d of %s", row.Attempt, row.Claim)
	}
	for i := range 2 * taskbridge.MaxPastClaims {
		h.must(h.start(id, fmt.Sprint("claim-", i)).Close())
	}
	if row := h.row(id); len(row.PastClaims) != taskbridge.MaxPastClaims {
		t.Errorf("%d claims are remembered", len(row.PastClaims))
	}
}
