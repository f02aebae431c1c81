package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// desk is a server with one task, and what a script on it has in its environment.
type desk struct {
	t       *testing.T
	store   *memory.Store
	signer  *workerapi.Signer
	clock   *ticking
	task    string
	environ []string
	// answers may say what the server answers instead, by the number of the
	// request from 1.
	answers  func(n int64, w http.ResponseWriter) bool
	requests atomic.Int64
}

// ticking is a clock that a test can put forward.
type ticking struct {
	taskbridge.SystemClock
	ahead atomic.Int64
}

func (c *ticking) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, store: memory.NewStore(memory.Options{}), clock: new(ticking)}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: d.store, Events: d.store}})
	check(t, err)
	service, err := taskbridge.NewWorkerService(lifecycle)
	check(t, err)
	d.signer, err = workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}, Clock: d.clock})
	check(t, err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: d.signer})
	check(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := d.requests.Add(1); d.answers == nil || !d.answers(n, w) {
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)

	d.task = taskbridge.NewTaskID("alice", "key")
	now := time.Now().UTC().Truncate(time.Microsecond)
	_, _, err = d.store.CreateTask(t.Context(), taskbridge.Task{
		ID: d.task, Owner: "alice", ClientRequestID: "key", Type: "job", Input: []byte(`{"a":1}`), Metadata: []byte(`{}`),
		CreatedAt: now, UpdatedAt: now, Status: taskbridge.StatusAccepted,
	})
	check(t, err)
	token, err := d.signer.SubmissionToken(d.task)
	check(t, err)
	file := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	d.environ = []string{"TASKBRIDGE_URL=" + server.URL, "TASKBRIDGE_TASK_ID=" + d.task, "TASKBRIDGE_TOKEN_FILE=" + file,
		"TASKBRIDGE_STATE_FILE=" + filepath.Join(t.TempDir(), "state.json")}
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// report runs the command and returns its status and what it printed.
func (d *desk) report(words ...string) (status int, stdout, stderr string) {
	d.t.Helper()
	var out, complaints strings.Builder
	status = run(append([]string{"report"}, words...), d.environ, &out, &complaints)
	return status, out.String(), complaints.String()
}

// must is a report that is recorded.
func (d *desk) must(words ...string) string {
	d.t.Helper()
	status, stdout, stderr := d.report(words...)
	if status != exitOK || stderr != "" {
		d.t.Fatalf("%q: status %d, %s", words, status, stderr)
	}
	return stdout
}

// stream is the payloads of the task's events.
func (d *desk) stream() string {
	d.t.Helper()
	events, err := d.store.ReadEvents(d.t.Context(), d.task, 0, 100)
	check(d.t, err)
	var payloads []string
	for _, e := range events {
		payloads = append(payloads, strings.TrimPrefix(string(e.Type), "TASK_")+string(e.Payload))
	}
	return strings.Join(payloads, "\n")
}

// cancel asks for the task's cancellation.
func (d *desk) cancel(reason string) {
	d.t.Helper()
	row, err := d.store.GetTask(d.t.Context(), d.task)
	check(d.t, err)
	row.Cancellation.RequestedAt, row.Cancellation.Reason = time.Now(), reason
	_, err = d.store.UpdateTask(d.t.Context(), row)
	check(d.t, err)
}

func TestAScriptReportsFromItsBeginToItsEnd(t *testing.T) {
	d := newDesk(t)
	if got := d.must("start"); got != "1\n" {
		t.Errorf("the attempt is %q", got)
	}
	if got := d.must("input"); got != `{"a":1}`+"\n" {
		t.Errorf("the input is %q", got)
	}
	d.must("progress", "50%", "--stage", "half", "--message", "on the way")
	d.must("message", "--level", "warning", "--", "-- careful --")
	if status, stdout, _ := d.report("check"); status != exitOK || stdout != "" {
		t.Errorf("check: %d, %q", status, stdout)
	}
	d.must("result", `{"sum":[1,2]}`, "--message", "done")
	want := `STARTED{}
PROGRESS{"progress":50,"stage":"half","message":"on the way"}
MESSAGE{"message":"-- careful --","level":"warning"}
COMPLETED{"result":{"sum":[1,2]},"message":"done"}`
	if got := d.stream(); got != want {
		t.Errorf("the stream has\n%s\nwant\n%s", got, want)
	}
	if status, _, stderr := d.report("progress", "60"); status != exitStop || !strings.Contains(stderr, "must stop") {
		t.Errorf("after the end: %d, %s", status, stderr)
	}
}

func TestTheFirstReportStartsTheAttempt(t *testing.T) {
	d := newDesk(t)
	d.must("fail", "no more disk", "--code", "DISK_FULL", "--retryable")
	if got, want := d.stream(), "STARTED{}\n"+`FAILED{"code":"DISK_FULL","message":"no more disk","retryable":true}`; got != want {
		t.Errorf("the stream has\n%s\nwant\n%s", got, want)
	}
}

func TestAResultMayComeFromAFileOrFromStandardInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "result.json")
	check(t, os.WriteFile(file, []byte(`["x"]`), 0o600))
	for _, test := range []struct{ word, want string }{{"@" + file, `["x"]`}, {"-", `"piped"`}, {"5", "5"}} {
		got, err := result(test.word, strings.NewReader(`"piped"`))
		if err != nil || string(got) != test.want {
			t.Errorf("%q: %q, %v", test.word, got, err)
		}
	}
	for _, word := range []string{"", "{", "text", "@/no/such/file"} {
		if _, err := result(word, strings.NewReader("")); err == nil {
			t.Errorf("%q was taken", word)
		}
	}
}

