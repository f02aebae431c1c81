package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// signal sends a signal to the worker.
func (w *worker) signal(s syscall.Signal) {
	w.t.Helper()
	if err := w.command.Process.Signal(s); err != nil {
		w.t.Error(err)
	}
}

// begun is what an answer of the worker API says of an attempt.
type begun struct {
	Attempt int
	Token   string
}

// startElsewhere starts the task under another claim.
func (b *workerBridge) startElsewhere(t *testing.T, task string) (elsewhere begun) {
	t.Helper()
	if err := b.client.call(http.MethodPost, b.server.url+"/api/v1/worker/tasks/"+task+"/start", `{"claim":"elsewhere"}`, &elsewhere, http.StatusOK); err != nil {
		t.Error(err)
	}
	return elsewhere
}

// with is a client whose requests have one header more.
func (c *client) with(name, value string) *client {
	return &client{&http.Client{Transport: header{name, value, c.http.Transport}}}
}

type header struct {
	name, value string
	next        http.RoundTripper
}

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h.name, h.value)
	return h.next.RoundTrip(r)
}

// untilTokensExpire returns once no token is good any more that the paused worker
// has, by having the server wait for the task's end for longer than that.
func (b *workerBridge) untilTokensExpire(t *testing.T, task string) {
	t.Helper()
	var answer row
	if err := b.client.with("Prefer", "wait=3").call(http.MethodGet, b.server.url+"/api/v1/tasks/"+task, "", &answer, http.StatusOK); err != nil || answer.Status != "RUNNING" {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestAWorkerThatIsPausedBeyondItsTokenGoesOnUnlessItsTaskRunsElsewhere(t *testing.T) {
	b := openWorkerBridge(t, "remote-worker", "words", remoteWorkerCommand)
	b.command = append(b.command, "--server", b.server.url)
	b.restartWorker(t)

	pauseInTheMiddle := func(task string, meanwhile func()) []event {
		paused := false
		return b.follow(t, task, func(e event) {
			if e.Type == "TASK_PROGRESS" && !paused {
				paused = true
				b.worker.signal(syscall.SIGSTOP)
				meanwhile()
			}
		})
	}
	task := b.create(t, "alone", `{"text":"a b c a b c","pauseMillis":100}`)
	events := pauseInTheMiddle(task, func() {
		b.untilTokensExpire(t, task)
		b.worker.signal(syscall.SIGCONT)
	})
	checkStream(t, task, events)
	if count(events, `"level":"warning"`) != 0 || count(events, `TASK_COMPLETED {"result":{"a":2,"b":2,"c":2}}`) != 1 {
		t.Errorf("paused, and nothing else: %s", rawOf(events))
	}
	if !strings.Contains(b.server.log.String(), task+"/reports status=401") {
		t.Error("the paused worker's token has not expired")
	}

	task = b.create(t, "elsewhere", `{"text":"a b c a b c","pauseMillis":100}`)
	events = pauseInTheMiddle(task, func() {
		b.untilTokensExpire(t, task)
		elsewhere := b.startElsewhere(t, task)
		b.worker.signal(syscall.SIGCONT)
		select {
		case <-b.worker.log.line("a task is not worked on any more"):
		case <-time.After(patience):
			t.Errorf("the worker works on: %s", b.worker.log)
		}
		var answer begun
		if err := b.client.with("Authorization", "Bearer "+elsewhere.Token).call(http.MethodPost, b.server.url+"/api/v1/worker/tasks/"+task+"/reports",
			`{"firstOrdinal":1,"reports":[{"type":"complete","result":"of the second"}]}`, &answer, http.StatusOK); err != nil {
			t.Error(err)
		}
	})
	checkStream(t, task, events)
	if n := len(events); count(events, `"level":"warning"`) != 1 || !strings.Contains(string(events[n-2].Payload), "attempt 2") ||
		count(events, `TASK_COMPLETED {"result":"of the second"}`) != 1 {
		t.Errorf("paused, and started elsewhere: %s", rawOf(events))
	}
	b.end(t)
}

// reporter is a shell script that reports with the command's own "report".
type reporter struct {
	command *exec.Cmd
	log     *transcript
	proceed func()
}

// runScript starts a script that knows the task and has a state of its own. It
// waits, where it reads a line, for proceed.
func runScript(t *testing.T, url, task, token, text string) *reporter {
	t.Helper()
	s := &reporter{command: exec.Command("sh", "-c", text, "sh", taskbridgeCommand), log: newTranscript()}
	s.command.Env = append(os.Environ(), "TASKBRIDGE_URL="+url, "TASKBRIDGE_TASK_ID="+task, "TASKBRIDGE_TOKEN="+token,
		"TASKBRIDGE_STATE_FILE="+filepath.Join(t.TempDir(), "state"))
	s.command.Stdout, s.command.Stderr = s.log, s.log
	stdin, err := s.command.StdinPipe()
	if err == nil {
		err = s.command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.command.Process.Kill() }) // it has ended, unless the test failed
	s.proceed = func() {
		if _, err := fmt.Fprintln(stdin); err != nil {
			t.Error(err)
		}
	}
	return s
}

// await returns once the script has said the line.
func (s *reporter) await(t *testing.T, line string) {
	t.Helper()
	select {
	case <-s.log.line(line):
	case <-time.After(patience):
		t.Fatalf("the script does not say %q:\n%s", line, s.log)
	}
}

func TestAScriptWhoseTaskRunsElsewhereIsToldByItsNextReportToStop(t *testing.T) {
	tokens := make(chan string, 1)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var posted struct{ Data struct{ Token string } }
		if err := json.NewDecoder(r.Body).Decode(&posted); err != nil {
			t.Error(err)
		}
		select {
		case tokens <- posted.Data.Token:
		default: // posted again
		}
	}))
	defer hook.Close()
	dir, c := t.TempDir(), newClient(t)
	config := filepath.Join(dir, "taskbridge.yaml")
	if err := os.WriteFile(config, []byte("executors: {hook: {kind: webhook, url: '"+hook.URL+"'}}\ntasks: {job: {executor: hook}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, dir, "--config", config, "--worker-token-lifetime", "2s")
	task, err := c.create(s.url, "job", "job", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	token := <-tokens

	first := runScript(t, s.url, task.TaskID, token, `
		"$1" report progress 10 || exit; echo begun
		read -r _; "$1" report progress 20 --timeout 1m; echo "away: $?"
		read -r _; "$1" report progress 30; echo "elsewhere: $?"
		"$1" report result '"of the first"'; echo "end: $?"`)
	first.await(t, "begun")
	// The report is made while the server is away, and recorded when it is back.
	s.kill()
	first.proceed()
	s = begin(t, dir, "--config", config, "--worker-token-lifetime", "2s", "--listen", strings.TrimPrefix(s.url, "http://"))
	s.await()
	first.await(t, "away: 0")

	second := runScript(t, s.url, task.TaskID, token, `
		"$1" report start; read -r _; "$1" report result '"of the second"'; echo "end: $?"`)
	second.await(t, "2")
	first.proceed()
	first.await(t, "end: ")
	second.proceed()
	second.await(t, "end: 0")
	for _, script := range []*reporter{first, second} {
		if err := script.command.Wait(); err != nil {
			t.Errorf("%v:\n%s", err, script.log)
		}
	}
	if said := first.log.String(); !strings.Contains(said, "elsewhere: 3") || !strings.Contains(said, "end: 3") {
		t.Errorf("the first script was told\n%s", said)
	}
	events, err := c.events(s.url, task.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	checkStream(t, task.TaskID, events)
	if got := count(events, `{"progress":10}`) + count(events, `{"progress":20}`); got != 2 || len(events) != 5 ||
		count(events, `"level":"warning"`) != 1 || count(events, `{"result":"of the second"}`) != 1 {
		t.Error(rawOf(events))
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
