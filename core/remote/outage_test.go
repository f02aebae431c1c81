package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// gone is a server that nobody can connect to.
func gone(*http.Request, []byte) (*http.Response, error) { return nil, syscall.ECONNREFUSED }

func TestAServerThatIsGoneForHoursGetsAllOnceItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{Retry: remote.Retry{First: 100 * time.Millisecond, Most: 10 * time.Second}})
		id, run := l.start()
		l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "before"}))
		l.flush(run)
		l.wire.when(gone)
		l.must("Token", run.Token(l.ctx, "dur"))
		wait(l.ctx, 1000) // sealed by now
		l.must("Token", run.Token(l.ctx, "ing"))
		for n := range 50 {
			l.must("Progress", run.Progress(l.ctx, taskbridge.Progress{Percent: float64(n)}))
			wait(l.ctx, 100_000)
		}
		ended := make(chan error, 1)
		go func() { ended <- run.Complete(l.ctx, taskbridge.Completion{Result: json.RawMessage(`1`)}) }()
		wait(l.ctx, 3_600_000)
		select {
		case err := <-ended:
			t.Fatalf("Complete has returned %v while the server is gone", err)
		case <-run.Done():
			t.Fatalf("the run is over: %v", run.Err())
		default:
		}
		back := time.Now()
		l.wire.when(nil)
		l.must("Complete", <-ended)
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("the server is back for %v before it gets the end", took)
		}
		l.expect(id, "STARTED {}", `MESSAGE {"message":"before"}`, `MESSAGE {"message":"dur"}`, `MESSAGE {"message":"ing"}`,
			`PROGRESS {"progress":49}`, `COMPLETED {"result":1}`)
	})
}

func TestTriesComeApartMoreAndMoreAndAsTheServerAsks(t *testing.T) {
	for name, c := range map[string]struct {
		retryAfter  string
		least, most time.Duration // of the pause after many tries
	}{
		"a growing pause":        {"", time.Second, 2 * time.Second},
		"what the server asks":   {"7", 7 * time.Second, 7 * time.Second},
		"not more than is right": {"86400", 30 * time.Second, 30 * time.Second},
		"less than is right":     {"1", time.Second, 2 * time.Second},
		"what cannot be read":    {"soon", time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, remote.Options{Retry: remote.Retry{First: 10 * time.Millisecond, Most: 2 * time.Second, MostAsked: 30 * time.Second}})
				_, run := l.start()
				var tries []time.Time
				l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) {
					if route(r) != "reports" {
						return nil, syscall.ECONNREFUSED
					}
					tries = append(tries, time.Now())
					response := answer(http.StatusTooManyRequests, "text/plain", "slow down")
					response.Header.Set("Retry-After", c.retryAfter)
					return response, nil
				})
				l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "m"}))
				wait(l.ctx, 600_000)
				synctest.Wait()
				for i := 10; i < len(tries); i++ {
					if pause := tries[i].Sub(tries[i-1]); pause < c.least || pause > c.most {
						t.Errorf("pause %d is %v, want %v to %v", i, pause, c.least, c.most)
					}
				}
				if len(tries) < 12 {
					t.Errorf("there were %d tries in 10 minutes", len(tries))
				}
				l.wire.when(nil)
				l.flush(run)
			})
		})
	}
}

func TestClosingDuringAnOutageEndsAfterTenSecondsAndTellsWhatWasNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) { // hangs
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "one"}))
		l.must("Token", run.Token(l.ctx, "two"))
		begin := time.Now()
		err := run.Close()
		if err == nil || !strings.Contains(err.Error(), "2 reports") {
			t.Errorf("Close: %v, want it to tell of 2 reports", err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("Close took %v, want 10s", took)
		}
		l.refused("Err", run.Err(), taskbridge.ErrClosed)
		l.refused("Message", run.Message(l.ctx, taskbridge.Message{Text: "late"}), taskbridge.ErrClosed)
		l.must("Close again", run.Close())
		l.expect(id, "STARTED {}")
	})
}

func TestClosingInAShortOutageRecordsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		l.wire.when(gone)
		l.must("Token", run.Token(l.ctx, "one"))
		var closed error
		done := make(chan struct{})
		go func() {
			defer close(done)
			closed = run.Close()
		}()
		wait(l.ctx, 9000)
		l.wire.when(nil)
		<-done
		l.must("Close", closed)
		l.expect(id, "STARTED {}", `MESSAGE {"message":"one"}`)
	})
}

func TestAnEndThatHasGivenUpIsNotSentAgainAndWhatPrecedesItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{BatchDelay: time.Hour})
		id, run := l.start()
		l.wire.when(gone)
		l.must("Token", run.Token(l.ctx, "one "))
		short, cancel := context.WithTimeout(l.ctx, time.Minute)
		defer cancel()
		err := run.Complete(short, taskbridge.Completion{})
		l.refused("Complete", err, context.DeadlineExceeded)
		if !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Complete: %v does not tell the last failure", err)
		}
		l.must("Token", run.Token(l.ctx, "two"))
		l.wire.when(nil)
		wait(l.ctx, 3_600_000)
		l.expect(id, "STARTED {}", `MESSAGE {"message":"one "}`, `MESSAGE {"message":"two"}`)
		l.must("Fail", run.Fail(l.ctx, taskbridge.Failure{Code: "CODE"}))
		l.expect(id, "STARTED {}", `MESSAGE {"message":"one "}`, `MESSAGE {"message":"two"}`, `FAILED {"code":"CODE","message":"","retryable":false}`)
	})
}

func TestASynchronousReportThatWasGivenUpAndIsMadeAgainIsRecordedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{Synchronous: true})
		id, run := l.start()
		for _, sealed := range []bool{true, false} {
			if !sealed { // something else is under way
				l.must("Token", run.Token(l.ctx, "token"))
			}
			l.wire.when(gone)
			if !sealed {
				wait(l.ctx, 1000)
			}
			short, cancel := context.WithTimeout(l.ctx, time.Minute)
			l.refused("Message", run.Message(short, taskbridge.Message{Text: "m"}), context.DeadlineExceeded)
			cancel()
			l.wire.when(nil)
			wait(l.ctx, 1000)
			l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "m"}))
		}
		l.must("Message", run.Message(l.ctx, taskbridge.Message{Text: "m"}))
		const m = `MESSAGE {"message":"m"}`
		l.expect(id, "STARTED {}", m, `MESSAGE {"message":"token"}`, m, m)
	})
}

func TestAStartTriesUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id := l.task()
		l.wire.when(gone)
		short, cancel := context.WithTimeout(l.ctx, time.Minute)
		defer cancel()
		_, err := l.lifecycle.Start(short, id, taskbridge.Claim{ID: "claim"})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Start: %v", err)
		}
		time.AfterFunc(time.Minute, func() { l.wire.when(nil) })
		run, err := l.lifecycle.Start(l.ctx, id, taskbridge.Claim{ID: "claim"})
		l.must("Start", err)
		l.must("Close", run.Close())
		l.expect(id, "STARTED {}")
	})
}
