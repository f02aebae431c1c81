package workerapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

var errFault = errors.New("the connection to the store broke")

// faults lets one call of a store fail, before or after its effect.
type faults struct {
	mu    sync.Mutex
	until int // the calls before it
	after bool
	armed bool
}

func (f *faults) arm(until int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until, f.after, f.armed = until, after, true
}

// disarm reports whether the fault is still to come.
func (f *faults) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	pending := f.armed
	f.armed = false
	return pending
}

// next counts a call and says how it fails.
func (f *faults) next() (before, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return false, false
	}
	if f.until > 0 {
		f.until--
		return false, false
	}
	f.armed = false
	return !f.after, f.after
}

func faulted[T any](f *faults, call func() (T, error)) (T, error) {
	var none T
	before, after := f.next()
	if before {
		return none, errFault
	}
	value, err := call()
	if err == nil && after {
		return none, errFault
	}
	return value, err
}

type faultyTasks struct {
	taskbridge.TaskRegistry
	*faults
}

func (s faultyTasks) GetTask(ctx context.Context, id string) (taskbridge.Task, error) {
	return faulted(s.faults, func() (taskbridge.Task, error) { return s.TaskRegistry.GetTask(ctx, id) })
}

func (s faultyTasks) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	return faulted(s.faults, func() (taskbridge.Task, error) { return s.TaskRegistry.UpdateTask(ctx, next) })
}

type faultyEvents struct {
	taskbridge.EventStore
	*faults
}

func (s faultyEvents) AppendEvent(ctx context.Context, e taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	return faulted(s.faults, func() (taskbridge.AppendResult, error) { return s.EventStore.AppendEvent(ctx, e) })
}

type faultyStore struct {
	faultyTasks
	faultyEvents
	atomic taskbridge.AtomicStore
}

func (s *faultyStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	return faulted(s.faultyTasks.faults, func() (taskbridge.Task, error) { return s.atomic.UpdateTaskAndAppend(ctx, next, events) })
}

// storesWithFaults are the two ways to keep tasks and events.
var storesWithFaults = map[string]func(*faults) taskbridge.Stores{
	"one atomic store": func(f *faults) taskbridge.Stores {
		store := memory.NewStore(memory.Options{})
		both := &faultyStore{faultyTasks{store, f}, faultyEvents{store, f}, store}
		return taskbridge.Stores{Tasks: both, Events: both}
	},
	"separate stores": func(f *faults) taskbridge.Stores {
		return taskbridge.Stores{Tasks: faultyTasks{memory.NewTasks(), f}, Events: faultyEvents{memory.NewEvents(), f}}
	},
}

// requests are all kinds of request that change something, with what they leave
// in the stream of a task that is running. Text and limit are such that it is
// split.
var requests = map[string]struct {
	route string
	body  any
	want  []string
}{
	"start again": {"start", workerapi.StartRequest{Claim: "claim"}, nil},
	"a newer claim": {"start", workerapi.StartRequest{Claim: "newer"}, []string{
		`TASK_MESSAGE {"message":"attempt 2 has started, the one before it did not finish","level":"warning"}`,
	}},
	"messages, progress and text": {"reports", reportsRequest(message("a"), progress(1), token("b"), token("c"), message("a"), progress(1)), []string{
		`TASK_MESSAGE {"message":"a"}`, `TASK_PROGRESS {"progress":1}`, `TASK_MESSAGE {"message":"bc"}`, `TASK_MESSAGE {"message":"a"}`, `TASK_PROGRESS {"progress":1}`,
	}},
	"long text": {"reports", reportsRequest(token("1"), token(strings.Repeat("x", 250)), token(strings.Repeat("é", 100)), token(""), message("m")), []string{
		`TASK_MESSAGE {"message":"1` + strings.Repeat("x", 185) + `"}`,
		`TASK_MESSAGE {"message":"` + strings.Repeat("x", 65) + strings.Repeat("é", 60) + `"}`,
		`TASK_MESSAGE {"message":"` + strings.Repeat("é", 40) + `"}`, `TASK_MESSAGE {"message":"m"}`,
	}},
	"a suspension behind others": {"reports", reportsRequest(token("t"), message("m"), suspend("s")), []string{
		`TASK_MESSAGE {"message":"t"}`, `TASK_MESSAGE {"message":"m"}`,
		`TASK_SUSPENDED {"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["GO"],"schemaVersion":1}`,
	}},
	"completion": {"reports", reportsRequest(message("m"), token("t"), complete(`{"n":1}`)), []string{
		`TASK_MESSAGE {"message":"m"}`, `TASK_MESSAGE {"message":"t"}`, `TASK_COMPLETED {"result":{"n":1}}`,
	}},
	"failure": {"reports", reportsRequest(message("m"), workerapi.Report{Type: workerapi.ReportFail, Code: "C", Message: "f", Retryable: true}), []string{
		`TASK_MESSAGE {"message":"m"}`, `TASK_FAILED {"code":"C","message":"f","retryable":true}`,
	}},
	"cancelled": {"reports", reportsRequest(token("t"), workerapi.Report{Type: workerapi.ReportCancelled}), []string{
		`TASK_MESSAGE {"message":"t"}`, `TASK_CANCELLED {"reason":"cancelled by client"}`,
	}},
}

func reportsRequest(reports ...workerapi.Report) workerapi.ReportsRequest {
	return workerapi.ReportsRequest{FirstOrdinal: 7, Reports: reports}
}

