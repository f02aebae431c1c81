package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// asleep is what a worker that is stopped meets: nothing comes through.
func asleep(r *http.Request, _ []byte) (*http.Response, error) { return gone(r, nil) }

func TestAWorkerThatWasPausedForLongerThanItsTokenGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		// The server has this and the worker does not know.
		lost := 0
		l.wire.when(func(r *http.Request, body []byte) (*http.Response, error) {
			if route(r) == "reports" {
				if lost++; lost == 1 {
					_, err := l.wire.serve(r, body)
					return nil, errors.Join(err, syscall.ECONNRESET)
				}
			}
			return asleep(r, body)
		})
		l.must("Token", run.Token(l.ctx, "once"))
		wait(l.ctx, 1000)
		l.must("Message", run.Message(l.ctx, debug("meanwhile")))
		l.clock.advance(time.Hour)
		l.wire.when(nil)
		l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))
		l.expect(id, "STARTED {}", `MESSAGE {"message":"once"}`, `MESSAGE {"message":"meanwhile","level":"debug"}`, `COMPLETED {"result":null}`)
		row, err := l.stores.Tasks.GetTask(l.ctx, id)
		l.must("GetTask", err)
		if row.Starts != 1 || row.Attempt != 1 {
			t.Errorf("the row has %d starts and %d attempts, want 1 and 1", row.Starts, row.Attempt)
		}
	})
}

func TestAWorkerThatWasPausedAndFencedMeanwhileRecordsNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		l.wire.when(asleep)
		l.must("Message", run.Message(l.ctx, debug("too late")))
		l.clock.advance(time.Hour)
		second, err := l.local.Start(l.ctx, id, taskbridge.Claim{ID: "second"})
		l.must("Start elsewhere", err)
		l.wire.when(nil)
		l.refused("Complete", run.Complete(l.ctx, taskbridge.Completion{}), taskbridge.ErrStaleAttempt)
		await(l, "Done", run.Done())
		l.refused("Err", run.Err(), taskbridge.ErrStaleAttempt)
		l.refused("Message", run.Message(l.ctx, debug("refused")), taskbridge.ErrStaleAttempt)
		l.refused("Flush", run.(remote.Flusher).Flush(l.ctx), taskbridge.ErrStaleAttempt)
		l.must("Close", run.Close())
		l.must("Complete elsewhere", second.Complete(l.ctx, taskbridge.Completion{Result: json.RawMessage(`2`)}))
		if got := l.stream(id); len(got) != 3 || got[2] != `COMPLETED {"result":2}` {
			t.Errorf("the stream is %q", got)
		}
	})
}

func TestAnEndWhoseAnswerWasLostIsKnownForTheSameAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		l.wire.when(func(r *http.Request, body []byte) (*http.Response, error) {
			if route(r) == "reports" {
				_, err := l.wire.serve(r, body)
				return nil, errors.Join(err, syscall.ECONNRESET)
			}
			return asleep(r, body)
		})
		ended := make(chan error, 1)
		go func() { ended <- run.Complete(l.ctx, taskbridge.Completion{}) }()
		wait(l.ctx, 1000)
		l.clock.advance(time.Hour)
		l.wire.when(nil)
		l.must("Complete", <-ended)
		// A run that is over keeps no token fresh, and can still say how it ended.
		l.clock.advance(time.Hour)
		l.must("Complete again", run.Complete(l.ctx, taskbridge.Completion{}))
		l.refused("Fail", run.Fail(l.ctx, taskbridge.Failure{Code: "CODE"}), taskbridge.ErrTaskFinished)
		l.expect(id, "STARTED {}", `COMPLETED {"result":null}`)
	})
}

func TestAnIdleRunKeepsItsTokenFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		_, run := l.start()
		for range 24 * 60 { // a day, in which the signer's clock goes with the bubble's
			wait(l.ctx, 60_000)
			l.clock.advance(time.Minute)
		}
		l.must("Suspend", run.Suspend(l.ctx, suspension("s")))
		if n := len(l.wire.requests("start")); n != 1 {
			t.Errorf("there were %d starts, want 1", n)
		}
		if n := len(l.wire.requests("attempt")); n > 25*60*60/20 {
			t.Errorf("there were %d requests for the attempt in a day", n)
		}
	})
}

