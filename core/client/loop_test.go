package client_test

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
	"github.com/taskbridge/taskbridge/core/client"
)

func TestLeavingTheLoopClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) { return body, hold }
		c := connect(t, b)
		for _, err := range c.Follow(t.Context(), taskID, client.FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		<-b.gone // the bubble fails if nobody goes, and if a goroutine stays

		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			for _, err := range c.Follow(t.Context(), taskID, client.FollowOptions{}) {
				panic(fmt.Sprint("out of the loop, ", err))
			}
		}()
		<-b.gone
	})
}

func TestTheEndOfTheContextIsTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) { return body[:strings.Index(body, "\n\n")+2], hold }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		events, errs := 0, []error{}
		for _, err := range connect(t, b).Follow(ctx, taskID, client.FollowOptions{}) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			events++
		}
		if events != 1 || len(errs) != 1 || !errors.Is(errs[0], context.DeadlineExceeded) {
			t.Errorf("%d events, %v", events, errs)
		}
	})
}

func TestNothingIsYieldedBehindTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events, errs := 0, 0
		for _, err := range connect(t, newBridge(t, story(30, ordered)...)).Follow(ctx, taskID, client.FollowOptions{}) {
			if err == nil {
				events++
			} else if errors.Is(err, context.Canceled) {
				errs++
			}
			cancel()
		}
		if events != 1 || errs != 1 {
			t.Errorf("%d events, %d errors", events, errs)
		}
	})
}

func TestASlowLoopIsNotTakenForASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(300, ordered)...)
		got := 0
		for _, err := range connect(t, b).Follow(t.Context(), taskID, client.FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			got++
			pass(5 * time.Minute)
		}
		if n := len(b.seen()); got != 300 || n != 1 {
			t.Errorf("%d events by %d requests", got, n)
		}
	})
}

func TestAnOutageMayBeBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) { return body[:len(body)/2], cut }
		b.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 1 {
				w.WriteHeader(http.StatusBadGateway)
			}
			return n > 1
		}
		begun := time.Now()
		got, err := follow(t, connect(t, b, func(o *client.Options) { o.Retry.MaxOutage = 5 * time.Minute }), client.FollowOptions{})
		var e *client.Error
		if !errors.As(err, &e) || e.Status != http.StatusBadGateway || len(got) != 1 {
			t.Errorf("%d events, %v", len(got), err)
		}
		if took := time.Since(begun); took > 5*time.Minute || took < 4*time.Minute {
			t.Errorf("given up after %s", took)
		}
	})
}

func TestManyOutagesAreNotOneLongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 40 * time.Second
		b := newBridge(t, story(10, ordered)...)
		// The server gives one event a time, streamed or polled, and is away then.
		var until time.Time
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if time.Now().Before(until) {
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			cursor := r.URL.Query().Get("afterEventId")
			if cursor == "" {
				return false
			}
			until = time.Now().Add(outage)
			rest, _ := b.after(w, r, cursor)
			page(w, rest[:1], taskbridge.StatusRunning)
			return true
		}
		b.fault = func(_ int, body string) (string, ending) {
			until = time.Now().Add(outage)
			return body[:strings.Index(body, "\n\n")+2], cut
		}
		begun := time.Now()
		got, err := follow(t, connect(t, b, func(o *client.Options) { o.Retry.MaxOutage = time.Minute }), client.FollowOptions{After: ordered(1)})
		// After each of the nine but the last, which is the end.
		if took := time.Since(begun); err != nil || took < 8*outage {
			t.Errorf("%v after %s", err, took)
		}
		same(t, got, b.events[1:])
	})
}

type tenfold struct{ begun time.Time }

func (c tenfold) Now() time.Time { return c.begun.Add(10 * time.Since(c.begun)) }

func (c tenfold) NewTimer(d time.Duration) taskbridge.Timer {
	return taskbridge.SystemClock{}.NewTimer((d + 9) / 10)
}

func TestTimeIsTheClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(n int, body string) (string, ending) {
			if n == 1 {
				return body[:strings.Index(body, "\n\n")+2], hold
			}
			return body, clean
		}
		begun := time.Now()
		got, err := follow(t, connect(t, b, func(o *client.Options) { o.Clock = tenfold{begun} }), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if took := time.Since(begun); took < 6*time.Second || took > 7*time.Second {
			t.Error(took)
		}
	})
}
