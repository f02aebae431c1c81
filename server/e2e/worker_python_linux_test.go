package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pythonWorker is one run of examples/python-worker.
type pythonWorker struct {
	t       *testing.T
	command *exec.Cmd
	address string
	log     *transcript
	exited  chan struct{}
}

// launchPython starts the worker in the folder, on the address, and returns once
// it listens. Its files are those of the folder "files".
func launchPython(t *testing.T, dir, listen string) *pythonWorker {
	t.Helper()
	program, err := filepath.Abs("../../examples/python-worker/worker.py")
	if err != nil {
		t.Fatal(err)
	}
	w := &pythonWorker{t: t, log: newTranscript(), exited: make(chan struct{})}
	w.command = exec.Command("python3", "-B", program, "--listen", listen, "--secret-file", "secret", "--root", "files")
	w.command.Dir = dir
	w.command.Stderr = w.log
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = w.command.Wait()
		close(w.exited)
	}()
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			t.Logf("log of the worker with pid %d:\n%s", w.command.Process.Pid, w.log)
		}
	})
	const announcement = "listening on http://"
	select {
	case line := <-w.log.line(announcement):
		_, rest, _ := strings.Cut(line, announcement)
		w.address = strings.TrimSuffix(strings.TrimSpace(rest), "/tasks")
	case <-w.exited:
		t.Fatalf("the worker has ended:\n%s", w.log)
	case <-time.After(patience):
		t.Fatalf("the worker does not listen:\n%s", w.log)
	}
	return w
}

func (w *pythonWorker) kill() {
	_ = w.command.Process.Kill() // it may have ended
	<-w.exited
}

// pythonBridge is a folder with a worker and a server that hands tasks to it.
type pythonBridge struct {
	dir    string
	worker *pythonWorker
	server *server
	client *client
}

func openPythonBridge(t *testing.T) *pythonBridge {
	t.Helper()
	b := &pythonBridge{dir: t.TempDir(), client: newClient(t)}
	b.write(t, "secret", strings.Repeat("a shared secret ", 3)+"\n")
	if err := os.Mkdir(filepath.Join(b.dir, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.worker = launchPython(t, b.dir, "127.0.0.1:0")
	// The example's own configuration, but for the port.
	config, err := os.ReadFile("../../examples/python-worker/taskbridge.yaml")
	if err != nil || !strings.Contains(string(config), "127.0.0.1:9000") {
		t.Fatalf("%s, %v", config, err)
	}
	b.write(t, "taskbridge.yaml", strings.Replace(string(config), "127.0.0.1:9000", b.worker.address, 1))
	b.server = launch(t, b.dir, "--config", "taskbridge.yaml", "--worker-token-lifetime", "2s")
	return b
}

func (b *pythonBridge) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *pythonBridge) create(t *testing.T, key, input string) string {
	t.Helper()
	task, err := b.client.create(b.server.url, key, "sha256", input)
	if err != nil {
		t.Fatal(err)
	}
	return task.TaskID
}

// follow reads the stream to its end and calls each for its events.
func (b *pythonBridge) follow(t *testing.T, task string, each func(event)) (events []event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.client.follow(ctx, b.server.url, task, "", func(e event) {
		events = append(events, e)
		each(e)
	}); err != nil {
		t.Fatalf("%v after %d events\n%s", err, len(events), b.worker.log)
	}
	return events
}

// count counts the events whose type and payload have the text.
func count(events []event, text string) (n int) {
	for _, e := range events {
		if strings.Contains(e.Type+" "+string(e.Payload), text) {
			n++
		}
	}
	return n
}

func (b *pythonBridge) end(t *testing.T) {
	t.Helper()
	if status := b.server.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
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
	asked := false
	events := b.follow(t, task, func(e event) {
		if e.Type == "TASK_PROGRESS" && !asked {
			asked = true
			var answer created
			if err := b.client.call(http.MethodPost, b.server.url+"/api/v1/tasks/"+task+"/cancel", `{"reason":"enough"}`, &answer, http.StatusAccepted); err != nil {
				t.Error(err)
			}
		}
	})
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
	killed := false
	events := b.follow(t, task, func(e event) {
		if e.Type == "TASK_PROGRESS" && !killed {
			killed = true
			b.worker.kill()
			b.worker = launchPython(t, b.dir, b.worker.address)
		}
	})
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
