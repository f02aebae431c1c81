//go:build linux

package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// killedServer runs the script as a task of a server that is then killed, and
// returns the server's state folder.
func killedServer(t *testing.T, text string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	command := helper("server", dir, text)
	server := exec.Command(command.Path, command.Args...)
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	must(t, err)
	must(t, server.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("the server says %q, %v", line, err)
	}
	must(t, server.Process.Kill())
	if err := server.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the server ended: %v", err)
	}
	if t.Failed() {
		t.FailNow()
	}
	return dir
}

// nextServer makes an executor over the state folder.
func nextServer(t *testing.T, dir string) *fixture {
	return newFixture(t, map[string]Command{"x": script(`exit 0`)}, func(o *Options) { o.StateDir = dir })
}

func (f *fixture) recordsLeft() []record {
	f.t.Helper()
	recs, damaged, err := f.executor.records.left()
	must(f.t, errors.Join(append(damaged, err)...))
	return recs
}

const saysReady = `echo '::taskbridge {"message":"ready"}'; `

func TestSurvivorsOfAKilledServerAreKilled(t *testing.T) {
	w := newWitness(t)
	dir := killedServer(t, stragglers(w)+saysReady+"wait")
	w.hears(announced * len("r\n"))
	f := nextServer(t, dir)
	if recs := f.recordsLeft(); len(recs) != 1 || recs[0].PID == 0 || recs[0].Started == "" || recs[0].Boot == "" {
		t.Fatalf("on record: %+v", recs)
	}
	killed := make(chan error)
	go func() { killed <- f.executor.KillSurvivors(f.ctx) }()
	f.clock.fire(t, graceHeld)
	must(t, <-killed)
	w.gone()
	if recs := f.recordsLeft(); len(recs) != 0 {
		t.Fatalf("still on record: %+v", recs)
	}
	must(t, f.executor.KillSurvivors(f.ctx))
}

func TestSurvivorsWhoseLeaderIsDeadAreKilled(t *testing.T) {
	// Orphans become children of this process, so that the dead leader can be
	// waited for: as long as it is not, it counts as there.
	const setChildSubreaper = 36
	for _, on := range []uintptr{1, 0} {
		set := func() {
			if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, on, 0); errno != 0 {
				t.Fatal(errno)
			}
		}
		if on == 1 {
			set()
		} else {
			defer set()
		}
	}
	w := newWitness(t)
	// The command dies of its first line to nobody.
	dir := killedServer(t, stragglers(w)+saysReady+`while echo still here; do :; done`)
	w.hears(announced * len("r\n"))
	f := nextServer(t, dir)
	leader := f.recordsLeft()[0].PID
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(leader, &status, 0, nil); err != nil || !status.Signaled() {
		t.Fatalf("the leader ended with %v, %v", status, err)
	}
	killed := make(chan error)
	go func() { killed <- f.executor.KillSurvivors(f.ctx) }()
	f.clock.fire(t, graceHeld)
	must(t, <-killed)
	w.gone()
}

func TestSurvivorsOfACrashBetweenStartAndRecordAreFoundByTheirClaim(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(record) []byte
	}{
		{"record without process", func(r record) []byte {
			data, err := json.Marshal(record{Claim: r.Claim, TaskID: r.TaskID, At: r.At, Boot: r.Boot})
			must(t, err)
			return data
		}},
		{"empty record", func(record) []byte { return nil }},
		{"broken record", func(record) []byte { return []byte(`{"claim":"x`) }},
		{"another's record", func(record) []byte { return []byte(`{"claim":"ABCDEFGHIJKLMNOPQRSTUVWXYZ","pid":1,"started":"1"}`) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWitness(t)
			dir := killedServer(t, "exec 3>"+w.path+"; sleep 1000 & "+saysReady+"wait")
			f := nextServer(t, dir)
			rec := f.recordsLeft()[0]
			path := filepath.Join(dir, rec.Claim+".json")
			must(t, os.WriteFile(path, test.damage(rec), 0o600))
			must(t, os.WriteFile(path+".tmp", []byte("{"), 0o600))
			must(t, f.executor.KillSurvivors(f.ctx))
			w.gone()
			if entries := mustEntries(t, dir); len(entries) != 1 || entries[0].Name() != "lock" {
				t.Fatalf("the folder holds %v", entries)
			}
		})
	}
}

func TestAServerThatIsKilledAtAnyMomentLeavesNothingForLong(t *testing.T) {
	for heard := 1; heard <= busyRunning; heard++ {
		w := newWitness(t)
		dir := filepath.Join(t.TempDir(), "state")
		// Some end, most stay, some of these with company.
		command := helper("busy", dir, `exec 3>`+w.path+`; echo r >&3
			case $$ in *[1357]) exit 0 ;; *[24]) sleep 1000 & sleep 1000 ;; *[89]) setsid sleep 1000 ;; esac; exec sleep 1000`)
		server := exec.Command(command.Path, command.Args...)
		server.Stderr = os.Stderr
		must(t, server.Start())
		w.hears(len("r\n") * heard)
		must(t, server.Process.Kill())
		_ = server.Wait()
		f := nextServer(t, dir)
		must(t, f.executor.KillSurvivors(f.ctx))
		w.gone()
		if recs := f.recordsLeft(); len(recs) != 0 {
			t.Fatalf("still on record: %+v", recs)
		}
	}
}

