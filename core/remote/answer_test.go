package remote_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

func TestARunOutlivesAnswersThatAreNotTheServers(t *testing.T) {
	for name, page := range map[string]func() *http.Response{
		"a page of a proxy": func() *http.Response { return answer(200, "text/html", "<h1>welcome</h1>") },
		"no content type":   func() *http.Response { return answer(200, "", "{}") },
		"no content":        func() *http.Response { return answer(204, "", "") },
		"other JSON":        func() *http.Response { return answer(200, "application/json", `{"ok":true}`) },
		"an attempt of a stranger": func() *http.Response {
			return answer(200, "application/json", `{"taskId":"another","attempt":1,"token":"t"}`)
		},
		"half an answer":         func() *http.Response { return answer(200, "application/json", `{"taskId":"`) },
		"half a refusal":         func() *http.Response { return answer(409, "application/json", `{"code":"STALE_AT`) },
		"a page of a firewall":   func() *http.Response { return answer(403, "text/html", "<h1>blocked</h1>") },
		"a page that is missing": func() *http.Response { return answer(404, "text/html", "<h1>404</h1>") },
		"a login":                func() *http.Response { return answer(401, "text/html", "<h1>who are you?</h1>") },
		"a redirect": func() *http.Response {
			r := answer(302, "text/html", "")
			r.Header.Set("Location", "http://elsewhere.test/")
			return r
		},
		"too many requests": func() *http.Response { return answer(429, "application/json", `{"code":"RATE_LIMITED"}`) },
		"an inner error":    func() *http.Response { return answer(500, "application/json", `{"code":"INTERNAL_ERROR"}`) },
		"bad gateway":       func() *http.Response { return answer(502, "text/html", "<h1>502</h1>") },
		"a drain":           func() *http.Response { return answer(503, "application/json", `{"code":"UNAVAILABLE"}`) },
		"an endless answer": func() *http.Response {
			r := answer(200, "application/json", "")
			r.Body = endless{}
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, remote.Options{})
				id, run := l.start()
				var times atomic.Int64
				l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) {
					if r.URL.Host != "server.test" {
						t.Errorf("a request went to %s", r.URL.Host)
					}
					if times.Add(1) < 10 {
						return page(), nil
					}
					return nil, nil
				})
				l.must("Message", run.Message(l.ctx, debug("m")))
				l.must("Complete", run.Complete(l.ctx, taskbridge.Completion{}))
				l.expect(id, "STARTED {}", `MESSAGE {"message":"m","level":"debug"}`, `COMPLETED {"result":null}`)
			})
		})
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte(" "), len(p)))
	return len(p), nil
}
func (endless) Close() error { return nil }

func TestARequestThatArrivesBrokenIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, run := l.start()
		var times atomic.Int64
		l.wire.when(func(r *http.Request, body []byte) (*http.Response, error) {
			if route(r) == "reports" && times.Add(1) < 4 {
				return l.wire.serve(r, body[:len(body)-3])
			}
			return nil, nil
		})
		l.must("Message", run.Message(l.ctx, debug("m")))
		l.flush(run)
		l.expect(id, "STARTED {}", `MESSAGE {"message":"m","level":"debug"}`)
	})
}

func TestARunEndsWithAnAnswerThatSaysNo(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error // nil: the answer itself
	}{
		{409, "STALE_ATTEMPT", taskbridge.ErrStaleAttempt},
		{409, "STALE_PRODUCER", taskbridge.ErrStaleProducer},
		{409, "TASK_FINISHED", taskbridge.ErrTaskFinished},
		{404, "TASK_NOT_FOUND", taskbridge.ErrTaskNotFound},
		{403, "TASK_OWNERSHIP_ERROR", nil},
		{400, "INVALID_REQUEST", nil},
		{405, "METHOD_NOT_ALLOWED", nil},
		{410, "GONE", nil},
	} {
		for _, route1 := range []string{"reports", "attempt"} {
			t.Run(c.code+" of "+route1, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLab(t, remote.Options{})
					id, run := l.start()
					l.wire.when(func(r *http.Request, _ []byte) (*http.Response, error) {
						if route(r) == route1 {
							return answer(c.status, "application/json", `{"code":"`+c.code+`","message":"why"}`), nil
						}
						return nil, nil
					})
					if route1 == "reports" {
						l.must("Message", run.Message(l.ctx, debug("m")))
					}
					await(l, "Done", run.Done())
					err := run.Err()
					told := new(remote.Error)
					if !errors.As(err, &told) || told.Status != c.status || told.Code != c.code || told.Message != "why" ||
						c.want != nil && !errors.Is(err, c.want) {
						t.Errorf("Err: %v, want %v", err, c.want)
					}
					if again := run.Message(l.ctx, debug("refused")); !errors.Is(again, err) {
						t.Errorf("Message: %v, want %v", again, err)
					}
					l.expect(id, "STARTED {}")
				})
			})
		}
	}
}

