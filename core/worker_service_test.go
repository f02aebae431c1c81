package taskbridge_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// workerHost is a host with the service for workers that are elsewhere.
type workerHost struct {
	*host
	workers *taskbridge.WorkerService
}

func newWorkerHost(t *testing.T, stores taskbridge.Stores, limits taskbridge.Limits, observer taskbridge.Observer) *workerHost {
	t.Helper()
	h := &workerHost{host: newHost(t, stores)}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Limits: limits, Observer: observer})
	h.must(err)
	h.workers, err = taskbridge.NewWorkerService(lifecycle)
	h.must(err)
	return h
}

func (h *workerHost) begin(taskID, claim string) taskbridge.AttemptRef {
	h.t.Helper()
	row, ref, err := h.workers.Begin(h.t.Context(), taskID, taskbridge.Claim{ID: claim})
	h.must(err)
	if ref.TaskID != taskID || ref.Attempt != row.Attempt || ref.Producer != (taskbridge.Producer{Name: "worker", Epoch: row.Starts}) {
		h.t.Fatalf("%+v of %+v", ref, row)
	}
	return ref
}

func (h *workerHost) report(ref taskbridge.AttemptRef, reports ...taskbridge.Report) taskbridge.Task {
	h.t.Helper()
	row, reported, err := h.workers.Report(h.t.Context(), ref, reports)
	h.must(err)
	if len(reported.Refused) > 0 {
		h.t.Fatalf("refused: %v", reported.Refused)
	}
	return row
}

func tokenReport(ordinal int64, text string) taskbridge.Report {
	return taskbridge.Report{Ordinal: ordinal, Token: &text}
}

func messageReport(ordinal int64, text string) taskbridge.Report {
	return taskbridge.Report{Ordinal: ordinal, Message: &taskbridge.Message{Text: text}}
}

func completeReport(ordinal int64) taskbridge.Report {
	return taskbridge.Report{Ordinal: ordinal, Outcome: &taskbridge.Outcome{Status: taskbridge.StatusCompleted}}
}

// TestTextIsRecordedWholeHoweverItIsCutAndRepeated makes calls of random tokens,
// and repeats each in part and then whole.
func TestTextIsRecordedWholeHoweverItIsCutAndRepeated(t *testing.T) {
	const limit = 60
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "é", "雪", "\U0001F642", "\"", "\\", "\n", "\u2028", "<", "\x01", "plain text "}
	for range 50 {
		store := &shakyStore{Store: memory.NewStore(memory.Options{})}
		h := newWorkerHost(t, taskbridge.Stores{Tasks: store, Events: store}, taskbridge.Limits{EventPayload: limit}, nil)
		id := h.create("a")
		ref := h.begin(id, "c")
		var want strings.Builder
		ordinal := int64(0)
		for range 5 {
			var reports []taskbridge.Report
			for range random.IntN(8) {
				var text strings.Builder
				for range random.IntN(40) {
					text.WriteString(alphabet[random.IntN(len(alphabet))])
				}
				want.WriteString(text.String())
				ordinal += 1 + int64(random.IntN(3))
				reports = append(reports, tokenReport(ordinal, text.String()))
			}
			for {
				store.plan(0, 0)
				if n := random.IntN(4); n > 0 {
					store.plan(n%2, n/2)
				}
				_, reported, err := h.workers.Report(t.Context(), ref, reports)
				if err == nil && len(reported.Refused) == 0 {
					break
				}
				if !errors.Is(err, errFault) {
					t.Fatal(err, reported.Refused)
				}
			}
		}
		store.plan(0, 0)
		events := h.events(id)
		if got := strings.Join(messages(events), ""); got != want.String() {
			t.Fatalf("the text is\n%q, want\n%q", got, want.String())
		}
		for _, e := range events {
			if len(e.Payload) > limit {
				t.Errorf("a payload has %d bytes", len(e.Payload))
			}
		}
	}
}

func TestATokenMayBeManyEventsButNotAnyNumber(t *testing.T) {
	const room = 10
	h := newWorkerHost(t, atomicStores(), taskbridge.Limits{EventPayload: len(`{"message":""}`) + room}, nil)
	id := h.create("a")
	ref := h.begin(id, "c")
	most := strings.Repeat("0123456789", 1024)
	h.report(ref, tokenReport(1, most), tokenReport(taskbridge.MaxReportOrdinal-1, most), tokenReport(taskbridge.MaxReportOrdinal, most))
	h.report(ref, tokenReport(1, most), tokenReport(taskbridge.MaxReportOrdinal-1, most), tokenReport(taskbridge.MaxReportOrdinal, most))
	if got := messages(h.events(id)); strings.Join(got, "") != most+most+most || len(got) != 3*1024 {
		t.Errorf("%d messages", len(got))
	}
	id = h.create("b")
	ref = h.begin(id, "c")
	_, _, err := h.workers.Report(t.Context(), ref, []taskbridge.Report{messageReport(1, "m"), tokenReport(2, "t"), tokenReport(3, most+most+"0")})
	var report *taskbridge.ReportError
	var size *taskbridge.SizeError
	if !errors.As(err, &report) || report.Index != 2 || !errors.As(err, &size) || size.Bytes != 2*len(most)+1 || size.Limit != len(most) {
		t.Errorf("%v", err)
	}
	if events := h.events(id); len(events) != 1 {
		t.Errorf("%d events", len(events))
	}
}

