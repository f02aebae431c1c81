//go:build linux

package asynqadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestAnErrorIsAWarningWhileRetriesAreLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	var attempts atomic.Int64
	f.serve(f.worker(func(_ context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
		if n := attempts.Add(1); n != run.Attempt() {
			t.Errorf("attempt %d says that it is %d", n, run.Attempt())
		}
		if run.Attempt() < 3 {
			return nil, errors.New("the disk is busy")
		}
		return map[string]any{"attempts": run.Attempt()}, nil
	}))
	task := f.create("work", `{}`)
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != `{"attempts":3}` {
		t.Errorf("the result is %s", result)
	}
	f.wantStream(task, "STARTED MESSAGE MESSAGE MESSAGE MESSAGE COMPLETED")
	if got, want := f.stream(task)[1], `MESSAGE {"message":"attempt 1 failed and will be tried again: the disk is busy","level":"warning"}`; got != want {
		t.Errorf("the warning is %s, want %s", got, want)
	}
	f.awaitState(task, "completed")
}

// ownError is an application's error with a code of its own.
type ownError struct{ taskbridge.Failure }

func (e ownError) Error() string                   { return "own: " + e.Message }
func (e ownError) TaskFailure() taskbridge.Failure { return e.Failure }

func TestHowTheLastErrorEndsTheTask(t *testing.T) {
	t.Parallel()
	own := ownError{taskbridge.Failure{Code: "DISK_FULL", Message: "no room", Retryable: true}}
	for _, c := range []struct {
		name      string
		retries   int // of the task
		err       error
		attempts  int64
		code      string
		message   string
		retryable bool
	}{
		{"retries used up", 2, errors.New("boom"), 3, CodeRetriesExhausted, "boom", true},
		{"no retries at all", NoRetry, errors.New("boom"), 1, CodeHandlerError, "boom", true},
		{"SkipRetry", 2, fmt.Errorf("hopeless: %w", asynq.SkipRetry), 1, CodeHandlerError, "hopeless: skip retry for the task", false},
		{"RevokeTask", 2, fmt.Errorf("forget it: %w", asynq.RevokeTask), 1, CodeHandlerError, "forget it: revoke task", false},
		{"a code of one's own", 1, fmt.Errorf("writing: %w", own), 2, "DISK_FULL", "no room", true},
		{"Fail", 2, Fail("BAD_INPUT", "there is no folder", false), 1, "BAD_INPUT", "there is no folder", false},
		{"Fail without a code", 2, Fail("", "there is no folder", true), 1, CodeHandlerError, "there is no folder", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"case": {MaxRetry: c.retries}}})
			var attempts atomic.Int64
			f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
				attempts.Add(1)
				return nil, c.err
			}))
			row := f.wantEnd(f.create("case", `{}`), c.code, c.retryable)
			if failure, _ := row.Failure(); failure.Message != c.message {
				t.Errorf("the message is %q, want %q", failure.Message, c.message)
			}
			if n := attempts.Load(); n != c.attempts {
				t.Errorf("%d attempts, want %d", n, c.attempts)
			}
		})
	}
}

func TestAPanicFailsTheAttemptAndTheClientSeesNoStack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"once more": {MaxRetry: 1}}})
	f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
		panic("secret detail")
	}))
	task := f.create("once more", `{}`)
	row := f.wantEnd(task, CodeHandlerPanic, false)
	if failure, _ := row.Failure(); failure.Message != "the handler panicked" {
		t.Errorf("the message is %q", failure.Message)
	}
	f.wantStream(task, "STARTED MESSAGE MESSAGE FAILED")
	if all := strings.Join(f.stream(task), "\n"); strings.Contains(all, "secret") || strings.Contains(all, ".go") {
		t.Errorf("the client reads %s", all)
	}
	if log := f.log.String(); !strings.Contains(log, "worker_test.go") {
		t.Errorf("the log has no stack: %s", log)
	}
	// asynq has its own record of the panic, as ever.
	f.awaitState(task, "archived")
	if info, err := f.inspector.GetTaskInfo(f.queue, task.ID); err != nil || !strings.Contains(info.LastErr, "secret detail") {
		t.Errorf("asynq knows %+v, %v", info, err)
	}
}

