package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

func TestATokenSourceIsAskedAgainOnceAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		valid := "token-2"
		s := &script{steps: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+valid {
				problem(w, 401, "AUTHENTICATION_ERROR", nil)
				return
			}
			row(taskbridge.StatusRunning)(w, r)
		}}}
		asked := 0
		c := connect(t, s, func(o *client.Options) {
			o.Token = ""
			o.TokenSource = func(context.Context) (string, error) {
				asked++
				return []string{"token-1", "token-2", "token-3", "token-3"}[asked-1], nil
			}
		})
		for range 3 {
			if _, err := c.Get(t.Context(), taskID); err != nil {
				t.Fatal(err)
			}
		}
		if asked != 2 || len(s.lines) != 4 {
			t.Errorf("asked %d times, %d requests", asked, len(s.lines))
		}
		valid = "token-0"
		if _, err := c.Get(t.Context(), taskID); !errors.Is(err, client.ErrUnauthenticated) {
			t.Error(err)
		}
		if asked != 3 || len(s.lines) != 6 {
			t.Errorf("asked %d times, %d requests", asked, len(s.lines))
		}
		// The same credential again is not worth a request.
		if _, err := c.Get(t.Context(), taskID); !errors.Is(err, client.ErrUnauthenticated) {
			t.Error(err)
		}
		if asked != 4 || len(s.lines) != 7 {
			t.Errorf("asked %d times, %d requests", asked, len(s.lines))
		}
	})
}

func TestManyRefusalsAtOnceAskForOneToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := 0
		gate := make(chan struct{})
		c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer token-1" {
				<-gate
				problem(w, 401, "AUTHENTICATION_ERROR", nil)
				return
			}
			row(taskbridge.StatusRunning)(w, r)
		}), func(o *client.Options) {
			o.Token = ""
			o.TokenSource = func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				return fmt.Sprint("token-", asked), nil
			}
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := c.Get(t.Context(), taskID); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait to be refused
		close(gate)
		all.Wait()
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestACertificateThatCannotBeTrustedIsFinal(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(accept))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	c, err := client.New(client.Options{URL: server.URL, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var untrusted *tls.CertificateVerificationError
	if _, err := c.Create(t.Context(), client.CreateRequest{TaskType: "x"}); !errors.As(err, &untrusted) || strings.Contains(err.Error(), "tries") {
		t.Error(err)
	}
	if _, err := follow(t, c, client.FollowOptions{}); !errors.As(err, &untrusted) {
		t.Error(err)
	}
}

func TestAnErrorOfTheTokenSourceEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []http.HandlerFunc{accept}}
		broken := errors.New("no token today")
		c := connect(t, s, func(o *client.Options) {
			o.Token = ""
			o.TokenSource = func(context.Context) (string, error) { return "", broken }
		})
		if _, err := c.Get(t.Context(), taskID); !errors.Is(err, broken) {
			t.Error(err)
		}
		if _, err := follow(t, c, client.FollowOptions{}); !errors.Is(err, broken) {
			t.Error(err)
		}
		if len(s.lines) > 0 {
			t.Errorf("%q", s.lines)
		}
	})
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a request came with %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	c, err := client.New(client.Options{URL: server.URL, Token: "secret-token", HTTPClient: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Create(t.Context(), client.CreateRequest{TaskType: "x"})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != http.StatusTemporaryRedirect || !errors.Is(err, client.ErrUnexpectedAnswer) {
		t.Error(err)
	}
	if _, err := follow(t, c, client.FollowOptions{}); !errors.Is(err, client.ErrUnexpectedAnswer) {
		t.Error(err)
	}
}

func TestOptionsAreCheckedAndNoErrorTellsACredential(t *testing.T) {
	const secret = "s3cr3t"
	for name, opts := range map[string]client.Options{
		"no URL":           {},
		"no scheme":        {URL: "bridge.example"},
		"another scheme":   {URL: "ftp://bridge.example"},
		"a password":       {URL: "http://user:" + secret + "@bridge.example"},
		"a broken address": {URL: "http://user:" + secret + "#x@bridge.example"},
		"a query":          {URL: "http://bridge.example?key=" + secret},
		"a fragment":       {URL: "http://bridge.example#" + secret},
		"a bad token":      {URL: "http://bridge.example", Token: secret + "\n"},
		"two credentials": {URL: "http://bridge.example", Token: secret, TokenSource: func(context.Context) (string, error) {
			return secret, nil
		}},
		"a negative delay": {URL: "http://bridge.example", Retry: client.Retry{MinDelay: -1}},
		"delays crossed":   {URL: "http://bridge.example", Retry: client.Retry{MinDelay: 2, MaxDelay: 1}},
		"a negative limit": {URL: "http://bridge.example", MaxBytes: -1},
	} {
		if _, err := client.New(opts); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoCredentialIsLoggedOrTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := newBridge(t, story(3, ordered)...)
		b.fault = func(_ int, body string) (string, ending) { return body[:len(body)/2], cut }
		b.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case n == 1:
				return false
			case n < 6:
				panic(http.ErrAbortHandler)
			}
			problem(w, 401, "AUTHENTICATION_ERROR", nil)
			return true
		}
		c := connect(t, b, func(o *client.Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		_, err := follow(t, c, client.FollowOptions{})
		if err == nil || strings.Contains(err.Error(), "secret-token") {
			t.Error(err)
		}
		if log.Len() == 0 || strings.Contains(log.String(), "secret-token") {
			t.Error(log.String())
		}
	})
}
