package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(status)
	}))
}

// instance is a server inside the test.
type instance struct {
	t    *testing.T
	url  string
	stop context.CancelFunc
	done chan error
	log  *lockedBuffer

	client   *http.Client  // of the test
	pollWait time.Duration // of its long polls
	query    string        // is added to the addresses of its streams
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// announced closes the channel when the server says that it listens.
type announced struct {
	slog.Handler
	listening chan string
}

func (h announced) Handle(ctx context.Context, r slog.Record) error {
	if url, ok := strings.CutPrefix(r.Message, "listening on "); ok {
		h.listening <- url
	}
	return h.Handler.Handle(ctx, r)
}

func load(t *testing.T, args ...string) *config.Config {
	t.Helper()
	c, err := config.Load(append([]string{"--listen", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data")}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func startServer(t *testing.T, c *config.Config, open opener, adjust ...func(*httpapi.Options)) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{t: t, stop: cancel, done: make(chan error, 1), log: &lockedBuffer{}, client: http.DefaultClient, pollWait: time.Second}
	listening := make(chan string, 1)
	logger := slog.New(announced{slog.NewTextHandler(i.log, &slog.HandlerOptions{Level: c.LogLevel}), listening})
	go func() { i.done <- run(ctx, c, logger, open, adjust...) }()
	t.Cleanup(cancel)
	select {
	case i.url = <-listening:
		return i
	case err := <-i.done:
		t.Fatalf("the server has ended: %v\n%s", err, i.log)
	}
	return nil
}

// end stops the server and returns its error.
func (i *instance) end() error {
	i.stop()
	return <-i.done
}

func (i *instance) request(method, path, body string, want int) string {
	i.t.Helper()
	r, err := http.NewRequest(method, i.url+path, strings.NewReader(body))
	if err != nil {
		i.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Prefer", "wait=30")
	response, err := i.client.Do(r)
	if err != nil {
		i.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		i.t.Fatalf("%s %s: %d %s, %v", method, path, response.StatusCode, content, err)
	}
	return string(content)
}

func (i *instance) create(key, taskType, input string, want int) (taskID string) {
	i.t.Helper()
	body := i.request("POST", "/api/v1/tasks", fmt.Sprintf(`{"clientRequestId":%q,"taskType":%q,"input":%s}`, key, taskType, input), want)
	_, rest, _ := strings.Cut(body, `"taskId":"`)
	taskID, _, _ = strings.Cut(rest, `"`)
	return taskID
}

func TestTheDemonstrationDoesWhatItsInputSays(t *testing.T) {
	s := startServer(t, load(t, "--store", "memory"), openStore)
	for i, test := range []struct {
		input    string
		progress int
		row      []string
	}{
		{`{"ticks":4,"tickMillis":1,"failAfterTicks":null,"result":null}`, 4, []string{`"status":"COMPLETED"`, `"result":null`}},
		{`{"ticks":0,"result":{"a":[1]}}`, 0, []string{`"status":"COMPLETED"`, `"result":{"a":[1]}`}},
		{`{"tickMillis":0}`, 10, []string{`"status":"COMPLETED"`, `"result":null`}},
		{`{"ticks":5,"tickMillis":0,"failAfterTicks":3}`, 3, []string{`"status":"FAILED"`, `"failure":{"code":"DEMO_FAILED"`}},
	} {
		task := s.create(fmt.Sprint("good ", i), "demo", test.input, http.StatusCreated)
		row := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK)
		for _, want := range test.row {
			if !strings.Contains(row, want) {
				t.Errorf("%s: no %s in %s", test.input, want, row)
			}
		}
		events := s.request("GET", "/api/v1/tasks/"+task+"/events?maxEvents=500", "", http.StatusOK)
		if n := strings.Count(events, "TASK_PROGRESS"); n != test.progress {
			t.Errorf("%s: %d of %d ticks: %s", test.input, n, test.progress, events)
		}
	}
	for i, input := range []string{
		`{"ticks":-1}`, `{"ticks":100001}`, `{"ticks":1.5}`, `{"ticks":"10"}`, `{"tickMillis":3600001}`, `{"failAfterTicks":11}`, `{"tick":1}`,
	} {
		task := s.create(fmt.Sprint("bad ", i), "demo", input, http.StatusServiceUnavailable)
		row := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK)
		if !strings.Contains(row, `"status":"FAILED"`) || !strings.Contains(row, `"retryable":false`) {
			t.Errorf("%s: %s", input, row)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestWithoutTheDemonstrationItsTypeIsUnknown(t *testing.T) {
	s := startServer(t, load(t, "--store", "memory", "--demo=false"), openStore)
	s.create("k", "demo", `{}`, http.StatusUnprocessableEntity)
	if body := s.request("GET", "/ready", "", http.StatusOK); body != `{"status":"ready","details":{"store":"ok","taskTypes":"ok"}}` {
		t.Errorf("ready: %s", body)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestTasksOutliveTheServerInTheDataFolder(t *testing.T) {
	c := load(t, "--task", "echo=sh -c 'cat; echo \"::taskbridge {\\\"result\\\":1}\"'")
	s := startServer(t, c, openStore)
	if body := s.request("GET", "/ready", "", http.StatusOK); body != `{"status":"ready","details":{"demo":"ok","process":"ok","store":"ok","taskTypes":"ok"}}` {
		t.Errorf("ready: %s", body)
	}
	task := s.create("k", "echo", `{}`, http.StatusCreated)
	before := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK)
	if !strings.Contains(before, `"status":"COMPLETED"`) {
		t.Fatalf("row %s", before)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, c, openStore)
	if after := s.request("GET", "/api/v1/tasks/"+task, "", http.StatusOK); after != before {
		t.Errorf("row %s\nwas %s", after, before)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestTheListenFileHasTheAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "address")
	s := startServer(t, load(t, "--store", "memory", "--listen-file", file), openStore)
	// It is there when the server has ended, at the latest; that it is written
	// is said after the line in the log.
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil || "http://"+string(content) != s.url+"\n" {
		t.Errorf("%q, %v, want the address of %s", content, err, s.url)
	}
}

func TestAServerThatCannotStartSaysWhyAndLeavesNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := load(t)
	first := startServer(t, inUse, openStore)
	for _, test := range []struct {
		name, want string
		config     *config.Config
		open       opener
	}{
		{"an address that is taken", "address already in use", load(t, "--listen", taken.Addr().String()), openStore},
		{"a data folder that is in use", "in use", inUse, openStore},
		{"a data folder that is a file", file, load(t, "--data", file), openStore},
		{"a listen file that cannot be written", "listen file", load(t, "--store", "memory", "--listen-file", filepath.Join(file, "x")), openStore},
		{"a store that fails", "no store today", load(t), func(context.Context, *config.Config) (store, error) { return nil, errors.New("no store today") }},
		{"a lease that is refused", "lease", load(t, "--store", "memory"), faulty(func(f *fakes.Faults) { f.OnEvery(fakes.OpAcquireLease, fakes.FailBefore(nil)) })},
	} {
		err := run(context.Background(), test.config, slog.New(slog.DiscardHandler), test.open)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if err := first.end(); err != nil {
		t.Error(err)
	}
}

// faulty is a store in memory under a plan of faults.
func faulty(plan func(*fakes.Faults)) opener {
	return func(context.Context, *config.Config) (store, error) {
		faults, inner := fakes.NewFaults(), memory.NewStore(memory.Options{})
		plan(faults)
		return struct {
			taskbridge.AtomicStore
			taskbridge.Leaser
			io.Closer
		}{fakes.WrapStore(inner, faults), fakes.WrapLeaser(inner, faults), inner}, nil
	}
}

func TestAWishToStopDuringTheStartIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	logger := slog.New(slog.DiscardHandler)
	open := func(ctx context.Context, c *config.Config) (store, error) {
		cancel()
		return openStore(ctx, c)
	}
	if err := run(ctx, load(t), logger, open); err != nil {
		t.Error(err)
	}
}

// kept is a store that a test still reads when the server has closed it.
type kept struct{ store }

func (kept) Close() error { return nil }

func TestAServerThatLosesItsLeaseStopsItsTasksAndFails(t *testing.T) {
	var (
		plan  *fakes.Faults
		inner store
	)
	open := func(ctx context.Context, c *config.Config) (store, error) {
		opened, err := faulty(func(f *fakes.Faults) { plan = f })(ctx, c)
		inner = opened
		return kept{opened}, err
	}
	s := startServer(t, load(t, "--store", "memory", "--instance-lease", "2s"), open)
	id := s.create("k", "demo", `{"ticks":1000,"tickMillis":1000}`, http.StatusCreated)
	if page := s.request("GET", "/api/v1/tasks/"+id+"/events?waitTimeoutMs=30000", "", http.StatusOK); !strings.Contains(page, "TASK_STARTED") {
		t.Fatalf("the task does not run: %s", page)
	}
	plan.OnEvery(fakes.OpAcquireLease, fakes.FailBefore(errors.New("the store is away")))
	if err := <-s.done; !errors.Is(err, ErrInstanceLost) {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(s.log.String(), "could not be renewed") {
		t.Errorf("log: %s", s.log)
	}
	task, err := inner.GetTask(context.Background(), id)
	if failure, failed := task.Failure(); err != nil || !failed || failure.Code != taskbridge.CodeExecutorLost || !failure.Retryable {
		t.Errorf("task %+v, %v", task, err)
	}
}

func TestAShutdownDoesNotWaitForConnectionsThatNobodyUses(t *testing.T) {
	// A third of the limit is for requests: less than what package http grants
	// such a connection, so that waiting for it would be an error.
	s := startServer(t, load(t, "--store", "memory", "--drain-timeout", "12s"), openStore)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.request("GET", "/health", "", http.StatusOK) // the other one has been accepted before
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestAShutdownThatTakesTooLongKillsWhatRunsAndFails(t *testing.T) {
	c := load(t, "--drain-timeout", "300ms", "--process-grace", "1h", "--task", `deaf=sh -c 'trap "" TERM; echo "::taskbridge {\"progress\":1}"; while :; do sleep 1; done'`)
	s := startServer(t, c, openStore)
	task := s.create("k", "deaf", `{}`, http.StatusCreated)
	for cursor := ""; !strings.Contains(cursor, "TASK_PROGRESS"); {
		cursor = s.request("GET", "/api/v1/tasks/"+task+"/events?waitTimeoutMs=30000", "", http.StatusOK)
	}
	if err := s.end(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
}
