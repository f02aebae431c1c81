package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// worker takes tasks and does their work. It knows the lifecycle by its interface
// alone: whether that is remote makes no difference to it.
type worker struct {
	lifecycle taskbridge.TaskLifecycle
	journal   journal
	secret    []byte
	slots     chan struct{} // full while as many tasks are at work as may be

	life    context.Context
	end     context.CancelFunc
	working sync.WaitGroup

	mu    sync.Mutex
	known map[string]bool // the tasks that are in the journal
}

func newWorker(lifecycle taskbridge.TaskLifecycle, journal journal, secret []byte, atOnce int) *worker {
	w := &worker{lifecycle: lifecycle, journal: journal, secret: secret, slots: make(chan struct{}, max(1, atOnce)), known: map[string]bool{}}
	w.life, w.end = context.WithCancel(context.Background())
	return w
}

// close stops the work and waits for it. Its tasks go on with the next worker
// that has the journal.
func (w *worker) close() {
	w.end()
	w.working.Wait()
}

// resume goes on with what an earlier process had accepted.
func (w *worker) resume() error {
	tasks, err := w.journal.tasks()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, task := range tasks {
		if !w.known[task.TaskID] {
			slog.Info("going on with a task that was accepted before", "taskId", task.TaskID)
			w.known[task.TaskID] = true
			w.working.Go(func() { w.work(task) })
		}
	}
	return nil
}

// ServeHTTP takes a message of the server.
func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 4<<20))
	if err != nil {
		answer(rw, http.StatusBadRequest, "the message cannot be read")
		return
	}
	if !signed(w.secret, r.Header, body, time.Now()) {
		answer(rw, http.StatusUnauthorized, "the signature is not the server's")
		return
	}
	var message struct {
		Type string `json:"type"`
		Data struct {
			accepted
			TaskType string          `json:"taskType"`
			Input    json.RawMessage `json:"input"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		answer(rw, http.StatusBadRequest, "the message cannot be read")
		return
	}
	switch {
	case message.Type == "task.cancel":
		// All tasks have been started, even those that wait: they learn by their runs.
		answer(rw, http.StatusAccepted, "")
	case message.Type != "task.submitted" || message.Data.TaskType != "words":
		answer(rw, http.StatusUnprocessableEntity, "this worker does not know what that is")
	default:
		if _, err := readInput(message.Data.Input); err != nil {
			answer(rw, http.StatusUnprocessableEntity, err.Error())
			return
		}
		if err := w.take(message.Data.accepted); err != nil {
			slog.Error("a task cannot be written down", "error", err)
			answer(rw, http.StatusServiceUnavailable, "the task cannot be written down")
			return
		}
		answer(rw, http.StatusAccepted, "")
	}
}

func answer(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// signed reports whether the message is the server's: Standard Webhooks, version 1.
func signed(secret []byte, header http.Header, body []byte, now time.Time) bool {
	id, timestamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for given := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		if hmac.Equal([]byte(want), []byte(given)) {
			return true
		}
	}
	return false
}

// take writes the task down and begins. One that is known is not taken twice.
func (w *worker) take(task accepted) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known[task.TaskID] || w.life.Err() != nil {
		return w.life.Err()
	}
	if err := w.journal.add(task); err != nil {
		return err
	}
	w.known[task.TaskID] = true
	w.working.Go(func() { w.work(task) })
	return nil
}

// work sees a task to its end, or leaves it in the journal when the worker stops.
func (w *worker) work(task accepted) {
	err := w.attempt(task)
	if w.life.Err() != nil {
		return
	}
	if err != nil {
		slog.Info("a task is not worked on any more", "taskId", task.TaskID, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, task.TaskID)
	if err := w.journal.remove(task.TaskID); err != nil {
		slog.Error("a task cannot be taken off the journal", "taskId", task.TaskID, "error", err)
	}
}

// attempt does the work, under a new claim each time: it is not that of the
// process before. An error means that there is nothing more to report.
func (w *worker) attempt(task accepted) (err error) {
	run, err := w.lifecycle.Start(w.life, task.TaskID, taskbridge.Claim{ID: rand.Text(), Token: task.Token})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-run.CancelRequested():
		return run.Cancelled(w.life, "before the work began")
	case <-run.Done():
		return run.Err()
	case <-w.life.Done():
		return w.life.Err()
	}
	return countWords(w.life, run)
}
