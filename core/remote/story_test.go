package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// story is what one worker reports, made from a seed, and what its stream has to
// say then: all text in order with the other reports at their places, whatever
// progress was overtaken.
type story struct {
	steps []step
	// text is all that is recorded but progress, each other report as a mark.
	text string
	// progress is how much of text comes before each progress report, by its
	// number.
	progress []int
}

// step is one report; exactly one field is set.
type step struct {
	token    string
	message  string
	progress int // its number, from 1
	suspend  string
}

var runes = []rune("abcdefghij klmnop\n\"<&>\\é雪\U0001F642\u2028")

// tell makes a story of so many tokens.
func tell(seed uint64, tokens int) *story {
	random := rand.New(rand.NewPCG(seed, 1))
	s := new(story)
	var text strings.Builder
	suspensions := 0
	for left := tokens; left > 0; {
		switch dice := random.IntN(100); {
		case dice < 60:
			n := min(left, 1+random.IntN(20))
			left -= n
			s.tokens(random, &text, n)
		case dice < 80:
			message := fmt.Sprintf("message %d", len(s.steps))
			s.steps = append(s.steps, step{message: message})
			text.WriteString(mark(message))
		case dice < 99 || suspensions == 20:
			s.progress = append(s.progress, text.Len())
			s.steps = append(s.steps, step{progress: len(s.progress)})
		default:
			suspensions++
			id := fmt.Sprintf("suspension %d", suspensions)
			s.steps = append(s.steps, step{suspend: id})
			text.WriteString(mark(id))
		}
	}
	s.text = text.String()
	return s
}

// tokens adds consecutive tokens: pieces of a text, cut wherever a byte ends.
func (s *story) tokens(random *rand.Rand, text *strings.Builder, n int) {
	var piece strings.Builder
	for range n * (1 + random.IntN(4)) {
		piece.WriteRune(runes[random.IntN(len(runes))])
	}
	text.WriteString(piece.String())
	rest := piece.String()
	for left := n; left > 1; left-- {
		size := random.IntN(min(len(rest), 2*len(rest)/left) + 1)
		s.steps = append(s.steps, step{token: rest[:size]})
		rest = rest[size:]
	}
	s.steps = append(s.steps, step{token: rest})
}

func mark(name string) string { return "\x00" + name + "\x00" }

// report has a run report the story, to its end.
func (s *story) report(ctx context.Context, run taskbridge.Run) error {
	for i, step := range s.steps {
		var err error
		switch {
		case step.message != "":
			err = run.Message(ctx, taskbridge.Message{Text: step.message, Level: taskbridge.LevelDebug})
		case step.progress > 0:
			err = run.Progress(ctx, taskbridge.Progress{Stage: fmt.Sprint(step.progress)})
		case step.suspend != "":
			err = run.Suspend(ctx, taskbridge.Suspension{
				SuspendID: step.suspend, Kind: taskbridge.SuspendSystemPaused, ReasonCode: "R",
				AllowedActions: []string{"A"}, SchemaVersion: 1,
			})
		default:
			err = run.Token(ctx, step.token)
		}
		if err != nil {
			return fmt.Errorf("report %d of %d: %w", i+1, len(s.steps), err)
		}
	}
	return run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`"done"`)})
}

// compare says what is wrong with the stream of a run that has reported the
// story, "" if nothing is.
func (s *story) compare(events []taskbridge.Event) string {
	var text strings.Builder
	last, ends := 0, 0
	for i, e := range events {
		var payload struct {
			Message, Stage, SuspendID string
			Level                     taskbridge.MessageLevel
		}
		if err := json.Unmarshal(e.Payload, &payload); err != nil {
			return fmt.Sprintf("event %d is %s: %v", i, e.Payload, err)
		}
		switch {
		case e.Type == taskbridge.EventStarted:
			if i != 0 {
				return fmt.Sprintf("event %d is TASK_STARTED", i)
			}
		case e.Type == taskbridge.EventMessage && payload.Level == taskbridge.LevelDebug:
			text.WriteString(mark(payload.Message))
		case e.Type == taskbridge.EventMessage:
			text.WriteString(payload.Message)
		case e.Type == taskbridge.EventSuspended:
			text.WriteString(mark(payload.SuspendID))
		case e.Type == taskbridge.EventProgress:
			var n int
			if _, err := fmt.Sscan(payload.Stage, &n); err != nil || n <= last || n > len(s.progress) {
				return fmt.Sprintf("progress %s follows progress %d", e.Payload, last)
			}
			if want := s.progress[n-1]; text.Len() != want {
				return fmt.Sprintf("progress %d comes behind %d bytes, want %d", n, text.Len(), want)
			}
			last = n
		case e.Type == taskbridge.EventCompleted:
			ends++
		default:
			return fmt.Sprintf("event %d is %s", i, e.Type)
		}
	}
	switch got := text.String(); {
	case got != s.text:
		same := 0
		for same < min(len(got), len(s.text)) && got[same] == s.text[same] {
			same++
		}
		return fmt.Sprintf("of %d bytes of text there are %d, and the first %d agree: %.60q, want %.60q",
			len(s.text), len(got), same, got[same:], s.text[same:])
	case last != len(s.progress):
		return fmt.Sprintf("the last progress is %d of %d", last, len(s.progress))
	case ends != 1 || events[len(events)-1].Type != taskbridge.EventCompleted:
		return fmt.Sprintf("there are %d ends", ends)
	}
	return ""
}

