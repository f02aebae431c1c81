package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

func TestAStreamThatIsCutAtAnyByteGoesOnWithEachEventOnce(t *testing.T) {
	events := story(4, ordered)
	whole := frames(events[:1]...) + beat + frames(events[1:]...)
	for _, end := range []ending{clean, cut} {
		synctest.Test(t, func(t *testing.T) {
			for at := range len(whole) + 1 {
				b := newBridge(t, events...)
				b.fault = func(n int, body string) (string, ending) {
					if n == 1 {
						return whole[:at], end
					}
					return body, clean
				}
				got, err := follow(t, connect(t, b), client.FollowOptions{})
				if err != nil {
					t.Fatalf("cut at %d: %v", at, err)
				}
				same(t, got, events)
				if n := len(b.seen()); n > 2 {
					t.Errorf("cut at %d: %d requests", at, n)
				}
			}
		})
	}
}

func TestAnyNumberOfCutsAndRepetitionsLosesAndDoublesNothing(t *testing.T) {
	for name, id := range map[string]func(int) string{"ids that tell an order": ordered, "opaque ids": opaque} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				for range 30 {
					b := newBridge(t, story(40, id)...)
					b.replay = random.IntN(5)
					b.fault = func(_ int, body string) (string, ending) {
						at := random.IntN(min(1500, len(body)+1))
						return body[:at], ending(random.IntN(2))
					}
					// Streams that bring nothing lead to polls, which these are.
					b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
						if strings.HasSuffix(r.URL.Path, "/events") && random.IntN(2) == 0 {
							w.WriteHeader(http.StatusBadGateway)
							return true
						}
						return false
					}
					got, err := follow(t, connect(t, b, quick), client.FollowOptions{})
					if err != nil {
						t.Fatal(err)
					}
					same(t, got, b.events)
				}
			})
		})
	}
}

func TestFollowingStartsBehindTheCallersCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(5, ordered)...)
		got, err := follow(t, connect(t, b), client.FollowOptions{After: ordered(3)})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events[3:])
		want := []string{"GET /api/v1/tasks/" + taskID + "/events/stream?gap=error behind " + ordered(3)}
		if seen := b.seen(); !slices.Equal(seen, want) {
			t.Errorf("requests: %q", seen)
		}
	})
}

func TestACursorAtTheTerminalEventYieldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(5, ordered)...)
		got, err := follow(t, connect(t, b), client.FollowOptions{After: ordered(5)})
		if err != nil || len(got) > 0 {
			t.Errorf("%v, %v", got, err)
		}
		// Also where streaming does not work.
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/stream") {
				answer(w, http.StatusOK, "not a stream")
				return true
			}
			return false
		}
		got, err = follow(t, connect(t, b), client.FollowOptions{After: ordered(5)})
		if err != nil || len(got) > 0 {
			t.Errorf("polling: %v, %v", got, err)
		}
	})
}

func TestAGapIsAnErrorThatSaysWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(5, ordered)...)
		_, err := follow(t, connect(t, b), client.FollowOptions{After: "9-99999999"})
		var gap *taskbridge.GapError
		if !errors.Is(err, taskbridge.ErrEventGap) || !errors.As(err, &gap) {
			t.Fatal(err)
		}
		if want := (taskbridge.GapError{TaskID: taskID, FirstEventID: ordered(1), LastEventID: ordered(5)}); *gap != want {
			t.Errorf("%+v", gap)
		}
		if n := len(b.seen()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestAHistoryThatIsReplacedWhileItIsFollowedIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(5, ordered)...)
		other := story(3, func(n int) string { return fmt.Sprintf("%d-eeeeeeee", n) })
		b.fault = func(n int, body string) (string, ending) {
			b.events = other // a restored backup, and a server that goes on with it
			return body[:strings.Index(body, "\n\n")+2] + frames(other...), cut
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if !errors.Is(err, taskbridge.ErrEventGap) || len(got) != 1 {
			t.Errorf("%d events, %v", len(got), err)
		}
	})
}

func TestAnOldServersWarningOfAGapIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(5, ordered)...)
		b.fault = func(_ int, body string) (string, ending) {
			warning := b.events[1]
			warning.ID = "0-0"
			return frames(warning) + body, clean
		}
		if got, err := follow(t, connect(t, b), client.FollowOptions{After: ordered(2)}); !errors.Is(err, taskbridge.ErrEventGap) || len(got) > 0 {
			t.Errorf("%d events, %v", len(got), err)
		}
	})
}

