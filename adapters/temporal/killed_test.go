//go:build linux

package temporaladapter

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// holdingProxy is before the worker API, and can keep one request with reports to
// itself, or its answer.
type holdingProxy struct {
	*httptest.Server
	t    testing.TB
	next string // the server's URL

	mu    sync.Mutex
	armed bool
	skip  int  // so many requests go through before
	after bool // the request goes through, and its answer does not
	held  chan struct{}
	asked int // requests with reports so far
}

func newHoldingProxy(t testing.TB, next string) *holdingProxy {
	t.Helper()
	p := &holdingProxy{t: t, next: next}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// hold keeps a request with reports, or its answer, until whoever asked is gone: the
// next one, or a later one. held is closed when it has it.
func (p *holdingProxy) hold(skip int, after bool) (held <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.skip, p.after, p.held = true, skip, after, make(chan struct{})
	return p.held
}

func (p *holdingProxy) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// holds says what is to become of a request.
func (p *holdingProxy) holds(r *http.Request) (before, after bool, held chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.HasSuffix(r.URL.Path, "/reports") {
		return false, false, nil
	}
	p.asked++
	if !p.armed {
		return false, false, nil
	}
	if p.skip > 0 {
		p.skip--
		return false, false, nil
	}
	p.armed = false
	return !p.after, p.after, p.held
}

func (p *holdingProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever asked is gone
	}
	before, after, held := p.holds(r)
	if before {
		close(held)
		<-r.Context().Done()
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, p.next+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return
	}
	if after {
		close(held)
		<-r.Context().Done()
		return
	}
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(answer)
}

func TestAReportWhoseWorkerIsKilledBeforeTheHistoryHasItComesOnce(t *testing.T) {
	t.Parallel()
	f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"gates": {TaskTimeout: 2 * time.Second}}})
	proxy := newHoldingProxy(t, setup.URL)
	setup.URL = proxy.URL
	first := startWorker(t, setup)
	held := proxy.hold(0, true)
	task := f.create("gates", `{}`)
	receive(t, "the first report is recorded, and its answer held back", held)
	f.wantStream(task, "STARTED PROGRESS")
	first.kill()
	second := startWorker(t, setup)
	f.until("the report was made again", func() bool { return proxy.requests() >= 2 })

	// And one that is not the run's first.
	held = proxy.hold(0, true)
	f.signal(task, "gate", nil)
	receive(t, "the second report is recorded, and its answer held back", held)
	f.wantStream(task, "STARTED PROGRESS PROGRESS")
	second.kill()
	startWorker(t, setup)
	f.signal(task, "gate", nil)
	f.wantResult(task, `"through"`)
	want(t, f.stream(task), "STARTED {}", `PROGRESS {"progress":10}`, `PROGRESS {"progress":50}`, `COMPLETED {"result":"through"}`)
	if n := proxy.requests(); n < 5 { // two reports, each made again, and the end
		t.Errorf("there were %d requests with reports", n)
	}
}

func TestAWorkflowThatSeesAnotherWorldWhenItsTaskIsTriedAgainReportsWhatItSees(t *testing.T) {
	t.Parallel()
	f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"counts": {TaskTimeout: 2 * time.Second}}})
	proxy := newHoldingProxy(t, setup.URL)
	setup.URL = proxy.URL
	first := startWorker(t, setup)
	held := proxy.hold(0, true)
	task := f.create("counts", `{}`)
	receive(t, "the first report is recorded, and its answer held back", held)
	first.kill()
	f.signal(task, "gate", nil)
	second := startWorker(t, setup)
	f.awaitStream(task, "STARTED PROGRESS PROGRESS PROGRESS MESSAGE COMPLETED")
	second.kill()
	// The first is what the task that came to nothing had seen.
	want(t, f.stream(task), "STARTED {}", `PROGRESS {"progress":0}`, `PROGRESS {"progress":10}`, `PROGRESS {"progress":10}`,
		`MESSAGE {"message":"through"}`, `COMPLETED {"result":null}`)
}

func TestAStepWhoseWorkerIsKilledComesOnce(t *testing.T) {
	t.Parallel()
	for moment, after := range map[string]bool{
		"after it was written down and before it is reported": false,
		"after it was reported":                               true,
	} {
		for step := range 2 {
			t.Run(fmt.Sprintf("step %d, %s", step, moment), func(t *testing.T) {
				t.Parallel()
				f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"mixed": {TaskTimeout: 2 * time.Second}}})
				proxy := newHoldingProxy(t, setup.URL)
				setup.URL = proxy.URL
				first := startWorker(t, setup)
				held := proxy.hold(1+step, after) // behind the round's message
				task := f.create("mixed", `{"rounds":2,"millis":1}`)
				receive(t, "the step", held)
				first.kill()
				startWorker(t, setup)
				f.wantResult(task, "2")
				want(t, f.stream(task), "STARTED {}", `MESSAGE {"message":"round"}`, `PROGRESS {"progress":0}`, `PROGRESS {"progress":1}`,
					`MESSAGE {"message":"round"}`, `PROGRESS {"progress":10}`, `PROGRESS {"progress":11}`, `COMPLETED {"result":2}`)
				if n := proxy.requests(); n < 8 { // two messages, four steps, one again, and the end
					t.Errorf("there were %d requests with reports", n)
				}
			})
		}
	}
}
