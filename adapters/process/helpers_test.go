//go:build linux

package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// runHelper is what this test binary does as the command of a task.
func runHelper(mode string, args []string) int {
	helpers := map[string]func(args []string) error{
		"echo":      helperEcho,
		"flood":     helperFlood,
		"plain":     helperPlain,
		"group":     helperGroup,
		"server":    helperServer,
		"busy":      helperBusy,
		"terminate": func([]string) error { return syscall.Kill(os.Getpid(), syscall.SIGTERM) },
	}
	run, ok := helpers[mode]
	if !ok {
		fmt.Fprintf(os.Stderr, "no helper %q\n", mode)
		return 2
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// helperEcho makes a result of all that it was given.
func helperEcho(args []string) error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	env := make(map[string]string)
	for _, entry := range os.Environ() {
		key, value, _ := strings.Cut(entry, "=")
		env[key] = value
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	return report(map[string]any{"result": map[string]any{
		"stdin": string(input), "args": args, "env": env, "dir": dir,
		"session": sessionOf(os.Getpid()), "pid": os.Getpid(),
	}})
}

// sessionOf returns the session of a process, 0 if it is not there.
func sessionOf(pid int) int {
	p, err := readProcess(pid)
	if err != nil {
		return 0
	}
	return p.session
}

// report prints a line report.
func report(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s%s\n", taskbridge.LineReportPrefix, text)
	return err
}

// helperFlood writes megabytes of standard output without a line end.
func helperFlood(args []string) error {
	megabytes, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	text := []byte(strings.Repeat("x", 1<<20))
	for range megabytes {
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// helperPlain writes numbered lines, then a result.
func helperPlain(args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for i := range count {
		if _, err := fmt.Fprintf(out, "line %d\n", i); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return report(map[string]any{"result": count})
}

// helperGroup runs a command in a group of its own.
func helperGroup(args []string) error {
	if err := syscall.Setpgid(0, 0); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if _, err := os.NewFile(3, "witness").WriteString("r\n"); err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

// serve makes a server with the script as its one task type, over stores in
// memory.
func serve(stateDir, text string, maxRunning int) (*taskbridge.Bridge, error) {
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return nil, err
	}
	executor, err := New(Options{
		Lifecycle: lifecycle, InstanceID: "server", StateDir: stateDir, MaxRunning: maxRunning,
		Commands: map[string]Command{"script": script(text)},
	})
	if err != nil {
		return nil, err
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"script": executor})
	if err != nil {
		return nil, err
	}
	return taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
}

// untilKilled is for who plays a server that is to be killed.
func untilKilled() error {
	timer := time.NewTimer(patience)
	<-timer.C
	return errors.New("nobody has killed the server")
}

// busyRunning is how many tasks helperBusy runs at once.
const busyRunning = 16

// helperBusy plays a server that runs the script as many tasks.
func helperBusy(args []string) error {
	bridge, err := serve(args[0], args[1], busyRunning)
	if err != nil {
		return err
	}
	for i := range 200 {
		request := taskbridge.CreateTaskRequest{ClientRequestID: strconv.Itoa(i), TaskType: "script"}
		if _, err := bridge.Creation.CreateTask(context.Background(), owner, request); err != nil {
			return err
		}
	}
	return untilKilled()
}

// helperServer plays a server that runs the script as a task, and says "ready"
// on its standard output once the task has said something.
func helperServer(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bridge, err := serve(args[0], args[1], 1)
	if err != nil {
		return err
	}
	created, err := bridge.Creation.CreateTask(ctx, owner, taskbridge.CreateTaskRequest{ClientRequestID: "1", TaskType: "script"})
	if err != nil {
		return err
	}
	var cursor taskbridge.Cursor
	for {
		page, err := bridge.Polling.PollEvents(ctx, owner, taskbridge.PollRequest{TaskID: created.Task.ID, After: cursor, Wait: patience})
		switch {
		case err != nil:
			return err
		case page.Status.Terminal():
			return fmt.Errorf("the task has ended: %s", page.Events[len(page.Events)-1].Payload)
		case len(page.Events) == 0:
			return errors.New("the task says nothing")
		}
		cursor = page.Next
		if page.Events[len(page.Events)-1].Type != taskbridge.EventStarted {
			break
		}
	}
	fmt.Println("ready")
	return untilKilled()
}
