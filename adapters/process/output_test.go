//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestPlainLinesBecomeMessagesIfAsked(t *testing.T) {
	command := script(`printf 'one\r\n\n  \t\ntwo \377\376\n::taskbridge {"progress":1}\nthree'`)
	quiet := command
	command.PlainLines = true
	f := newFixture(t, map[string]Command{"told": command, "quiet": quiet})
	task := f.create("told", `{}`)
	f.end(task)
	want := []payload{
		{Type: taskbridge.EventStarted},
		{Type: taskbridge.EventMessage, Message: "one", Level: "info"},
		{Type: taskbridge.EventMessage, Message: "two \uFFFD", Level: "info"},
		{Type: taskbridge.EventProgress, Progress: 1},
		{Type: taskbridge.EventMessage, Message: "three", Level: "info"},
		{Type: taskbridge.EventCompleted, Result: []byte("null")},
	}
	if got := f.events(task); describeEvents(got) != describeEvents(want) {
		t.Fatalf("got %+v", got)
	}
	task = f.create("quiet", `{}`)
	f.end(task)
	if got := f.messages(task); len(got) != 0 {
		t.Fatalf("got %q", got)
	}
}

func TestAMalformedReportIsAWarningAndTheTaskGoesOn(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`
		echo '::taskbridge {"progress":101}'
		echo '::taskbridge nonsense'
		printf '::taskbridge {"message":"\377"}\n'
		echo '::taskbridge {"result":1}'`)})
	task := f.create("x", `{}`)
	row := f.end(task)
	if result, _ := row.Result(); string(result) != "1" {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	events := f.events(task)
	for i, want := range []string{"progress must be from 0 to 100", "report must be a JSON object", "report must be UTF-8"} {
		if got := events[1+i]; got.Level != "warning" || !strings.Contains(got.Message, want) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
}

func TestMalformedReportsDoNotFillTheStream(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`i=0; while [ $i -lt 1000 ]; do echo '::taskbridge {}'; i=$((i+1)); done`)})
	task := f.create("x", `{}`)
	f.end(task)
	got := f.messages(task)
	if len(got) != maxMalformed || !strings.HasSuffix(got[maxMalformed-1], "without a word") {
		t.Fatalf("%d messages, the last %q", len(got), got[len(got)-1])
	}
}

