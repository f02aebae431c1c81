package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func routes(bridge *taskbridge.Bridge) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /audits/{name}", func(w http.ResponseWriter, r *http.Request) { makeAudit(bridge, w, r) })
	mux.HandleFunc("GET /audits/{id}/events", func(w http.ResponseWriter, r *http.Request) { watchAudit(bridge, w, r) })
	mux.HandleFunc("DELETE /audits/{id}", func(w http.ResponseWriter, r *http.Request) { cancelAudit(bridge, w, r) })
	return mux
}

// caller is who asks, which is the host's business. This one believes everybody.
func caller(r *http.Request) taskbridge.Principal {
	user, _, _ := r.BasicAuth()
	return taskbridge.Principal{Subject: user}
}

// makeAudit uses the audit's name as the idempotency key.
func makeAudit(bridge *taskbridge.Bridge, w http.ResponseWriter, r *http.Request) {
	created, err := bridge.Creation.CreateTask(r.Context(), caller(r), taskbridge.CreateTaskRequest{
		ClientRequestID: r.PathValue("name"), TaskType: "audit",
	})
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": created.Task.ID, "status": created.Task.Status})
}

func cancelAudit(bridge *taskbridge.Bridge, w http.ResponseWriter, r *http.Request) {
	if _, _, err := bridge.Cancellation.CancelTask(r.Context(), caller(r), r.PathValue("id"), "no longer wanted"); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// watchAudit writes the audit's events, a line of JSON each, until the end.
func watchAudit(bridge *taskbridge.Bridge, w http.ResponseWriter, r *http.Request) {
	events, err := bridge.Subscription.Subscribe(r.Context(), caller(r), taskbridge.SubscribeRequest{TaskID: r.PathValue("id")})
	if err != nil {
		fail(w, err)
		return
	}
	defer events.Close()
	out := http.NewResponseController(w)
	for {
		frames, err := events.Next(r.Context(), time.Minute)
		if err != nil { // io.EOF is the end of the task
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

func fail(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		status = http.StatusNotFound
	case errors.Is(err, taskbridge.ErrForbidden):
		status = http.StatusForbidden
	case errors.Is(err, taskbridge.ErrInvalidArgument):
		status = http.StatusBadRequest
	}
	http.Error(w, err.Error(), status)
}
