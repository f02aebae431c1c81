package workerapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// countingStore counts what is asked of it.
type countingStore struct {
	*memory.Store
	calls atomic.Int64
}

func (s *countingStore) GetTask(ctx context.Context, id string) (taskbridge.Task, error) {
	s.calls.Add(1)
	return s.Store.GetTask(ctx, id)
}

func (s *countingStore) WatchTask(ctx context.Context, id string, wake func()) (func(), error) {
	s.calls.Add(1)
	return s.Store.WatchTask(ctx, id, wake)
}

func (s *countingStore) AppendEvent(ctx context.Context, e taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	s.calls.Add(1)
	return s.Store.AppendEvent(ctx, e)
}

// routes are all routes with a request that is fine.
var routes = []struct {
	method, name string
	body         any
}{
	{"POST", "start", workerapi.StartRequest{Claim: "claim"}},
	{"POST", "reports", workerapi.ReportsRequest{FirstOrdinal: 1, Reports: []workerapi.Report{message("hello")}}},
	{"GET", "attempt", nil},
	{"GET", "input", nil},
	{"POST", "notices", workerapi.NoticeRequest{Message: "notice"}},
	{"POST", "settle", workerapi.SettleRequest{Outcome: workerapi.Report{Type: workerapi.ReportCancelled}}},
}

func TestEachRouteIsOpenedByItsCredentialsAndNoOthers(t *testing.T) {
	store := &countingStore{Store: memory.NewStore(memory.Options{})}
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) {
		o.Stores = taskbridge.Stores{Tasks: store, Events: store}
	})
	for _, route := range routes {
		for name, c := range map[string]struct {
			header func(id, attempt string) string
			opens  string // the routes that it opens
			status int    // on the others
		}{
			"nothing":                           {func(_, _ string) string { return "" }, "", 401},
			"basic":                             {func(_, _ string) string { return "Basic dTpw" }, "", 401},
			"a bearer without a token":          {func(_, _ string) string { return "Bearer " }, "", 401},
			"the prefix alone":                  {func(_, _ string) string { return "Bearer tba1." }, "", 401},
			"a token of a later version":        {func(_, a string) string { return strings.Replace(a, "tba1", "tba2", 1) }, "", 401},
			"a token of another kind":           {func(_, a string) string { return strings.Replace(a, "tba1", "tbs1", 1) }, "", 401},
			"an unknown key of the host":        {func(_, _ string) string { return "Bearer tbk_unknown" }, "", 401},
			"the submission token":              {func(id, _ string) string { return l.submission(id) }, "start", 403},
			"a scheme in capitals":              {func(id, _ string) string { return "BEARER " + l.submission(id)[len("Bearer "):] }, "start", 403},
			"another task's submission token":   {func(_, _ string) string { return l.submission(l.task()) }, "", 403},
			"a missing task's submission token": {func(_, _ string) string { return l.submission("no-such-task") }, "", 403},
			"the attempt token":                 {func(_, a string) string { return a }, "reports attempt input", 403},
			"another task's attempt token":      {func(_, _ string) string { _, a := l.running(); return a }, "", 403},
			"a forged attempt token":            {func(_, a string) string { return forge(a) }, "", 401},
			"a truncated attempt token":         {func(_, a string) string { return a[:len(a)-4] }, "", 401},
			"a token under an older key": {func(id, _ string) string {
				token, err := l.newSigner(oldKey).SubmissionToken(id)
				l.must(err)
				return bearer(token)
			}, "start", 403},
			"a token under another's key": {func(id, _ string) string {
				token, err := l.newSigner([]byte(strings.Repeat("?", 32))).SubmissionToken(id)
				l.must(err)
				return bearer(token)
			}, "", 401},
			"the host's key":              {func(_, _ string) string { return hostKey }, "start notices settle", 403},
			"the host's, without scope":   {func(_, _ string) string { return "Bearer without-the-scope" }, "", 403},
			"what cannot be checked now":  {func(_, _ string) string { return "Bearer cannot-be-checked" }, "", 503},
			"more than a token's length":  {func(_, a string) string { return a + strings.Repeat("A", 4000) }, "", 401},
			"a token with a line's end":   {func(_, a string) string { return a + "\n" }, "", 401},
			"a token with a letter more":  {func(_, a string) string { return a + "A" }, "", 401},
			"a token with padding":        {func(_, a string) string { return a + "=" }, "", 401},
			"a token in other characters": {func(_, a string) string { return strings.ToUpper(a) }, "", 401},
		} {
			t.Run(route.name+" with "+name, func(t *testing.T) {
				id, attempt := l.running()
				header := c.header(id, attempt)
				before, calls := len(l.stream(id)), store.calls.Load()
				r := l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, header, route.body))
				if strings.Contains(" "+c.opens+" ", " "+route.name+" ") {
					if r.status != http.StatusOK {
						t.Errorf("%d %s", r.status, r.body)
					}
					return
				}
				r.t = t
				details := r.problem(c.status, map[int]string{401: "AUTHENTICATION_ERROR", 403: "TASK_OWNERSHIP_ERROR", 503: "UNAVAILABLE"}[c.status])
				if len(details) != 0 || strings.Contains(string(r.body), id) {
					t.Errorf("it tells %s", r.body)
				}
				if n := store.calls.Load() - calls; n != 0 {
					t.Errorf("the store was asked %d times", n)
				}
				if after := len(l.stream(id)); after != before {
					t.Errorf("%d events, there were %d", after, before)
				}
			})
		}
	}
}

