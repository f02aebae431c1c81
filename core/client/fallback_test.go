package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

// transports returns which way each request went: s for a stream, p for a poll.
func (b *bridge) transports() string {
	var ways strings.Builder
	for _, line := range b.seen() {
		if strings.Contains(line, "/events/stream") {
			ways.WriteByte('s')
		} else {
			ways.WriteByte('p')
		}
	}
	return ways.String()
}

func TestHeartbeatsKeepAStreamAndAreNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/event-stream")
			send(w, frames(b.events[:2]...))
			for range 100 {
				pass(50 * time.Second)
				send(w, beat)
			}
			send(w, frames(b.events[2]))
			return true
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if ways := b.transports(); ways != "s" {
			t.Error(ways)
		}
	})
}

func TestAHeartbeatWithAnIDIsNoEventEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) {
			return "id: " + ordered(3) + strings.TrimPrefix(beat, ": ping\n") + strings.Replace(beat, "data:", "id: 3-00000003\ndata:", 1) + body, clean
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
	})
}

func TestAStreamThatFallsSilentIsOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(n int, body string) (string, ending) {
			if n == 1 {
				return body[:strings.Index(body, "\n\n")+20], hold
			}
			return body, clean
		}
		begun := time.Now()
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if took := time.Since(begun); took < time.Minute || took > 61*time.Second || b.transports() != "ss" {
			t.Errorf("%s after %s", b.transports(), took)
		}
	})
}

func TestPollingTakesOverWhereStreamingDoesNotWork(t *testing.T) {
	head := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream") }
	for _, obstacle := range []struct {
		name   string
		stream func(w http.ResponseWriter, r *http.Request)
		want   string
		within time.Duration
	}{
		{"a proxy that holds the answer back", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "sp", 16 * time.Second},
		{"a proxy that holds the body back", func(w http.ResponseWriter, r *http.Request) {
			head(w)
			send(w, "")
			<-r.Context().Done()
		}, "sp", 16 * time.Second},
		{"another content type", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "hello") }, "sp", time.Second},
		{"no content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "sp", time.Second},
		{"cuts before any event", func(w http.ResponseWriter, _ *http.Request) {
			head(w)
			send(w, ": ping\n\n")
			panic(http.ErrAbortHandler)
		}, "sssp", 5 * time.Second},
		{"no room for a stream", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "2")
			problem(w, http.StatusServiceUnavailable, "UNAVAILABLE", nil)
		}, "sssp", 10 * time.Second},
		{"an event that is too large", func(w http.ResponseWriter, _ *http.Request) {
			head(w)
			send(w, "data: "+strings.Repeat("x", 100_000)+"\n\n")
		}, "sp", time.Second},
		{"events that make no sense", func(w http.ResponseWriter, _ *http.Request) {
			head(w)
			send(w, "data: {\n\n")
		}, "sssp", 5 * time.Second},
		{"another task's events", func(w http.ResponseWriter, _ *http.Request) {
			head(w)
			send(w, strings.ReplaceAll(frames(story(2, ordered)...), taskID, "another"))
		}, "sssp", 5 * time.Second},
		{"ids that do not belong", func(w http.ResponseWriter, _ *http.Request) {
			head(w)
			send(w, strings.Replace(frames(story(2, ordered)...), "id: 1", "id: 2", 1))
		}, "sssp", 5 * time.Second},
	} {
		t.Run(obstacle.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBridge(t, story(5, ordered)...)
				b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/stream") {
						return false
					}
					obstacle.stream(w, r)
					return true
				}
				begun := time.Now()
				got, err := follow(t, connect(t, b, func(o *client.Options) { o.MaxBytes = 50_000 }), client.FollowOptions{})
				if err != nil {
					t.Fatal(err)
				}
				same(t, got, b.events)
				if took := time.Since(begun); b.transports() != obstacle.want || took > obstacle.within {
					t.Errorf("%s, within %s", b.transports(), took)
				}
			})
		})
	}
}

