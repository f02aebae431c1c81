package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

// script answers each request by its next step, and the last step again.
type script struct {
	mu     sync.Mutex
	steps  []http.HandlerFunc
	bodies []string
	lines  []string
	times  []time.Time
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	s.bodies = append(s.bodies, string(body))
	s.lines = append(s.lines, r.Method+" "+r.URL.RequestURI())
	s.times = append(s.times, time.Now())
	step := s.steps[min(len(s.bodies), len(s.steps))-1]
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	step(w, r)
}

func refuse(status int, code, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		problem(w, status, code, nil)
	}
}

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func truncated(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	send(w, `{"taskId":"`)
	panic(http.ErrAbortHandler)
}

// accept answers a creation with the key that came.
func accept(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ClientRequestID string `json:"clientRequestId"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		panic(err)
	}
	answer(w, http.StatusCreated, map[string]any{"taskId": taskID, "status": "ACCEPTED", "clientRequestId": body.ClientRequestID, "deduplicated": false})
}

func row(status taskbridge.TaskStatus) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"taskId": taskID, "status": status, "result": nil, "createdAt": "2026-01-01T00:00:00Z"})
	}
}

func TestACreationIsTriedAgainWithTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{
			refuse(500, "INTERNAL_ERROR", ""), refuse(503, "UNAVAILABLE", "1"), refuse(502, "", ""), refuse(429, "RATE_LIMITED", "1"),
			abort, truncated, accept,
		}}
		created, err := connect(t, s).Create(t.Context(), client.CreateRequest{
			TaskType: "report", Input: map[string]int{"month": 11}, Metadata: json.RawMessage(`{"a": 1}`),
		})
		if err != nil || created.TaskID != taskID || created.Status != taskbridge.StatusAccepted || created.ClientRequestID == "" {
			t.Fatalf("%+v, %v", created, err)
		}
		want := `{"clientRequestId":"` + created.ClientRequestID + `","taskType":"report","input":{"month":11},"metadata":{"a":1}}`
		if len(s.bodies) != 7 || slices.ContainsFunc(s.bodies, func(body string) bool { return body != want }) {
			t.Errorf("bodies: %q", s.bodies)
		}
	})
}

func TestEachCreationWithoutAKeyHasOneOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, http.HandlerFunc(accept))
		keys := map[string]bool{}
		for range 100 {
			created, err := c.Create(t.Context(), client.CreateRequest{TaskType: "x"})
			if err != nil {
				t.Fatal(err)
			}
			keys[created.ClientRequestID] = true
		}
		if len(keys) != 100 {
			t.Errorf("%d keys", len(keys))
		}
	})
}

func TestAKeyThatIsGivenIsUsedAndAbsentInputIsAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{accept}}
		created, err := connect(t, s).Create(t.Context(), client.CreateRequest{ClientRequestID: "mine", TaskType: "report", Input: json.RawMessage{}})
		if err != nil || created.ClientRequestID != "mine" || s.bodies[0] != `{"clientRequestId":"mine","taskType":"report"}` {
			t.Errorf("%+v, %v, %q", created, err, s.bodies)
		}
	})
}

func TestRetryAfterIsHonouredAndBounded(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"7": 7 * time.Second, "100000": time.Minute, "": 0, "-5": 0, "soon": 0,
		time.Date(2000, 1, 1, 0, 0, 30, 0, time.UTC).Format(http.TimeFormat): 30 * time.Second, // a bubble begins in 2000
		time.Date(1999, 1, 1, 0, 0, 30, 0, time.UTC).Format(http.TimeFormat): 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{steps: []http.HandlerFunc{refuse(429, "RATE_LIMITED", header), accept}}
			if _, err := connect(t, s).Create(t.Context(), client.CreateRequest{TaskType: "x"}); err != nil {
				t.Fatal(err)
			}
			if took := s.times[1].Sub(s.times[0]); took < want || took > want+200*time.Millisecond {
				t.Errorf("Retry-After %q: tried again after %s", header, took)
			}
		})
	}
}

func TestDelaysGrowAndTriesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		retry client.Retry
		tries [2]int
		took  [2]time.Duration
	}{
		"by default":  {client.Retry{}, [2]int{14, 32}, [2]time.Duration{109 * time.Second, 2 * time.Minute}},
		"by attempts": {client.Retry{MaxAttempts: 4}, [2]int{4, 4}, [2]time.Duration{700 * time.Millisecond, 1400 * time.Millisecond}},
		"by time":     {client.Retry{MaxElapsed: 3 * time.Second}, [2]int{4, 6}, [2]time.Duration{700 * time.Millisecond, 3 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: []http.HandlerFunc{refuse(503, "UNAVAILABLE", "")}}
				created, err := connect(t, s, func(o *client.Options) { o.Retry = c.retry }).Create(t.Context(), client.CreateRequest{TaskType: "x"})
				var e *client.Error
				if !errors.As(err, &e) || e.Status != 503 || created.ClientRequestID == "" {
					t.Errorf("%+v, %v", created, err)
				}
				tries, took := len(s.times), s.times[len(s.times)-1].Sub(s.times[0])
				if tries < c.tries[0] || tries > c.tries[1] || took < c.took[0] || took > c.took[1] {
					t.Errorf("%d tries within %s", tries, took)
				}
				for i := 2; i < len(s.times)-1; i++ {
					// By jitter a delay may be as long as the one before it, and no shorter.
					if a, b := s.times[i-1].Sub(s.times[i-2]), s.times[i].Sub(s.times[i-1]); b < a && b < 5*time.Second {
						t.Errorf("a delay of %s after one of %s", b, a)
					}
				}
			})
		})
	}
}

func TestTheContextEndsARepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{refuse(503, "UNAVAILABLE", "")}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := connect(t, s).Create(ctx, client.CreateRequest{TaskType: "x"})
		var e *client.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) {
			t.Error(err)
		}
	})
}

func TestAServerThatDoesNotAnswerIsGivenUpAndAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			func(w http.ResponseWriter, r *http.Request) { send(w, `{"taskId":`); <-r.Context().Done() },
			accept,
		}}
		c := connect(t, s, func(o *client.Options) { o.Timeout = 10 * time.Second })
		if _, err := c.Create(t.Context(), client.CreateRequest{TaskType: "x"}); err != nil {
			t.Fatal(err)
		}
		if took := s.times[2].Sub(s.times[0]); took < 20*time.Second || took > 21*time.Second {
			t.Error(took)
		}
		s.steps = s.steps[:1]
		c = connect(t, s, func(o *client.Options) { o.Retry.MaxAttempts = 1 })
		if _, err := c.Create(t.Context(), client.CreateRequest{TaskType: "x"}); err == nil || errors.Is(err, context.Canceled) ||
			!strings.Contains(err.Error(), "nothing came for 30s") {
			t.Error(err)
		}
	})
}

func TestWhatTheServerRefusesIsFinalAndMatchesTheErrorOfCore(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{400, "INVALID_REQUEST", taskbridge.ErrInvalidArgument},
		{401, "AUTHENTICATION_ERROR", client.ErrUnauthenticated},
		{401, "", client.ErrUnauthenticated},
		{403, "TASK_OWNERSHIP_ERROR", taskbridge.ErrForbidden},
		{404, "TASK_NOT_FOUND", taskbridge.ErrTaskNotFound},
		{409, "IDEMPOTENCY_CONFLICT", taskbridge.ErrIdempotencyConflict},
		{410, "EVENT_GAP", taskbridge.ErrEventGap},
		{413, "PAYLOAD_TOO_LARGE", taskbridge.ErrPayloadTooLarge},
		{422, "UNKNOWN_TASK_TYPE", taskbridge.ErrUnknownTaskType},
		{422, "REQUEST_VALIDATION_ERROR", taskbridge.ErrInvalidArgument},
		{503, "TASK_SUBMISSION_ERROR", taskbridge.ErrSubmissionRejected},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{steps: []http.HandlerFunc{refuse(c.status, c.code, "")}}
			_, err := connect(t, s).Create(t.Context(), client.CreateRequest{TaskType: "x"})
			var e *client.Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Status != c.status || e.Code != c.code || len(s.lines) != 1 {
				t.Errorf("%d %s: %v after %d requests", c.status, c.code, err, len(s.lines))
			}
		})
	}
}

func TestARejectedTaskIsToldWithItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 503, "TASK_SUBMISSION_ERROR", map[string]any{"taskId": taskID, "failureCode": "NO_ROOM", "retryable": true})
		}}}
		_, err := connect(t, s).Create(t.Context(), client.CreateRequest{TaskType: "x"})
		var e *client.Error
		var rejection *taskbridge.RejectionError
		if !errors.As(err, &e) || e.TaskID != taskID || !errors.As(err, &rejection) || len(s.lines) != 1 {
			t.Fatal(err)
		}
		want := taskbridge.RejectionError{TaskID: taskID, Failure: taskbridge.Failure{Code: "NO_ROOM", Message: "said the server", Retryable: true}}
		if *rejection != want {
			t.Errorf("%+v", rejection)
		}
	})
}

func TestAnAnswerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endless := func(status int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				for range 1000 {
					if _, err := io.WriteString(w, strings.Repeat(" ", 1000)); err != nil {
						return
					}
				}
				t.Error("all of it was read")
			}
		}
		s := &script{steps: []http.HandlerFunc{endless(200), endless(404)}}
		c := connect(t, s, func(o *client.Options) { o.MaxBytes = 10_000 })
		if _, err := c.Get(t.Context(), taskID); !errors.Is(err, client.ErrAnswerTooLarge) {
			t.Error(err)
		}
		var e *client.Error
		if _, err := c.Get(t.Context(), taskID); !errors.As(err, &e) || e.Status != 404 {
			t.Error(err)
		}
	})
}
