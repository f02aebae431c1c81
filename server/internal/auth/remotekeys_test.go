package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/taskbridge/taskbridge/fakes"
)

// provider is an identity provider's server, which tests break.
type provider struct {
	*httptest.Server
	requests atomic.Int32
	answer   atomic.Pointer[http.HandlerFunc]
}

func newProvider(t *testing.T, answer http.HandlerFunc) *provider {
	t.Helper()
	p := &provider{}
	p.serve(answer)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) serve(answer http.HandlerFunc) { p.answer.Store(&answer) }

// says answers with a text.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// remote is a JWT over a provider's keys.
type remote struct {
	t     *testing.T
	jwt   *JWT
	keys  *remoteKeys
	clock *fakes.ManualClock
	log   *logBuffer
}

func openRemote(t *testing.T, address string) *remote {
	t.Helper()
	r := &remote{t: t, clock: newClock(), log: &logBuffer{}}
	j, err := OpenJWT(JWTOptions{
		Issuer: issuer, Audiences: []string{audience}, KeysURL: address, Clock: r.clock, Logger: r.log.logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.jwt, r.keys = j, j.keys.(*remoteKeys)
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *remote) round() <-chan struct{} {
	r.keys.mu.Lock()
	defer r.keys.mu.Unlock()
	return r.keys.round
}

// settled waits until the last fetch has ended and the next one is due within d.
func (r *remote) settled(d time.Duration) {
	r.t.Helper()
	for {
		r.keys.mu.Lock()
		fetching, round := r.keys.fetching, r.keys.round
		r.keys.mu.Unlock()
		if !fetching {
			until(r.t, r.clock, d)
			return
		}
		<-round
	}
}

// pass moves the clock by d, over the next fetch, which is due by then, and waits
// for its end. A test must not move it over one otherwise: what is waited for
// next would be the time-out of that fetch.
func (r *remote) pass(d time.Duration) {
	r.t.Helper()
	r.settled(d)
	round := r.round()
	r.clock.Advance(d)
	<-round
}

func (r *remote) verify(text string) error {
	r.t.Helper()
	_, err := r.jwt.Verify(r.t.Context(), text)
	return err
}

func (r *remote) good(text string) {
	r.t.Helper()
	got, err := r.jwt.Verify(r.t.Context(), text)
	wantPrincipal(r.t, got, err, "alice", readWrite)
}

func longToken(algorithm jose.SignatureAlgorithm, key string) string {
	return token(algorithm, key, key, claimsOf(map[string]any{"exp": noon.Add(100 * time.Hour).Unix()}))
}

func TestAServerThatStartsBeforeItsProviderSaysItCannotTellAndThenCan(t *testing.T) {
	p := newProvider(t, says(http.StatusInternalServerError, ""))
	r := openRemote(t, p.URL)
	text := longToken(jose.RS256, "rs")
	wantUnavailable(t, r.verify(text)) // waited for the first fetch
	// From now on nobody waits: the back-off says when the next fetch is.
	fetches := p.requests.Load()
	for _, pause := range []int{1, 2, 4, 8, 16, 30, 30} {
		for range 3 {
			wantUnavailable(t, r.verify(text))
		}
		r.pass(time.Duration(pause) * time.Second)
		fetches++
		if got := p.requests.Load(); got != fetches {
			t.Fatalf("%d fetches after a back-off of %d s, want %d", got, pause, fetches)
		}
	}
	// What is bad whatever the keys are is refused meanwhile.
	wantRefusal(t, r.verify("bad."+text), errJWTMalformed)
	wantRefusal(t, r.verify(rawToken(`{"alg":"none"}`, []byte(`{}`), unsigned)), errJWTAlgorithm)
	p.serve(says(http.StatusOK, providerSet()))
	r.pass(retryMax)
	r.good(text)
	if log := r.log.String(); strings.Count(log, "level=ERROR") != 1 || strings.Count(log, "fetched again") != 1 {
		t.Errorf("want the outage's begin and end in the log, once each:\n%s", log)
	}
}

func TestAProviderThatIsAwayLaterLeavesItsKeysGoodForALimitedTime(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, providerSet()))
	r := openRemote(t, p.URL)
	text := longToken(jose.RS256, "rs")
	r.good(text)
	p.serve(says(http.StatusBadGateway, "<html>"))
	r.pass(defaultRefresh)
	r.good(text)
	// A token with another key may be good: nobody can know.
	wantUnavailable(t, r.verify(token(jose.RS256, "foreign", "new", claimsOf(nil))))
	// One with a wrong signature is bad whatever the provider would say.
	wantRefusal(t, r.verify(token(jose.RS256, "foreign", "rs", claimsOf(nil))), errJWTSignature)
	r.pass(noon.Add(defaultKeysStale).Sub(r.clock.Now()))
	r.good(text)
	r.clock.Advance(time.Nanosecond)
	wantUnavailable(t, r.verify(text))
	p.serve(says(http.StatusOK, providerSet()))
	r.pass(retryMax)
	r.good(text)
}

