package remote_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// text joins what the tokens of a request say.
func text(t *testing.T, s sent) string {
	t.Helper()
	var request workerapi.ReportsRequest
	if err := json.Unmarshal(s.body, &request); err != nil {
		t.Fatalf("the request is %s: %v", s.body, err)
	}
	var all strings.Builder
	for _, r := range request.Reports {
		all.WriteString(r.Text)
	}
	return all.String()
}

func TestAThousandTokensASecondTakeAtMostThirtyRequestsAndNoneWaitsFiftyMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		_, run := l.start()
		const seconds = 10
		var told []time.Time
		begin := time.Now()
		for range seconds * 1000 {
			l.must("Token", run.Token(l.ctx, "x"))
			told = append(told, time.Now())
			wait(l.ctx, 1)
		}
		l.flush(run)
		requests := l.wire.requests("reports")
		if most := 30*seconds + 1; len(requests) > most {
			t.Errorf("%d requests in %v, want at most %d", len(requests), time.Since(begin), most)
		}
		n := 0
		for _, request := range requests {
			for range text(t, request) {
				if waited := request.at.Sub(told[n]); waited >= 50*time.Millisecond {
					t.Fatalf("token %d waited %v", n, waited)
				}
				n++
			}
		}
		if n != len(told) {
			t.Errorf("%d tokens were sent, want %d", n, len(told))
		}
	})
}

func TestTheFirstReportOfAnIdleRunGoesAtOnceAndTheNextAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{BatchDelay: 35 * time.Millisecond})
		_, run := l.start()
		for range 3 {
			wait(l.ctx, 1000)
			begin, before := time.Now(), len(l.wire.requests("reports"))
			l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "first"}))
			synctest.Wait()
			l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "second"}))
			l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "third"}))
			wait(l.ctx, 1000)
			requests := l.wire.requests("reports")[before:]
			if len(requests) != 2 || !requests[0].at.Equal(begin) || requests[1].at.Sub(begin) != 35*time.Millisecond {
				t.Errorf("the requests went at %v, want at 0s and 35ms", since(begin, requests))
			}
		}
	})
}

func since(begin time.Time, requests []sent) (all []time.Duration) {
	for _, r := range requests {
		all = append(all, r.at.Sub(begin))
	}
	return all
}

func TestWhatSomebodyWaitsForDoesNotWaitForTheDelay(t *testing.T) {
	for name, call := range map[string]func(l *lab, run taskbridge.Run) error{
		"a flush":      func(l *lab, run taskbridge.Run) error { return run.(remote.Flusher).Flush(l.ctx) },
		"a suspension": func(l *lab, run taskbridge.Run) error { return run.Suspend(l.ctx, suspension("one")) },
		"an end":       func(l *lab, run taskbridge.Run) error { return run.Complete(l.ctx, taskbridge.Completion{}) },
		"a close":      func(_ *lab, run taskbridge.Run) error { return run.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, remote.Options{BatchDelay: time.Hour})
				id, run := l.start()
				begin := time.Now()
				l.must("Token", run.Token(l.ctx, "one"))
				synctest.Wait() // it has gone, and the delay begins
				l.must("Token", run.Token(l.ctx, "two"))
				l.must("the call", call(l, run))
				if took := time.Since(begin); took != 0 {
					t.Errorf("it took %v", took)
				}
				if got := l.stream(id); len(got) < 3 || got[1] != `MESSAGE {"message":"one"}` || got[2] != `MESSAGE {"message":"two"}` {
					t.Errorf("the stream is %q", got)
				}
			})
		})
	}
}

func suspension(id string) taskbridge.Suspension {
	return taskbridge.Suspension{
		SuspendID: id, Kind: taskbridge.SuspendUserAction, ReasonCode: "R", AllowedActions: []string{"A"}, SchemaVersion: 1,
	}
}

func TestRunesThatAreCutIntoTokensAreWholeInTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{BatchDelay: time.Millisecond})
		id, run := l.start()
		const all = "雪\U0001F642é"
		for i := range len(all) {
			l.must("Token", run.Token(l.ctx, all[i:i+1]))
			l.flush(run) // waits for no rest of a rune
			wait(l.ctx, 10)
		}
		l.must("Token", run.Token(l.ctx, "\xe9")) // the rest never comes
		l.must("Close", run.Close())
		l.expect(id, "STARTED {}", `MESSAGE {"message":"雪"}`, `MESSAGE {"message":"`+"\U0001F642"+`"}`, `MESSAGE {"message":"é"}`, `MESSAGE {"message":"`+"\uFFFD"+`"}`)
	})
}

func TestTextThatIsLargerThanARequestGoesInSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		long := strings.Repeat("雪が降る", 200_000)
		l.must("Token", run.Token(l.ctx, long))
		l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))
		var got strings.Builder
		for _, e := range readAll(l.ctx, t, l.stores.Events, id) {
			var payload struct{ Message string }
			l.must("Unmarshal", json.Unmarshal(e.Payload, &payload))
			got.WriteString(payload.Message)
		}
		if got.String() != long {
			t.Errorf("%d bytes of %d are in the stream", got.Len(), len(long))
		}
		for _, r := range l.wire.requests("reports") {
			if len(r.body) > 1<<20 {
				t.Errorf("a request has %d bytes", len(r.body))
			}
		}
	})
}
