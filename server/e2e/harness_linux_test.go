package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/taskbridge/taskbridge/server/internal/app" // see buildCommands
)

// The commands under test, built once.
var taskbridgeCommand, checksumsCommand, remoteWorkerCommand, asynqWorkerCommand string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "taskbridge-e2e-")
	status := 1
	if err == nil {
		if err = buildCommands(dir); err == nil {
			status = m.Run()
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// buildCommands builds the server with the race detector if the tests have it:
// a race then shows in its exit status.
func buildCommands(dir string) error {
	taskbridgeCommand, checksumsCommand = filepath.Join(dir, "taskbridge"), filepath.Join(dir, "checksums")
	remoteWorkerCommand = filepath.Join(dir, "remote-worker")
	asynqWorkerCommand = filepath.Join(dir, "asynq-worker")
	// go test keeps results for as long as nothing that the test was built from
	// or has read changes: the import of the app above and this are the command.
	if _, err := os.ReadFile("../cmd/taskbridge/main.go"); err != nil {
		return err
	}
	server := []string{"build", "-o", taskbridgeCommand}
	if raceDetector {
		server = append(server, "-race")
	}
	for _, build := range []struct {
		from string
		args []string
	}{
		{"../cmd/taskbridge", server},
		{"../../examples/checksums", []string{"build", "-o", checksumsCommand}},
		{"../../examples/remote-worker", []string{"build", "-o", remoteWorkerCommand}},
		{"../../examples/asynq-worker", []string{"build", "-o", asynqWorkerCommand}},
	} {
		command := exec.Command("go", append(build.args, ".")...)
		command.Dir = build.from
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", build.from, err, output)
		}
	}
	return nil
}

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// server is one run of the command.
type server struct {
	t       *testing.T
	command *exec.Cmd
	url     string
	log     *transcript
	exited  chan struct{} // closed once it has ended and err is set
	err     error
}

// launch starts "taskbridge serve" in the folder, on a free port, and returns
// once it listens.
func launch(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := begin(t, dir, args...)
	s.await()
	return s
}

// begin starts it and does not wait for anything.
func begin(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{t: t, log: newTranscript(), exited: make(chan struct{})}
	s.command = exec.Command(taskbridgeCommand, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	s.command.Dir = dir
	s.command.Stderr = s.log
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.command.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("log of the server with pid %d:\n%s", s.command.Process.Pid, s.log)
		}
	})
	return s
}

// await returns once the server listens.
func (s *server) await() {
	s.t.Helper()
	const announcement = "listening on "
	select {
	case line := <-s.log.line(announcement):
		_, rest, _ := strings.Cut(line, announcement)
		s.url, _, _ = strings.Cut(rest, `"`)
	case <-s.exited:
		s.t.Fatalf("the server has ended: %v\n%s", s.err, s.log)
	case <-time.After(patience):
		s.t.Fatalf("the server does not listen:\n%s", s.log)
	}
}

// kill ends the server as a power cut would end it.
func (s *server) kill() {
	_ = s.command.Process.Kill() // it may have ended
	<-s.exited
}

// terminate asks for a shutdown and returns the exit status.
func (s *server) terminate() int {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatal("the server does not end")
	}
	return s.command.ProcessState.ExitCode()
}

// transcript keeps what a process writes and tells of lines.
type transcript struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	waiters map[string]chan string
}

func newTranscript() *transcript { return &transcript{waiters: map[string]chan string{}} }

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	for text, found := range w.waiters {
		if line, ok := w.find(text); ok {
			found <- line
			delete(w.waiters, text)
		}
	}
	return len(p), nil
}