func TestATokenWithANewKeyHasTheKeysFetchedOnceForAllWhoWait(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, setOf(publicJWK("rs"))))
	r := openRemote(t, p.URL)
	r.good(longToken(jose.RS256, "rs"))
	text := longToken(jose.ES256, "es")
	// The set is a moment old: its word is final.
	wantRefusal(t, r.verify(text), errJWTKey)
	if got := p.requests.Load(); got != 1 {
		t.Fatalf("%d fetches, want 1", got)
	}
	r.settled(defaultRefresh)
	r.clock.Advance(minRefetch)
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	p.serve(func(w http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		<-release
		says(http.StatusOK, providerSet())(w, req)
	})
	var waiting sync.WaitGroup
	errs := make(chan error, 50)
	for range cap(errs) {
		waiting.Go(func() {
			_, err := r.jwt.Verify(t.Context(), text)
			errs <- err
		})
	}
	<-arrived
	r.good(longToken(jose.RS256, "rs")) // nobody else waits
	close(release)
	waiting.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
	}
	if got := p.requests.Load(); got != 2 {
		t.Errorf("%d fetches, want 2", got)
	}
}

func TestMadeUpKeysCostTheProviderOneFetchForEachInterval(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, providerSet()))
	r := openRemote(t, p.URL)
	r.good(longToken(jose.RS256, "rs"))
	for i := range 5 {
		r.settled(defaultRefresh)
		r.clock.Advance(minRefetch)
		for j := range 20 {
			wantRefusal(t, r.verify(token(jose.ES256, "es", fmt.Sprintf("made-up-%d", j), claimsOf(nil))), errJWTKey)
			// One without a key's name that no key has signed is the same.
			wantRefusal(t, r.verify(token(jose.RS256, "foreign", "-", claimsOf(nil))), errJWTKey)
		}
		if got, want := int(p.requests.Load()), i+2; got != want {
			t.Fatalf("%d fetches, want %d", got, want)
		}
	}
}

func TestARemovedKeyIsRefusedWithinTheRefreshInterval(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, providerSet()))
	r := openRemote(t, p.URL)
	text := longToken(jose.ES256, "es")
	r.good(text)
	p.serve(says(http.StatusOK, setOf(publicJWK("rs"))))
	r.settled(defaultRefresh)
	r.clock.Advance(defaultRefresh - time.Nanosecond)
	r.good(text)
	r.pass(time.Nanosecond)
	wantRefusal(t, r.verify(text), errJWTKey)
	r.good(longToken(jose.RS256, "rs"))
}

func TestAKeyThatIsReplacedUnderItsNameIsTakenOver(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, setOf(publicJWK("rs"))))
	r := openRemote(t, p.URL)
	old := longToken(jose.RS256, "rs")
	r.good(old)
	other := publicJWK("ps")
	other.KeyID = "rs"
	p.serve(says(http.StatusOK, setOf(other)))
	r.pass(defaultRefresh)
	wantRefusal(t, r.verify(old), errJWTSignature)
	r.good(token(jose.RS256, "ps", "rs", claimsOf(nil)))
}