func TestAStartFailsAtOnceWithAnAnswerThatSaysNo(t *testing.T) {
	for name, c := range map[string]struct {
		answer *http.Response
		want   error
	}{
		"not runnable":      {answer(409, "application/json", `{"code":"NOT_RUNNABLE"}`), taskbridge.ErrNotRunnable},
		"stale":             {answer(409, "application/json", `{"code":"STALE_ATTEMPT"}`), taskbridge.ErrStaleAttempt},
		"no task":           {answer(404, "application/json", `{"code":"TASK_NOT_FOUND"}`), taskbridge.ErrTaskNotFound},
		"no route":          {answer(404, "application/json", `{"code":"NOT_FOUND"}`), nil},
		"another server":    {answer(404, "text/html", "<h1>404</h1>"), nil},
		"another address":   {answer(301, "text/html", ""), nil},
		"not authenticated": {answer(401, "application/json", `{"code":"AUTHENTICATION_ERROR"}`), nil},
		"an invalid claim": {
			answer(422, "application/json", `{"code":"REQUEST_VALIDATION_ERROR","details":{"field":"claim","reason":"is odd"}}`),
			taskbridge.ErrInvalidArgument,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, remote.Options{})
				id := l.task()
				l.wire.when(func(*http.Request, []byte) (*http.Response, error) { return c.answer, nil })
				_, err := l.lifecycle.Start(l.ctx, id, taskbridge.Claim{ID: "claim"})
				told := new(remote.Error)
				if !errors.As(err, &told) || told.Status != c.answer.StatusCode || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("Start: %v, want %v", err, c.want)
				}
				if argument := new(taskbridge.ArgumentError); errors.As(err, &argument) && (argument.Field != "claim" || argument.Reason != "is odd") {
					t.Errorf("Start: %+v", argument)
				}
			})
		})
	}
}

func TestAStartThatNoServerIsNeededToRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		l.wire.when(func(*http.Request, []byte) (*http.Response, error) {
			t.Error("a request was sent")
			return nil, syscall.ECONNREFUSED
		})
		id := l.task()
		for _, c := range []struct {
			name, id string
			claim    taskbridge.Claim
			want     error
		}{
			{"of an instance", id, taskbridge.Claim{ID: "claim", Instance: "instance"}, taskbridge.ErrNotRunnable},
			{"without a claim", id, taskbridge.Claim{}, taskbridge.ErrInvalidArgument},
			{"of a claim that is no text", id, taskbridge.Claim{ID: "\xff"}, taskbridge.ErrInvalidArgument},
			{"of a producer that is no text", id, taskbridge.Claim{ID: "claim", Producer: "\xff"}, taskbridge.ErrInvalidArgument},
			{"of another path", "../../v1/tasks", taskbridge.Claim{ID: "claim"}, taskbridge.ErrTaskNotFound},
			{"of no task", "", taskbridge.Claim{ID: "claim"}, taskbridge.ErrTaskNotFound},
		} {
			_, err := l.lifecycle.Start(l.ctx, c.id, c.claim)
			l.refused("Start "+c.name, err, c.want)
		}
		for name, lifecycle := range map[string]*remote.Lifecycle{
			"its claim":      l.lifecycle,
			"its credential": l.another(remote.Options{Credential: func(context.Context) (string, error) { return "two\nlines", nil }}),
		} {
			claim := taskbridge.Claim{ID: "claim"}
			if lifecycle == l.lifecycle {
				claim.Token = "with a line's end\n"
			}
			if _, err := lifecycle.Start(l.ctx, id, claim); err == nil || !strings.Contains(err.Error(), "characters that no token has") || l.ctx.Err() != nil {
				t.Errorf("Start with a token of %s that no header can have: %v", name, err)
			}
		}
		l.refused("Notice", l.lifecycle.Notice(l.ctx, "a/b", debug("m")), taskbridge.ErrTaskNotFound)
	})
}