func TestALineWithoutEndCostsNoMoreThanItsLimit(t *testing.T) {
	command := helper("flood", "10")
	command.PlainLines = true
	command.MaxLine = 1000
	f := newFixture(t, map[string]Command{"x": command})
	task := f.create("x", `{}`)
	if row := f.end(task); row.Status != taskbridge.StatusCompleted {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	if got := f.messages(task); len(got) != 1 || got[0] != strings.Repeat("x", 1000)+" … (cut)" {
		t.Fatalf("%d messages", len(got))
	}
}

func TestAReportThatIsTooLongIsAWarning(t *testing.T) {
	command := script(`printf '::taskbridge {"result":"%05000d"}\n' 1; echo '::taskbridge {"message":"on"}'`)
	command.MaxLine = 1000
	f := newFixture(t, map[string]Command{"x": command})
	task := f.create("x", `{}`)
	row := f.end(task)
	if result, _ := row.Result(); string(result) != "null" {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	want := []string{"a report of the command was ignored: it has 5026 bytes, at most 1000 are read", "on"}
	if got := f.messages(task); !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestAPlainLineOverTheEventLimitIsCutToFit(t *testing.T) {
	// 60 KiB, and three times that in JSON.
	command := script(`head -c 61440 /dev/zero | tr '\0' '\001'`)
	command.PlainLines = true
	f := newFixture(t, map[string]Command{"x": command})
	task := f.create("x", `{}`)
	f.end(task)
	got := f.messages(task)
	if len(got) != 1 || !strings.HasSuffix(got[0], "\x01 … (cut)") || len(got[0]) < 2000 {
		t.Fatalf("%d messages", len(got))
	}
}

func TestAReportOverTheEventLimitDoesNotStopTheWork(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`
		printf '::taskbridge {"message":"%040000d"}\n' 1
		printf '::taskbridge {"progress":1,"message":"%040000d"}\n' 1
		echo '::taskbridge {"message":"on"}'`)})
	task := f.create("x", `{}`)
	if row := f.end(task); row.Status != taskbridge.StatusCompleted {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	if got := f.messages(task); !slices.Equal(got, []string{"on"}) {
		t.Fatalf("got %d messages", len(got))
	}
	if n := strings.Count(f.log.String(), "not recorded"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

func TestAFullStreamDoesNotStopTheWork(t *testing.T) {
	const lines, room = 100_000, 5_000
	command := helper("plain", strconv.Itoa(lines))
	command.PlainLines = true
	f := newLimitedFixture(t, taskbridge.Limits{StreamEvents: room}, map[string]Command{"x": command})
	task := f.create("x", `{}`)
	row := f.end(task)
	if result, _ := row.Result(); string(result) != strconv.Itoa(lines) {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	events := f.events(task)
	// TASK_STARTED, messages to the limit, TASK_COMPLETED beyond it.
	if len(events) != room+1 {
		t.Fatalf("%d events", len(events))
	}
	for i, event := range events[1 : len(events)-1] {
		if event.Message != "line "+strconv.Itoa(i) {
			t.Fatalf("message %d is %q", i, event.Message)
		}
	}
	if n := strings.Count(f.log.String(), "not recorded"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

func TestInputThatIsNotReadDoesNoHarm(t *testing.T) {
	f := newFixture(t, map[string]Command{
		"ends":   script(`exit 0`),
		"closes": script(`exec <&-; echo '::taskbridge {"result":1}'`),
		// It leaves a reader behind that does not read.
		"leaves": script(`sleep 1000 >/dev/null 2>&1 & exit 0`),
	})
	input := `{"a":"` + strings.Repeat("x", 1<<19) + `"}`
	for _, taskType := range []string{"ends", "closes", "leaves"} {
		if row := f.end(f.create(taskType, input)); row.Status != taskbridge.StatusCompleted {
			t.Errorf("%s: %s %s", taskType, row.Status, row.Terminal)
		}
	}
}

func TestWhoHoldsTheOutputOpenDoesNotKeepTheTaskFromEnding(t *testing.T) {
	// Out of reach: no claim, and a session of its own.
	f := newFixture(t, map[string]Command{"x": script(`
		exec 4<&0
		env -u TASKBRIDGE_CLAIM setsid sh -c 'echo "::taskbridge {\"message\":\"pid $$\"}"; exec sleep 1000' <&4 &
		while ! kill -0 $! ; do :; done
		read -r line < "$FIFO"
		echo '::taskbridge {"result":1}'`)})
	w := newWitness(t)
	command := f.executor.commands["x"]
	command.Env = []string{"FIFO=" + w.path}
	f.executor.commands["x"] = command
	task := f.create("x", `{"a":"`+strings.Repeat("x", 1<<19)+`"}`)
	pid, err := strconv.Atoi(f.message(task, "pid "))
	must(t, err)
	t.Cleanup(func() { must(t, syscall.Kill(pid, syscall.SIGKILL)) })
	w.opens()
	row := f.end(task)
	if result, _ := row.Result(); string(result) != "1" {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
	must(t, syscall.Kill(pid, 0)) // it had its will
}

func TestASlowLifecycleLosesNoReportAndKeepsTheOrder(t *testing.T) {
	gate := make(chan struct{})
	command := helper("plain", "3000") // more than a pipe holds
	command.PlainLines = true
	f := newFixture(t, map[string]Command{"x": command})
	var once sync.Once
	f.lifecycle.report = func(ctx context.Context) error {
		once.Do(func() { <-gate })
		return nil
	}
	task := f.create("x", `{}`)
	close(gate)
	f.end(task)
	got := f.messages(task)
	if len(got) != 3000 {
		t.Fatalf("%d messages", len(got))
	}
	for i, message := range got {
		if message != "line "+strconv.Itoa(i) {
			t.Fatalf("message %d is %q", i, message)
		}
	}
}

func TestAReportOfUnknownOutcomeIsMadeAgainAndNotDoubled(t *testing.T) {
	command := helper("plain", "20")
	command.PlainLines = true
	f := newFixture(t, map[string]Command{"x": command})
	var calls atomic.Int64
	away := errors.New("the store is away")
	f.lifecycle.report = func(context.Context) error {
		if calls.Add(1)%7 == 3 {
			return away // before the effect
		}
		return nil
	}
	task := f.create("x", `{}`)
	f.end(task)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("line %d", i))
	}
	if got := f.messages(task); !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestOutputIsReadToItsEndThoughTheDeadlineHasPassed(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer func() { must(t, errors.Join(r.Close(), w.Close())) }()
	_, err = w.WriteString(strings.Repeat("line\n", 1000))
	must(t, err)
	must(t, r.SetReadDeadline(time.Now().Add(-time.Hour)))
	lines := 0
	must(t, readLines(&pipeReader{pipe: r}, 100, func([]byte, int) { lines++ }))
	if lines != 1000 {
		t.Fatalf("%d lines", lines)
	}
}