func TestARefusalEndsTheLoop(t *testing.T) {
	for _, refusal := range []struct {
		status int
		code   string
		want   error
	}{
		{http.StatusBadRequest, "INVALID_REQUEST", taskbridge.ErrInvalidArgument},
		{http.StatusUnauthorized, "AUTHENTICATION_ERROR", client.ErrUnauthenticated},
		{http.StatusForbidden, "TASK_OWNERSHIP_ERROR", taskbridge.ErrForbidden},
		{http.StatusNotFound, "TASK_NOT_FOUND", taskbridge.ErrTaskNotFound},
		{http.StatusTemporaryRedirect, "", client.ErrUnexpectedAnswer},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBridge(t, story(3, ordered)...)
			b.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 2 {
					problem(w, refusal.status, refusal.code, nil)
				}
				return n == 2
			}
			b.fault = func(_ int, body string) (string, ending) { return body[:len(body)/2], cut }
			got, err := follow(t, connect(t, b), client.FollowOptions{})
			var e *client.Error
			if !errors.Is(err, refusal.want) || !errors.As(err, &e) || e.Status != refusal.status || e.TaskID != taskID {
				t.Errorf("%d: %v", refusal.status, err)
			}
			if len(got) != 1 || len(b.seen()) != 2 {
				t.Errorf("%d: %d events by %d requests", refusal.status, len(got), len(b.seen()))
			}
		})
	}
}

func TestASlowLoopLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(300, ordered)...)
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			// A server that gives up who does not take what it writes.
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Error(err)
			}
			return false
		}
		var got []client.Event
		for e, err := range connect(t, b).Follow(t.Context(), taskID, client.FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
			if len(got)%10 == 0 {
				pass(5 * time.Minute)
			}
		}
		same(t, got, b.events)
		if n := len(b.seen()); n < 2 {
			t.Errorf("the server did not give it up: %d requests", n)
		}
	})
}

func TestBadArgumentsAreToldWithoutARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		c := connect(t, b)
		for id, opts := range map[string]client.FollowOptions{
			"../x":  {},
			taskID:  {PollWait: time.Hour},
			"a":     {Silence: -1},
			"abcde": {After: "no\ncursor"},
		} {
			errs := 0
			for _, err := range c.Follow(t.Context(), id, opts) {
				if !errors.Is(err, taskbridge.ErrInvalidArgument) && !errors.Is(err, taskbridge.ErrInvalidCursor) {
					t.Errorf("%s %+v: %v", id, opts, err)
				}
				errs++
			}
			if errs != 1 {
				t.Errorf("%s %+v: %d errors", id, opts, errs)
			}
		}
		if seen := b.seen(); len(seen) > 0 {
			t.Errorf("requests: %q", seen)
		}
	})
}

func TestAnEndThatIsNoneIsNotTakenForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) { return body[:len(body)/2], cut }
		b.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case n == 1:
				return false
			case strings.HasSuffix(r.URL.Path, "/stream"):
				w.WriteHeader(http.StatusNoContent)
			default:
				page(w, nil, taskbridge.StatusCompleted)
			}
			return true
		}
		if got, err := follow(t, connect(t, b), client.FollowOptions{}); !errors.Is(err, client.ErrUnexpectedAnswer) || len(got) != 1 {
			t.Errorf("%d events, %v", len(got), err)
		}
	})
}

func TestACredentialThatEndsInTheMiddleIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(8, ordered)...)
		tokens := 0
		b.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Token") != fmt.Sprint("token ", (n+3)/4) {
				problem(w, http.StatusUnauthorized, "AUTHENTICATION_ERROR", nil)
				return true
			}
			return false
		}
		b.fault = func(_ int, body string) (string, ending) { return body[:strings.Index(body, "\n\n")+2], cut }
		c := connect(t, b, func(o *client.Options) {
			o.Token = ""
			o.TokenSource = func(context.Context) (string, error) {
				tokens++
				return fmt.Sprint("token-", tokens), nil
			}
			inner := o.HTTPClient.Transport
			o.HTTPClient.Transport = tripper(func(r *http.Request) (*http.Response, error) {
				r = r.Clone(r.Context())
				r.Header.Set("X-Token", strings.TrimPrefix(strings.Replace(r.Header.Get("Authorization"), "-", " ", 1), "Bearer "))
				r.Header.Set("Authorization", "Bearer secret-token")
				return inner.RoundTrip(r)
			})
		})
		got, err := follow(t, c, client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if tokens < 3 {
			t.Errorf("%d tokens", tokens)
		}
	})
}

// tripper is a function as a round tripper.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// tenfold is a clock that runs ten times as fast.
