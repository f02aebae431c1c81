package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func progress(percent float64) taskbridge.Progress { return taskbridge.Progress{Percent: percent} }

func debug(text string) taskbridge.Message {
	return taskbridge.Message{Text: text, Level: taskbridge.LevelDebug}
}

func TestAFullBufferLosesOvertakenProgressAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{MaxBufferedReports: 4})
		id, run := l.start()
		l.wire.when(gone)
		l.must("Message", run.Message(l.ctx, debug("a"))) // is under way from here on
		synctest.Wait()
		l.must("Progress", run.Progress(l.ctx, progress(10)))
		l.must("Progress", run.Progress(l.ctx, progress(11))) // replaces it
		l.must("Message", run.Message(l.ctx, debug("b")))
		l.must("Progress", run.Progress(l.ctx, progress(20)))
		// Four are there: 11 gives way, then 20 to newer progress.
		l.must("Message", run.Message(l.ctx, debug("c")))
		l.must("Progress", run.Progress(l.ctx, progress(30)))

		short, cancel := context.WithTimeout(l.ctx, time.Minute)
		defer cancel()
		l.refused("Message", run.Message(short, debug("never")), context.DeadlineExceeded)
		l.refused("Token", run.Token(short, "never"), context.DeadlineExceeded)
		l.must("Progress", run.Progress(l.ctx, progress(31))) // always replaces what it follows

		waiting := make(chan error, 1)
		go func() { waiting <- run.Message(l.ctx, debug("d")) }()
		synctest.Wait()
		// A suspension and an end wait for no room, but for their answer.
		ended := make(chan error, 1)
		go func() { ended <- run.Suspend(l.ctx, suspension("s")) }()
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Fatalf("the message has not waited: %v", err)
		default:
		}
		l.wire.when(nil)
		l.must("Message", <-waiting)
		l.must("Suspend", <-ended)
		l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))
		got := l.stream(id)
		want := []string{
			"STARTED {}", `MESSAGE {"message":"a","level":"debug"}`, `MESSAGE {"message":"b","level":"debug"}`,
			`MESSAGE {"message":"c","level":"debug"}`, `PROGRESS {"progress":31}`,
		}
		if len(got) != len(want)+3 || strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") {
			t.Errorf("the stream is\n\t%s", strings.Join(got, "\n\t"))
		}
	})
}

func TestTextWaitsForRoomAndIsTakenWholeOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{MaxBufferedBytes: 1000})
		id, run := l.start()
		l.wire.when(gone)
		large := strings.Repeat("l", 2000)
		l.must("Token", run.Token(l.ctx, large)) // alone it may be larger
		short, cancel := context.WithTimeout(l.ctx, time.Minute)
		defer cancel()
		l.refused("Token", run.Token(short, "never"), context.DeadlineExceeded)
		waiting := make(chan error, 1)
		go func() { waiting <- run.Token(l.ctx, "more") }()
		synctest.Wait()
		l.wire.when(nil)
		l.must("Token", <-waiting)
		l.must("Close", run.Close())
		l.expect(id, "STARTED {}", fmt.Sprintf(`MESSAGE {"message":%q}`, large), `MESSAGE {"message":"more"}`)
	})
}

func TestACallThatWaitsForRoomEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{MaxBufferedReports: 1})
		_, run := l.start()
		l.wire.when(gone)
		l.must("Message", run.Message(l.ctx, debug("a")))
		waiting := make(chan error, 2)
		go func() { waiting <- run.Message(l.ctx, debug("b")) }()
		go func() { waiting <- run.Token(l.ctx, "c") }()
		synctest.Wait()
		if run.Close() == nil {
			t.Error("Close: nil, and a message is lost")
		}
		l.refused("the call that waited", <-waiting, taskbridge.ErrClosed)
		l.refused("the call that waited", <-waiting, taskbridge.ErrClosed)
	})
}

// small makes a server of small limits of which the worker does not know.
func small(limits taskbridge.Limits) func(*taskbridge.LifecycleOptions) {
	return func(opts *taskbridge.LifecycleOptions) { opts.Limits = limits }
}

func TestAFullStreamIsToldByTheNextCallOfTheKindOrByAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{}, small(taskbridge.Limits{StreamEvents: 2}))
		id, run := l.start()
		l.must("Message", run.Message(l.ctx, debug("fits")))
		l.must("Message", run.Message(l.ctx, debug("lost")))
		l.must("Token", run.Token(l.ctx, "lost"))
		wait(l.ctx, 1000)
		l.must("Progress", run.Progress(l.ctx, progress(1))) // of a kind of which nothing was lost yet
		l.refused("Message", run.Message(l.ctx, debug("refused")), taskbridge.ErrStreamFull)
		l.refused("Token", run.Token(l.ctx, "refused"), taskbridge.ErrStreamFull)
		l.refused("Flush", run.(remote.Flusher).Flush(l.ctx), taskbridge.ErrStreamFull) // of the progress
		l.flush(run)
		l.must("Token", run.Token(l.ctx, "lost too"))
		l.must("Suspend", run.Suspend(l.ctx, suspension("s")))
		l.refused("Close", run.Close(), taskbridge.ErrStreamFull)
		if got := l.stream(id); len(got) != 3 {
			t.Errorf("the stream is %q", got)
		}
	})
}

func TestAReportThatTheServerRefusesLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{BatchDelay: time.Second}, small(taskbridge.Limits{EventPayload: 200}))
		id, run := l.start()
		l.must("Token", run.Token(l.ctx, "first"))
		synctest.Wait()
		long := strings.Repeat("x", 200)
		for _, text := range []string{"a", long, "b", "c", long} {
			l.must("Message", run.Message(l.ctx, debug(text)))
		}
		l.must("Token", run.Token(l.ctx, long)) // is split
		l.refused("Flush", run.(remote.Flusher).Flush(l.ctx), taskbridge.ErrPayloadTooLarge)
		large := suspension("large")
		large.ReasonCode = long
		l.must("Token", run.Token(l.ctx, "before"))
		l.refused("Suspend", run.Suspend(l.ctx, large), taskbridge.ErrPayloadTooLarge)
		l.must("Suspend", run.Suspend(l.ctx, suspension("large")))
		other := suspension("large")
		other.ReasonCode = "OTHER"
		l.must("Token", run.Token(l.ctx, "behind"))
		l.refused("Suspend", run.Suspend(l.ctx, other), taskbridge.ErrInvalidArgument)
		l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))
		l.expect(id, "STARTED {}", `MESSAGE {"message":"first"}`, `MESSAGE {"message":"a","level":"debug"}`,
			`MESSAGE {"message":"b","level":"debug"}`, `MESSAGE {"message":"c","level":"debug"}`,
			`MESSAGE {"message":"`+long[:186]+`"}`, `MESSAGE {"message":"`+long[186:]+`"}`, `MESSAGE {"message":"before"}`,
			`SUSPENDED {"suspendId":"large","kind":"USER_ACTION_REQUIRED","reasonCode":"R","allowedActions":["A"],"schemaVersion":1}`,
			`MESSAGE {"message":"behind"}`, `COMPLETED {"result":null}`)
	})
}

// narrow refuses requests with reports above the size, as something on the way
// may do.
func narrow(limit int) func(r *http.Request, body []byte) (*http.Response, error) {
	return func(r *http.Request, body []byte) (*http.Response, error) {
		if route(r) == "reports" && len(body) > limit {
			return answer(http.StatusRequestEntityTooLarge, "text/html", "<h1>413</h1>"), nil
		}
		return nil, nil
	}
}

func TestARequestThatIsTooLargeForSomethingOnTheWayIsDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{BatchDelay: time.Second})
		id, run := l.start()
		l.wire.when(narrow(2000))
		want := []string{"STARTED {}"}
		for n := range 100 {
			message := fmt.Sprintf("message %d", n)
			l.must("Message", run.Message(l.ctx, debug(message)))
			want = append(want, `MESSAGE {"message":"`+message+`","level":"debug"}`)
		}
		l.flush(run)
		l.expect(id, want...)
		l.must("Message", run.Message(l.ctx, debug(strings.Repeat("x", 3000))))
		told := new(remote.Error)
		if err := run.(remote.Flusher).Flush(l.ctx); !errors.As(err, &told) || told.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("Flush: %v, want the answer 413", err)
		}
	})
}

func TestAResultThatNoRequestCanCarryIsLeftOutAndTheEndIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ message, want string }{
			{"", "the result of 5002 bytes is left out: it is larger than a request may be"},
			{"done", "done (the result of 5002 bytes is left out: it is larger than a request may be)"},
		} {
			l := newLab(t, remote.Options{})
			id, run := l.start()
			l.wire.when(narrow(2000))
			l.must("Token", run.Token(l.ctx, "before"))
			result := []byte(`"` + strings.Repeat("x", 5000) + `"`)
			l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{Result: result, Message: c.message}))
			l.expect(id, "STARTED {}", `MESSAGE {"message":"before"}`, `COMPLETED {"result":null,"message":"`+c.want+`"}`)
		}
	})
}

func TestNoRequestHasMoreReportsThanTheServerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{MaxBufferedReports: 5000, BatchDelay: time.Second})
		id, run := l.start()
		l.wire.when(gone)
		for n := range 3000 {
			l.must("Message", run.Message(l.ctx, debug(fmt.Sprint(n))))
		}
		l.wire.when(nil)
		l.flush(run)
		if got := len(l.stream(id)); got != 3001 {
			t.Errorf("the stream has %d events, want 3001", got)
		}
		if got := len(l.wire.requests("reports")); got < 3000/workerapi.MaxReports || got > 5 {
			t.Errorf("there were %d requests", got)
		}
	})
}