// forge changes a bit in the middle of a token.
func forge(header string) string {
	b := []byte(header)
	if i := len(b) / 2; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

func TestARefusalIsTheSameWhetherOrNotThereIsSuchATask(t *testing.T) {
	l := newLab(t)
	id, attempt := l.running()
	for _, route := range routes {
		for _, header := range []string{"", forge(attempt), l.submission("another"), "Bearer without-the-scope"} {
			there := l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, header, route.body))
			missing := l.serve(l.request(route.method, workerapi.BasePath+"no-such-task/"+route.name, header, route.body))
			if there.status != missing.status || string(there.body) != string(missing.body) {
				t.Errorf("%s: %d %s, and %d %s", route.name, there.status, there.body, missing.status, missing.body)
			}
		}
	}
}

func TestWithoutTheHostsSayNothingButTokensOpensARoute(t *testing.T) {
	l := newLab(t, func(_ *taskbridge.LifecycleOptions, o *workerapi.Options) { o.Authorize = nil })
	id, attempt := l.running()
	for _, route := range routes {
		r := l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, hostKey, route.body))
		r.problem(401, "AUTHENTICATION_ERROR")
	}
	if r := l.get(id, "attempt", attempt); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestAnAttemptTokenEndsAndEachAnswerRenewsIt(t *testing.T) {
	l := newLab(t)
	id, first := l.running()
	current := first
	for i := range 4 {
		l.clock.advance(3 * time.Minute)
		var state workerapi.AttemptResponse
		if i%2 == 0 {
			state = decode[workerapi.AttemptResponse](l.get(id, "attempt", current))
		} else {
			state = decode[workerapi.AttemptResponse](l.report(id, current, int64(i), message(fmt.Sprint(i))))
		}
		if got := state.TokenExpiresAt.Sub(l.clock.Now()); got != 5*time.Minute {
			t.Errorf("valid for %s", got)
		}
		current = bearer(state.Token)
	}
	for _, route := range routes {
		if route.name == "reports" || route.name == "attempt" || route.name == "input" {
			l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, first, route.body)).problem(401, "AUTHENTICATION_ERROR")
		}
	}
	l.clock.advance(5*time.Minute - time.Millisecond)
	if r := l.get(id, "attempt", current); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	l.clock.advance(time.Millisecond)
	l.get(id, "attempt", current).problem(401, "AUTHENTICATION_ERROR")
}

func TestKeysAreRotatedWithoutRefusingAnybody(t *testing.T) {
	l := newLab(t)
	id := l.task()
	// A server that has not got the new key yet makes tokens under the old one.
	before := l.newSigner(oldKey)
	token, err := before.SubmissionToken(id)
	l.must(err)
	started := decode[workerapi.StartResponse](l.post(id, "start", bearer(token), workerapi.StartRequest{Claim: "c"}))
	// What this server makes is under the new key, and no server with the old one
	// alone takes it: so a new key is added everywhere before it is put first.
	l.handler, err = workerapi.NewHandler(workerapi.Options{Service: service(l), Lifecycle: l.lifecycle, Signer: before, Clock: l.clock})
	l.must(err)
	l.get(id, "attempt", bearer(started.Token)).problem(401, "AUTHENTICATION_ERROR")
	l.handler, err = workerapi.NewHandler(workerapi.Options{
		Service: service(l), Lifecycle: l.lifecycle, Signer: l.newSigner(oldKey, newKey), Clock: l.clock,
	})
	l.must(err)
	if r := l.get(id, "attempt", bearer(started.Token)); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func service(l *lab) *taskbridge.WorkerService {
	l.t.Helper()
	s, err := taskbridge.NewWorkerService(l.lifecycle)
	l.must(err)
	return s
}

func TestAHandlerNeedsItsParts(t *testing.T) {
	l := newLab(t)
	whole := workerapi.Options{Service: service(l), Lifecycle: l.lifecycle, Signer: l.signer}
	for name, spoil := range map[string]func(*workerapi.Options){
		"Service":   func(o *workerapi.Options) { o.Service = nil },
		"Lifecycle": func(o *workerapi.Options) { o.Lifecycle = nil },
		"Signer":    func(o *workerapi.Options) { o.Signer = nil },
		"BodyBytes": func(o *workerapi.Options) { o.BodyBytes = -1 },
	} {
		opts := whole
		spoil(&opts)
		if _, err := workerapi.NewHandler(opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, opts := range map[string]workerapi.SignerOptions{
		"Keys":       {},
		"31 bytes":   {Keys: [][]byte{newKey, newKey[:31]}},
		"AttemptTTL": {Keys: [][]byte{newKey}, AttemptTTL: -1},
	} {
		if _, err := workerapi.NewSigner(opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.signer.SubmissionToken("no/task"); !errors.Is(err, taskbridge.ErrInvalidArgument) {
		t.Errorf("a token for no task: %v", err)
	}
	for _, ref := range []taskbridge.AttemptRef{
		{TaskID: "a b", Attempt: 1, Producer: taskbridge.Producer{Name: "w", Epoch: 1}},
		{TaskID: "a", Attempt: 0, Producer: taskbridge.Producer{Name: "w", Epoch: 1}},
		{TaskID: "a", Attempt: 1, Producer: taskbridge.Producer{Name: "w", Epoch: 0}},
		{TaskID: "a", Attempt: 1, Producer: taskbridge.Producer{Name: "", Epoch: 1}},
		{TaskID: "a", Attempt: 1, Producer: taskbridge.Producer{Name: strings.Repeat("w", 256), Epoch: 1}},
	} {
		if _, _, err := l.signer.AttemptToken(ref, "c"); !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("a token for %+v: %v", ref, err)
		}
	}
}