func TestStreamingIsTriedAgainAfterAWhileOfPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(6, ordered)...)
		events := b.events
		begun := time.Now()
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			switch stream := strings.HasSuffix(r.URL.Path, "/stream"); {
			case stream && time.Since(begun) > 10*time.Minute:
				return false
			case stream:
				answer(w, http.StatusOK, "hello")
			case r.URL.Query().Get("afterEventId") == "":
				page(w, events[:2], "")
			default:
				pass(25 * time.Second)
				page(w, nil, "")
			}
			return true
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, events)
		// One minute, two, four and eight, and a stream again.
		ways := b.transports()
		if n := strings.Count(ways, "s"); n != 5 || !strings.HasSuffix(ways, "ps") {
			t.Error(ways)
		}
	})
}

func TestPollsThatComeBackAtOnceDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(6, ordered)...)
		begun := time.Now()
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case strings.HasSuffix(r.URL.Path, "/stream"):
				answer(w, http.StatusOK, "hello")
			case time.Since(begun) < 10*time.Minute:
				page(w, nil, "")
			default:
				return false
			}
			return true
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if n := len(b.seen()); n > 150 {
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}

func TestAStreamThatBringsSomethingNowAndThenIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(6, ordered)...)
		b.fault = func(n int, body string) (string, ending) {
			if n%3 != 0 {
				return ": ping\n\n", cut
			}
			return body[:strings.Index(body, "\n\n")+2], cut
		}
		got, err := follow(t, connect(t, b), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)
		if ways := b.transports(); ways != strings.Repeat("s", 18) {
			t.Error(ways)
		}
	})
}

func TestStreamsThatEndWithoutAnythingNewDoNotSpin(t *testing.T) {
	for name, bring := range map[string]func(b *bridge) string{
		"a heartbeat":              func(*bridge) string { return beat },
		"what has been read":       func(b *bridge) string { return frames(b.events[0]) },
		"a heartbeat and a ping":   func(*bridge) string { return beat + ": ping\n\n" },
		"what has been read twice": func(b *bridge) string { return frames(b.events[0], b.events[0]) },
	} {
		for how, end := range map[string]ending{"well": clean, "badly": cut} {
			t.Run(name+", ends "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBridge(t, story(3, ordered)...)
					b.fault = func(int, string) (string, ending) { return bring(b), end }
					b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
						poll := !strings.HasSuffix(r.URL.Path, "/stream")
						if poll { // nothing new for as long as the test lasts
							select {
							case <-time.NewTimer(25 * time.Second).C:
								page(w, []client.Event{}, taskbridge.StatusRunning)
							case <-r.Context().Done():
							}
						}
						return poll
					}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
					defer cancel()
					for _, err := range connect(t, b).Follow(ctx, taskID, client.FollowOptions{After: b.events[0].ID}) {
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("the loop got %v", err)
						}
					}
					if n := len(b.seen()); n > 100 {
						t.Errorf("%d requests in ten minutes", n)
					}
				})
			})
		}
	}
}

func TestAGapIsToldByAPollToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(6, ordered)...)
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/stream") {
				answer(w, http.StatusOK, "hello")
				return true
			}
			return false
		}
		_, err := follow(t, connect(t, b), client.FollowOptions{After: "9-99999999"})
		var gap *taskbridge.GapError
		if !errors.As(err, &gap) || gap.LastEventID != ordered(6) {
			t.Error(err)
		}
	})
}

func TestAPageOverTheLimitIsAskedForInSmallerOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, story(60, ordered)...)
		b.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/stream") {
				answer(w, http.StatusOK, "hello")
				return true
			}
			return false
		}
		got, err := follow(t, connect(t, b, func(o *client.Options) { o.MaxBytes = 1000 }), client.FollowOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, b.events)

		_, err = follow(t, connect(t, b, func(o *client.Options) { o.MaxBytes = 100 }), client.FollowOptions{})
		if !errors.Is(err, client.ErrAnswerTooLarge) {
			t.Error(err)
		}
	})
}

func TestWhatDoesNotSpeakTheProtocolIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			send(w, "<title>Welcome</title>")
		}))
		if _, err := follow(t, c, client.FollowOptions{}); !errors.Is(err, client.ErrUnexpectedAnswer) {
			t.Error(err)
		}
		if _, err := c.Wait(t.Context(), taskID); !errors.Is(err, client.ErrUnexpectedAnswer) {
			t.Error(err)
		}
		if _, err := c.Create(t.Context(), client.CreateRequest{TaskType: "x"}); !errors.Is(err, client.ErrUnexpectedAnswer) {
			t.Error(err)
		}
	})
}