// payloadLimit makes messages of 200 bytes of JSON the longest.
func payloadLimit(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Limits.EventPayload = 200 }

func TestARequestWhoseAnswerWasLostIsRepeatedWithoutAnyEffect(t *testing.T) {
	for stores, newStores := range storesWithFaults {
		for name, c := range requests {
			t.Run(stores+", "+name, func(t *testing.T) {
				l := newLab(t, payloadLimit, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Stores = newStores(&faults{}) })
				id, attempt := l.running()
				for range 3 {
					l.repeatable(id, attempt, c.route, c.body)
					l.wantStream(id, append([]string{`TASK_STARTED {}`}, c.want...)...)
				}
			})
		}
	}
}

// repeatable makes the request and fails unless the answer is 200.
func (l *lab) repeatable(id, attempt, route string, body any) {
	l.t.Helper()
	if r := l.tryRequest(id, attempt, route, body); r.status != http.StatusOK {
		l.t.Fatalf("%d %s", r.status, r.body)
	}
}

func (l *lab) tryRequest(id, attempt, route string, body any) reply {
	l.t.Helper()
	if route == "start" {
		return l.post(id, route, l.submission(id), body)
	}
	return l.post(id, route, attempt, body)
}

// TestARequestThatIsCutAtAnyStepAndRepeatedHasItsEffectOnce has each call of the
// stores fail in turn, before and after its effect, as a crash there would.
func TestARequestThatIsCutAtAnyStepAndRepeatedHasItsEffectOnce(t *testing.T) {
	for stores, newStores := range storesWithFaults {
		for name, c := range requests {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, after=%v", stores, name, after), func(t *testing.T) {
					for step, more := 0, true; more; step++ {
						f := &faults{}
						l := newLab(t, payloadLimit, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Stores = newStores(f) })
						id, attempt := l.running()
						f.arm(step, after)
						r := l.tryRequest(id, attempt, c.route, c.body)
						more = !f.disarm()
						if more {
							r.problem(503, "UNAVAILABLE")
						}
						if step == 0 && !more {
							t.Fatal("the fault was never met")
						}
						l.repeatable(id, attempt, c.route, c.body)
						l.wantStream(id, append([]string{`TASK_STARTED {}`}, c.want...)...)
						if row := l.row(id); !row.Due.Stream.IsZero() && strings.HasPrefix(stores, "one") {
							t.Errorf("step %d: the stream is owed", step)
						}
					}
				})
			}
		}
	}
}

// TestReportsNeverGoOutBeforeTheStreamIsComplete cuts a suspension between its row
// and its event; the worker goes on without repeating it.
func TestReportsNeverGoOutBeforeTheStreamIsComplete(t *testing.T) {
	f := &faults{}
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) {
		o.Stores = storesWithFaults["separate stores"](f)
	})
	id, attempt := l.running()
	f.arm(1, true) // the row is read, then written
	l.report(id, attempt, 1, suspend("s")).problem(503, "UNAVAILABLE")
	l.wantStream(id, `TASK_STARTED {}`)
	decode[workerapi.AttemptResponse](l.report(id, attempt, 2, message("after")))
	if got := l.stream(id); len(got) != 3 || !strings.HasPrefix(got[1], "TASK_SUSPENDED") || got[2] != `TASK_MESSAGE {"message":"after"}` {
		t.Errorf("%q", got)
	}
}

func TestConcurrentCopiesOfARequestHaveItsEffectOnce(t *testing.T) {
	for stores, newStores := range storesWithFaults {
		for name, c := range requests {
			t.Run(stores+", "+name, func(t *testing.T) {
				l := newLab(t, payloadLimit, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Stores = newStores(&faults{}) })
				id, attempt := l.running()
				replies := make([]reply, 8)
				var copies sync.WaitGroup
				for i := range replies {
					r := l.request("POST", workerapi.BasePath+id+"/"+c.route, attempt, c.body)
					if c.route == "start" {
						r.Header.Set("Authorization", l.submission(id))
					}
					copies.Go(func() { replies[i] = l.serve(r) })
				}
				copies.Wait()
				for _, r := range replies {
					if r.status != http.StatusOK {
						t.Errorf("%d %s", r.status, r.body)
					}
				}
				l.wantStream(id, append([]string{`TASK_STARTED {}`}, c.want...)...)
			})
		}
	}
}

// TestALateCopyOfAnEarlierRequestHasNoEffect: a network may deliver one when the
// worker is long past it.
func TestALateCopyOfAnEarlierRequestHasNoEffect(t *testing.T) {
	l := newLab(t)
	id, attempt := l.running()
	first := reportsRequest(token("a"), message("b"))
	l.repeatable(id, attempt, "reports", first)
	l.repeatable(id, attempt, "reports", workerapi.ReportsRequest{FirstOrdinal: 9, Reports: []workerapi.Report{message("c")}})
	l.repeatable(id, attempt, "reports", first)
	l.start(id, "claim") // a start that came twice fences nobody until it is used
	l.repeatable(id, attempt, "reports", workerapi.ReportsRequest{FirstOrdinal: 10, Reports: []workerapi.Report{complete(`1`)}})
	l.report(id, attempt, 7, first.Reports...).problem(409, "TASK_FINISHED")
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`, `TASK_MESSAGE {"message":"c"}`, `TASK_COMPLETED {"result":1}`)
}
