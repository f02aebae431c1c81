package client_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

// exampleServer has one task, of three events, for the examples.
func exampleServer() *httptest.Server {
	event := func(id string, of taskbridge.EventType, payload string) client.Event {
		return client.Event{Type: of, TaskID: taskID, ID: id, CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Payload: []byte(payload)}
	}
	events := []client.Event{
		event(ordered(1), taskbridge.EventStarted, `{}`),
		event(ordered(2), taskbridge.EventProgress, `{"progress":50}`),
		event(ordered(3), taskbridge.EventCompleted, `{"result":"done"}`),
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			accept(w, r)
		case strings.HasSuffix(r.URL.Path, "/stream"):
			rest := events
			for i, e := range events {
				if e.ID == r.Header.Get("Last-Event-ID") {
					rest = events[i+1:]
				}
			}
			w.Header().Set("Content-Type", "text/event-stream")
			send(w, frames(rest...))
		default:
			http.NotFound(w, r)
		}
	}))
}