func TestACancellationIsTold(t *testing.T) {
	d := newDesk(t)
	d.must("start")
	d.cancel("changed my mind")
	if status, stdout, _ := d.report("check", "--wait", "60s"); status != exitCancelled || stdout != "changed my mind\n" {
		t.Errorf("check: %d, %q", status, stdout)
	}
	d.must("progress", "1")
	if status, _, _ := d.report("progress", "2", "--cancel-status"); status != exitCancelled {
		t.Errorf("progress with --cancel-status: %d", status)
	}
	d.must("cancelled", "tidied up")
	if got := d.stream(); !strings.HasSuffix(got, `CANCELLED{"reason":"changed my mind","message":"tidied up"}`) {
		t.Errorf("the stream has\n%s", got)
	}
}

func TestOthersReportWhileACheckWaits(t *testing.T) {
	d := newDesk(t)
	d.must("start")
	asked := make(chan struct{})
	next := d.requests.Load() + 1
	d.answers = func(n int64, _ http.ResponseWriter) bool {
		if n == next {
			close(asked)
		}
		return false
	}
	checked := make(chan int)
	go func() {
		status, _, _ := d.report("check", "--wait", "60s")
		checked <- status
	}()
	<-asked
	d.must("message", "meanwhile")
	d.cancel("enough")
	if status := <-checked; status != exitCancelled {
		t.Errorf("check: %d", status)
	}
	// What the check has kept does not undo what the message has.
	d.must("message", "after")
	if got := d.stream(); !strings.HasSuffix(got, `MESSAGE{"message":"meanwhile"}`+"\n"+`MESSAGE{"message":"after"}`) {
		t.Errorf("the stream has\n%s", got)
	}
}

// A name that is as long as one may be leaves no room for the temporary file
// beside it: no state can be written, as on a disk that is full.
func TestAnEndIsRecordedEvenIfTheStateCannotBe(t *testing.T) {
	d := newDesk(t)
	d.must("message", "one")
	content, err := os.ReadFile(strings.TrimPrefix(d.environ[3], "TASKBRIDGE_STATE_FILE="))
	check(t, err)
	unwritable := filepath.Join(t.TempDir(), strings.Repeat("s", 250))
	check(t, os.WriteFile(unwritable, content, 0o600))
	d.environ[3] = "TASKBRIDGE_STATE_FILE=" + unwritable
	if status, _, stderr := d.report("message", "two"); status != exitFailed || !strings.Contains(stderr, "sss") {
		t.Errorf("a message: %d, %s", status, stderr)
	}
	d.clock.ahead.Add(int64(time.Hour)) // the token has expired, and a new one cannot be kept
	d.must("result", "5")
	if got, want := d.stream(), "STARTED{}\n"+`MESSAGE{"message":"one"}`+"\n"+`COMPLETED{"result":5}`; got != want {
		t.Errorf("the stream has\n%s", got)
	}
}

func TestWhatIsRecordedIsNoFailureForWantOfTheState(t *testing.T) {
	d := newDesk(t)
	dir := t.TempDir()
	d.environ[3] = "TASKBRIDGE_STATE_FILE=" + filepath.Join(dir, "state.json")
	d.must("start")
	d.answers = func(int64, http.ResponseWriter) bool {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return false
	}
	d.must("message", "recorded")
	if got, want := d.stream(), "STARTED{}\n"+`MESSAGE{"message":"recorded"}`; got != want {
		t.Errorf("the stream has\n%s", got)
	}
}

func TestAReportIsRepeatedUntilItIsRecordedAndThenThereOnce(t *testing.T) {
	d := newDesk(t)
	d.must("start")
	began := d.requests.Load()
	d.answers = func(n int64, w http.ResponseWriter) bool {
		switch n - began {
		case 1:
			w.WriteHeader(http.StatusBadGateway)
			return true
		case 2:
			panic(http.ErrAbortHandler)
		}
		return false
	}
	d.must("message", "once")
	if n := d.requests.Load() - began; n != 3 {
		t.Errorf("%d requests", n)
	}
	if got, want := d.stream(), "STARTED{}\n"+`MESSAGE{"message":"once"}`; got != want {
		t.Errorf("the stream has\n%s", got)
	}
}

