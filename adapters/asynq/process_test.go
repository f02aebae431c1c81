//go:build linux

package asynqadapter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// workerSetup is what a worker process is told.
type workerSetup struct {
	Network, Addr string
	DB            int
	Queue, URL    string
	// Effects is a file to which each finished attempt adds a line.
	Effects     string
	Concurrency int
	// Silent: say nothing on standard output.
	Silent bool
}

// runWorker is a worker as a program: an asynq server whose handlers report to
// the server at the URL, until SIGTERM or the end of the parent. Its work obeys
// lines on standard input, and tells what happens on standard output.
func runWorker(text string) error {
	var setup workerSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: setup.URL, Synchronous: true})
	if err != nil {
		return err
	}
	effects, err := os.OpenFile(setup.Effects, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := &workerProcess{setup: setup, effects: effects, orders: make(chan string)}
	config := serverConfig(setup.Queue)
	config.Concurrency = setup.Concurrency
	server := asynq.NewServer(asynq.RedisClientOpt{Network: setup.Network, Addr: setup.Addr, DB: setup.DB}, config)
	mux := asynq.NewServeMux()
	mux.Handle("obey", Handle(lifecycle, w.obey))
	mux.Handle("work", Handle(lifecycle, w.work))
	if err := server.Start(mux); err != nil {
		return err
	}
	w.say("ready")
	go func() {
		defer stop() // the parent has closed the pipe, or is gone
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			w.orders <- lines.Text()
		}
	}()
	<-terminated.Done()
	server.Shutdown()
	return nil
}

type workerProcess struct {
	setup   workerSetup
	effects *os.File
	orders  chan string
}

func (w *workerProcess) say(format string, args ...any) {
	if !w.setup.Silent {
		fmt.Printf(format+"\n", args...)
	}
}

// effect is what work leaves behind in the world.
func (w *workerProcess) effect(run taskbridge.Run) error {
	_, err := fmt.Fprintf(w.effects, "%s %d\n", run.Task().ID, run.Attempt())
	return err
}

// work takes as long as its input says.
func (w *workerProcess) work(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (any, error) {
	var input struct{ Millis int }
	if err := json.Unmarshal(task.Input, &input); err != nil {
		return nil, err
	}
	if err := run.Progress(ctx, taskbridge.Progress{Percent: 50}); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Duration(input.Millis) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return run.Attempt(), w.effect(run)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// obey does what it is told until it is told to finish, or its context ends. What
// it is told while it has no task is for the next one.
func (w *workerProcess) obey(ctx context.Context, _ taskbridge.Task, run taskbridge.Run) (any, error) {
	if err := run.Progress(ctx, taskbridge.Progress{Percent: 10}); err != nil {
		return nil, err
	}
	w.say("begun %d", run.Attempt())
	for {
		select {
		case order := <-w.orders:
			switch order {
			case "finish":
				return run.Attempt(), w.effect(run)
			case "report":
				err := run.Message(context.WithoutCancel(ctx), taskbridge.Message{Text: "a report"})
				w.say("reported %t", err == nil || !fenced(err))
			}
		case <-ctx.Done():
			var cancelled *taskbridge.CancelledError
			w.say("stopped %t", errors.As(context.Cause(ctx), &cancelled))
			return nil, ctx.Err()
		}
	}
}

func newSigner(t testing.TB) *workerapi.Signer {
	t.Helper()
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{bytes.Repeat([]byte("key "), 8)}})
	must(t, err)
	return signer
}

// processFixture is a fixture whose workers are processes of their own: all that
// they know is in the payload and the server's address.
type processFixture struct {
	*fixture
	url     string
	effects string
}

func newProcessFixture(t testing.TB, opts fixtureOptions) *processFixture {
	t.Helper()
	signer := newSigner(t)
	change := opts.change
	opts.change = func(o *Options) {
		o.Tokens = signer
		if change != nil {
			change(o)
		}
	}
	if opts.types == nil {
		opts.types = map[string]TypeOptions{}
	}
	opts.types["obey"] = TypeOptions{MaxRetry: 3}
	f := newFixture(t, opts)
	url := serveWorkers(t, f.lifecycle.(*taskbridge.LocalLifecycle), signer, opts.between)
	return &processFixture{fixture: f, url: url, effects: t.TempDir() + "/effects"}
}

// serveWorkers serves the worker API over a lifecycle, and returns the URL. A
// handler may come between.
func serveWorkers(t testing.TB, lifecycle *taskbridge.LocalLifecycle, signer *workerapi.Signer, between func(http.Handler) http.Handler) string {
	t.Helper()
	service, err := taskbridge.NewWorkerService(lifecycle)
	must(t, err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	must(t, err)
	if between != nil {
		handler = between(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// worker is a worker process.
type worker struct {
	t       testing.TB
	command *exec.Cmd
	stdin   io.WriteCloser
	lines   chan string
	reading sync.WaitGroup
	ended   bool
}

// work starts a worker process; it is killed when the test ends.
func (f *processFixture) work(change ...func(*workerSetup)) *worker {
	f.t.Helper()
	setup := workerSetup{
		Network: f.connection.Network, Addr: f.connection.Addr, DB: f.connection.DB,
		Queue: f.queue, URL: f.url, Effects: f.effects, Concurrency: 4,
	}
	for _, c := range change {
		c(&setup)
	}
	text, err := json.Marshal(setup)
	must(f.t, err)
	path, err := os.Executable()
	must(f.t, err)
	w := &worker{t: f.t, command: exec.Command(path, "worker", string(text)), lines: make(chan string, 100)}
	w.command.Stderr = f.log
	w.stdin, err = w.command.StdinPipe()
	must(f.t, err)
	stdout, err := w.command.StdoutPipe()
	must(f.t, err)
	must(f.t, w.command.Start())
	w.reading.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			w.lines <- strings.TrimSpace(lines.Text())
		}
	})
	f.t.Cleanup(func() {
		if !w.ended {
			w.kill()
		}
	})
	if !setup.Silent {
		w.says("ready")
	}
	return w
}

// says waits for the line.
func (w *worker) says(want string) {
	w.t.Helper()
	if got := receive(w.t, "the worker says "+want, w.lines); got != want {
		w.t.Fatalf("the worker says %q, want %q", got, want)
	}
}

func (w *worker) order(order string) {
	w.t.Helper()
	_, err := fmt.Fprintln(w.stdin, order)
	must(w.t, err)
}

func (w *worker) signal(s syscall.Signal) {
	w.t.Helper()
	must(w.t, w.command.Process.Signal(s))
}

// pause stops the process, and returns once none of its threads runs: the signal
// alone does not wait for that.
func (w *worker) pause() {
	w.t.Helper()
	w.signal(syscall.SIGSTOP)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !w.paused(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatal("the worker does not stop")
		}
	}
}

func (w *worker) paused() bool {
	w.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.command.Process.Pid))
	must(w.t, err)
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		must(w.t, err)
		// "pid (name) state …"
		if rest := string(stat[bytes.LastIndexByte(stat, ')')+1:]); !strings.HasPrefix(rest, " T") {
			return false
		}
	}
	return true
}

// kill ends the process at once.
func (w *worker) kill() {
	_ = w.command.Process.Kill()
	_ = w.wait() // it says how it was killed
}

// wait waits for the process's end.
func (w *worker) wait() error {
	w.ended = true
	w.reading.Wait()
	return w.command.Wait()
}
