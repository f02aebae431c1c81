//go:build linux

package temporaladapter

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// workerSetup is what a worker process is told.
type workerSetup struct {
	Address, Queue, Prefix, URL string
	// Broken workers panic in the workflow "fragile".
	Broken bool
}

// runWorker is a worker as a program, which reports to the server at the URL, until
// its standard input ends.
func runWorker(text string) error {
	var setup workerSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: setup.URL})
	if err != nil {
		return err
	}
	plugin, err := NewPlugin(PluginOptions{Lifecycle: lifecycle, Prefix: setup.Prefix})
	if err != nil {
		return err
	}
	c, err := client.NewLazyClient(clientOptions(setup.Address))
	if err != nil {
		return err
	}
	defer c.Close()
	w := worker.New(c, setup.Queue, worker.Options{Plugins: []worker.Plugin{plugin}})
	register(w)
	registerFragile(w, setup.Broken)
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// serveWorkers serves the worker API over a lifecycle, and returns the URL.
func serveWorkers(t testing.TB, lifecycle *taskbridge.LocalLifecycle, signer *workerapi.Signer) string {
	t.Helper()
	service, err := taskbridge.NewWorkerService(lifecycle)
	must(t, err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	must(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

func newSigner(t testing.TB) *workerapi.Signer {
	t.Helper()
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}})
	must(t, err)
	return signer
}

// newProcessFixture is a fixture whose workers are processes.
func newProcessFixture(t testing.TB, opts fixtureOptions) (f *fixture, setup workerSetup) {
	t.Helper()
	signer := newSigner(t)
	change := opts.change
	opts.change = func(o *Options) {
		o.Tokens = signer
		if change != nil {
			change(o)
		}
	}
	f = newFixture(t, opts)
	address := testServer
	if opts.address != "" {
		address = opts.address
	}
	return f, workerSetup{Address: address, Queue: f.queue, Prefix: f.prefix, URL: serveWorkers(t, f.lifecycle, signer)}
}

// workerProcess is a worker in a process of its own.
type workerProcess struct {
	command *exec.Cmd
	stdin   io.Closer
	reading sync.WaitGroup
	ended   sync.Once
}

// startWorker starts a worker process; it is killed when the test ends.
func startWorker(t testing.TB, setup workerSetup) *workerProcess {
	t.Helper()
	text, err := json.Marshal(setup)
	must(t, err)
	path, err := os.Executable()
	must(t, err)
	w := &workerProcess{command: exec.Command(path, "worker", string(text))}
	w.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.command.Stderr = os.Stderr
	w.stdin, err = w.command.StdinPipe()
	must(t, err)
	stdout, err := w.command.StdoutPipe()
	must(t, err)
	must(t, w.command.Start())
	t.Cleanup(w.kill)
	ready := make(chan string, 1)
	w.reading.Go(func() {
		lines := bufio.NewReader(stdout)
		line, _ := lines.ReadString('\n') // "" where it ended instead
		ready <- line
		_, _ = io.Copy(io.Discard, lines)
	})
	if line := receive(t, "the worker is ready", ready); line != "ready\n" {
		t.Fatalf("the worker says %q", line)
	}
	return w
}

// kill ends the process at once.
func (w *workerProcess) kill() {
	w.ended.Do(func() {
		_ = w.command.Process.Kill()
		w.reading.Wait()
		_ = w.command.Wait() // it says how it was killed
	})
}

func TestAWorkerKilledInTheMiddleOfAWorkflowIsTakenOverWithoutATrace(t *testing.T) {
	t.Parallel()
	f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"gates": {TaskTimeout: 2 * time.Second}}})
	first := startWorker(t, setup)
	task := f.create("gates", `{}`)
	f.awaitStream(task, "STARTED PROGRESS")
	f.until("the worker has let go of the workflow", func() bool {
		description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
		must(t, err)
		return description.GetPendingWorkflowTask() == nil
	})
	first.kill()
	f.signal(task, "gate", nil)
	startWorker(t, setup)
	f.awaitStream(task, "STARTED PROGRESS PROGRESS")
	f.signal(task, "gate", nil)
	f.wantResult(task, `"through"`)
	f.wantStream(task, "STARTED PROGRESS PROGRESS COMPLETED")
}

func TestATemporalServerThatIsKilledAndComesBackLosesNothing(t *testing.T) {
	t.Parallel()
	server, err := newServer(t.TempDir())
	must(t, err)
	must(t, server.start())
	t.Cleanup(server.kill)
	f, setup := newProcessFixture(t, fixtureOptions{address: server.address})
	f.reconcile()
	startWorker(t, setup)
	task := f.create("gates", `{}`)
	f.awaitStream(task, "STARTED PROGRESS")
	f.until("the worker has let go of the workflow", func() bool {
		description, err := f.client.DescribeWorkflowExecution(f.ctx, f.prefix+task.ID, "")
		must(t, err)
		return description.GetPendingWorkflowTask() == nil
	})
	server.kill()

	// What is created now is accepted, and started once the server is back.
	waiting := f.create("echo", `{"n":1}`)
	if row := f.row(waiting); row.Status != taskbridge.StatusAccepted {
		t.Fatalf("a task that is created while Temporal is down is %s", row.Status)
	}
	cancelled := f.create("wait", `{}`)
	f.cancel(cancelled, "no longer")
	must(t, server.start())

	f.wantResult(waiting, `{"n":1}`)
	f.wantStream(waiting, "STARTED COMPLETED")
	f.wantCancelled(cancelled, "no longer")
	f.signal(task, "gate", nil)
	f.signal(task, "gate", nil)
	f.wantResult(task, `"through"`)
	f.wantStream(task, "STARTED PROGRESS PROGRESS COMPLETED")
}