func TestAProcessThatGotTheNumberOfADeadOneIsLeftAlone(t *testing.T) {
	innocent := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
	lead(innocent)
	out, err := innocent.StdoutPipe()
	must(t, err)
	must(t, innocent.Start())
	pid := innocent.Process.Pid
	t.Cleanup(func() {
		must(t, syscall.Kill(-pid, syscall.SIGKILL))
		_ = innocent.Wait()
	})
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	now, err := startTime(pid)
	must(t, err)

	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	for _, rec := range []record{
		{Claim: "AAAAAAAAAAAAAAAAAAAAAAAAAA", PID: pid, Started: "1", Boot: bootID()},
		{Claim: "BBBBBBBBBBBBBBBBBBBBBBBBBB", PID: pid, Started: now, Boot: "an earlier boot"},
		{Claim: "CCCCCCCCCCCCCCCCCCCCCCCCCC", PID: 1, Started: "12345", Boot: bootID()},
	} {
		must(t, f.executor.records.begin(rec))
		f.executor.records.disown(rec.Claim)
	}
	must(t, f.executor.KillSurvivors(f.ctx))
	left, err := newSearch(identity{pid: pid, started: now, claim: "none"}).look()
	must(t, err)
	if len(left) != 2 {
		t.Fatalf("of the two innocent ones %v are left", left)
	}
	if recs := f.recordsLeft(); len(recs) != 0 {
		t.Fatalf("still on record: %+v", recs)
	}
}

func TestKillSurvivorsLeavesItsOwnExecutionsAlone(t *testing.T) {
	gate := newWitness(t)
	f := newFixture(t, map[string]Command{"x": script(saysReady + "read -r line < " + gate.path)})
	task := f.create("x", `{}`)
	f.message(task, "ready")
	must(t, f.executor.KillSurvivors(f.ctx))
	gate.opens()
	if row := f.end(task); row.Status != taskbridge.StatusCompleted {
		t.Fatalf("%s %s", row.Status, row.Terminal)
	}
}

func TestKillSurvivorsKillsAtOnceWhenItsContextEnds(t *testing.T) {
	w := newWitness(t)
	dir := killedServer(t, "exec 3>"+w.path+`; trap "echo asked >&3" TERM; `+saysReady+"while :; do :; done")
	f := nextServer(t, dir)
	ctx, cancel := context.WithCancel(f.ctx)
	killed := make(chan error)
	go func() { killed <- f.executor.KillSurvivors(ctx) }()
	w.hears(len("asked\n"))
	cancel()
	// Nothing is left, so that there is nothing to complain of.
	must(t, <-killed)
	w.gone()
}

func TestAStateFolderHasOneOwner(t *testing.T) {
	f := newFixture(t, map[string]Command{"x": script(`exit 0`)})
	opts := Options{Lifecycle: f.lifecycle, InstanceID: "second", StateDir: f.executor.records.dir}
	if _, err := New(opts); err == nil || !strings.Contains(err.Error(), "another executor") {
		t.Fatalf("got %v", err)
	}
	must(t, f.executor.Close(f.ctx))
	second, err := New(opts)
	must(t, err)
	must(t, second.Close(f.ctx))
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	dir := t.TempDir()
	first, err := openRecords(dir)
	must(t, err)
	recs := []record{
		{Claim: "AAAAAAAAAAAAAAAAAAAAAAAAAA", TaskID: "000-a", At: time.Now().UTC().Truncate(0), PID: 5, Started: "9", Boot: "b"},
		{Claim: "BBBBBBBBBBBBBBBBBBBBBBBBBB", TaskID: "000-b", At: time.Now().UTC().Truncate(0)},
	}
	for _, rec := range recs {
		must(t, first.begin(record{Claim: rec.Claim}))
		must(t, first.update(rec))
	}
	must(t, os.WriteFile(filepath.Join(dir, "notes.json"), []byte("mine"), 0o600))
	if got, _, err := first.left(); err != nil || len(got) != 0 {
		t.Fatalf("its own are taken for left: %+v, %v", got, err)
	}
	must(t, first.close())
	second, err := openRecords(dir)
	must(t, err)
	got, damaged, err := second.left()
	if err != nil || len(damaged) != 0 || !slices.Equal(got, recs) {
		t.Fatalf("got %+v, %v, %v", got, damaged, err)
	}
	for _, rec := range recs {
		must(t, second.remove(rec.Claim))
		must(t, second.remove(rec.Claim))
	}
	if entries := mustEntries(t, dir); len(entries) != 2 { // the lock, the notes
		t.Fatalf("the folder holds %v", entries)
	}
	must(t, second.close())
}
