package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// script says what the fake executor does for a report: ten steps of a second
// at most, and the report's name as the result.
func script(task taskbridge.Task) (fakes.Script, error) {
	var report struct {
		Name       string `json:"name"`
		StepMillis *int   `json:"stepMillis"`
	}
	if err := json.Unmarshal(task.Input, &report); err != nil {
		return fakes.Script{}, err
	}
	step := time.Second
	if report.StepMillis != nil {
		step = min(step, time.Duration(*report.StepMillis)*time.Millisecond)
	}
	result, err := json.Marshal(map[string]string{"report": report.Name})
	return fakes.Script{Ticks: 10, TickInterval: step, Result: result}, err
}

func routes(bridge *taskbridge.Bridge) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reports", func(w http.ResponseWriter, r *http.Request) { createReport(bridge, w, r) })
	mux.HandleFunc("GET /reports/{id}/events", func(w http.ResponseWriter, r *http.Request) { watchReport(bridge, w, r) })
	return mux
}

// caller is who asks, which is the host's business. This one believes everybody.
func caller(r *http.Request) taskbridge.Principal {
	user, _, _ := r.BasicAuth()
	return taskbridge.Principal{Subject: user}
}

// createReport uses the report's name as the idempotency key: asking again for
// the same report gives the same task.
func createReport(bridge *taskbridge.Bridge, w http.ResponseWriter, r *http.Request) {
	input, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var report struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(input, &report); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	created, err := bridge.Creation.CreateTask(r.Context(), caller(r), taskbridge.CreateTaskRequest{
		ClientRequestID: report.Name, TaskType: "report", Input: input,
	})
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": created.Task.ID, "status": created.Task.Status})
}

// watchReport writes the report's events, a line of JSON each, until the end.
// With ?after=EVENT_ID it goes on behind that event.
func watchReport(bridge *taskbridge.Bridge, w http.ResponseWriter, r *http.Request) {
	after, err := taskbridge.ParseCursor(r.FormValue("after"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	events, err := bridge.Subscription.Subscribe(r.Context(), caller(r), taskbridge.SubscribeRequest{
		TaskID: r.PathValue("id"), After: after,
	})
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	defer events.Close()
	out := http.NewResponseController(w)
	for {
		frames, err := events.Next(r.Context(), time.Minute)
		if err != nil { // io.EOF is the end of the task; behind any other the client asks again
			return
		}
		for _, frame := range frames {
			if _, err := fmt.Fprintf(w, "%s\n", frame.Envelope); err != nil {
				return
			}
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		return http.StatusNotFound
	case errors.Is(err, taskbridge.ErrForbidden):
		return http.StatusForbidden
	case errors.Is(err, taskbridge.ErrIdempotencyConflict):
		return http.StatusConflict
	case errors.Is(err, taskbridge.ErrInvalidArgument), errors.Is(err, taskbridge.ErrPayloadTooLarge):
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}