func TestAResultThatIsNoJSONFailsTheTask(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]any{
		"a number that JSON has not": math.Inf(1), "raw JSON that is none": json.RawMessage(`{`), "bytes that are no text": json.RawMessage("\"\xff\""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{})
			f.serve(f.worker(func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) { return result, nil }))
			task := f.create("work", `{}`)
			f.wantEnd(task, CodeInvalidResult, false)
			f.wantStream(task, "STARTED FAILED")
		})
	}
}

func TestAnAttemptThatRunsTooLongIsTriedAgainAndInTheEndFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"slow": {MaxRetry: 1, Timeout: time.Second}}})
	f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, _ taskbridge.Run) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	task := f.create("slow", `{}`)
	f.wantEnd(task, CodeTimedOut, true)
	if warning := f.stream(task)[1]; !strings.Contains(warning, "ran longer than its time-out") {
		t.Errorf("the stream is %q", f.stream(task))
	}
}

func TestATaskIsNotTriedAgainAfterItsDeadline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"slow": {MaxRetry: 20, Deadline: 2 * time.Second}}})
	f.serve(f.worker(func(ctx context.Context, _ taskbridge.Task, _ taskbridge.Run) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	task := f.create("slow", `{}`)
	f.wantEnd(task, CodeDeadlineExceeded, true)
	f.wantStream(task, "STARTED FAILED")
}

// absent is a lifecycle whose first starts come to nothing.
type absent struct {
	taskbridge.TaskLifecycle
	faults atomic.Int64
}

func (a *absent) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if a.faults.Add(-1) >= 0 {
		return nil, errors.New("the server is away")
	}
	return a.TaskLifecycle.Start(ctx, taskID, claim)
}

func TestAServerThatIsAwayCostsNoRetry(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"once": {MaxRetry: NoRetry}}})
	lifecycle := &absent{TaskLifecycle: f.lifecycle}
	lifecycle.faults.Store(3)
	f.serve(Handle(lifecycle, done))
	task := f.create("once", `{}`)
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED COMPLETED")
}

func TestAServerThatStaysAwayIsAnErrorOfAsynqsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"once": {MaxRetry: NoRetry}}})
	lifecycle := &absent{TaskLifecycle: f.lifecycle}
	lifecycle.faults.Store(math.MaxInt64)
	worker, err := NewWorker(WorkerOptions{Lifecycle: lifecycle, Patience: time.Millisecond})
	must(t, err)
	f.serve(worker.Handle(done))
	task := f.create("once", `{}`)
	f.awaitState(task, "archived")
	f.reconcile()
	f.wantEnd(task, CodeRetriesExhausted, true)
}

func TestAPayloadThatIsNotOfTaskBridgeIsArchived(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	f.serve(f.worker(done))
	client := asynq.NewClient(f.connection)
	defer func() { must(t, client.Close()) }()
	for id, payload := range map[string]string{
		"not JSON": "hello", "no version": `{"taskId":"a"}`, "no id": `{"taskbridge":1}`, "nothing": "",
	} {
		_, err := client.Enqueue(asynq.NewTask("work", []byte(payload)), asynq.TaskID(id), asynq.Queue(f.queue))
		must(t, err)
		f.awaitState(taskbridge.Task{ID: id}, "archived")
	}
	_, err := client.Enqueue(asynq.NewTask("work", []byte(`{"taskbridge":2,"taskId":"abc-d"}`)),
		asynq.TaskID("newer"), asynq.Queue(f.queue), asynq.MaxRetry(0))
	must(t, err)
	f.awaitState(taskbridge.Task{ID: "newer"}, "archived")
	info, err := f.inspector.GetTaskInfo(f.queue, "newer")
	must(t, err)
	if want := "the payload has version 2, this worker knows up to 1"; info.LastErr != want {
		t.Errorf("the error is %q, want %q", info.LastErr, want)
	}
}

