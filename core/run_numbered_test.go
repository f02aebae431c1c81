package taskbridge_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// countingStore knows which calls it has had.
type countingStore struct {
	*memory.Store
	mu    sync.Mutex
	calls []string
}

func (s *countingStore) count(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

// taken returns the calls since the last time.
func (s *countingStore) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

func (s *countingStore) GetTask(ctx context.Context, id string) (taskbridge.Task, error) {
	s.count("get")
	return s.Store.GetTask(ctx, id)
}

func (s *countingStore) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	s.count("update")
	return s.Store.UpdateTask(ctx, next)
}

func (s *countingStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	s.count("update")
	return s.Store.UpdateTaskAndAppend(ctx, next, events)
}

func (s *countingStore) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	s.count("append")
	return s.Store.AppendEvent(ctx, event)
}

func (s *countingStore) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	s.count(fmt.Sprintf("read>%d", after))
	return s.Store.ReadEvents(ctx, taskID, after, limit)
}

func (s *countingStore) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	s.count("state")
	return s.Store.StreamState(ctx, taskID)
}

func TestJoiningUnderAnEpochCostsOneReadAndAReportOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: memory.NewStore(memory.Options{})}
		h := newHost(t, taskbridge.Stores{Tasks: store, Events: store})
		id := h.create("a")
		claim := taskbridge.Claim{ID: "c", Producer: "log", Epoch: 1}
		report := func(verify taskbridge.Verification, since int64, texts ...string) {
			t.Helper()
			run, err := h.lifecycle.Start(t.Context(), id, claim)
			h.must(err)
			synctest.Wait() // for what its watcher was woken for
			var reports []taskbridge.Report
			for i, text := range texts {
				reports = append(reports, messageReport(int64(i+1), text))
				reports[i].Verify, reports[i].Since = verify, since
			}
			_, err = run.(taskbridge.NumberedRun).Report(t.Context(), reports)
			h.must(err)
			h.must(run.Close())
		}
		report("", 0)
		for _, c := range []struct {
			verify taskbridge.Verification
			since  int64
			texts  []string
			want   string
		}{
			{"", 0, []string{"1", "2", "3"}, "get append append append"},
			{"", 0, []string{"1", "2", "3", "4"}, "get append append append append"},
			{taskbridge.VerifyDuplicate, 1, []string{"1", "2", "3", "4", "5"}, "get append read>1 append append append read>4 append"},
			{taskbridge.VerifyAlways, 1, []string{"1", "2", "3", "4", "5", "6", "7"}, "get read>1 read>6 append append"},
		} {
			store.taken()
			report(c.verify, c.since, c.texts...)
			if got := store.taken(); got != c.want {
				t.Errorf("verification %q of %d reports: %q, want %q", c.verify, len(c.texts), got, c.want)
			}
		}
	})
}
