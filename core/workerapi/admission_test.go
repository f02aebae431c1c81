package workerapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func TestTheHostIsToldOfEachTokenThatIsRefusedAndOfNoOther(t *testing.T) {
	var told []string
	l := newLab(t, func(_ *taskbridge.LifecycleOptions, o *workerapi.Options) {
		o.Refused = func(r *http.Request, token workerapi.TokenKind) { told = append(told, string(token)+" "+r.URL.Path) }
	})
	id, attempt := l.running()
	other, _ := l.running()
	start := workerapi.StartRequest{Claim: "claim"}
	resume := workerapi.StartRequest{Claim: "claim", AttemptToken: forge(attempt)[len("Bearer "):]}
	for name, c := range map[string]struct {
		refusal func() reply
		status  int
		want    string // "": nobody is told
	}{
		"a forged attempt token":      {func() reply { return l.get(id, "attempt", forge(attempt)) }, 401, "attempt " + id + "/attempt"},
		"another task's":              {func() reply { return l.get(other, "attempt", attempt) }, 403, "attempt " + other + "/attempt"},
		"an attempt token to start":   {func() reply { return l.post(id, "start", attempt, start) }, 403, "attempt " + id + "/start"},
		"a forged submission token":   {func() reply { return l.post(id, "start", forge(l.submission(id)), start) }, 401, "submission " + id + "/start"},
		"a submission token to read":  {func() reply { return l.get(id, "input", l.submission(id)) }, 403, "submission " + id + "/input"},
		"a forged one to start again": {func() reply { return l.post(id, "start", l.submission(id), resume) }, 401, "attempt " + id + "/start"},
		"no token":                    {func() reply { return l.get(id, "attempt", "") }, 401, ""},
		"the host's own":              {func() reply { return l.get(id, "attempt", hostKey) }, 403, ""},
		"a good token":                {func() reply { return l.get(id, "attempt", attempt) }, 200, ""},
		"a request that is wrong":     {func() reply { return l.report(id, attempt, 0) }, 422, ""},
	} {
		told = nil
		if r := c.refusal(); r.status != c.status {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		want := []string{}
		if kind, path, ok := strings.Cut(c.want, " "); ok {
			want = []string{kind + " " + workerapi.BasePath + path}
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: told of %q, want %q", name, told, want)
		}
	}
	l.clock.advance(time.Hour)
	told = nil
	l.get(id, "attempt", attempt).problem(401, "AUTHENTICATION_ERROR")
	if len(told) != 1 {
		t.Errorf("of a token that has expired: %q", told)
	}
}

func TestARequestThatTheHostDoesNotAdmitIsToldWhenToComeBackAndDoesNothing(t *testing.T) {
	var (
		refusal error
		callers []string
		under   int
	)
	l := newLab(t, func(_ *taskbridge.LifecycleOptions, o *workerapi.Options) {
		o.Admit = func(_ *http.Request, caller string) (func(), error) {
			callers = append(callers, caller)
			if refusal != nil {
				return nil, refusal
			}
			under++
			return func() { under-- }, nil
		}
	})
	id, attempt := l.running()
	events := len(l.stream(id))
	for after, header := range map[time.Duration]string{0: "1", 10 * time.Millisecond: "1", 1500 * time.Millisecond: "2"} {
		refusal = fmt.Errorf("admit: %w", &workerapi.LimitError{Message: "too many requests", After: after})
		r := l.report(id, attempt, 1, message("hello"))
		r.problem(http.StatusTooManyRequests, "RATE_LIMITED")
		if got := r.header.Get("Retry-After"); got != header || !strings.Contains(string(r.body), "too many requests") {
			t.Errorf("Retry-After %q, want %q: %s", got, header, r.body)
		}
	}
	refusal = fmt.Errorf("nobody knows")
	l.report(id, attempt, 1, message("hello")).problem(http.StatusServiceUnavailable, "UNAVAILABLE")
	if got := len(l.stream(id)); got != events {
		t.Errorf("%d events, there were %d", got, events)
	}
	refusal, callers = nil, nil
	l.report(id, attempt, 1, message("hello"))
	l.post(id, "notices", hostKey, workerapi.NoticeRequest{Message: "hello"})
	l.get(id, "attempt", forge(attempt)).problem(401, "AUTHENTICATION_ERROR") // is not counted to anybody
	l.start(id, "another claim")
	if want := []string{"attempt 1 of " + id, "host's credentials, for " + id, "submission of " + id}; !slices.Equal(callers, want) {
		t.Errorf("counted to %q, want %q", callers, want)
	}
	if under != 0 {
		t.Errorf("%d requests are under way still", under)
	}
}
