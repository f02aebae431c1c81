package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openPythonBridge has the worker of examples/python-worker, which reads files of
// the folder "files".
func openPythonBridge(t *testing.T) *workerBridge {
	t.Helper()
	program, err := filepath.Abs("../../examples/python-worker/worker.py")
	if err != nil {
		t.Fatal(err)
	}
	return openWorkerBridge(t, "python-worker", "sha256", "python3", "-B", program, "--root", "files")
}

func TestAWorkerInPythonDoesTasksAndFailsThem(t *testing.T) {
	b := openPythonBridge(t)
	var want []map[string]any
	for name, content := range map[string]string{"a": "alpha", "empty": "", "large": strings.Repeat("0123456789", 300_000)} {
		b.write(t, "files/"+name, content)
		sum := sha256.Sum256([]byte(content))
		want = append(want, map[string]any{"name": name, "bytes": len(content), "sha256": hex.EncodeToString(sum[:])})
	}
	names := make([]string, len(want))
	for i, file := range want {
		names[i] = fmt.Sprintf("%q", file["name"])
	}
	task := b.create(t, "sums", `{"files":[`+strings.Join(names, ",")+`]}`)
	events := b.follow(t, task, func(event) {})
	checkStream(t, task, events)
	var end struct {
		Result struct{ Files json.RawMessage }
	}
	if err := json.Unmarshal(events[len(events)-1].Payload, &end); err != nil {
		t.Fatal(err)
	}
	if got, expected := canonical(t, end.Result.Files), canonical(t, want); got != expected {
		t.Errorf("result %s, want %s", got, expected)
	}
	if count(events, `"progress":100`) == 0 || count(events, "TASK_MESSAGE") != 3 {
		t.Errorf("%s", rawOf(events))
	}

	for input, code := range map[string]string{
		`{"files":["a","nothing"]}`: "UNREADABLE", `{"files":["../secret"]}`: "INVALID_INPUT", `{"files":["."]}`: "INVALID_INPUT",
	} {
		task := b.create(t, input, input)
		if events := b.follow(t, task, func(event) {}); count(events, `TASK_FAILED {"code":"`+code+`"`) != 1 {
			t.Errorf("%s: %s", input, rawOf(events))
		}
	}
	// What the worker turns down fails at once, and says why.
	_, err := b.client.create(b.server.url, "bad", "sha256", `{"files":"a"}`)
	if err == nil || !strings.Contains(err.Error(), "TASK_SUBMISSION_ERROR") || !strings.Contains(err.Error(), "files must be a list") {
		t.Errorf("%v", err)
	}
	b.end(t)
}

func canonical(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err == nil {
		value = nil
		if err = json.Unmarshal(text, &value); err == nil {
			text, err = json.Marshal(value)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAWorkerInPythonStopsForACancellation(t *testing.T) {
	b := openPythonBridge(t)
	b.write(t, "files/slow", strings.Repeat("x", 100_000))
	task := b.create(t, "slow", `{"files":["slow"],"bytesPerSecond":100}`) // a thousand seconds
	events := b.cancelInTheMiddle(t, task)
	checkStream(t, task, events)
	if last := events[len(events)-1]; last.Type != "TASK_CANCELLED" || !strings.Contains(string(last.Payload), `"reason":"enough"`) ||
		!strings.Contains(string(last.Payload), "of 100000 bytes") {
		t.Errorf("%s", rawOf(events))
	}
	b.end(t)
}

func TestAWorkerInPythonThatIsKilledGoesOnWhenItIsStartedAgain(t *testing.T) {
	b := openPythonBridge(t)
	const size = 40_000
	b.write(t, "files/slow", strings.Repeat("x", size))
	task := b.create(t, "slow", fmt.Sprintf(`{"files":["slow"],"bytesPerSecond":%d}`, size/4))
	events := b.killInTheMiddle(t, task)
	checkStream(t, task, events)
	if count(events, "TASK_STARTED") != 1 || count(events, `"level":"warning"`) != 1 || count(events, "TASK_COMPLETED") != 1 {
		t.Errorf("%s", rawOf(events))
	}
	sum := sha256.Sum256([]byte(strings.Repeat("x", size)))
	final, err := b.client.task(b.server.url, task)
	if err != nil || final.Attempt != 2 || !strings.Contains(string(final.Result), hex.EncodeToString(sum[:])) {
		t.Errorf("%+v, %v", final, err)
	}
	b.end(t)
}

func TestAWorkerInPythonOutlivesTheServerAndItsOwnToken(t *testing.T) {
	b := openPythonBridge(t)
	const size = 40_000
	b.write(t, "files/slow", strings.Repeat("x", size))
	task := b.create(t, "slow", fmt.Sprintf(`{"files":["slow"],"bytesPerSecond":%d}`, size/4))
	address := strings.TrimPrefix(b.server.url, "http://")
	if err := b.client.follow(t.Context(), b.server.url, task, "", func(e event) {
		if e.Type == "TASK_PROGRESS" {
			b.server.kill()
		}
	}); err == nil {
		t.Fatal("the stream ended in good form")
	}
	// The pauses before the seventh try add up to more than its token is good for.
	select {
	case <-b.worker.log.line("had no answer in try 7"):
	case <-time.After(patience):
		t.Fatal("the worker does not try again")
	}
	b.server = begin(t, b.dir, "--config", "taskbridge.yaml", "--worker-token-lifetime", "2s", "--listen", address)
	b.server.await()
	events := b.follow(t, task, func(event) {})
	checkStream(t, task, events)
	if !strings.Contains(b.worker.log.String(), "an expired token was renewed") {
		t.Error("the token has not expired")
	}
	if count(events, "TASK_STARTED") != 1 || count(events, `"level":"warning"`) != 0 || count(events, "TASK_COMPLETED") != 1 {
		t.Errorf("%s", rawOf(events))
	}
	b.end(t)
}

func TestAWorkerInPythonTakesNothingThatTheServerHasNotSigned(t *testing.T) {
	b := openPythonBridge(t)
	var answer map[string]any
	err := b.client.call(http.MethodPost, "http://"+b.worker.address+"/tasks",
		`{"type":"task.submitted","data":{"taskId":"000-forged","taskType":"sha256","input":{"files":["a"]},"url":"http://127.0.0.1:1","token":"x"}}`,
		&answer, http.StatusUnauthorized)
	if err != nil || answer["message"] == "" {
		t.Errorf("%v, %v", answer, err)
	}
	b.end(t)
}
