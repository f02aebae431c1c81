//go:build linux

package process

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestNewRefusesCommandsThatCannotWork(t *testing.T) {
	for _, test := range []struct {
		command Command
		want    string
	}{
		{Command{}, "Path must not be empty"},
		{Command{Path: "a\x00b"}, "zero byte"},
		{Command{Path: "a", Args: []string{"b\x00"}}, "zero byte"},
		{Command{Path: "a", Dir: "\x00"}, "zero byte"},
		{Command{Path: "a", Env: []string{"NOVALUE"}}, "KEY=value"},
		{Command{Path: "a", Env: []string{"=value"}}, "KEY=value"},
		{Command{Path: "a", Env: []string{"K=\x00"}}, "KEY=value"},
		{Command{Path: "a", Env: []string{"TASKBRIDGE_CLAIM=x"}}, "set by the executor"},
		{Command{Path: "a", Env: []string{"TASKBRIDGE_INPUT=x"}}, "set by the executor"},
		{Command{Path: "a", InheritEnv: 3}, "InheritEnv"},
		{Command{Path: "a", InheritEnv: -1}, "InheritEnv"},
		{Command{Path: "a", MaxLine: -1}, "MaxLine"},
		{Command{Path: "a", Timeout: -1}, "Timeout"},
	} {
		_, err := New(Options{
			Lifecycle: &hookLifecycle{}, InstanceID: "i", StateDir: t.TempDir(),
			Commands: map[string]Command{"bad type": test.command},
		})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "bad type") {
			t.Errorf("%+v: %v, want %q", test.command, err, test.want)
		}
	}
}

func TestNewRefusesIncompleteOptions(t *testing.T) {
	whole := Options{Lifecycle: &hookLifecycle{}, InstanceID: "i", StateDir: t.TempDir()}
	for _, test := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Lifecycle = nil }, "Lifecycle"},
		{func(o *Options) { o.InstanceID = "" }, "InstanceID"},
		{func(o *Options) { o.StateDir = "" }, "StateDir"},
		{func(o *Options) { o.StateDir = "/dev/null/state" }, "state folder"},
		{func(o *Options) { o.MaxRunning = -1 }, "MaxRunning"},
		{func(o *Options) { o.MaxWaiting = -1 }, "MaxWaiting"},
		{func(o *Options) { o.Grace = -time.Second }, "Grace"},
	} {
		opts := whole
		test.change(&opts)
		if _, err := New(opts); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want an error with %q, got %v", test.want, err)
		}
	}
}

