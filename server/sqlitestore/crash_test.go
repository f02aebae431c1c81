package sqlitestore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// The environment of the process that is killed.
const (
	crashDir   = "SQLITESTORE_TEST_CRASH_DIR"
	crashRound = "SQLITESTORE_TEST_CRASH_ROUND"

	crashWorkers = 16
)

// TestWhatWasAcknowledgedOutlivesSIGKILL runs a process that writes under load
// and prints what was acknowledged, kills it at a random moment, and looks into
// the folder; several times, on one folder.
func TestWhatWasAcknowledgedOutlivesSIGKILL(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	killAgainAndAgain(t, rounds)
}

func killAgainAndAgain(t *testing.T, rounds int) {
	t.Helper()
	dir := t.TempDir()
	known := newAcknowledged()
	for round := 1; round <= rounds; round++ {
		lines := known.total + 1 + rand.IntN(600)
		runAndKill(t, dir, round, known, lines)
		verify(t, dir, known)
	}
}

// acknowledged is what calls have returned to a process that was killed later.
type acknowledged struct {
	total     int
	created   map[string]string           // task id by key
	revisions map[string]int64            // by task id
	tags      map[string]map[int64]string // by task id and sequence number
}

func newAcknowledged() *acknowledged {
	return &acknowledged{
		created:   make(map[string]string),
		revisions: make(map[string]int64),
		tags:      make(map[string]map[int64]string),
	}
}

func (a *acknowledged) read(line string) error {
	a.total++
	var id, text string
	var number int64
	if n, _ := fmt.Sscanf(line, "created %s %s", &text, &id); n == 2 {
		a.created[text] = id
	} else if n, _ := fmt.Sscanf(line, "updated %s %d", &id, &number); n == 2 {
		a.revisions[id] = max(a.revisions[id], number)
	} else if n, _ := fmt.Sscanf(line, "appended %s %d %s", &id, &number, &text); n == 3 {
		if a.tags[id] == nil {
			a.tags[id] = make(map[int64]string)
		}
		a.tags[id][number] = text
	} else {
		return fmt.Errorf("the child said %q", line)
	}
	return nil
}

// runAndKill kills the child once it has said that many lines in all. Lines that
// are in the pipe by then count too.
func runAndKill(t *testing.T, dir string, round int, known *acknowledged, lines int) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), program)
	child.Env = append(os.Environ(), crashDir+"="+dir, crashRound+"="+strconv.Itoa(round))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	said := bufio.NewScanner(out)
	for said.Scan() {
		if err := known.read(said.Text()); err != nil {
			t.Error(err)
		}
		if !killed && known.total >= lines {
			killed = true
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := child.Wait(); !killed || t.Failed() {
		t.Fatalf("the child of round %d ended by itself: %v", round, err)
	}
}

func verify(t *testing.T, dir string, known *acknowledged) {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Dir: dir})
	if err != nil {
		t.Fatalf("Open after the kill: %v", err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	if holder, err := s.LeaseHolder(t.Context(), "lease"); err != nil || holder != "" {
		t.Errorf("the dead process's lease is held by %q, %v", holder, err)
	}
	for key, id := range known.created {
		row, created, err := s.CreateTask(t.Context(), crashTask(key))
		if err != nil || created || row.ID != id {
			t.Fatalf("the task of %s was lost: %s, created %v, %v; want %s", key, row.ID, created, err, id)
		}
		if row.Revision < known.revisions[id] {
			t.Fatalf("task %s has revision %d, %d was acknowledged", id, row.Revision, known.revisions[id])
		}
		// Row and event of an update came together.
		if events := stream(t, s, id); int64(len(events)) != row.Attempt || row.Attempt != row.Revision-1 {
			t.Fatalf("task %s has revision %d, attempt %d and %d events", id, row.Revision, row.Attempt, len(events))
		}
	}
	for id, tags := range known.tags {
		events := stream(t, s, id)
		for sequence, tag := range tags {
			if sequence > int64(len(events)) || events[sequence-1].Tag != tag {
				t.Fatalf("event %d-%s of stream %s was lost", sequence, tag, id)
			}
		}
	}
	for worker := range crashWorkers {
		if err := inOrder(stream(t, s, crashStream(worker))); err != nil {
			t.Fatalf("stream of worker %d: %v", worker, err)
		}
	}
}

func stream(t *testing.T, s *sqlitestore.Store, id string) []taskbridge.Event {
	t.Helper()
	events, err := s.ReadEvents(t.Context(), id, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Sequence != int64(i+1) {
			t.Fatalf("event %d of stream %s has the number %d", i+1, id, e.Sequence)
		}
	}
	return events
}

// inOrder checks that the events are those of round after round, each from its
// first ordinal on and without a hole.
func inOrder(events []taskbridge.Event) error {
	round, ordinal := 0, 0
	for _, e := range events {
		var r, o int
		if _, err := fmt.Sscanf(string(e.Payload), `{"message":"%d-%d"}`, &r, &o); err != nil {
			return err
		}
		if r == round && o != ordinal+1 || r != round && (r < round || o != 1) {
			return fmt.Errorf("%d-%d comes after %d-%d", r, o, round, ordinal)
		}
		round, ordinal = r, o
	}
	return nil
}

func crashStream(worker int) string { return fmt.Sprintf("stream-%d", worker) }

func crashTask(key string) taskbridge.Task {
	return taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", key), Owner: "owner", ClientRequestID: key, Fingerprint: "f", Type: "type",
		Input: []byte(`{}`), Metadata: []byte(`{}`), CreatedAt: time.Now(), Status: taskbridge.StatusAccepted,
	}
}

