package taskbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestARequestOutOfTheContractIsRefusedAndLeavesNothing(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Limits = taskbridge.Limits{Input: 100, Metadata: 50} })
	ok := taskbridge.CreateTaskRequest{ClientRequestID: "k", TaskType: "work"}
	for name, c := range map[string]struct {
		change func(*taskbridge.CreateTaskRequest)
		want   error
	}{
		"no key":          {func(r *taskbridge.CreateTaskRequest) { r.ClientRequestID = "" }, taskbridge.ErrInvalidArgument},
		"long key":        {func(r *taskbridge.CreateTaskRequest) { r.ClientRequestID = strings.Repeat("k", 256) }, taskbridge.ErrInvalidArgument},
		"control in key":  {func(r *taskbridge.CreateTaskRequest) { r.ClientRequestID = "a\nb" }, taskbridge.ErrInvalidArgument},
		"key not UTF-8":   {func(r *taskbridge.CreateTaskRequest) { r.ClientRequestID = "\xff" }, taskbridge.ErrInvalidArgument},
		"no type":         {func(r *taskbridge.CreateTaskRequest) { r.TaskType = "" }, taskbridge.ErrInvalidArgument},
		"unknown type":    {func(r *taskbridge.CreateTaskRequest) { r.TaskType = "play" }, taskbridge.ErrUnknownTaskType},
		"input is a list": {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage(`[]`) }, taskbridge.ErrInvalidArgument},
		"input is null":   {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage(`null`) }, taskbridge.ErrInvalidArgument},
		"input is broken": {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage(`{"a":`) }, taskbridge.ErrInvalidArgument},
		"input is empty":  {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage(``) }, taskbridge.ErrInvalidArgument},
		"input not UTF-8": {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage("{\"a\":\"\xff\"}") }, taskbridge.ErrInvalidArgument},
		"input too deep":  {func(r *taskbridge.CreateTaskRequest) { r.Input = json.RawMessage(`{"a":` + strings.Repeat("[", 20000)) }, taskbridge.ErrInvalidArgument},
		"large input": {func(r *taskbridge.CreateTaskRequest) {
			r.Input = json.RawMessage(`{"a":"` + strings.Repeat("x", 100) + `"}`)
		}, taskbridge.ErrPayloadTooLarge},
		"large metadata": {func(r *taskbridge.CreateTaskRequest) {
			r.Metadata = json.RawMessage(`{"a":"` + strings.Repeat("x", 50) + `"}`)
		}, taskbridge.ErrPayloadTooLarge},
		"metadata a string": {func(r *taskbridge.CreateTaskRequest) { r.Metadata = json.RawMessage(`"m"`) }, taskbridge.ErrInvalidArgument},
	} {
		request := ok
		c.change(&request)
		if _, err := h.Creation.CreateTask(t.Context(), me, request); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	list, err := h.Query.ListTasks(t.Context(), me, taskbridge.ListTasksRequest{})
	if err != nil || len(list.Tasks) != 0 || len(h.executor.submitted) != 0 {
		t.Errorf("%d tasks, %d submissions, %v", len(list.Tasks), len(h.executor.submitted), err)
	}
}

func TestAnotherPayloadUnderAKeyConflictsAndMetadataDoesNot(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) {
		router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"work": &idleExecutor{}, "more": &idleExecutor{}})
		if err != nil {
			t.Fatal(err)
		}
		o.Executors = router
	})
	create := func(r taskbridge.CreateTaskRequest) (taskbridge.CreateTaskResult, error) {
		r.ClientRequestID = "k"
		if r.TaskType == "" {
			r.TaskType = "work"
		}
		return h.Creation.CreateTask(t.Context(), me, r)
	}
	first, err := create(taskbridge.CreateTaskRequest{Input: json.RawMessage(`{"a":1}`), AttachmentDigests: []string{"d"}})
	h.must(err)
	again, err := create(taskbridge.CreateTaskRequest{Input: json.RawMessage(`{ "a": 1.0 }`), AttachmentDigests: []string{"d"}, Metadata: json.RawMessage(`{"m":1}`)})
	if err != nil || !again.Deduplicated || again.Task.ID != first.Task.ID {
		t.Errorf("%+v, %v", again, err)
	}
	for name, r := range map[string]taskbridge.CreateTaskRequest{
		"input":       {Input: json.RawMessage(`{"a":2}`), AttachmentDigests: []string{"d"}},
		"type":        {TaskType: "more", Input: json.RawMessage(`{"a":1}`), AttachmentDigests: []string{"d"}},
		"attachments": {Input: json.RawMessage(`{"a":1}`), AttachmentDigests: []string{"e"}},
	} {
		if _, err := create(r); !errors.Is(err, taskbridge.ErrIdempotencyConflict) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// rejectingExecutor turns everything down.
type rejectingExecutor struct{ idleExecutor }

func (*rejectingExecutor) SubmitTask(context.Context, taskbridge.Task) error {
	return taskbridge.Reject("NO_ROOM", "there is no room", true)
}

func TestARejectedTaskIsFailedAndStaysSoUnderItsKey(t *testing.T) {
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"work": &rejectingExecutor{}})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Executors = router })
	request := taskbridge.CreateTaskRequest{ClientRequestID: "k", TaskType: "work"}
	_, err = h.Creation.CreateTask(t.Context(), me, request)
	var rejection *taskbridge.RejectionError
	if !errors.As(err, &rejection) || rejection.TaskID == "" {
		t.Fatalf("%v", err)
	}
	again, err := h.Creation.CreateTask(t.Context(), me, request)
	h.must(err)
	failure, _ := again.Task.Failure()
	if !again.Deduplicated || again.Task.ID != rejection.TaskID || failure != (taskbridge.Failure{Code: "NO_ROOM", Message: "there is no room", Retryable: true}) {
		t.Errorf("%+v, %+v", again, failure)
	}
	if events := h.events(rejection.TaskID); len(events) != 1 || events[0].Type != taskbridge.EventFailed {
		t.Errorf("%+v", events)
	}
}

func TestARejectionThatIsNotRecordedIsNotTold(t *testing.T) {
	store := &shakyStore{Store: memory.NewStore(memory.Options{})}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"work": &rejectingExecutor{}})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, taskbridge.Stores{Tasks: store, Events: store}, func(o *taskbridge.Options) { o.Executors = router })
	store.plan(0, 1)
	result, err := h.Creation.CreateTask(t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: "k", TaskType: "work"})
	if err != nil || result.Task.Status != taskbridge.StatusAccepted {
		t.Errorf("%s, %v; want an accepted task, as the row says", result.Task.Status, err)
	}
	if row := h.row(result.Task.ID); row.Status != taskbridge.StatusAccepted || row.Due.Submission.IsZero() {
		t.Errorf("the row is %s, due %v", row.Status, row.Due.Submission)
	}
}