func TestReportsThatMayNotBeRecordedAreNamedAndNothingIs(t *testing.T) {
	h := newWorkerHost(t, atomicStores(), taskbridge.Limits{}, nil)
	id := h.create("a")
	ref := h.begin(id, "c")
	both := messageReport(2, "b")
	both.Progress = &taskbridge.Progress{}
	for name, c := range map[string]struct {
		reports []taskbridge.Report
		index   int
		field   string
	}{
		"nothing":                   {[]taskbridge.Report{messageReport(1, "a"), {Ordinal: 2}}, 1, "report"},
		"two things":                {[]taskbridge.Report{messageReport(1, "a"), both}, 1, "report"},
		"ordinal 0":                 {[]taskbridge.Report{messageReport(0, "a")}, 0, "ordinal"},
		"the same ordinal":          {[]taskbridge.Report{tokenReport(1, "a"), tokenReport(1, "b")}, 1, "ordinal"},
		"a falling ordinal":         {[]taskbridge.Report{messageReport(2, "a"), messageReport(1, "b")}, 1, "ordinal"},
		"too high an ordinal":       {[]taskbridge.Report{messageReport(1, "a"), messageReport(taskbridge.MaxReportOrdinal+1, "b")}, 1, "ordinal"},
		"an end before the last":    {[]taskbridge.Report{completeReport(1), messageReport(2, "b")}, 0, "report"},
		"an end that is none":       {[]taskbridge.Report{messageReport(1, "a"), {Ordinal: 2, Outcome: &taskbridge.Outcome{}}}, 1, "status"},
		"a result that is not JSON": {[]taskbridge.Report{{Ordinal: 1, Outcome: &taskbridge.Outcome{Status: taskbridge.StatusCompleted, Completion: taskbridge.Completion{Result: []byte("{")}}}}, 0, "result"},
	} {
		_, _, err := h.workers.Report(t.Context(), ref, c.reports)
		var report *taskbridge.ReportError
		var argument *taskbridge.ArgumentError
		if !errors.As(err, &report) || report.Index != c.index || !errors.As(err, &argument) || argument.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	if events := h.events(id); len(events) != 1 {
		t.Errorf("%d events", len(events))
	}
}

func TestAReferenceThatNoStartMadeIsRefused(t *testing.T) {
	h := newWorkerHost(t, atomicStores(), taskbridge.Limits{}, nil)
	id := h.create("a") // not started: its attempt is 0
	for name, c := range map[string]struct {
		ref  taskbridge.AttemptRef
		want error
	}{
		"attempt 0":         {taskbridge.AttemptRef{TaskID: id, Attempt: 0, Producer: taskbridge.Producer{Name: "worker", Epoch: 1}}, taskbridge.ErrInvalidArgument},
		"epoch 0":           {taskbridge.AttemptRef{TaskID: id, Attempt: 1, Producer: taskbridge.Producer{Name: "worker"}}, taskbridge.ErrInvalidArgument},
		"no producer":       {taskbridge.AttemptRef{TaskID: id, Attempt: 1, Producer: taskbridge.Producer{Epoch: 1}}, taskbridge.ErrInvalidArgument},
		"the control's":     {taskbridge.AttemptRef{TaskID: id, Attempt: 1, Producer: taskbridge.Producer{Name: taskbridge.ControlProducer, Epoch: 1}}, taskbridge.ErrInvalidArgument},
		"one that is ahead": {taskbridge.AttemptRef{TaskID: id, Attempt: 1, Producer: taskbridge.Producer{Name: "worker", Epoch: 1}}, taskbridge.ErrStaleProducer},
		"no task":           {taskbridge.AttemptRef{TaskID: "none", Attempt: 1, Producer: taskbridge.Producer{Name: "worker", Epoch: 1}}, taskbridge.ErrTaskNotFound},
	} {
		_, _, err := h.workers.Report(t.Context(), c.ref, []taskbridge.Report{completeReport(1)})
		if !errors.Is(err, c.want) {
			t.Errorf("Report with %s: %v", name, err)
		}
		for _, wait := range []time.Duration{0, time.Minute} {
			if _, err := h.workers.Await(t.Context(), c.ref, taskbridge.AwaitRequest{Wait: wait}); !errors.Is(err, c.want) {
				t.Errorf("Await with %s: %v", name, err)
			}
		}
		if _, err := h.workers.Resume(t.Context(), c.ref, ""); !errors.Is(err, c.want) {
			t.Errorf("Resume with %s: %v", name, err)
		}
	}
	if events, row := h.events(id), h.row(id); len(events) != 0 || row.Status != taskbridge.StatusAccepted {
		t.Errorf("%d events, %s", len(events), row.Status)
	}
}

func TestAStartIsGoneOnWithByItsOwnClaimAlone(t *testing.T) {
	h := newWorkerHost(t, atomicStores(), taskbridge.Limits{}, nil)
	id := h.create("a")
	ref := h.begin(id, "c")
	if row, err := h.workers.Resume(t.Context(), ref, "c"); err != nil || row.Starts != 1 {
		t.Errorf("%d starts, %v", row.Starts, err)
	}
	if _, err := h.workers.Resume(t.Context(), ref, "d"); !errors.Is(err, taskbridge.ErrStaleAttempt) {
		t.Errorf("another claim: %v", err)
	}
	h.report(ref, messageReport(1, "a"), completeReport(2))
	if row, err := h.workers.Resume(t.Context(), ref, "c"); err != nil || row.Status != taskbridge.StatusCompleted {
		t.Errorf("%s, %v", row.Status, err)
	}
	h.report(ref, messageReport(1, "a"), completeReport(2))
}

// lookingStore counts reads of rows.
type lookingStore struct {
	*memory.Store
	reads atomic.Int64
}

func (s *lookingStore) GetTask(ctx context.Context, id string) (taskbridge.Task, error) {
	s.reads.Add(1)
	return s.Store.GetTask(ctx, id)
}

func TestACallReadsTheRowOnce(t *testing.T) {
	store := &lookingStore{Store: memory.NewStore(memory.Options{})}
	h := newWorkerHost(t, taskbridge.Stores{Tasks: store, Events: store}, taskbridge.Limits{}, nil)
	id := h.create("a")
	ref := h.begin(id, "c")
	for i, reports := range [][]taskbridge.Report{
		{messageReport(1, "a"), tokenReport(2, "b"), messageReport(3, "c")},
		{messageReport(4, "a"), {Ordinal: 5, Suspension: &taskbridge.Suspension{
			SuspendID: "s", Kind: taskbridge.SuspendSystemPaused, ReasonCode: "R", AllowedActions: []string{"GO"}, SchemaVersion: 1,
		}}},
		{messageReport(6, "a"), completeReport(7)},
	} {
		before := store.reads.Load()
		h.report(ref, reports...)
		if n := store.reads.Load() - before; n != 1 {
			t.Errorf("call %d: %d reads", i, n)
		}
	}
}

func TestAWorkersCallsAreTold(t *testing.T) {
	watch := &operations{}
	h := newWorkerHost(t, atomicStores(), taskbridge.Limits{}, watch)
	id := h.create("a")
	ref := h.begin(id, "c")
	h.report(ref, messageReport(1, "a"), tokenReport(2, "b"), completeReport(3))
	want := fmt.Sprint([]string{"start  ", "append work TASK_MESSAGE", "append work TASK_MESSAGE", "end work TASK_COMPLETED"})
	if got := fmt.Sprint(watch.all); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// operations notes what an observer is told.
type operations struct{ all []string }

func (o *operations) Begin(ctx context.Context, op taskbridge.Operation) (context.Context, func(error)) {
	o.all = append(o.all, fmt.Sprintf("%s %s %s", op.Kind, op.TaskType, op.Event))
	return ctx, func(error) {}
}

// deafStore never wakes a watcher.
type deafStore struct{ *memory.Store }

func (s deafStore) WatchTask(ctx context.Context, id string, _ func()) (func(), error) {
	return s.Store.WatchTask(ctx, id, func() {})
}

func TestAWaitLearnsOfACancellationThoughItsWakeUpWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := deafStore{memory.NewStore(memory.Options{})}
		h := newWorkerHost(t, taskbridge.Stores{Tasks: store, Events: store}, taskbridge.Limits{}, nil)
		id := h.create("a")
		ref := h.begin(id, "c")
		time.AfterFunc(time.Second, func() {
			_, _, err := h.Cancellation.CancelTask(context.WithoutCancel(t.Context()), me, id, "enough")
			h.must(err)
		})
		begin := time.Now()
		row, err := h.workers.Await(t.Context(), ref, taskbridge.AwaitRequest{Wait: time.Minute})
		if err != nil || row.Cancellation.Reason != "enough" || time.Since(begin) != 15*time.Second {
			t.Errorf("%q after %s: %v", row.Cancellation.Reason, time.Since(begin), err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if row, err := h.workers.Await(over, ref, taskbridge.AwaitRequest{Wait: time.Minute, CancellationKnown: true}); err != nil || row.ID != id {
			t.Errorf("a context that has ended: %v", err)
		}
		if _, err := h.workers.Await(t.Context(), ref, taskbridge.AwaitRequest{Wait: -1}); !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("a negative wait: %v", err)
		}
	})
}