func TestARunWhoseCredentialIsNoLongerGoodEndsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var key atomic.Value
		key.Store(apiKey)
		l := newLab(t, remote.Options{Credential: func(context.Context) (string, error) { return key.Load().(string), nil }})
		_, run := l.start()
		l.wire.when(asleep)
		l.must("Message", run.Message(l.ctx, debug("lost")))
		wait(l.ctx, 30_000)
		key.Store("revoked")
		l.clock.advance(time.Hour)
		l.wire.when(nil)
		await(l, "Done", run.Done())
		told := new(remote.Error)
		if err := run.Err(); !errors.As(err, &told) || told.Status != http.StatusUnauthorized || told.Code != "AUTHENTICATION_ERROR" {
			t.Errorf("Err: %v, want the answer 401", err)
		}
	})
}

func TestARunAsksAgainForACredentialThatCannotBeHadForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Pointer[error]
		l := newLab(t, remote.Options{Credential: func(context.Context) (string, error) {
			if err := failing.Load(); err != nil {
				return "", *err
			}
			return apiKey, nil
		}})
		id, run := l.start()
		l.wire.when(asleep)
		l.must("Message", run.Message(l.ctx, debug("m")))
		wait(l.ctx, 30_000)
		sealed := errors.New("the vault is sealed")
		failing.Store(&sealed)
		_, err := l.lifecycle.Start(l.ctx, l.task(), taskbridge.Claim{ID: "claim"})
		l.refused("Start", err, sealed)
		l.clock.advance(time.Hour)
		l.wire.when(nil)
		wait(l.ctx, 60_000)
		synctest.Wait()
		failing.Store(nil)
		l.flush(run)
		l.expect(id, "STARTED {}", `MESSAGE {"message":"m","level":"debug"}`)
	})
}

func TestTheSubmissionTokenIsWhatStartsARunThatHasOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{Credential: func(context.Context) (string, error) { return "", errors.New("asked for") }})
		id, other := l.task(), l.task()
		token, err := l.signer.SubmissionToken(id)
		l.must("SubmissionToken", err)
		run, err := l.lifecycle.Start(l.ctx, id, taskbridge.Claim{ID: "claim", Token: token})
		l.must("Start", err)
		l.wire.when(asleep)
		l.clock.advance(time.Hour)
		wait(l.ctx, 30_000)
		l.wire.when(nil)
		l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))

		_, err = l.lifecycle.Start(l.ctx, other, taskbridge.Claim{ID: "claim", Token: token})
		told := new(remote.Error)
		if !errors.As(err, &told) || told.Status != http.StatusForbidden {
			t.Errorf("Start of another task: %v, want the answer 403", err)
		}
		_, err = l.lifecycle.Start(l.ctx, other, taskbridge.Claim{ID: "claim", Token: token + "x"})
		if !errors.As(err, &told) || told.Status != http.StatusUnauthorized {
			t.Errorf("Start with a forged token: %v, want the answer 401", err)
		}
		l.expect(other)
	})
}

func TestACancellationComesWithTheLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		wait(l.ctx, 60_000) // into the third request
		asked := time.Now()
		l.requestCancel(id, "too slow")
		await(l, "CancelRequested", run.CancelRequested())
		if took := time.Since(asked); took != 0 {
			t.Errorf("it took %v", took)
		}
		if got := run.CancelReason(); got != "too slow" {
			t.Errorf("CancelReason is %q", got)
		}
		// From then on it is the end that is waited for, no more often than before.
		before := len(l.wire.requests("attempt"))
		wait(l.ctx, 600_000)
		if n := len(l.wire.requests("attempt")) - before; n > 30 {
			t.Errorf("there were %d requests for the attempt in ten minutes", n)
		}
		l.must("Settle", l.local.Settle(l.ctx, id, taskbridge.Outcome{Status: taskbridge.StatusCancelled}))
		await(l, "Done", run.Done())
		l.refused("Err", run.Err(), taskbridge.ErrTaskFinished)
	})
}

func TestACancellationComesWithTheAnswerToAReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) {
			if route(r) != "attempt" {
				return nil, nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		id, run := l.start()
		l.requestCancel(id, "too slow")
		l.must("Progress", run.Progress(l.ctx, progress(50)))
		l.flush(run)
		await(l, "CancelRequested", run.CancelRequested())
		l.must("Cancelled", run.Cancelled(l.ctx, ""))
		l.expect(id, "STARTED {}", `PROGRESS {"progress":50}`, `CANCELLED {"reason":"too slow"}`)
	})
}

func TestAServerThatAnswersTheLongPollAtOnceIsNotAskedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		var polls atomic.Int64
		l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) {
			if route(r) == "attempt" {
				polls.Add(1)
				r.URL.RawQuery = "waitTimeoutMs=0"
			}
			return nil, nil
		})
		_, run := l.start()
		wait(l.ctx, 600_000)
		l.must("Close", run.Close())
		if n := polls.Load(); n > 40 {
			t.Errorf("there were %d requests for the attempt in ten minutes", n)
		}
	})
}