// find is called with the mutex held.
func (w *transcript) find(text string) (string, bool) {
	for line := range strings.Lines(w.buf.String()) {
		if strings.HasSuffix(line, "\n") && strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}

// line returns the first line that has the text, once it is there.
func (w *transcript) line(text string) <-chan string {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := make(chan string, 1)
	if line, ok := w.find(text); ok {
		found <- line
	} else {
		w.waiters[text] = found
	}
	return found
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// created is the answer to a creation.
type created struct {
	TaskID       string `json:"taskId"`
	Status       string `json:"status"`
	Deduplicated bool   `json:"deduplicated"`
}

// row is a task as the server shows it.
type row struct {
	TaskID     string          `json:"taskId"`
	TaskType   string          `json:"taskType"`
	Status     string          `json:"status"`
	Attempt    int             `json:"attempt"`
	Result     json.RawMessage `json:"result"`
	Failure    *failure        `json:"failure"`
	NextCursor string          `json:"nextCursor"`
}

type failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// event is an envelope, and the bytes that it came as.
type event struct {
	Type    string          `json:"type"`
	EventID string          `json:"eventId"`
	Payload json.RawMessage `json:"payload"`
	raw     string
}

func (e event) terminal() bool {
	return e.Type == "TASK_COMPLETED" || e.Type == "TASK_FAILED" || e.Type == "TASK_CANCELLED"
}

func decodeEvent(raw []byte) (event, error) {
	e := event{raw: string(raw)}
	err := json.Unmarshal(raw, &e)
	return e, err
}

// client makes requests. Its errors are those of the connection; answers that
// are not wanted are of the type *unexpected.
type client struct{ http *http.Client }

func newClient(t *testing.T) *client {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	t.Cleanup(transport.CloseIdleConnections)
	return &client{&http.Client{Transport: transport}}
}

type unexpected struct {
	status int
	body   string
}

func (e *unexpected) Error() string { return fmt.Sprintf("answered %d: %s", e.status, e.body) }

// call sends a request and decodes the answer, which must have one of the
// wanted statuses.
func (c *client) call(method, url, body string, answer any, want ...int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	for _, status := range want {
		if response.StatusCode == status {
			return json.Unmarshal(content, answer)
		}
	}
	return &unexpected{response.StatusCode, string(content)}
}

func (c *client) create(url, key, taskType, input string) (created, error) {
	var answer created
	body := fmt.Sprintf(`{"clientRequestId":%q,"taskType":%q,"input":%s}`, key, taskType, input)
	err := c.call(http.MethodPost, url+"/api/v1/tasks", body, &answer, http.StatusCreated, http.StatusOK)
	return answer, err
}

func (c *client) task(url, taskID string) (row, error) {
	var answer row
	err := c.call(http.MethodGet, url+"/api/v1/tasks/"+taskID, "", &answer, http.StatusOK)
	return answer, err
}

// events polls the whole stream.
func (c *client) events(url, taskID string) ([]event, error) {
	var all []event
	for cursor := ""; ; {
		var page struct {
			Events  []json.RawMessage `json:"events"`
			Next    *string           `json:"nextAfterEventId"`
			HasMore bool              `json:"hasMore"`
		}
		err := c.call(http.MethodGet, url+"/api/v1/tasks/"+taskID+"/events?gap=error&maxEvents=500&afterEventId="+cursor, "", &page, http.StatusOK)
		if err != nil {
			return nil, err
		}
		for _, raw := range page.Events {
			e, err := decodeEvent(raw)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
		if !page.HasMore {
			return all, nil
		}
		cursor = *page.Next
	}
}

// follow reads the task's stream from behind the cursor and calls each for its
// events. It returns nil when the stream ends in good form, and
// io.ErrUnexpectedEOF or another error of the connection when it is cut.
func (c *client) follow(ctx context.Context, url, taskID, cursor string, each func(event)) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/tasks/"+taskID+"/events/stream?gap=error", nil)
	if err != nil {
		return err
	}
	if cursor != "" {
		r.Header.Set("Last-Event-ID", cursor)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		return nil
	default:
		content, err := io.ReadAll(response.Body)
		return errors.Join(&unexpected{response.StatusCode, string(content)}, err)
	}
	// An event counts once its block is complete, as in a browser.
	lines := bufio.NewReader(response.Body)
	var id string
	var data []byte
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch line = bytes.TrimSuffix(line, []byte("\n")); {
		case bytes.HasPrefix(line, []byte("id: ")):
			id = string(line[4:])
		case bytes.HasPrefix(line, []byte("data: ")):
			data = bytes.Clone(line[6:])
		case len(line) == 0 && data != nil:
			e, err := decodeEvent(data)
			if err != nil {
				return err
			}
			if e.Type != "HEARTBEAT" {
				if e.EventID != id {
					return fmt.Errorf("the event %s came with the id %s", e.EventID, id)
				}
				each(e)
			}
			id, data = "", nil
		}
	}
}
