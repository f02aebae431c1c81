package taskbridge_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// reconfigured is another server over the stores of h, whose only task type is the
// one that is named, with what it logs.
func (h *host) reconfigured(taskType string, change ...func(*taskbridge.Options)) (*host, *bytes.Buffer) {
	h.t.Helper()
	var log bytes.Buffer
	return newHost(h.t, h.stores, append([]func(*taskbridge.Options){
		executedBy(h.t, map[string]taskbridge.TaskExecutor{taskType: &playedExecutor{inspect: func(taskbridge.Task) taskbridge.Inspection {
			return taskbridge.Inspection{Knowledge: taskbridge.InspectionRunning}
		}}}),
		func(o *taskbridge.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) },
	}, change...)...), &log
}

// reconcileFor runs rounds of the reconciler, one a minute.
func (h *host) reconcileFor(d time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(time.Minute)
		h.must(h.Reconciler.RunOnce(h.t.Context()))
	}
}

// handOver makes tasks of the type "work" that a server has handed over.
func handOver(t *testing.T, keys ...string) (first *host, ids []string) {
	first = newHost(t, atomicStores())
	for _, key := range keys {
		ids = append(ids, first.create(key))
	}
	return first, ids
}

func TestATaskWhoseTypeHasLostItsExecutorIsGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, ids := handOver(t, "waiting", "running")
		first.start(ids[1], "c")
		<-time.After(100 * time.Hour) // whatever passed before counts for nothing
		h, log := first.reconfigured("other")
		h.reconcileFor(24*time.Hour - time.Minute)
		for _, id := range ids {
			if row := h.row(id); row.Status.Terminal() {
				t.Errorf("%s early: %s", row.Status, row.Terminal)
			}
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "taskType=work") {
			t.Errorf("%d errors: %s", n, log)
		}
		h.reconcileFor(2 * time.Minute)
		for _, id := range ids {
			if failure, _ := h.row(id).Failure(); failure.Code != taskbridge.CodeExecutorLost || !failure.Retryable || !strings.Contains(failure.Message, "24h") {
				t.Errorf("%s: %+v", h.row(id).Status, failure)
			}
		}
	})
}

func TestATaskWhoseTypeHasLostItsExecutorMayReportAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, ids := handOver(t, "a")
		run := first.start(ids[0], "c")
		h, _ := first.reconfigured("other")
		for range 10 {
			h.reconcileFor(20 * time.Hour)
			h.progress(run, 1)
		}
		h.complete(run)
		if row := h.row(ids[0]); row.Status != taskbridge.StatusCompleted {
			t.Errorf("%s: %s", row.Status, row.Terminal)
		}
	})
}

func TestACancelledTaskWhoseTypeHasLostItsExecutorEndsCancelled(t *testing.T) {
	for name, before := range map[string]bool{"cancelled before": true, "cancelled after": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, ids := handOver(t, "a")
				if before {
					_, _, err := first.Cancellation.CancelTask(t.Context(), me, ids[0], "enough")
					first.must(err)
					<-time.After(100 * time.Hour)
				}
				h, _ := first.reconfigured("other")
				if !before {
					h.reconcileFor(5 * time.Hour)
					_, _, err := h.Cancellation.CancelTask(t.Context(), me, ids[0], "enough")
					h.must(err)
				}
				h.reconcileFor(14 * time.Minute)
				if row := h.row(ids[0]); row.Status.Terminal() {
					t.Errorf("%s early: %s", row.Status, row.Terminal)
				}
				h.reconcileFor(2 * time.Minute)
				if row := h.row(ids[0]); row.Status != taskbridge.StatusCancelled || !strings.Contains(string(row.Terminal), "enough") {
					t.Errorf("%s: %s", row.Status, row.Terminal)
				}
			})
		})
	}
}

func TestATypeWhoseExecutorIsBackHasItsWholeTimeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, ids := handOver(t, "a")
		without, _ := first.reconfigured("other")
		without.reconcileFor(23 * time.Hour)
		with, _ := first.reconfigured("work")
		with.reconcileFor(3 * time.Minute)
		if since := with.row(ids[0]).Submission.ExecutorMissingSince; !since.IsZero() {
			t.Errorf("missing since %s", since)
		}
		without, _ = first.reconfigured("other")
		without.reconcileFor(23 * time.Hour)
		// A restart does not begin anew, or a server that restarts each day never ends it.
		again, _ := first.reconfigured("other")
		again.reconcileFor(59 * time.Minute)
		if row := again.row(ids[0]); row.Status.Terminal() {
			t.Errorf("%s: %s", row.Status, row.Terminal)
		}
		again.reconcileFor(3 * time.Minute)
		if row := again.row(ids[0]); row.Status != taskbridge.StatusFailed {
			t.Errorf("%s", row.Status)
		}
	})
}

func TestTheLimitWithoutAnExecutorCanBeSetAndTakenAway(t *testing.T) {
	for limit, want := range map[time.Duration]taskbridge.TaskStatus{
		time.Hour: taskbridge.StatusFailed, 24 * 365 * time.Hour: taskbridge.StatusAccepted, -1: taskbridge.StatusAccepted,
	} {
		synctest.Test(t, func(t *testing.T) {
			first, ids := handOver(t, "a")
			h, _ := first.reconfigured("other", func(o *taskbridge.Options) { o.Submission.MissingExecutorLimit = limit })
			h.reconcileFor(100 * time.Hour)
			if row := h.row(ids[0]); row.Status != want {
				t.Errorf("%s: %s, want %s", limit, row.Status, want)
			}
		})
	}
}

func TestTheTypesWithoutAnExecutorAreKnownWhileTheyHaveOpenTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, ids := handOver(t, "a", "b")
		h, _ := first.reconfigured("other")
		h.createOf("c", "other")
		check := func(want ...string) {
			t.Helper()
			if got := h.Reconciler.MissingExecutors(); !slices.Equal(got, want) {
				t.Errorf("missing are %q, want %q", got, want)
			}
		}
		check()
		h.reconcileFor(10 * time.Minute)
		check("work")
		for _, id := range ids {
			h.complete(h.start(id, "c"))
		}
		h.reconcileFor(10 * time.Minute)
		check()
	})
}