func TestCommandDefaults(t *testing.T) {
	c, err := Command{Path: "x"}.checked()
	if err != nil || c.MaxLine != 64<<10 || c.StderrTail != 4<<10 {
		t.Fatalf("%+v, %v", c, err)
	}
	c, err = Command{Path: "x", StderrTail: -1}.checked()
	if err != nil || c.StderrTail != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestTheServersSecretsReachNoCommandUnderAnyPolicy(t *testing.T) {
	t.Setenv("TASKBRIDGE_REDIS_PASSWORD", "secret")
	t.Setenv("TASKBRIDGE_INPUT", "stale")
	t.Setenv("OTHER_SECRET", "secret")
	t.Setenv("LC_TIME", "C")
	t.Setenv("PATH", "/bin")
	for _, test := range []struct {
		policy    EnvPolicy
		has, lack []string
	}{
		{EnvBasic, []string{"PATH=/bin", "LC_TIME=C"}, []string{"OTHER_SECRET=secret"}},
		{EnvAll, []string{"PATH=/bin", "LC_TIME=C", "OTHER_SECRET=secret"}, nil},
		{EnvNone, nil, []string{"PATH=/bin", "LC_TIME=C", "OTHER_SECRET=secret"}},
	} {
		env := Command{InheritEnv: test.policy, Env: []string{"TASKBRIDGE_URL=http://x"}}.environment("TASKBRIDGE_TASK_ID=t")
		for _, entry := range append(test.has, "TASKBRIDGE_URL=http://x", "TASKBRIDGE_TASK_ID=t") {
			if !slices.Contains(env, entry) {
				t.Errorf("policy %d lacks %s", test.policy, entry)
			}
		}
		for _, entry := range append(test.lack, "TASKBRIDGE_REDIS_PASSWORD=secret", "TASKBRIDGE_INPUT=stale") {
			if slices.Contains(env, entry) {
				t.Errorf("policy %d has %s", test.policy, entry)
			}
		}
	}
}

func TestTheCommandIsGivenItsInputAndIdentity(t *testing.T) {
	t.Setenv("TASKBRIDGE_SECRET", "secret")
	dir := t.TempDir()
	command := helper("echo", "$HOME", "a b", `"`, "")
	command.Dir = dir
	command.Env = []string{"EXTRA=1"}
	f := newFixture(t, map[string]Command{"echo": command})
	// Anything that a shell would act on.
	input := `{"a":"$(touch pwned); ` + "`touch pwned`" + ` && touch pwned | ' \" \\ \n * ~ ${PATH} \u0000"}`
	task := f.create("echo", input)
	row := f.end(task)

	var got struct {
		Stdin, Dir   string
		Args         []string
		Env          map[string]string
		Session, PID int
	}
	unmarshalResult(t, row, &got)
	switch {
	case got.Stdin != string(task.Input)+"\n":
		t.Errorf("standard input is %q", got.Stdin)
	case got.Env["TASKBRIDGE_INPUT"] != string(task.Input):
		t.Errorf("TASKBRIDGE_INPUT is %q", got.Env["TASKBRIDGE_INPUT"])
	case got.Env["TASKBRIDGE_TASK_ID"] != task.ID || got.Env["TASKBRIDGE_TASK_TYPE"] != "echo" || got.Env["EXTRA"] != "1":
		t.Errorf("the environment is %v", got.Env)
	case got.Env["TASKBRIDGE_CLAIM"] != row.Claim || row.Claim == "":
		t.Errorf("the claim is %q, the row's %q", got.Env["TASKBRIDGE_CLAIM"], row.Claim)
	case got.Env["TASKBRIDGE_SECRET"] != "":
		t.Error("a secret of the server's has leaked")
	case !slices.Equal(got.Args, []string{"$HOME", "a b", `"`, ""}):
		t.Errorf("the arguments are %q", got.Args)
	case got.Dir != dir:
		t.Errorf("the folder is %s", got.Dir)
	case got.Session != got.PID:
		t.Errorf("the command %d is in the session %d", got.PID, got.Session)
	}
	if entries := mustEntries(t, dir); len(entries) != 0 {
		t.Errorf("the input was run: %v", entries)
	}
}

func TestALargeInputComesOverStandardInputAlone(t *testing.T) {
	f := newFixture(t, map[string]Command{
		"count": script(`n=$(wc -c); printf '::taskbridge {"result":[%d,"%s",%d]}\n' "$n" "${TASKBRIDGE_INPUT+set}" "${#TASKBRIDGE_INPUT}"`),
	})
	for _, test := range []struct {
		bytes int
		want  string
	}{
		{32 << 10, `[32769,"set",32768]`},
		{32<<10 + 1, `[32770,"",0]`},
		{1 << 20, `[1048577,"",0]`},
	} {
		row := f.end(f.create("count", `{"a":"`+strings.Repeat("x", test.bytes-len(`{"a":""}`))+`"}`))
		if result, _ := row.Result(); string(result) != test.want {
			t.Errorf("%d bytes of input: %s %s, want %s", test.bytes, row.Status, row.Terminal, test.want)
		}
	}
}

func unmarshalResult(t *testing.T, row taskbridge.Task, v any) {
	t.Helper()
	result, ok := row.Result()
	if !ok {
		t.Fatalf("the task is %s %s", row.Status, row.Terminal)
	}
	must(t, json.Unmarshal(result, v))
}

func mustEntries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	return entries
}