// tellAll has workers report stories through a hostile network and compares
// their streams with them.
func tellAll(ctx context.Context, t *testing.T, seed uint64, workers, tokens int, opts remote.Options) {
	t.Helper()
	stores := atomicStores(t)
	_, signer, handler := newServer(t, taskbridge.LifecycleOptions{Stores: stores}, nil)
	proxy := newHostile(t, handler, seed, 0.3)
	opts.URL, opts.Retry = proxy.URL, impatient
	lifecycle, err := remote.NewLifecycle(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lifecycle.CloseIdleConnections)
	ids, stories, errs := make([]string, workers), make([]*story, workers), make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		ids[i] = newTask(ctx, t, stores.Tasks, fmt.Sprint(i))
		stories[i] = tell(seed*1000+uint64(i), tokens)
		all.Go(func() {
			token, err := signer.SubmissionToken(ids[i])
			if err != nil {
				errs[i] = err
				return
			}
			run, err := lifecycle.Start(ctx, ids[i], taskbridge.Claim{ID: "claim", Token: token})
			if err != nil {
				errs[i] = err
				return
			}
			errs[i] = errors.Join(stories[i].report(ctx, run), run.Close())
		})
	}
	all.Wait()
	events := 0
	for i, id := range ids {
		if errs[i] != nil {
			t.Errorf("worker %d: %v", i, errs[i])
			continue
		}
		stream := readAll(ctx, t, stores.Events, id)
		events += len(stream)
		if complaint := stories[i].compare(stream); complaint != "" {
			t.Errorf("worker %d: %s", i, complaint)
		}
	}
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	t.Logf("%d workers, %d tokens each, %d events; met: %v", workers, tokens, events, proxy.met)
}

func TestThroughAHostileNetworkEachStreamIsWhatWasReported(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, opts := range map[string]remote.Options{
		"with the default bounds":  {},
		"with a small buffer":      {MaxBufferedReports: 5, MaxBufferedBytes: 1 << 10, BatchDelay: 1},
		"with one report a buffer": {MaxBufferedReports: 1, BatchDelay: 1},
		"synchronously":            {Synchronous: true, BatchDelay: 1},
	} {
		t.Run(name, func(t *testing.T) { tellAll(ctx, t, 1, 5, 2000, opts) })
	}
}

func TestThroughAHostileNetworkReportsOfManyGoroutinesAreEachInOrder(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stores := atomicStores(t)
	_, _, handler := newServer(t, taskbridge.LifecycleOptions{Stores: stores}, nil)
	lifecycle, err := remote.NewLifecycle(remote.Options{
		URL: newHostile(t, handler, 2, 0.3).URL, Credential: credential, Retry: impatient,
		MaxBufferedReports: 10, BatchDelay: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lifecycle.CloseIdleConnections)
	id := newTask(ctx, t, stores.Tasks, "key")
	run, err := lifecycle.Start(ctx, id, taskbridge.Claim{ID: "claim"})
	if err != nil {
		t.Fatal(err)
	}
	const callers, each = 16, 50
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := range each {
				errs[i] = errors.Join(errs[i], run.Message(ctx, taskbridge.Message{Text: fmt.Sprintf("%d %d", i, n), Level: taskbridge.LevelDebug}),
					run.Token(ctx, "token"), run.Progress(ctx, taskbridge.Progress{}))
			}
			errs[i] = errors.Join(errs[i], run.(remote.Flusher).Flush(ctx))
		})
	}
	all.Wait()
	if err := errors.Join(errors.Join(errs...), run.Close()); err != nil {
		t.Fatal(err)
	}
	var next [callers]int
	tokens := 0
	for _, e := range readAll(ctx, t, stores.Events, id)[1:] {
		var i, n int
		if _, err := fmt.Sscanf(string(e.Payload), `{"message":"%d %d`, &i, &n); err != nil {
			tokens += strings.Count(string(e.Payload), "token")
			continue
		}
		if n != next[i] {
			t.Fatalf("message %d of goroutine %d comes where %d was to come", n, i, next[i])
		}
		next[i]++
	}
	for i, n := range next {
		if n != each {
			t.Errorf("%d messages of goroutine %d are there, want %d", n, i, each)
		}
	}
	if tokens != callers*each {
		t.Errorf("%d tokens are there, want %d", tokens, callers*each)
	}
}
