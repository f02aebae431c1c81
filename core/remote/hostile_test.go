package remote_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// hostile is a proxy on the loopback before a handler. It loses requests and
// answers, cuts both short, delays, repeats and refuses them.
type hostile struct {
	*httptest.Server
	handler http.Handler
	rate    float64 // of the requests that meet something
	late    sync.WaitGroup
	life    context.Context
	end     context.CancelFunc

	mu     sync.Mutex
	random *rand.Rand
	met    map[string]int // how often what was met
}

// newHostile starts a proxy, which ends with the test. What it does follows from
// the seed and the order in which requests come.
func newHostile(tb testing.TB, handler http.Handler, seed uint64, rate float64) *hostile {
	p := &hostile{handler: handler, rate: rate, random: rand.New(rand.NewPCG(seed, 0)), met: make(map[string]int)}
	p.life, p.end = context.WithCancel(context.Background())
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	tb.Cleanup(func() {
		p.end()
		p.CloseClientConnections()
		p.Close()
		p.late.Wait()
		if tb.Failed() {
			tb.Logf("seed %d; met: %v", seed, p.met)
		}
	})
	return p
}

// scheme is one thing that may happen to a request.
type scheme struct {
	name string
	// unknown: the client cannot tell what the first of its requests has done.
	unknown bool
	do      func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64)
}

var schemes = []scheme{
	{"the request is lost", true, func(*hostile, http.ResponseWriter, *http.Request, []byte, uint64) { cut() }},
	{"the request is cut short", true, func(p *hostile, _ http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		broken := io.MultiReader(bytes.NewReader(body[:int(choice%uint64(len(body)+1))]), failing{})
		p.ask(r.Context(), r, broken)
		cut()
	}},
	{"the answer is lost", true, func(p *hostile, _ http.ResponseWriter, r *http.Request, body []byte, _ uint64) {
		p.ask(r.Context(), r, bytes.NewReader(body))
		cut()
	}},
	{"the answer is cut short", true, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		answer := p.ask(r.Context(), r, bytes.NewReader(body))
		length := answer.Body.Len()
		answer.Body.Truncate(int(choice % uint64(max(1, length))))
		if choice%2 == 0 { // so that it shows
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		relay(w, answer)
	}},
	{"the request is repeated at once", true, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, _ uint64) {
		var beside sync.WaitGroup
		beside.Go(func() { p.ask(r.Context(), r, bytes.NewReader(body)) })
		answer := p.ask(r.Context(), r, bytes.NewReader(body))
		beside.Wait()
		relay(w, answer)
	}},
	{"the request is repeated late", true, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		relay(w, p.ask(r.Context(), r, bytes.NewReader(body)))
		again := r.Clone(p.life)
		p.late.Go(func() {
			if wait(p.life, choice%20) {
				p.ask(p.life, again, bytes.NewReader(body))
			}
		})
	}},
	{"the request is late", false, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		if wait(r.Context(), choice%10) {
			relay(w, p.ask(r.Context(), r, bytes.NewReader(body)))
		}
	}},
	{"the answer is late", false, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		if answer := p.ask(r.Context(), r, bytes.NewReader(body)); wait(r.Context(), choice%10) {
			relay(w, answer)
		}
	}},
	{"too many requests", false, func(_ *hostile, w http.ResponseWriter, _ *http.Request, _ []byte, choice uint64) {
		w.Header().Set("Retry-After", strconv.Itoa(int(choice%100)))
		http.Error(w, "slow down", http.StatusTooManyRequests)
	}},
	{"bad gateway", true, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		if choice%2 == 0 {
			p.ask(r.Context(), r, bytes.NewReader(body))
		}
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<h1>502</h1>")
	}},
	{"unavailable", true, func(_ *hostile, w http.ResponseWriter, _ *http.Request, _ []byte, _ uint64) {
		http.Error(w, "", http.StatusServiceUnavailable)
	}},
	{"somebody else's page", true, func(p *hostile, w http.ResponseWriter, r *http.Request, body []byte, choice uint64) {
		if choice%2 == 0 {
			p.ask(r.Context(), r, bytes.NewReader(body))
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<h1>welcome</h1>")
	}},
	{"somebody else's JSON", true, func(_ *hostile, w http.ResponseWriter, _ *http.Request, _ []byte, _ uint64) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"logged":"in"}`)
	}},
}

func (p *hostile) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		cut()
	}
	if s, choice, ok := p.choose(r); ok {
		s.do(p, w, r, body, choice)
		return
	}
	relay(w, p.ask(r.Context(), r, bytes.NewReader(body)))
}

// choose says what a request meets. Notices and settlements meet nothing that
// leaves their outcome unknown: there the caller is told so, and not spared it.
func (p *hostile) choose(r *http.Request) (s scheme, choice uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.random.Float64() >= p.rate {
		return s, 0, false
	}
	s, choice = schemes[p.random.IntN(len(schemes))], p.random.Uint64()
	if name := route(r); s.unknown && (name == "notices" || name == "settle") {
		return s, 0, false
	}
	p.met[s.name]++
	return s, choice, true
}

// ask has the handler answer, with the server's word whatever becomes of it.
func (p *hostile) ask(ctx context.Context, r *http.Request, body io.Reader) *httptest.ResponseRecorder {
	r = r.Clone(ctx)
	r.Body = io.NopCloser(body)
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, r)
	return recorder
}

// relay passes an answer on, as it is or as far as it goes.
func relay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// cut ends the connection without an answer.
func cut() { panic(http.ErrAbortHandler) }

// failing is a body that breaks off.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// wait lets some milliseconds pass; false: ctx has ended.
func wait(ctx context.Context, ms uint64) bool {
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func TestTheHostileProxyDoesEachOfItsSchemes(t *testing.T) {
	p := newHostile(t, http.NotFoundHandler(), 1, 1)
	client := p.Client()
	for range 100 * len(schemes) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/reports", bytes.NewReader([]byte("body")))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(r)
		if err != nil {
			continue // it was to be expected
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range schemes {
		if p.met[s.name] == 0 {
			t.Errorf("%s: never", s.name)
		}
	}
}
