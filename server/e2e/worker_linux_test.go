package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// worker is one run of a worker that a server posts tasks to.
type worker struct {
	t       *testing.T
	command *exec.Cmd
	address string
	log     *transcript
	exited  chan struct{}
}

// launchWorker starts the command in the folder, on the address, and returns once
// it listens.
func launchWorker(t *testing.T, dir, listen string, command ...string) *worker {
	t.Helper()
	w := &worker{t: t, log: newTranscript(), exited: make(chan struct{})}
	w.command = exec.Command(command[0], append(command[1:], "--secret-file", "secret", "--listen", listen)...)
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
		w.address, _, _ = strings.Cut(rest, "/tasks")
	case <-w.exited:
		t.Fatalf("the worker has ended:\n%s", w.log)
	case <-time.After(patience):
		t.Fatalf("the worker does not listen:\n%s", w.log)
	}
	return w
}

func (w *worker) kill() {
	_ = w.command.Process.Kill() // it may have ended
	<-w.exited
}

// workerBridge is a folder with a worker and a server that hands tasks to it.
type workerBridge struct {
	dir      string
	taskType string
	command  []string // of the worker
	worker   *worker
	server   *server
	client   *client
}

// openWorkerBridge starts the worker, with the folder "files" below its own, and
// the server with the example's configuration, but for the port.
func openWorkerBridge(t *testing.T, example, taskType string, command ...string) *workerBridge {
	t.Helper()
	b := &workerBridge{dir: t.TempDir(), taskType: taskType, command: command, client: newClient(t)}
	b.write(t, "secret", strings.Repeat("a shared secret ", 3)+"\n")
	if err := os.Mkdir(filepath.Join(b.dir, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.worker = launchWorker(t, b.dir, "127.0.0.1:0", command...)
	config, err := os.ReadFile(filepath.Join("../../examples", example, "taskbridge.yaml"))
	address := regexp.MustCompile(`http://[^/]*/tasks`)
	if err != nil || !address.Match(config) {
		t.Fatalf("%s, %v", config, err)
	}
	b.write(t, "taskbridge.yaml", address.ReplaceAllString(string(config), "http://"+b.worker.address+"/tasks"))
	b.server = launch(t, b.dir, "--config", "taskbridge.yaml", "--worker-token-lifetime", "2s")
	return b
}

// restartWorker kills the worker and starts it again on its address.
func (b *workerBridge) restartWorker(t *testing.T) {
	t.Helper()
	b.worker.kill()
	b.worker = launchWorker(t, b.dir, b.worker.address, b.command...)
}

func (b *workerBridge) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *workerBridge) create(t *testing.T, key, input string) string {
	t.Helper()
	task, err := b.client.create(b.server.url, key, b.taskType, input)
	if err != nil {
		t.Fatal(err)
	}
	return task.TaskID
}

// follow reads the stream to its end and calls each for its events.
func (b *workerBridge) follow(t *testing.T, task string, each func(event)) (events []event) {
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

func (b *workerBridge) end(t *testing.T) {
	t.Helper()
	if status := b.server.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// cancelInTheMiddle follows the task, and cancels it once it has made progress.
func (b *workerBridge) cancelInTheMiddle(t *testing.T, task string) []event {
	t.Helper()
	asked := false
	return b.follow(t, task, func(e event) {
		if e.Type != "TASK_PROGRESS" || asked {
			return
		}
		asked = true
		var answer created
		if err := b.client.call(http.MethodPost, b.server.url+"/api/v1/tasks/"+task+"/cancel", `{"reason":"enough"}`, &answer, http.StatusAccepted); err != nil {
			t.Error(err)
		}
	})
}

// killInTheMiddle follows the task, and kills the worker and starts it again once
// it has made progress.
func (b *workerBridge) killInTheMiddle(t *testing.T, task string) []event {
	t.Helper()
	killed := false
	return b.follow(t, task, func(e event) {
		if e.Type == "TASK_PROGRESS" && !killed {
			killed = true
			b.restartWorker(t)
		}
	})
}
