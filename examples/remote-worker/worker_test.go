package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

var secret = []byte(strings.Repeat("secret! ", 4))

// host is the server's side, inside the test: an executor that posts to the
// worker as the server does. The worker's lifecycle is the local one, which it
// cannot tell from a remote one.
type host struct {
	t         *testing.T
	lifecycle taskbridge.TaskLifecycle
	bridge    *taskbridge.Bridge
	worker    *worker
	dir       string
}

var alice = taskbridge.Principal{Subject: "alice"}

func newHost(t *testing.T, atOnce int) *host {
	t.Helper()
	store := memory.NewStore(memory.Options{})
	h := &host{t: t, dir: t.TempDir()}
	stores := taskbridge.Stores{Tasks: store, Events: store}
	var err error
	if h.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores}); err != nil {
		t.Fatal(err)
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"words": h, "other": h})
	if err != nil {
		t.Fatal(err)
	}
	if h.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router}); err != nil {
		t.Fatal(err)
	}
	h.restart(atOnce)
	t.Cleanup(func() {
		h.worker.close()
		h.bridge.Subscription.Close()
	})
	return h
}

// restart has another worker go on with the journal.
func (h *host) restart(atOnce int) {
	h.t.Helper()
	if h.worker != nil {
		h.worker.close()
	}
	j, err := openJournal(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.worker = newWorker(h.lifecycle, j, secret, atOnce)
	if err := h.worker.resume(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) SubmitTask(_ context.Context, task taskbridge.Task) error {
	switch status, message := h.post(h.request("task.submitted", task, time.Now())); status {
	case http.StatusAccepted:
		return nil
	case http.StatusUnprocessableEntity:
		return taskbridge.Reject("WORKER_REJECTED", message, false)
	default:
		return fmt.Errorf("answered %d", status)
	}
}

func (h *host) RequestCancellation(_ context.Context, task taskbridge.Task, _ string) error {
	if status, message := h.post(h.request("task.cancel", task, time.Now())); status != http.StatusAccepted {
		return errors.New(message)
	}
	return nil
}

func (h *host) request(kind string, task taskbridge.Task, at time.Time) *http.Request {
	body, err := json.Marshal(map[string]any{"type": kind, "data": map[string]any{
		"taskId": task.ID, "taskType": task.Type, "input": task.Input, "token": "of " + task.ID,
	}})
	if err != nil {
		h.t.Error(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/tasks", bytes.NewReader(body))
	id, timestamp := kind+"/"+task.ID, strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "." + string(body)))
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", timestamp)
	r.Header.Set("Webhook-Signature", "v1,bm90IHRoaXM= v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return r
}

func (h *host) post(r *http.Request) (status int, message string) {
	w := httptest.NewRecorder()
	h.worker.ServeHTTP(w, r)
	var said struct{ Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
		h.t.Error(err)
	}
	return w.Code, said.Message
}

func (h *host) create(key, taskType, input string) (taskbridge.Task, error) {
	created, err := h.bridge.Creation.CreateTask(h.t.Context(), alice, taskbridge.CreateTaskRequest{
		ClientRequestID: key, TaskType: taskType, Input: json.RawMessage(input),
	})
	return created.Task, err
}

// follow reads the stream to its end and calls each with its events so far.
func (h *host) follow(task taskbridge.Task, each func(events []string)) (events []string) {
	h.t.Helper()
	s, err := h.bridge.Subscription.Subscribe(h.t.Context(), alice, taskbridge.SubscribeRequest{TaskID: task.ID})
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	for {
		frames, err := s.Next(h.t.Context(), time.Minute)
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil || len(frames) == 0 {
			h.t.Fatalf("after %q: %v", events, err)
		}
		for _, frame := range frames {
			var e struct {
				Type    string
				Payload json.RawMessage
			}
			if err := json.Unmarshal(frame.Envelope, &e); err != nil {
				h.t.Fatal(err)
			}
			events = append(events, e.Type+" "+string(e.Payload))
			each(events)
		}
	}
}

func TestATaskIsDoneOnceHoweverOftenItIsPosted(t *testing.T) {
	h := newHost(t, 2)
	task, err := h.create("k", "words", `{"text":"To be or not to be"}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.SubmitTask(t.Context(), task), h.SubmitTask(t.Context(), task)); err != nil {
		t.Fatal(err)
	}
	events := h.follow(task, func([]string) {})
	if len(events) != 8 || events[0] != "TASK_STARTED {}" || events[7] != `TASK_COMPLETED {"result":{"be":2,"not":1,"or":1,"to":2}}` {
		t.Errorf("%q", events)
	}
}

func TestWhatTheServerHasNotSignedIsRefused(t *testing.T) {
	h := newHost(t, 1)
	task := taskbridge.Task{ID: "000-x", Type: "words", Input: json.RawMessage(`{"text":"a"}`)}
	for name, spoil := range map[string]func(*http.Request) *http.Request{
		"no signature": func(r *http.Request) *http.Request { r.Header.Del("Webhook-Signature"); return r },
		"another body": func(r *http.Request) *http.Request { r.Body = io.NopCloser(strings.NewReader("{}")); return r },
		"another id":   func(r *http.Request) *http.Request { r.Header.Set("Webhook-Id", "x"); return r },
		"no time":      func(r *http.Request) *http.Request { r.Header.Del("Webhook-Timestamp"); return r },
		"an old message": func(*http.Request) *http.Request {
			return h.request("task.submitted", task, time.Now().Add(-time.Hour))
		},
		"a message to come": func(*http.Request) *http.Request { return h.request("task.submitted", task, time.Now().Add(time.Hour)) },
	} {
		if status, _ := h.post(spoil(h.request("task.submitted", task, time.Now()))); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, status)
		}
	}
	if tasks, err := h.worker.journal.tasks(); err != nil || len(tasks) != 0 {
		t.Errorf("%v, %v", tasks, err)
	}
}

func TestWhatCannotBeDoneIsTurnedDownAtOnce(t *testing.T) {
	h := newHost(t, 1)
	for i, c := range []struct{ taskType, input string }{
		{"other", `{"text":"a"}`}, {"words", `{}`}, {"words", `{"text":3}`}, {"words", `{"text":"a","pauseMillis":-1}`}, {"words", `{"text":"a","more":1}`},
	} {
		if _, err := h.create(fmt.Sprint(i), c.taskType, c.input); !errors.Is(err, taskbridge.ErrSubmissionRejected) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestTheNextWorkerGoesOnWithWhatTheLastOneHadAccepted(t *testing.T) {
	h := newHost(t, 1)
	long, err := h.create("long", "words", `{"text":"b b","pauseMillis":60000}`)
	if err != nil {
		t.Fatal(err)
	}
	events := h.follow(long, func(events []string) {
		switch len(events) {
		case 2:
			h.restart(1)
		case 4: // behind a warning, the first word again
			if err := h.cancel(long); err != nil {
				t.Error(err)
			}
		}
	})
	text := strings.Join(events, "\n")
	if strings.Count(text, "TASK_STARTED") != 1 || strings.Count(text, "warning") != 1 || !strings.Contains(events[len(events)-1], "TASK_CANCELLED") {
		t.Errorf("%s", text)
	}
}

func (h *host) cancel(task taskbridge.Task) error {
	_, _, err := h.bridge.Cancellation.CancelTask(h.t.Context(), alice, task.ID, "enough")
	return err
}

func TestATaskThatWaitsForItsTurnIsCancelledAtOnce(t *testing.T) {
	h := newHost(t, 1)
	long, err := h.create("long", "words", `{"text":"a b","pauseMillis":60000}`)
	if err != nil {
		t.Fatal(err)
	}
	h.follow(long, func(events []string) {
		if len(events) != 2 { // it has begun
			return
		}
		waits, err := h.create("waits", "words", `{"text":"a"}`)
		if err == nil {
			err = h.cancel(waits)
		}
		if err != nil {
			t.Fatal(err)
		}
		rest := h.follow(waits, func([]string) {})
		if last := rest[len(rest)-1]; !strings.HasPrefix(last, `TASK_CANCELLED {"reason":"enough"`) || strings.Contains(strings.Join(rest, " "), "PROGRESS") {
			t.Errorf("%q", rest)
		}
		if err := h.cancel(long); err != nil {
			t.Fatal(err)
		}
	})
}
