package taskbridge_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

const day = 24 * time.Hour

func TestATaskDisappearsWhenItsTimeIsOver(t *testing.T) {
	for name, stores := range map[string]func() taskbridge.Stores{
		"one store": atomicStores,
		"split store": func() taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t, stores(), func(o *taskbridge.Options) { o.Retention.Step = 7 })
				id := h.create("a")
				run := h.start(id, "c")
				h.progress(run, 30)
				h.complete(run)
				open := h.create("still open")
				<-time.After(30*day - time.Second)
				h.retire()
				if row := h.row(id); row.Status != taskbridge.StatusCompleted {
					t.Fatal(row.Status)
				}
				<-time.After(time.Second)
				h.retire()
				for call, err := range h.calls(me, id) {
					if !errors.Is(err, taskbridge.ErrTaskNotFound) {
						t.Errorf("%s: %v, want ErrTaskNotFound", call, err)
					}
				}
				if events := h.events(id); len(events) != 0 {
					t.Errorf("%d events are left", len(events))
				}
				if again := h.create("a"); again == id {
					t.Error("the key is not free")
				}
				<-time.After(1000 * day)
				h.retire()
				h.row(open)
			})
		})
	}
}

func TestRetentionIsByTypeAndMayBeForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := atomicStores()
		types := map[string]taskbridge.TaskExecutor{}
		for _, taskType := range []string{"short", "plain", "long", "kept"} {
			types[taskType] = &rejectingExecutor{} // they end at once
		}
		router, err := taskbridge.NewExecutorRouter(types)
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t, stores, func(o *taskbridge.Options) {
			o.Executors = router
			o.Retention = taskbridge.RetentionOptions{Keep: 2 * day, ByType: map[string]time.Duration{"short": time.Hour, "long": 10 * day, "kept": -1, "plain": 0}}
		})
		ids := map[string]string{}
		for taskType := range types {
			_, err := h.Creation.CreateTask(t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: taskType, TaskType: taskType})
			var rejection *taskbridge.RejectionError
			if !errors.As(err, &rejection) {
				t.Fatal(err)
			}
			ids[taskType] = rejection.TaskID
		}
		begin := time.Now()
		for _, step := range []struct {
			after time.Duration
			there string
		}{
			{time.Hour - time.Second, "short plain long kept"}, {time.Hour, "plain long kept"}, {2*day - time.Second, "plain long kept"},
			{2 * day, "long kept"}, {10*day - time.Second, "long kept"}, {10 * day, "kept"}, {10000 * day, "kept"},
		} {
			<-time.After(time.Until(begin.Add(step.after)))
			h.retire()
			there := ""
			for _, taskType := range []string{"short", "plain", "long", "kept"} {
				if _, err := stores.Tasks.GetTask(t.Context(), ids[taskType]); err == nil {
					there += " " + taskType
				}
			}
			if there != " "+step.there {
				t.Errorf("after %s there is%s, want %s", step.after, there, step.there)
			}
		}
	})
}

// retire does all that is due.
func (h *host) retire() {
	h.t.Helper()
	for more := true; more; {
		var err error
		more, err = h.Reconciler.RetireOnce(h.t.Context(), time.Minute)
		h.must(err)
	}
}
