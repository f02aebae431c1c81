package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
)

// start runs the program on a free port and stops it when the test ends.
func start(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run returned %v", err)
		}
	})
	return "http://" + listener.Addr().String()
}

func do(t *testing.T, user, method, address, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(user, "")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func create(t *testing.T, server, user, body string) (id string) {
	t.Helper()
	response := do(t, user, http.MethodPost, server+"/reports", body)
	var created struct{ ID string }
	if err := json.NewDecoder(response.Body).Decode(&created); err != nil || created.ID == "" {
		t.Fatalf("status %d, id %q, %v", response.StatusCode, created.ID, err)
	}
	return created.ID
}

type event struct {
	Type, EventID string
	Payload       struct {
		Progress float64
		Result   struct{ Report string }
	}
}

func watch(t *testing.T, address string) (events []event) {
	t.Helper()
	response := do(t, "alice", http.MethodGet, address, "")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("status %d", response.StatusCode)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestAReportIsMadeOnceWatchedToItsEndAndResumedInTheMiddle(t *testing.T) {
	server := start(t)
	const march = `{"name":"march","stepMillis":1}`
	id := create(t, server, "alice", march)
	if again := create(t, server, "alice", march); again != id {
		t.Errorf("asking again made the task %s beside %s", again, id)
	}

	events := watch(t, server+"/reports/"+id+"/events")
	if len(events) != 12 { // the start, ten steps, the end
		t.Fatalf("got %d events: %+v", len(events), events)
	}
	if first, last := events[0], events[11]; first.Type != "TASK_STARTED" || last.Type != "TASK_COMPLETED" || last.Payload.Result.Report != "march" {
		t.Errorf("the stream goes from %+v to %+v", first, last)
	}

	rest := watch(t, server+"/reports/"+id+"/events?after="+events[4].EventID)
	if len(rest) != 7 || rest[0] != events[5] {
		t.Errorf("behind %s come %d events, the first %+v", events[4].EventID, len(rest), rest[0])
	}
}

func TestAnotherUsersReportIsNotFound(t *testing.T) {
	server := start(t)
	id := create(t, server, "alice", `{"name":"secret","stepMillis":1}`)
	for _, path := range []string{id, "000-nothing"} {
		if response := do(t, "mallory", http.MethodGet, server+"/reports/"+path+"/events", ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d", path, response.StatusCode)
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	server := start(t)
	for _, c := range []struct {
		body   string
		status int
	}{
		{`nonsense`, http.StatusBadRequest},
		{`{"name":""}`, http.StatusBadRequest},
		{`{"name":"taken","stepMillis":1}`, http.StatusOK},
		{`{"name":"taken","stepMillis":2}`, http.StatusConflict},
	} {
		if response := do(t, "alice", http.MethodPost, server+"/reports", c.body); response.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.body, response.StatusCode, c.status)
		}
	}
}
