package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goSource is the folder that the main job is done on.
func goSource(t *testing.T) string {
	t.Helper()
	output, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(output)), "src")
}

func TestTheChecksumsOfTheGoSourceTreeAreThoseOfSha256sum(t *testing.T) {
	dir, c := goSource(t), newClient(t)
	s := launch(t, t.TempDir(), "--task", "checksums="+checksumsCommand)
	task, err := c.create(s.url, "checksums-1", "checksums", fmt.Sprintf(`{"dir":%q}`, dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var events []event
	if err := c.follow(ctx, s.url, task.TaskID, "", func(e event) { events = append(events, e) }); err != nil {
		t.Fatal(err)
	}

	last := -1.0
	for i, e := range events {
		switch {
		case i == 0 && e.Type == "TASK_STARTED", i == len(events)-1 && e.Type == "TASK_COMPLETED":
		case i == 0, i == len(events)-1, e.Type != "TASK_PROGRESS":
			t.Fatalf("event %d is %s", i, e.raw)
		default:
			var progress struct{ Progress float64 }
			if err := json.Unmarshal(e.Payload, &progress); err != nil || progress.Progress <= last {
				t.Errorf("after %v %%: %s", last, e.raw)
			}
			last = progress.Progress
		}
	}
	if last != 100 || len(events) != 102 {
		t.Errorf("%d events, the last progress is %v", len(events), last)
	}

	// The same, computed by other programs.
	shell := exec.Command("sh", "-c", "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum; find . -type f | wc -l")
	shell.Dir = dir
	output, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(output)) // sum, "-", count
	finished, err := c.task(s.url, task.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		SHA256 string `json:"sha256"`
		Files  int    `json:"files"`
	}
	if err := json.Unmarshal(finished.Result, &result); err != nil {
		t.Fatal(err)
	}
	if finished.Status != "COMPLETED" || result.SHA256 != words[0] || fmt.Sprint(result.Files) != words[2] {
		t.Errorf("row %+v, result %+v, want %v", finished, result, words)
	}
	t.Logf("%d files, SHA-256 of their list %s", result.Files, result.SHA256)
}

// script hashes file by file, in children of a child, and leaves grandchildren
// about that nobody waits for, one of them in a session of its own.
const script = `
dir=$(sed 's/.*"dir":"\([^"]*\)".*/\1/')
(sleep 1001 & sleep 1002) &
setsid sh -c 'trap "" TERM HUP; sleep 1003 & wait' &
total=$(find "$dir" -type f | wc -l)
find "$dir" -type f | {
	n=0
	while IFS= read -r file; do
		sha256sum "$file" > /dev/null
		n=$((n + 1))
		[ $((n % 50)) -ne 0 ] || echo "::taskbridge {\"progress\":$((100 * n / total))}"
	done
}
`

func TestACancelledJobIsGoneWithItsGrandchildren(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	path := filepath.Join(dir, "hash.sh")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, dir, "--task", "hash=sh hash.sh", "--process-grace", "500ms")
	task, err := c.create(s.url, "hash-1", "hash", fmt.Sprintf(`{"dir":%q}`, goSource(t)))
	if err != nil {
		t.Fatal(err)
	}
	mark := "TASKBRIDGE_TASK_ID=" + task.TaskID
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last event
	progressed, asked := 0, false
	err = c.follow(ctx, s.url, task.TaskID, "", func(e event) {
		last = e
		if progressed++; progressed < 5 || asked {
			return
		}
		asked = true
		if running := processesWith(t, mark); len(running) < 5 {
			t.Errorf("in the middle of the job only these are running: %+v", running)
		}
		var answer struct{ Status string }
		err := c.call(http.MethodPost, s.url+"/api/v1/tasks/"+task.TaskID+"/cancel", `{"reason":"enough"}`, &answer, http.StatusAccepted)
		if err != nil || answer.Status != "CANCELLATION_REQUESTED" {
			t.Errorf("cancel: %+v, %v", answer, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// The end is recorded after everything has gone.
	if left := processesWith(t, mark); len(left) > 0 {
		t.Errorf("left behind: %+v", left)
	}
	var payload struct{ Reason string }
	if err := json.Unmarshal(last.Payload, &payload); err != nil || last.Type != "TASK_CANCELLED" || payload.Reason != "enough" {
		t.Errorf("end %s", last.raw)
	}
	if finished, err := c.task(s.url, task.TaskID); err != nil || finished.Status != "CANCELLED" {
		t.Errorf("row %+v, %v", finished, err)
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