func TestATokenThatHasExpiredIsRenewedUnlessTheTaskRunsElsewhere(t *testing.T) {
	d := newDesk(t)
	d.must("message", "one")
	d.clock.ahead.Add(int64(time.Hour))
	d.must("message", "two")
	if got, want := d.stream(), "STARTED{}\n"+`MESSAGE{"message":"one"}`+"\n"+`MESSAGE{"message":"two"}`; got != want {
		t.Errorf("the stream has\n%s", got)
	}
	other := desk{t: t}
	other.environ = append(d.environ[:3:3], "TASKBRIDGE_STATE_FILE="+filepath.Join(t.TempDir(), "other.json"), "TASKBRIDGE_CLAIM=another")
	if got := other.must("start"); got != "2\n" {
		t.Errorf("the other's attempt is %q", got)
	}
	for _, later := range []time.Duration{0, time.Hour} {
		d.clock.ahead.Add(int64(later))
		if status, _, stderr := d.report("message", "three"); status != exitStop || !strings.Contains(stderr, "STALE_ATTEMPT") {
			t.Errorf("the fenced one, %s later: %d, %s", later, status, stderr)
		}
	}
	other.must("result")
}

func TestATryThatIsNeverAnsweredIsGivenUpForAnother(t *testing.T) {
	d := newDesk(t)
	again := make(chan struct{})
	d.answers = func(n int64, _ http.ResponseWriter) bool {
		switch n {
		case 2: // the report, behind the start
			select {
			case <-again:
			case <-t.Context().Done():
			}
			return true
		case 3:
			close(again)
		}
		return false
	}
	d.must("message", "one", "--try-timeout", "200ms", "--timeout", "2m")
	if got, want := d.stream(), `STARTED{}`+"\n"+`MESSAGE{"message":"one"}`; got != want {
		t.Errorf("the stream is\n%s\nwant\n%s", got, want)
	}
}

func TestWhatKeepsAReportFromBeingRecordedIsSaid(t *testing.T) {
	d := newDesk(t)
	for _, test := range []struct {
		words, environ string
		status         int
		want           string
	}{
		{"", "", exitUsage, ""},
		{"sing", "", exitUsage, `no report "sing"`},
		{"progress", "", exitUsage, "takes one word, not 0"},
		{"start now", "", exitUsage, "takes nothing more"},
		{"result 1 2", "", exitUsage, "takes one word or none"},
		{"progress half", "", exitUsage, "from 0 to 100"},
		{"progress NaN", "", exitUsage, "from 0 to 100"},
		{"message a b", "", exitUsage, "quote"},
		{"result {", "", exitUsage, "must be JSON"},
		{"check --wait 2m", "", exitUsage, "--wait"},
		{"message a --timeout 0s", "", exitUsage, "--timeout"},
		{"message a --url=", "", exitFailed, "TASKBRIDGE_URL"},
		{"message a --url=ftp://host", "", exitFailed, "TASKBRIDGE_URL"},
		{"message a --url=http://me:tbs1.secret@host", "", exitFailed, "TASKBRIDGE_URL"},
		{"message a --url=http://me:tbs1.%zz@host", "", exitFailed, "TASKBRIDGE_URL"},
		{"message a --token-file=", "TASKBRIDGE_TOKEN=tbs1.two\nlines", exitFailed, "TASKBRIDGE_TOKEN"},
		{"message a --task=", "", exitFailed, "TASKBRIDGE_TASK_ID"},
		{"message a --token-file=", "", exitFailed, "TASKBRIDGE_TOKEN_FILE"},
		{"message a --token-file=/no/such/file", "", exitFailed, "/no/such/file"},
		{"message a --token-file=", "TASKBRIDGE_TOKEN=tbs1.forged", exitFailed, "AUTHENTICATION_ERROR"},
		{"message a --task=another", "", exitFailed, "TASK_OWNERSHIP_ERROR"},
		{"message a --level loud", "", exitFailed, "level"},
		{"message a --url=http://127.0.0.1:1 --timeout 50ms", "", exitFailed, "could not be reached"},
	} {
		file := filepath.Join(t.TempDir(), "state")
		var stdout, stderr strings.Builder
		environ := append(d.environ[:3:3], "TASKBRIDGE_STATE_FILE="+file, test.environ)
		status := run(append([]string{"report"}, strings.Fields(test.words)...), environ, &stdout, &stderr)
		if status != test.status || !strings.Contains(stderr.String(), test.want) || strings.Contains(stderr.String(), "tbs1.") {
			t.Errorf("%q: status %d, %s; want %d and %q", test.words, status, stderr.String(), test.status, test.want)
		}
	}
	broken := filepath.Join(t.TempDir(), "broken")
	check(t, os.WriteFile(broken, []byte("{"), 0o600))
	if status, _, stderr := d.report("message", "a", "--state-file", broken); status != exitFailed || !strings.Contains(stderr, broken) {
		t.Errorf("a broken state file: %d, %s", status, stderr)
	}
}
