package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/taskbridge/taskbridge/adapters/process"
)

// start runs the program on a free port and stops it when the test ends.
func start(t *testing.T, command process.Command) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	state := t.TempDir()
	go func() { ended <- run(ctx, listener, state, command) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run returned %v", err)
		}
	})
	return "http://" + listener.Addr().String() + "/audits/"
}

func do(t *testing.T, user, method, address string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
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

func create(t *testing.T, audits, name string) (id string) {
	t.Helper()
	response := do(t, "alice", http.MethodPut, audits+name)
	var created struct{ ID string }
	if err := json.NewDecoder(response.Body).Decode(&created); err != nil || created.ID == "" {
		t.Fatalf("status %d, id %q, %v", response.StatusCode, created.ID, err)
	}
	return created.ID
}

// watch reads the events to the end, each its type and payload, and calls each.
func watch(t *testing.T, audits, id string, each func(event string)) (events []string) {
	t.Helper()
	response := do(t, "alice", http.MethodGet, audits+id+"/events")
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		var e struct {
			Type    string
			Payload json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		events = append(events, e.Type+" "+string(e.Payload))
		each(events[len(events)-1])
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestAnAuditIsMadeOnceAndHasTheSumOfEveryFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	audits := start(t, audit(dir))
	id := create(t, audits, "monday")
	if again := create(t, audits, "monday"); again != id {
		t.Errorf("asking again made the audit %s beside %s", again, id)
	}
	events := watch(t, audits, id, func(string) {})
	text := strings.Join(events, "\n")
	for _, name := range []string{"a", "b"} {
		sum := sha256.Sum256([]byte(name))
		if line := hex.EncodeToString(sum[:]) + "  ./" + name; strings.Count(text, line) != 1 {
			t.Errorf("no single %s in\n%s", line, text)
		}
	}
	if !strings.HasPrefix(events[0], "TASK_STARTED") || !strings.HasPrefix(events[len(events)-1], "TASK_COMPLETED") {
		t.Errorf("%s", text)
	}
	if response := do(t, "mallory", http.MethodGet, audits+id+"/events"); response.StatusCode != http.StatusNotFound {
		t.Errorf("somebody else's: %d", response.StatusCode)
	}
}

func TestACancelledAuditStopsItsCommand(t *testing.T) {
	audits := start(t, process.Command{Path: "sh", Args: []string{"-c", "echo begun; exec sleep 1000"}, PlainLines: true})
	id := create(t, audits, "endless")
	events := watch(t, audits, id, func(event string) {
		if strings.Contains(event, "begun") {
			if response := do(t, "alice", http.MethodDelete, audits+id); response.StatusCode != http.StatusAccepted {
				t.Errorf("status %d", response.StatusCode)
			}
		}
	})
	if last := events[len(events)-1]; !strings.HasPrefix(last, `TASK_CANCELLED {"reason":"no longer wanted"`) {
		t.Errorf("%q", events)
	}
}

func TestAShutdownStopsWhatRuns(t *testing.T) {
	// The clean-up waits for the end of run, which waits for the command's.
	audits := start(t, process.Command{Path: "sleep", Args: []string{"1000"}})
	create(t, audits, "endless")
}