// runCrashChild is the process that is killed.
func runCrashChild() int {
	round, err := strconv.ParseInt(os.Getenv(crashRound), 10, 64)
	if err == nil {
		err = writeUntilKilled(os.Getenv(crashDir), round)
	}
	fmt.Fprintln(os.Stderr, "crash child:", err)
	return 1
}

func writeUntilKilled(dir string, round int64) error {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return err
	}
	if _, err := s.AcquireLease(ctx, "lease", "child", time.Hour); err != nil {
		return err
	}
	failed := make(chan error, crashWorkers)
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...) // unbuffered: said is said
	}
	for worker := range crashWorkers {
		go func() { failed <- writeAsWorker(ctx, s, round, worker, say) }()
	}
	return <-failed
}

// writeAsWorker appends to a stream of its own and, now and then, creates a task
// or updates one together with an event.
func writeAsWorker(ctx context.Context, s *sqlitestore.Store, round int64, worker int, say func(string, ...any)) error {
	var last taskbridge.Task
	for n := int64(1); ; n++ {
		e := crashEvent(crashStream(worker), round, n)
		result, err := s.AppendEvent(ctx, e)
		if err != nil {
			return err
		}
		say("appended %s %d %s", e.TaskID, result.Sequence, e.Tag)
		switch {
		case n%5 == 1:
			key := fmt.Sprintf("key-%d-%d-%d", round, worker, n)
			if last, _, err = s.CreateTask(ctx, crashTask(key)); err != nil {
				return err
			}
			say("created %s %s", key, last.ID)
		case n%2 == 0:
			last.Attempt++
			e := crashEvent(last.ID, round, n)
			if last, err = s.UpdateTaskAndAppend(ctx, last, []taskbridge.EventAppend{e}); err != nil {
				return err
			}
			say("updated %s %d", last.ID, last.Revision)
			say("appended %s %d %s", last.ID, last.Attempt, e.Tag)
		}
	}
}

func crashEvent(id string, round, ordinal int64) taskbridge.EventAppend {
	e := taskbridge.EventAppend{
		TaskID: id, Type: taskbridge.EventMessage, CreatedAt: time.Now(),
		Payload:  fmt.Appendf(nil, `{"message":"%d-%d"}`, round, ordinal),
		Producer: taskbridge.Producer{Name: "worker", Epoch: round}, Ordinal: ordinal,
	}
	e.Tag = taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload)
	return e
}