func TestASetWithoutKeysMakesEveryTokenBad(t *testing.T) {
	p := newProvider(t, says(http.StatusOK, providerSet()))
	r := openRemote(t, p.URL)
	text := longToken(jose.RS256, "rs")
	r.good(text)
	p.serve(says(http.StatusOK, `{"keys":[]}`))
	r.pass(defaultRefresh)
	wantRefusal(t, r.verify(text), errJWTKey)
	r.settled(defaultRefresh)
	if !strings.Contains(r.log.String(), "no key that can be used") {
		t.Errorf("the log does not say so:\n%s", r.log)
	}
}

func TestWhatIsNoKeySetLeavesTheKeysAsTheyAre(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		log    string
	}{
		{"a page", says(http.StatusOK, "<html>sign in"), "no JSON Web Key Set"},
		{"another document", says(http.StatusOK, `{"issuer":"x"}`), "no list"},
		{"an error with keys", says(http.StatusServiceUnavailable, providerSet()), "status 503"},
		{"oversize", says(http.StatusOK, strings.Repeat(" ", maxKeySetBytes)+providerSet()), "more than"},
		{"a redirect", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/elsewhere", http.StatusFound)
		}, "status 302"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write([]byte(providerSet()[:50]))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "cut off"},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProvider(t, says(http.StatusOK, providerSet()))
			r := openRemote(t, p.URL+"?secret=hunter2")
			r.good(longToken(jose.RS256, "rs"))
			p.serve(test.answer)
			r.pass(defaultRefresh)
			r.good(longToken(jose.RS256, "rs"))
			r.settled(retryMin)
			if log := r.log.String(); !strings.Contains(log, test.log) || strings.Contains(log, "hunter2") {
				t.Errorf("the log does not say %q, or says too much:\n%s", test.log, log)
			}
			// Nothing that it said has been taken for a newer set.
			wantUnavailable(t, r.verify(token(jose.ES256, "es", "new", claimsOf(nil))))
		})
	}
}

func TestASlowProviderIsGivenUpAfterTheTimeout(t *testing.T) {
	arrived := make(chan struct{}, 10)
	slow := func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		<-req.Context().Done()
	}
	p := newProvider(t, slow)
	r := openRemote(t, p.URL)
	<-arrived
	text := longToken(jose.RS256, "rs")
	result := make(chan error, 1)
	go func() { result <- r.verify(text) }()
	// A client that goes away does not wait for it.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.jwt.Verify(gone, text)
	wantUnavailable(t, err)
	until(t, r.clock, defaultFetchTimeout)
	r.clock.Advance(defaultFetchTimeout)
	err = <-result
	wantUnavailable(t, err)
	if !errors.Is(err, errFetchTimeout) {
		t.Errorf("error %v, want %v", err, errFetchTimeout)
	}
	p.serve(says(http.StatusOK, providerSet()))
	r.pass(retryMin)
	r.good(text)
	// Slow later: who has a known key does not notice.
	p.serve(slow)
	r.settled(defaultRefresh)
	r.clock.Advance(defaultRefresh)
	<-arrived
	r.good(text)
}

func TestAProviderThatCannotBeReachedOrTrustedGivesNoKeys(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewUnstartedServer(says(http.StatusOK, providerSet()))
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	for name, address := range map[string]string{"closed": closed.URL, "unknown certificate": untrusted.URL} {
		t.Run(name, func(t *testing.T) {
			r := openRemote(t, address)
			wantUnavailable(t, r.verify(longToken(jose.RS256, "rs")))
		})
	}
}

func TestCloseEndsAFetchAndWhoWaitsForIt(t *testing.T) {
	arrived := make(chan struct{}, 1)
	p := newProvider(t, func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		<-req.Context().Done()
	})
	r := openRemote(t, p.URL)
	<-arrived
	result := make(chan error, 1)
	go func() { result <- r.verify(longToken(jose.RS256, "rs")) }()
	if err := r.jwt.Close(); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, <-result)
	wantUnavailable(t, r.verify(longToken(jose.RS256, "rs")))
}