func TestATaskThatTheServerDoesNotKnowIsAnError(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t, fixtureOptions{}), newFixture(t, fixtureOptions{})
	serve(t, testRedis, f.queue, other.worker(done), hourly) // over another server's stores
	task := f.create("work", `{}`)
	f.awaitState(task, "retry") // and not lost
}

func TestAHandlerThatExistsRunsBehindTheMiddleware(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{types: map[string]TypeOptions{"sum": {}, "broken": {MaxRetry: NoRetry}}})
	worker, err := NewWorker(WorkerOptions{Lifecycle: f.lifecycle})
	must(t, err)
	mux := asynq.NewServeMux()
	mux.Use(worker.Middleware)
	plain := make(chan string, 1)
	mux.HandleFunc("sum", func(ctx context.Context, task *asynq.Task) error {
		var input struct{ A, B int }
		if err := json.Unmarshal(task.Payload(), &input); err != nil {
			return err
		}
		run, ok := RunFromContext(ctx)
		if !ok {
			SetResult(ctx, "for nobody")
			plain <- string(task.Payload())
			return nil
		}
		if err := run.Progress(ctx, taskbridge.Progress{Percent: 50}); err != nil {
			return err
		}
		SetResult(ctx, input.A+input.B)
		return nil
	})
	mux.HandleFunc("broken", func(context.Context, *asynq.Task) error { return errors.New("boom") })
	f.serve(mux)

	task := f.create("sum", `{"a":2,"b":3}`)
	row := f.wantEnd(task, "", false)
	if result, _ := row.Result(); string(result) != "5" {
		t.Errorf("the result is %s", result)
	}
	f.wantStream(task, "STARTED PROGRESS COMPLETED")
	f.wantEnd(f.create("broken", `{}`), CodeHandlerError, true)

	client := asynq.NewClient(f.connection)
	defer func() { must(t, client.Close()) }()
	_, err = client.Enqueue(asynq.NewTask("sum", []byte(`{"a":1}`)), asynq.Queue(f.queue))
	must(t, err)
	if got := receive(t, "a task of asynq's own runs", plain); got != `{"a":1}` {
		t.Errorf("its payload is %s", got)
	}
}

func TestTheEnvelopeCarriesWhatAWorkerElsewhereNeeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{
		types: map[string]TypeOptions{"work": {Deadline: time.Hour}},
		change: func(o *Options) {
			o.WorkerURL, o.Tokens = "https://bridge.example", tokens{}
		},
	})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	created, err := f.bridge.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{
		ClientRequestID: "1", TaskType: "work", Input: json.RawMessage(`{"in":1}`), Metadata: json.RawMessage(`{"meta":2}`), Traceparent: trace,
	})
	must(t, err)
	info, err := f.inspector.GetTaskInfo(f.queue, created.Task.ID)
	must(t, err)
	envelope, ok := OpenEnvelope(asynq.NewTask("work", info.Payload))
	if !ok {
		t.Fatalf("no envelope: %s", info.Payload)
	}
	if got := fmt.Sprintf("%d %s %s %s %s %s %s %s", envelope.Version, envelope.TaskType, envelope.Owner, envelope.Input, envelope.Metadata,
		envelope.Traceparent, envelope.Token, envelope.URL); got != `1 work owner {"in":1} {"meta":2} `+trace+` token of `+created.Task.ID+` https://bridge.example` {
		t.Errorf("the envelope is %s", got)
	}
	if want := created.Task.CreatedAt.Add(time.Hour); !envelope.Deadline.Equal(want) || envelope.TaskID != created.Task.ID {
		t.Errorf("the envelope is of %s and ends at %v, want %v", envelope.TaskID, envelope.Deadline, want)
	}
}

type tokens struct{}

func (tokens) SubmissionToken(taskID string) (string, error) { return "token of " + taskID, nil }