func TestANoticeIsSentAgainOnlyWhereItCannotBeThereTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id := l.task()
		tries := 0
		l.wire.when(func(*http.Request, []byte) (*http.Response, error) {
			if tries++; tries < 5 {
				return answer(429, "text/plain", ""), nil
			}
			return nil, nil
		})
		l.must("Notice", l.lifecycle.Notice(l.ctx, id, debug("one")))
		l.wire.when(func(r *http.Request, body []byte) (*http.Response, error) {
			_, err := l.wire.serve(r, body)
			return nil, errors.Join(err, syscall.ECONNRESET)
		})
		l.refused("Notice", l.lifecycle.Notice(l.ctx, id, debug("two")), syscall.ECONNRESET)
		l.expect(id, `MESSAGE {"message":"one","level":"debug"}`, `MESSAGE {"message":"two","level":"debug"}`)
	})
}

func TestASettlementIsSentAgainUntilTheServerHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, remote.Options{})
		id, lost := l.task(), l.task()
		l.wire.when(gone)
		time.AfterFunc(time.Minute, func() { l.wire.when(nil) })
		failed := taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: "CODE", Message: "<why>"}}
		l.must("Settle", l.lifecycle.Settle(l.ctx, id, failed))
		l.expect(id, `FAILED {"code":"CODE","message":"<why>","retryable":false}`)

		first := true
		l.wire.when(func(r *http.Request, body []byte) (*http.Response, error) {
			if !first {
				return nil, nil
			}
			first = false
			_, err := l.wire.serve(r, body)
			return nil, errors.Join(err, syscall.ECONNRESET)
		})
		l.refused("Settle", l.lifecycle.Settle(l.ctx, lost, failed), taskbridge.ErrTaskFinished)
		l.expect(lost, `FAILED {"code":"CODE","message":"<why>","retryable":false}`)
	})
}

func TestOptionsThatCannotBeMeantAreRefused(t *testing.T) {
	for name, opts := range map[string]remote.Options{
		"no URL":              {},
		"no scheme":           {URL: "server.test"},
		"another scheme":      {URL: "ftp://server.test"},
		"no host":             {URL: "https:///path"},
		"a query":             {URL: "https://server.test/?a=b"},
		"a password":          {URL: "https://user:word@server.test"},
		"a broken password":   {URL: "https://user:word%zz@server.test"},
		"a control character": {URL: "https://server.test/\n"},
		"a negative delay":    {URL: "https://server.test", BatchDelay: -1},
		"a negative bound":    {URL: "https://server.test", MaxBufferedReports: -1},
		"a negative pause":    {URL: "https://server.test", Retry: remote.Retry{First: -1}},
	} {
		if _, err := remote.NewLifecycle(opts); err == nil || !strings.HasPrefix(err.Error(), "remote: Options.") || strings.Contains(err.Error(), "word") {
			t.Errorf("%s: %v, want an error that names the option", name, err)
		}
	}
}

func TestOverARealConnectionRedirectsAreNotFollowedAndPathsAreKept(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stores := atomicStores(t)
	_, _, handler := newServer(t, taskbridge.LifecycleOptions{Stores: stores}, nil)
	mux := http.NewServeMux()
	mux.Handle("/below/here/", http.StripPrefix("/below/here", handler))
	mux.Handle("/", http.RedirectHandler("/below/here/", http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()
	id := newTask(ctx, t, stores.Tasks, "key")
	for _, c := range []struct {
		path   string
		status int
	}{{"", http.StatusTemporaryRedirect}, {"/below/here/", 0}} {
		lifecycle, err := remote.NewLifecycle(remote.Options{URL: server.URL + c.path, Credential: credential, Retry: impatient})
		if err != nil {
			t.Fatal(err)
		}
		defer lifecycle.CloseIdleConnections()
		run, err := lifecycle.Start(ctx, id, taskbridge.Claim{ID: "claim"})
		told := new(remote.Error)
		switch {
		case err == nil && c.status == 0:
			if err := run.Complete(ctx, taskbridge.Completion{}); err != nil {
				t.Errorf("Complete: %v", err)
			}
		case !errors.As(err, &told) || told.Status != c.status:
			t.Errorf("Start at %q: %v, want the answer %d", c.path, err, c.status)
		}
	}
}
