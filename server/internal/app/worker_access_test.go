package app

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// workerRoutes are the routes of the worker API, each with a request that is fine.
var workerRoutes = []struct{ method, name, body string }{
	{"POST", "start", `{"claim":"claim"}`},
	{"POST", "reports", `{"firstOrdinal":1,"reports":[{"type":"message","message":"m"}]}`},
	{"GET", "attempt", ""},
	{"GET", "input", ""},
	{"POST", "notices", `{"message":"m"}`},
	{"POST", "settle", `{"outcome":{"type":"cancelled"}}`},
}

// TestEveryRouteAndErrorOfTheWorkerAPIIsAsTheDocumentSays: each answer is checked
// as it comes, by its status, its headers and its body.
func TestEveryRouteAndErrorOfTheWorkerAPIIsAsTheDocumentSays(t *testing.T) {
	w := openWorkshop(t, openStore, "--limit-stream-events", "5")
	expired := signerAt(t, workerKey, func() time.Time { return time.Now().Add(-time.Hour) })
	key := w.ring.keys["worker"]
	missingSubmission, missingAttempt := w.missingTokens()
	full := `{"firstOrdinal":1,"reports":[` + strings.Repeat(`{"type":"message","message":"m"},`, 9) + `{"type":"progress","progress":1}]}`
	large := strings.Repeat("x", 3<<20)
	over := strings.Repeat("x", 40_000)

	// What has happened to the task before.
	const (
		posted = iota // nothing
		begun
		elsewhere // another claim has started since
		again     // the same claim has started since, and reported
		settled
		fullStream
	)
	for name, test := range map[string]struct {
		before                  int
		method, route, as, body string
		status                  int
		want                    string // in the answer
	}{
		"start":                   {posted, "POST", "start", "submission", `{"claim":"c","producer":"p"}`, 200, `"RUNNING"`},
		"start by a key":          {posted, "POST", "start", "key", `{"claim":"c"}`, 200, `"owner":"alice"`},
		"start again":             {begun, "POST", "start", "submission", `{"claim":"claim"}`, 200, `"attempt":1`},
		"reports":                 {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"progress","progress":3}]}`, 200, `"RUNNING"`},
		"reports, some refused":   {begun, "POST", "reports", "attempt", full, 200, `"STREAM_FULL"`},
		"reports, a suspension":   {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"suspend","suspension":{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["GO"],"schemaVersion":1}}]}`, 200, `"RUNNING"`},
		"reports, the end":        {begun, "POST", "reports", "attempt", completion, 200, `"COMPLETED"`},
		"attempt":                 {begun, "GET", "attempt?waitTimeoutMs=1&cancellationKnown=true", "attempt", "", 200, `"cancellationRequested":false`},
		"input":                   {begun, "GET", "input", "attempt", "", 200, `{"n":[1.5]}`},
		"notices":                 {posted, "POST", "notices", "key", `{"message":"m","level":"debug"}`, 200, `{}`},
		"settle":                  {begun, "POST", "settle", "key", `{"outcome":{"type":"fail","code":"OOM","message":"m","retryable":true}}`, 200, `{}`},
		"start, no JSON":          {posted, "POST", "start", "submission", `claim`, 400, "INVALID_REQUEST"},
		"reports, unknown member": {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"message","text":"m","more":1}]}`, 400, `"index":0`},
		"notices, a list":         {posted, "POST", "notices", "key", `[]`, 400, "INVALID_REQUEST"},
		"settle, another kind":    {begun, "POST", "settle", "key", `{"outcome":3}`, 400, "INVALID_REQUEST"},
		"start, large":            {posted, "POST", "start", "submission", `{"claim":"` + large + `"}`, 413, "PAYLOAD_TOO_LARGE"},
		"reports, large":          {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"token","text":"` + large + `"}]}`, 413, `"details":{"limit":`},
		"reports, one too large":  {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"token"},{"type":"message","message":"` + over + `"}]}`, 413, `"index":1`},
		"notices, large":          {posted, "POST", "notices", "key", `{"message":"` + over + `"}`, 413, `"field":"payload"`},
		"settle, large":           {begun, "POST", "settle", "key", `{"outcome":{"type":"complete","result":"` + large + `"}}`, 413, `"details":{"limit":`},
		"start, no claim":         {posted, "POST", "start", "submission", `{"claim":""}`, 422, `"field":"claim"`},
		"start, a token of another claim": {begun, "POST", "start", "submission with the attempt's", `{"claim":"other","attemptToken":"{}"}`, 422,
			`"field":"attemptToken"`},
		"reports, none":               {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[]}`, 422, `"field":"reports"`},
		"reports, out of range":       {begun, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"token"},{"type":"progress","progress":101}]}`, 422, `"index":1`},
		"attempt, too long":           {begun, "GET", "attempt?waitTimeoutMs=60001", "attempt", "", 422, `"field":"waitTimeoutMs"`},
		"notices, no such level":      {posted, "POST", "notices", "key", `{"message":"m","level":"loud"}`, 422, `"field":"level"`},
		"settle, no end":              {begun, "POST", "settle", "key", `{"outcome":{"type":"progress","progress":1}}`, 422, `"field":"type"`},
		"start, missing":              {posted, "POST", "start", "missing submission", `{"claim":"c"}`, 404, "TASK_NOT_FOUND"},
		"start by a key, missing":     {posted, "POST", "start", "missing key", `{"claim":"c"}`, 404, "TASK_NOT_FOUND"},
		"reports, missing":            {posted, "POST", "reports", "missing attempt", completion, 404, "TASK_NOT_FOUND"},
		"attempt, missing":            {posted, "GET", "attempt", "missing attempt", "", 404, "TASK_NOT_FOUND"},
		"input, missing":              {posted, "GET", "input", "missing attempt", "", 404, "TASK_NOT_FOUND"},
		"notices, missing":            {posted, "POST", "notices", "missing key", `{"message":"m"}`, 404, "TASK_NOT_FOUND"},
		"settle, missing":             {posted, "POST", "settle", "missing key", `{"outcome":{"type":"cancelled"}}`, 404, "TASK_NOT_FOUND"},
		"start, ended":                {settled, "POST", "start", "submission", `{"claim":"c"}`, 409, "NOT_RUNNABLE"},
		"start, fenced":               {elsewhere, "POST", "start", "submission", `{"claim":"claim"}`, 409, "STALE_ATTEMPT"},
		"start, resumed when fenced":  {elsewhere, "POST", "start", "submission with the attempt's", `{"claim":"claim","attemptToken":"{}"}`, 409, "STALE_ATTEMPT"},
		"start, resumed":              {begun, "POST", "start", "submission with the attempt's", `{"claim":"claim","attemptToken":"{}"}`, 200, `"attempt":1`},
		"start, resumed at the end":   {settled, "POST", "start", "submission with the attempt's", `{"claim":"claim","attemptToken":"{}"}`, 200, `"CANCELLED"`},
		"reports, fenced":             {elsewhere, "POST", "reports", "attempt", completion, 409, "STALE_ATTEMPT"},
		"reports of an earlier start": {again, "POST", "reports", "attempt", `{"firstOrdinal":1,"reports":[{"type":"message"}]}`, 409, "STALE_PRODUCER"},
		"reports, ended":              {settled, "POST", "reports", "attempt", completion, 409, "TASK_FINISHED"},
		"attempt, fenced":             {elsewhere, "GET", "attempt", "attempt", "", 409, "STALE_ATTEMPT"},
		"attempt, ended":              {settled, "GET", "attempt?waitTimeoutMs=60000", "attempt", "", 409, "TASK_FINISHED"},
		"input, fenced":               {elsewhere, "GET", "input", "attempt", "", 409, "STALE_ATTEMPT"},
		"input, ended":                {settled, "GET", "input", "attempt", "", 409, "TASK_FINISHED"},
		"notices, ended":              {settled, "POST", "notices", "key", `{"message":"m"}`, 409, "TASK_FINISHED"},
		"notices, full":               {fullStream, "POST", "notices", "key", `{"message":"m"}`, 409, "STREAM_FULL"},
		"settle, ended":               {settled, "POST", "settle", "key", `{"outcome":{"type":"cancelled"}}`, 409, "TASK_FINISHED"},
		"another method":              {posted, "DELETE", "start", "submission", ``, 405, "METHOD_NOT_ALLOWED"},
		"another route":               {posted, "POST", "finish", "submission", `{}`, 404, "NOT_FOUND"},
		"attempt, an expired token":   {begun, "GET", "attempt", "expired", "", 401, "AUTHENTICATION_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			m, attempt := w.submit(), ""
			task := m.Data.TaskID
			if test.before != posted {
				attempt = w.begin(m, "claim")
			}
			switch test.before {
			case elsewhere:
				w.begin(m, "newer")
			case again:
				w.ask("POST", task, "reports", w.begin(m, "claim"), `{"firstOrdinal":1,"reports":[{"type":"message"}]}`)
			case settled:
				w.ask("POST", task, "settle", key, `{"outcome":{"type":"cancelled"}}`)
			case fullStream:
				w.ask("POST", task, "reports", attempt, full)
			}
			body, credential := test.body, m.Data.Token
			switch test.as {
			case "attempt":
				credential = attempt
			case "submission with the attempt's":
				body = strings.Replace(body, "{}", attempt, 1)
			case "key":
				credential = key
			case "expired":
				var err error
				if credential, err = expiredToken(expired, m); err != nil {
					t.Fatal(err)
				}
			case "missing submission":
				task, credential = missingTask, missingSubmission
			case "missing attempt":
				task, credential = missingTask, missingAttempt
			case "missing key":
				task, credential = missingTask, key
			}
			got := w.ask(test.method, task, test.route, credential, body)
			if got.Status != test.status || !strings.Contains(got.Body, test.want) {
				t.Errorf("%d %s, want %d %s", got.Status, got.Body, test.status, test.want)
			}
			// What is taken is as the document says, what is not taken is not.
			if c, err := contract(); err == nil && test.status < 300 && body != "" {
				r, err := http.NewRequestWithContext(t.Context(), test.method, "/api/v1/worker/tasks/"+task+"/"+test.route, http.NoBody)
				if err == nil {
					r.Header.Set("Content-Type", "application/json")
					err = c.CheckRequest(r, []byte(body))
				}
				if err != nil {
					t.Errorf("the request is not as the document says: %v", err)
				}
			}
		})
	}
	w.t = t
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

func TestEveryCredentialOpensItsRoutesOfTheWorkerAPIAndTellsNothingElsewhere(t *testing.T) {
	w := openWorkshop(t, openStore)
	foreign := w.submit()
	foreignAttempt := w.begin(foreign, "claim")
	past := signerAt(t, workerKey, func() time.Time { return time.Now().Add(-time.Hour) })
	stranger := signerAt(t, strings.Repeat("another key ", 4), time.Now)
	missingSubmission, missingAttempt := w.missingTokens()
	keys := w.ring.keys

	for name, test := range map[string]struct {
		credential func(m posted, attempt string) (string, error)
		opens      string
		status     int // of the other routes
	}{
		"nothing":                       {func(posted, string) (string, error) { return "", nil }, "", 401},
		"the submission token":          {func(m posted, _ string) (string, error) { return m.Data.Token, nil }, "start", 403},
		"the attempt token":             {func(_ posted, attempt string) (string, error) { return attempt, nil }, "reports attempt input", 403},
		"another's submission token":    {func(posted, string) (string, error) { return foreign.Data.Token, nil }, "", 403},
		"another's attempt token":       {func(posted, string) (string, error) { return foreignAttempt, nil }, "", 403},
		"a missing one's submission":    {func(posted, string) (string, error) { return missingSubmission, nil }, "", 403},
		"a missing one's attempt":       {func(posted, string) (string, error) { return missingAttempt, nil }, "", 403},
		"a stranger's submission token": {func(m posted, _ string) (string, error) { return stranger.SubmissionToken(m.Data.TaskID) }, "", 401},
		"a forged attempt token":        {func(_ posted, attempt string) (string, error) { return attempt[:len(attempt)-3] + "AAA", nil }, "", 401},
		"a token of the other kind": {func(_ posted, attempt string) (string, error) {
			return strings.Replace(attempt, "tba1", "tbs1", 1), nil
		}, "", 401},
		"an expired attempt token":        {func(m posted, _ string) (string, error) { return expiredToken(past, m) }, "", 401},
		"an API key with the scope":       {func(posted, string) (string, error) { return keys["worker"], nil }, "start notices settle", 403},
		"an API key without it":           {func(posted, string) (string, error) { return keys["everything but worker"], nil }, "", 403},
		"the client's own API key":        {func(posted, string) (string, error) { return keys["client"], nil }, "", 403},
		"an expired API key":              {func(posted, string) (string, error) { return keys["expired worker"], nil }, "", 401},
		"an API key that nobody knows":    {func(posted, string) (string, error) { return "tbk_" + strings.Repeat("A", 43), nil }, "", 401},
		"something that is no such thing": {func(posted, string) (string, error) { return "abc", nil }, "", 401},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			for _, route := range workerRoutes {
				m := w.submit()
				attempt := w.begin(m, "claim")
				credential, err := test.credential(m, attempt)
				if err != nil {
					t.Fatal(err)
				}
				before := w.row(m.Data.TaskID)
				got := w.ask(route.method, m.Data.TaskID, route.name, credential, route.body)
				if strings.Contains(" "+test.opens+" ", " "+route.name+" ") {
					if got.Status != http.StatusOK {
						t.Errorf("%s: %+v", route.name, got)
					}
					continue
				}
				if got.Status != test.status || strings.Contains(got.Body, m.Data.TaskID) || !strings.Contains(got.Body, `"details":{}`) {
					t.Errorf("%s: %+v, want %d", route.name, got, test.status)
				}
				if diff := cmp.Diff(w.ask(route.method, "000-nothing", route.name, credential, route.body), got); diff != "" {
					t.Errorf("%s: a missing task differs: %s", route.name, diff)
				}
				if after := w.row(m.Data.TaskID); after != before {
					t.Errorf("%s: the task has changed: %s", route.name, cmp.Diff(before, after))
				}
			}
		})
	}
	w.t = t
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

// expiredToken is the attempt token of a task's first start, if the signer's clock
// is late.
func expiredToken(past *workerapi.Signer, m posted) (string, error) {
	token, _, err := past.AttemptToken(taskbridge.AttemptRef{
		TaskID: m.Data.TaskID, Attempt: 1, Producer: taskbridge.Producer{Name: "worker", Epoch: 1},
	}, "claim")
	return token, err
}

func TestWhatWorkersHoldOpensNothingOfTheClientsAPI(t *testing.T) {
	w := openWorkshop(t, openStore)
	m := w.submit()
	attempt := w.begin(m, "claim")
	task := "/api/v1/tasks/" + m.Data.TaskID
	for name, test := range map[string]struct {
		credential string
		status     int
		code       string
	}{
		"an API key with the scope worker": {w.ring.keys["worker"], 403, "TASK_OWNERSHIP_ERROR"},
		"the submission token":             {m.Data.Token, 401, "AUTHENTICATION_ERROR"},
		"the attempt token":                {attempt, 401, "AUTHENTICATION_ERROR"},
	} {
		for _, route := range []struct{ method, path, body string }{
			{"POST", "/api/v1/tasks", `{"clientRequestId":"x","taskType":"work"}`},
			{"GET", "/api/v1/tasks", ""},
			{"GET", task, ""},
			{"GET", task + "/events", ""},
			{"GET", task + "/events/stream", ""},
			{"POST", task + "/cancel", `{}`},
		} {
			got := w.send(route.method, route.path, test.credential, route.body)
			var problem struct{ Code string }
			if err := json.Unmarshal([]byte(got.Body), &problem); err != nil || got.Status != test.status || problem.Code != test.code {
				t.Errorf("%s %s with %s: %+v", route.method, route.path, name, got)
			}
		}
		status, code, _ := w.socket(test.credential, m.Data.TaskID)
		if test.status == 401 && status != 401 || test.status == 403 && code != 4403 {
			t.Errorf("WebSocket with %s: %d, closed %d", name, status, code)
		}
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}

func TestAThiefWithASubmissionTokenFencesTheWorkerWhichIsSeenAndDoesNoMore(t *testing.T) {
	w := openWorkshop(t, openStore)
	m := w.submit()
	attempt := w.begin(m, "the worker's")
	w.begin(m, "the thief's")
	if got := w.ask("POST", m.Data.TaskID, "reports", attempt, completion); got.Status != http.StatusConflict || !strings.Contains(got.Body, "STALE_ATTEMPT") {
		t.Errorf("%+v", got)
	}
	page := w.send("GET", "/api/v1/tasks/"+m.Data.TaskID+"/events", w.ring.keys["client"], "").Body
	if strings.Count(page, "TASK_STARTED") != 1 || strings.Count(page, `"level":"warning"`) != 1 {
		t.Error(page)
	}
	// The worker starts again, under another claim, and ends the task.
	if got := w.ask("POST", m.Data.TaskID, "reports", w.begin(m, "the worker's next"), completion); got.Status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
}
