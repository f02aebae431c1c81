//go:build linux

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestExitStatusZeroCompletesWithTheLastResult(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"none", `:`, `null`},
		{"one", `echo '::taskbridge {"result":{"a":[1,2]}}'`, `{"a":[1,2]}`},
		{"last", `echo '::taskbridge {"result":1}'; echo '::taskbridge {"result":"two"}'`, `"two"`},
		{"without line end", `printf '::taskbridge {"result":3}'`, `3`},
		{"carriage return", `printf '::taskbridge {"result":4}\r\n'`, `4`},
		{"on standard error", `echo '::taskbridge {"result":5}' >&2`, `null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, map[string]Command{"x": script(test.script)})
			row := f.end(f.create("x", `{}`))
			if result, ok := row.Result(); !ok || string(result) != test.want {
				t.Fatalf("%s %s, want %s", row.Status, row.Terminal, test.want)
			}
			if row.Attempt != 1 {
				t.Fatalf("attempt %d", row.Attempt)
			}
		})
	}
}

func TestFailuresHaveStableCodes(t *testing.T) {
	const tail = `echo ordinary; echo first >&2; printf 'last \377 word\n\n' >&2; `
	for _, test := range []struct {
		name      string
		command   Command
		code      string
		message   string
		retryable bool
	}{
		{"exit status", script(tail + `exit 3`), "EXIT_STATUS", "exit status 3\nfirst\nlast \uFFFD word", false},
		{"exit status alone", script(`exit 255`), "EXIT_STATUS", "exit status 255", false},
		{"result and status", script(`echo '::taskbridge {"result":1}'; exit 1`), "EXIT_STATUS", "exit status 1", false},
		{"signal", script(tail + `kill -9 $$`), "SIGNALLED", "killed by signal 9 (killed)\nfirst\nlast \uFFFD word", false},
		{"own SIGTERM", helper("terminate"), "SIGNALLED", "killed by signal 15 (terminated)", false},
		{"report", script(`echo '::taskbridge {"fail":{"code":"DISK_FULL","message":"m","retryable":true}}'; exit 9`), "DISK_FULL", "m", true},
		{"report and status 0", script(`echo '::taskbridge {"fail":{"code":"A","message":"m"}}'; echo '::taskbridge {"fail":{"code":"B","message":"n"}}'; echo '::taskbridge {"result":1}'`), "B", "n", false},
		{"report and signal", script(`echo '::taskbridge {"fail":{"code":"A","message":"m"}}'; kill -9 $$`), "A", "m", false},
		{"no program", Command{Path: "/no/such/program"}, "COMMAND_NOT_STARTED", "fork/exec /no/such/program: no such file or directory", false},
		{"no name", Command{Path: "no-such-program"}, "COMMAND_NOT_STARTED", `exec: "no-such-program": executable file not found in $PATH`, false},
		{"a folder", Command{Path: "/"}, "COMMAND_NOT_STARTED", `exec: "/": is a directory`, false},
		{"no folder", Command{Path: "/bin/true", Dir: "/no/such/folder"}, "COMMAND_NOT_STARTED", "the working directory: stat /no/such/folder: no such file or directory", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, map[string]Command{"x": test.command})
			failure := f.wantFailure(f.end(f.create("x", `{}`)), test.code, test.retryable)
			if failure.Message != test.message {
				t.Fatalf("the message is %q, want %q", failure.Message, test.message)
			}
		})
	}
}

func TestStandardErrorIsKeptFromItsEndOnly(t *testing.T) {
	command := script(`i=0; while [ $i -lt 20000 ]; do echo "line é $i"; i=$((i+1)); done >&2; exit 1`)
	none := command
	command.StderrTail = 100
	none.StderrTail = -1
	f := newFixture(t, map[string]Command{"some": command, "none": none})
	failure := f.wantFailure(f.end(f.create("some", `{}`)), "EXIT_STATUS", false)
	if !strings.HasPrefix(failure.Message, "exit status 1\n… ") || !strings.HasSuffix(failure.Message, "line é 19998\nline é 19999") ||
		len(failure.Message) > 130 || strings.Contains(failure.Message, "\uFFFD") {
		t.Fatalf("the message is %q", failure.Message)
	}
	failure = f.wantFailure(f.end(f.create("none", `{}`)), "EXIT_STATUS", false)
	if failure.Message != "exit status 1" {
		t.Fatalf("the message is %q", failure.Message)
	}
}

func TestACommandThatRunsTooLongIsKilledWithItsGroup(t *testing.T) {
	w := newWitness(t)
	command := script(fmt.Sprintf(`exec 3>%s; echo why >&2; trap '' TERM; sleep 1000 & echo '::taskbridge {"message":"ready"}'; while :; do wait; done`, w.path))
	command.Timeout = timeoutHeld
	f := newFixture(t, map[string]Command{"x": command})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	f.clock.fire(t, timeoutHeld)
	f.clock.fire(t, graceHeld)
	failure := f.wantFailure(f.end(task), "TIMED_OUT", false)
	if failure.Message != "the command ran longer than 1002h0m0s\nwhy" {
		t.Fatalf("the message is %q", failure.Message)
	}
	w.gone()
}

func TestAnExecutionThatCannotBeRecordedIsNotBegun(t *testing.T) {
	marks := filepath.Join(t.TempDir(), "marks")
	f := newFixture(t, map[string]Command{"x": script("echo ran > " + marks)})
	dir := f.executor.records.dir
	f.executor.records.dir = filepath.Join(dir, "missing")
	f.wantFailure(f.end(f.create("x", `{}`)), "COMMAND_NOT_STARTED", true)
	if err := f.executor.CheckHealth(f.ctx); err == nil {
		t.Error("the executor calls itself healthy")
	}
	f.executor.records.dir = dir
	if err := f.executor.CheckHealth(f.ctx); err != nil {
		t.Errorf("not healthy: %v", err)
	}
	if _, err := os.Stat(marks); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the command was run: %v", err)
	}
}

func TestPassingWantsOfTheMachineAreRetryable(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{syscall.EAGAIN, true}, {syscall.ENOMEM, true}, {syscall.EMFILE, true}, {syscall.ETXTBSY, true},
		{syscall.ENOENT, false}, {syscall.EACCES, false}, {syscall.E2BIG, false},
	} {
		failure := notStarted(fmt.Errorf("fork/exec x: %w", &os.PathError{Op: "fork/exec", Path: "x", Err: test.err}))
		if failure.Code != "COMMAND_NOT_STARTED" || failure.Retryable != test.want {
			t.Errorf("%v: %+v", test.err, failure)
		}
	}
}

func TestTheStreamOfATaskTellsItsStory(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`
		echo 'not told'
		echo '::taskbridge {"progress":10,"stage":"one","message":"begun"}'
		echo '::taskbridge {"message":"careful","level":"warning"}'
		echo '::taskbridge {"progress":100}'
		echo '::taskbridge {"result":{"done":true}}'`)})
	task := f.create("x", `{}`)
	f.end(task)
	want := []payload{
		{Type: taskbridge.EventStarted},
		{Type: taskbridge.EventProgress, Progress: 10, Stage: "one", Message: "begun"},
		{Type: taskbridge.EventMessage, Message: "careful", Level: "warning"},
		{Type: taskbridge.EventProgress, Progress: 100},
		{Type: taskbridge.EventCompleted, Result: []byte(`{"done":true}`)},
	}
	if got := f.events(task); describeEvents(got) != describeEvents(want) {
		t.Fatalf("got %+v", got)
	}
}
