package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

func TestWhatCannotBeAcceptedGetsTheProtocolsStatusAndCode(t *testing.T) {
	f := serve(t)
	task := f.finished()
	events := "/api/v1/tasks/" + task + "/events"
	const (
		tasks   = "/api/v1/tasks"
		missing = "/api/v1/tasks/000-nothing"
		valid   = `{"clientRequestId":"k","taskType":"scripted"}`
	)
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	for _, test := range []struct {
		name, method, path, body string
		header                   string
		status                   int
		code                     string
	}{
		// Creation: the body as a whole.
		{"no body", "POST", tasks, "", "", 400, codeInvalidRequest},
		{"no content type", "POST", tasks, valid, "Content-Type: ", 400, codeInvalidRequest},
		{"text", "POST", tasks, valid, "Content-Type: text/plain", 400, codeInvalidRequest},
		{"a form", "POST", tasks, valid, "Content-Type: application/x-www-form-urlencoded", 400, codeInvalidRequest},
		{"a JSON that is not ours", "POST", tasks, valid, "Content-Type: application/merge-patch+json", 400, codeInvalidRequest},
		{"a content type that is none", "POST", tasks, valid, "Content-Type: ;;;", 400, codeInvalidRequest},
		{"multipart", "POST", tasks, "--x--", "Content-Type: multipart/form-data; boundary=x", 400, codeInvalidRequest},
		{"broken JSON", "POST", tasks, `{"clientRequestId":`, "", 400, codeInvalidRequest},
		{"a second value", "POST", tasks, valid + `{}`, "", 400, codeInvalidRequest},
		{"trailing rubbish", "POST", tasks, valid + ` x`, "", 400, codeInvalidRequest},
		{"an array", "POST", tasks, `[]`, "", 400, codeInvalidRequest},
		{"null", "POST", tasks, `null`, "", 400, codeInvalidRequest},
		{"a string", "POST", tasks, `"x"`, "", 400, codeInvalidRequest},
		{"a byte order mark", "POST", tasks, "\xef\xbb\xbf" + valid, "", 400, codeInvalidRequest},
		{"invalid UTF-8", "POST", tasks, "{\"clientRequestId\":\"\xff\",\"taskType\":\"scripted\"}", "", 400, codeInvalidRequest},
		{"a zero byte", "POST", tasks, "{\"clientRequestId\":\"a\x00b\",\"taskType\":\"scripted\"}", "", 400, codeInvalidRequest},
		{"only a zero byte", "POST", tasks, "\x00", "", 400, codeInvalidRequest},
		{"half a surrogate pair", "POST", tasks, `{"clientRequestId":"\ud800","taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"deep nesting", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","input":` + deep + `}`, "", 400, codeInvalidRequest},
		{"deep nesting beside", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","other":` + strings.ReplaceAll(deep, `{"a":`, "[") + `}`, "", 400, codeInvalidRequest},

		// Creation: its members.
		{"no clientRequestId", "POST", tasks, `{"taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"no taskType", "POST", tasks, `{"clientRequestId":"k"}`, "", 400, codeInvalidRequest},
		{"empty clientRequestId", "POST", tasks, `{"clientRequestId":"","taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"empty taskType", "POST", tasks, `{"clientRequestId":"k","taskType":""}`, "", 400, codeInvalidRequest},
		{"null clientRequestId", "POST", tasks, `{"clientRequestId":null,"taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"numeric clientRequestId", "POST", tasks, `{"clientRequestId":1,"taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"boolean taskType", "POST", tasks, `{"clientRequestId":"k","taskType":true}`, "", 400, codeInvalidRequest},
		{"clientRequestId in other letters", "POST", tasks, `{"CLIENTREQUESTID":"k","taskType":"scripted"}`, "", 400, codeInvalidRequest},
		{"array input", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","input":[]}`, "", 400, codeInvalidRequest},
		{"string input", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","input":"{}"}`, "", 400, codeInvalidRequest},
		{"numeric metadata", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","metadata":5}`, "", 400, codeInvalidRequest},
		{"long clientRequestId", "POST", tasks, `{"clientRequestId":"` + strings.Repeat("k", 256) + `","taskType":"scripted"}`, "", 422, codeRequestValidation},
		{"clientRequestId with a control character", "POST", tasks, `{"clientRequestId":"a\u0000b","taskType":"scripted"}`, "", 422, codeRequestValidation},
		{"long taskType", "POST", tasks, `{"clientRequestId":"k","taskType":"` + strings.Repeat("t", 256) + `"}`, "", 422, codeRequestValidation},
		{"unknown taskType", "POST", tasks, `{"clientRequestId":"k","taskType":"unheard-of"}`, "", 422, codeUnknownTaskType},
		{"large input", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","input":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`, "", 413, codePayloadTooLarge},
		{"large metadata", "POST", tasks, `{"clientRequestId":"k","taskType":"scripted","metadata":{"a":"` + strings.Repeat("x", 64<<10) + `"}}`, "", 413, codePayloadTooLarge},
		{"large body", "POST", tasks, valid + strings.Repeat(" ", 2<<20), "", 413, codePayloadTooLarge},
		{"a number beyond all measure", "POST", tasks, `{"clientRequestId":1e999999999,"taskType":"scripted"}`, "", 400, codeInvalidRequest},

		// Idempotency-Key.
		{"another key", "POST", tasks, valid, "Idempotency-Key: other", 400, codeInvalidRequest},
		{"another quoted key", "POST", tasks, valid, `Idempotency-Key: "other"`, 400, codeInvalidRequest},
		{"an open quote", "POST", tasks, `{"taskType":"scripted"}`, `Idempotency-Key: "k`, 400, codeInvalidRequest},
		{"an empty quoted key", "POST", tasks, `{"taskType":"scripted"}`, `Idempotency-Key: ""`, 400, codeInvalidRequest},
		{"something behind the quote", "POST", tasks, `{"taskType":"scripted"}`, `Idempotency-Key: "k";x=1`, 400, codeInvalidRequest},
		{"a key that is no UTF-8", "POST", tasks, `{"taskType":"scripted"}`, "Idempotency-Key: \xff", 400, codeInvalidRequest},
		{"a key beside an empty member", "POST", tasks, `{"clientRequestId":"","taskType":"scripted"}`, "Idempotency-Key: k", 400, codeInvalidRequest},
		{"a long key", "POST", tasks, `{"taskType":"scripted"}`, "Idempotency-Key: " + strings.Repeat("k", 256), 422, codeRequestValidation},

		// Polls.
		{"maxEvents 0", "GET", events + "?maxEvents=0", "", "", 422, codeRequestValidation},
		{"maxEvents 501", "GET", events + "?maxEvents=501", "", "", 422, codeRequestValidation},
		{"maxEvents negative", "GET", events + "?maxEvents=-1", "", "", 422, codeRequestValidation},
		{"maxEvents no number", "GET", events + "?maxEvents=ten", "", "", 422, codeRequestValidation},
		{"maxEvents a fraction", "GET", events + "?maxEvents=1.5", "", "", 422, codeRequestValidation},
		{"maxEvents empty", "GET", events + "?maxEvents=", "", "", 422, codeRequestValidation},
		{"maxEvents huge", "GET", events + "?maxEvents=99999999999999999999", "", "", 422, codeRequestValidation},
		{"waitTimeoutMs 70000", "GET", events + "?waitTimeoutMs=70000", "", "", 422, codeRequestValidation},
		{"waitTimeoutMs negative", "GET", events + "?waitTimeoutMs=-1", "", "", 422, codeRequestValidation},
		{"waitTimeoutMs no number", "GET", events + "?waitTimeoutMs=1s", "", "", 422, codeRequestValidation},
		{"a cursor that is none", "GET", events + "?afterEventId=rubbish!", "", "", 400, codeInvalidRequest},
		{"a heartbeat's id of another server", "GET", events + "?afterEventId=hb-1", "", "", 400, codeInvalidRequest},
		{"a cursor with a leading zero", "GET", events + "?afterEventId=01-abcdef01", "", "", 400, codeInvalidRequest},
		{"a cursor beyond all measure", "GET", events + "?afterEventId=9223372036854775807-abcdef01", "", "", 400, codeInvalidRequest},
		{"a gap told", "GET", events + "?afterEventId=9-abcdef01&gap=error", "", "", 410, codeEventGap},
		{"another gap", "GET", events + "?gap=ignore", "", "", 422, codeRequestValidation},
		{"an empty gap", "GET", events + "?gap=", "", "", 422, codeRequestValidation},
		{"a query that is none", "GET", events + "?afterEventId=%zz", "", "", 400, codeInvalidRequest},
		{"a poll of nothing", "GET", missing + "/events", "", "", 404, codeTaskNotFound},

		// Streams.
		{"a stream from rubbish", "GET", events + "/stream?lastEventId=rubbish!", "", "", 400, codeInvalidRequest},
		{"a stream from a rubbish header", "GET", events + "/stream", "", "Last-Event-ID: hb-1", 400, codeInvalidRequest},
		{"a stream with a gap told", "GET", events + "/stream?gap=error", "", "Last-Event-ID: 9-abcdef01", 410, codeEventGap},
		{"a stream with another gap", "GET", events + "/stream?gap=1", "", "", 422, codeRequestValidation},
		{"a stream of nothing", "GET", missing + "/events/stream", "", "", 404, codeTaskNotFound},

		// Cancellation.
		{"cancel nothing", "POST", missing + "/cancel", "", "", 404, codeTaskNotFound},
		{"cancel with text", "POST", "/api/v1/tasks/" + task + "/cancel", `{}`, "Content-Type: text/plain", 400, codeInvalidRequest},
		{"cancel with broken JSON", "POST", "/api/v1/tasks/" + task + "/cancel", `{`, "", 400, codeInvalidRequest},
		{"cancel with an array", "POST", "/api/v1/tasks/" + task + "/cancel", `[]`, "", 400, codeInvalidRequest},
		{"cancel with null", "POST", "/api/v1/tasks/" + task + "/cancel", `null`, "", 400, codeInvalidRequest},
		{"cancel with a number for a reason", "POST", "/api/v1/tasks/" + task + "/cancel", `{"reason":5}`, "", 400, codeInvalidRequest},
		{"cancel with a large reason", "POST", "/api/v1/tasks/" + task + "/cancel", `{"reason":"` + strings.Repeat("r", 40<<10) + `"}`, "", 413, codePayloadTooLarge},

		// Rows.
		{"a row of nothing", "GET", missing, "", "", 404, codeTaskNotFound},
		{"a row of a bad id", "GET", "/api/v1/tasks/a..b", "", "", 404, codeTaskNotFound},
		{"a row of dots", "GET", "/api/v1/tasks/..", "", "", 404, codeTaskNotFound},
		{"a row of an encoded slash", "GET", "/api/v1/tasks/a%2Fb", "", "", 404, codeTaskNotFound},
		{"a row of a zero byte", "GET", "/api/v1/tasks/a%00b", "", "", 404, codeTaskNotFound},
		{"limit 0", "GET", tasks + "?limit=0", "", "", 422, codeRequestValidation},
		{"limit 201", "GET", tasks + "?limit=201", "", "", 422, codeRequestValidation},
		{"limit no number", "GET", tasks + "?limit=all", "", "", 422, codeRequestValidation},
		{"unknown status", "GET", tasks + "?status=DONE", "", "", 422, codeRequestValidation},
		{"status in small letters", "GET", tasks + "?status=running", "", "", 422, codeRequestValidation},
		{"a list from rubbish", "GET", tasks + "?cursor=rubbish!", "", "", 400, codeInvalidRequest},
		{"a list from base64 of rubbish", "GET", tasks + "?cursor=cnViYmlzaA", "", "", 400, codeInvalidRequest},

		// Routes.
		{"no route", "GET", "/", "", "", 404, codeNotFound},
		{"no route below a task", "GET", "/api/v1/tasks/" + task + "/nothing", "", "", 404, codeNotFound},
		{"no route of another version", "GET", "/api/v2/tasks", "", "", 404, codeNotFound},
		{"a slash too many", "GET", tasks + "/", "", "", 404, codeNotFound},
		{"a slash behind", "GET", events + "/", "", "", 404, codeNotFound},
		{"two slashes", "GET", "/api/v1//tasks", "", "", 404, codeNotFound},
		{"a wrong method", "DELETE", tasks, "", "", 405, codeMethodNotAllowed},
		{"a wrong method on a task", "PUT", "/api/v1/tasks/" + task, `{}`, "", 405, codeMethodNotAllowed},
		{"a poll by POST", "POST", events, "", "", 405, codeMethodNotAllowed},
		{"cancel by GET", "GET", "/api/v1/tasks/" + task + "/cancel", "", "", 405, codeMethodNotAllowed},
		{"a method nobody knows", "BREW", tasks, "", "", 405, codeMethodNotAllowed},
		{"health by POST", "POST", "/health", `{}`, "", 405, codeMethodNotAllowed},

		// Who asks.
		{"a rebound name", "GET", tasks, "", "Host: evil.example", 400, codeInvalidRequest},
		{"a rebound name with a port", "GET", tasks, "", "Host: evil.example:8080", 400, codeInvalidRequest},
		{"an address that is not loopback", "GET", tasks, "", "Host: 192.0.2.7", 400, codeInvalidRequest},
		{"a name that only looks like ours", "GET", tasks, "", "Host: localhost.evil.example", 400, codeInvalidRequest},
		{"a foreign page", "POST", tasks, valid, "Origin: https://evil.example", 400, codeInvalidRequest},
		{"a page without origin", "POST", tasks, valid, "Origin: null", 400, codeInvalidRequest},
		{"a foreign page that cancels", "POST", "/api/v1/tasks/" + task + "/cancel", "", "Origin: http://evil.example", 400, codeInvalidRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := f.do(test.method, test.path, test.body, test.header)
			r.checkProblem(t, test.status, test.code)
			if allow := r.Header.Get("Allow"); (allow != "") != (test.status == 405) {
				t.Errorf("Allow %q", allow)
			}
			if r.Header.Get("Retry-After") != "" {
				t.Error("a refusal for good asks to try again")
			}
		})
	}
	if got := f.executor.Submitted(); len(got) != 1 {
		t.Errorf("refused requests have submitted tasks: %v", got)
	}
	if logged := f.log.String(); strings.Contains(logged, "level=ERROR") {
		t.Errorf("refusals were logged as faults: %s", logged)
	}
}

func TestTheLimitsOfQueriesThemselvesAreAllowed(t *testing.T) {
	f := serve(t)
	task := f.finished()
	for _, path := range []string{
		"/api/v1/tasks?limit=1", "/api/v1/tasks?limit=200", "/api/v1/tasks?status=COMPLETED&status=FAILED&taskType=none",
		"/api/v1/tasks/" + task + "/events?maxEvents=1&waitTimeoutMs=0",
		"/api/v1/tasks/" + task + "/events?maxEvents=500&waitTimeoutMs=60000",
		"/api/v1/tasks/" + task + "/events?afterEventId=", "/api/v1/tasks/" + task + "/events?afterEventId=0-0&gap=error",
	} {
		f.expect(http.StatusOK, "GET", path, "")
	}
}

// chunked hides its length, so that the request is sent in chunks.
type chunked struct{ io.Reader }

func TestABodyOverTheLimitIsRefusedAlsoInChunks(t *testing.T) {
	f := serve(t, func(o *Options) { o.BodyBytes = 1000 })
	for _, size := range []int{1001, 5000, 3 << 20} {
		r, err := http.NewRequest(http.MethodPost, f.url+"/api/v1/tasks", chunked{strings.NewReader(strings.Repeat(" ", size))})
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		response, err := f.client.Do(r)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		must(t, response.Body.Close())
		details := reply{response, body}.checkProblem(t, http.StatusRequestEntityTooLarge, codePayloadTooLarge)
		if details["limit"] != 1000.0 {
			t.Errorf("details %v", details)
		}
	}
}

func TestARejectedTaskIsToldWithItsIDAndKeptAsFailed(t *testing.T) {
	f := serve(t)
	f.executor.OnSubmit(func(_ context.Context, task taskbridge.Task) error {
		return taskbridge.Reject("NO_SUCH_MODEL", "there is no model of that name", false)
	})
	const body = `{"clientRequestId":"rejected","taskType":"scripted"}`
	r := f.do("POST", "/api/v1/tasks", body)
	details := r.checkProblem(t, http.StatusServiceUnavailable, codeSubmission)
	if r.Header.Get("Retry-After") != "" {
		t.Error("Retry-After on a rejection")
	}
	task := details["taskId"].(string)

	again := f.expect(http.StatusOK, "POST", "/api/v1/tasks", body)
	if again["taskId"] != task || again["status"] != "FAILED" || again["deduplicated"] != true {
		t.Errorf("the same key: %v", again)
	}
	events := f.events(task)
	if len(events) != 1 || events[0]["type"] != "TASK_FAILED" {
		t.Fatalf("events %v", events)
	}
	failure := events[0]["payload"].(map[string]any)
	if failure["code"] != "NO_SUCH_MODEL" || failure["retryable"] != false {
		t.Errorf("failure %v", failure)
	}
}

func TestAStoreThatIsAwayIsUnavailableAndWorthTryingAgain(t *testing.T) {
	f := serve(t)
	task := f.finished()
	for _, op := range []fakes.Op{fakes.OpCreateTask, fakes.OpGetTask, fakes.OpListTasks, fakes.OpReadEvents, fakes.OpUpdateTask} {
		f.faults.OnEvery(op, fakes.FailBefore(errors.New("secret: the disk has gone")))
	}
	for _, request := range [][3]string{
		{"POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"}`},
		{"GET", "/api/v1/tasks", ""},
		{"GET", "/api/v1/tasks/" + task, ""},
		{"GET", "/api/v1/tasks/" + task + "/events", ""},
		{"GET", "/api/v1/tasks/" + task + "/events/stream", ""},
		{"POST", "/api/v1/tasks/" + task + "/cancel", ""},
	} {
		r := f.do(request[0], request[1], request[2])
		r.checkProblem(t, http.StatusServiceUnavailable, codeUnavailable)
		if r.Header.Get("Retry-After") != "1" {
			t.Errorf("%s %s: Retry-After %q", request[0], request[1], r.Header.Get("Retry-After"))
		}
		if strings.Contains(string(r.body), "secret") {
			t.Errorf("the fault is told to clients: %s", r.body)
		}
	}
	if logged := f.log.String(); !strings.Contains(logged, "the disk has gone") {
		t.Errorf("the fault is not in the log: %s", logged)
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	f := serve(t)
	task := f.create()
	must(t, f.store.Close())
	f.do("GET", "/api/v1/tasks/"+task, "").checkProblem(t, http.StatusServiceUnavailable, codeUnavailable)
}

func TestCredentialsAreAskedForBeforeAnythingElse(t *testing.T) {
	away := errors.New("the key server is away")
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		fmt.Errorf("token: %w", ErrUnauthenticated): {401, codeAuthentication},
		away: {503, codeUnavailable},
	} {
		f := serve(t, func(o *Options) {
			o.Authenticator = AuthenticatorFunc(func(*http.Request) (taskbridge.Principal, error) {
				return taskbridge.Principal{}, err
			})
		})
		f.do("POST", "/api/v1/tasks", `{broken`).checkProblem(t, want.status, want.code)
		f.do("GET", "/api/v1/tasks/x/events/stream", "").checkProblem(t, want.status, want.code)
		f.expect(http.StatusOK, "GET", "/health", "")
	}
}

func TestACallerWhoMayNotCreateIsRefused(t *testing.T) {
	f := serve(t, func(o *Options) { o.Authenticator = Anyone(taskbridge.Principal{}) })
	f.do("POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"}`).
		checkProblem(t, http.StatusForbidden, codeOwnership)
}

func TestAForeignTaskCannotBeToldFromAMissingOne(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.Authenticator = AuthenticatorFunc(func(r *http.Request) (taskbridge.Principal, error) {
			return taskbridge.Principal{Subject: r.Header.Get("Test-Subject")}, nil
		})
	})
	const body = `{"clientRequestId":"k","taskType":"scripted"}`
	task := f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body, "Test-Subject: alice")["taskId"].(string)
	for _, rest := range []string{"", "/events", "/events?afterEventId=1-abcdef01&gap=error", "/events/stream"} {
		foreign := f.do("GET", "/api/v1/tasks/"+task+rest, "", "Test-Subject: bob")
		missing := f.do("GET", "/api/v1/tasks/000-nothing"+rest, "", "Test-Subject: bob")
		foreign.checkProblem(t, http.StatusNotFound, codeTaskNotFound)
		missing.checkProblem(t, http.StatusNotFound, codeTaskNotFound)
		cut := func(r reply) string { text, _, _ := strings.Cut(string(r.body), `"timestamp"`); return text }
		if cut(foreign) != cut(missing) {
			t.Errorf("%q: %s and %s", rest, foreign.body, missing.body)
		}
	}
	f.do("POST", "/api/v1/tasks/"+task+"/cancel", "", "Test-Subject: bob").checkProblem(t, http.StatusNotFound, codeTaskNotFound)
	if row := f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task, "", "Test-Subject: alice"); row["cancellationRequested"] != false {
		t.Errorf("a stranger has cancelled: %v", row)
	}
	if list := f.expect(http.StatusOK, "GET", "/api/v1/tasks", "", "Test-Subject: bob"); len(list["tasks"].([]any)) != 0 {
		t.Errorf("a stranger's list: %v", list)
	}
}
