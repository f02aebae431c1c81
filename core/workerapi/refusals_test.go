package workerapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func TestWhatIsNoRequestOfTheAPIIsRefusedAndRecordsNothing(t *testing.T) {
	l := newLab(t, func(_ *taskbridge.LifecycleOptions, o *workerapi.Options) { o.BodyBytes = 100_000 })
	id, attempt := l.running()
	long := strings.Repeat("x", 40_000)
	many := workerapi.ReportsRequest{FirstOrdinal: 1, Reports: make([]workerapi.Report, workerapi.MaxReports+1)}
	for name, c := range map[string]struct {
		route  string
		body   any
		status int
		code   string
		detail string // "field", or "field@index"
	}{
		"no body":                        {"reports", "", 400, "INVALID_REQUEST", ""},
		"broken JSON":                    {"reports", `{"firstOrdinal":1,`, 400, "INVALID_REQUEST", ""},
		"a list":                         {"reports", `[]`, 400, "INVALID_REQUEST", ""},
		"null":                           {"start", `null`, 400, "INVALID_REQUEST", ""},
		"something behind":               {"start", `{"claim":"c"} {}`, 400, "INVALID_REQUEST", ""},
		"not UTF-8":                      {"start", "{\"claim\":\"\xff\"}", 400, "INVALID_REQUEST", ""},
		"an unknown member":              {"start", `{"claim":"c","more":1}`, 400, "INVALID_REQUEST", ""},
		"a member in another case":       {"start", `{"Claim":"c"}`, 400, "INVALID_REQUEST", ""},
		"a member twice":                 {"reports", `{"firstOrdinal":1,"reports":[{"type":"fail","code":"C","type":"complete"}]}`, 400, "INVALID_REQUEST", "@0"},
		"a member's name in escapes":     {"start", `{"cl\u0061im":"c"}`, 400, "INVALID_REQUEST", ""},
		"a number as a string":           {"reports", `{"firstOrdinal":"1","reports":[{"type":"token"}]}`, 400, "INVALID_REQUEST", ""},
		"a fraction":                     {"reports", `{"firstOrdinal":1.5,"reports":[{"type":"token"}]}`, 400, "INVALID_REQUEST", ""},
		"a string as a number":           {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","text":1}]}`, 400, "INVALID_REQUEST", "@0"},
		"a report that is none":          {"reports", `{"firstOrdinal":1,"reports":[{"type":"token"},7]}`, 400, "INVALID_REQUEST", "@1"},
		"a report that is null":          {"reports", `{"firstOrdinal":1,"reports":[null]}`, 400, "INVALID_REQUEST", "@0"},
		"an unknown report member":       {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","Text":"x"}]}`, 400, "INVALID_REQUEST", "@0"},
		"no claim":                       {"start", `{}`, 422, "REQUEST_VALIDATION_ERROR", "claim"},
		"a long claim":                   {"start", workerapi.StartRequest{Claim: long[:256]}, 422, "REQUEST_VALIDATION_ERROR", "claim"},
		"a producer of ours":             {"start", workerapi.StartRequest{Claim: "c", Producer: "control"}, 422, "REQUEST_VALIDATION_ERROR", "producer"},
		"an epoch of none":               {"start", `{"claim":"c","producer":"p","epoch":0}`, 422, "REQUEST_VALIDATION_ERROR", "epoch"},
		"a negative epoch":               {"start", `{"claim":"c","producer":"p","epoch":-1}`, 422, "REQUEST_VALIDATION_ERROR", "epoch"},
		"a high epoch":                   {"start", `{"claim":"c","producer":"p","epoch":9007199254740992}`, 422, "REQUEST_VALIDATION_ERROR", "epoch"},
		"a broken epoch":                 {"start", `{"claim":"c","producer":"p","epoch":1.5}`, 400, "INVALID_REQUEST", ""},
		"a claim that replaces itself":   {"start", `{"claim":"c","replaces":["c"]}`, 422, "REQUEST_VALIDATION_ERROR", "replaces"},
		"a claim that replaces nothing":  {"start", `{"claim":"c","replaces":[""]}`, 422, "REQUEST_VALIDATION_ERROR", "replaces"},
		"a claim that replaces a number": {"start", `{"claim":"c","replaces":7}`, 400, "INVALID_REQUEST", ""},
		"an epoch of nobody":             {"start", `{"claim":"c","epoch":1}`, 422, "REQUEST_VALIDATION_ERROR", "producer"},
		"an ordinal before":              {"reports", `{"firstOrdinal":3,"reports":[{"type":"token","ordinal":2}]}`, 422, "REQUEST_VALIDATION_ERROR", "ordinal@0"},
		"an ordinal twice":               {"reports", `{"firstOrdinal":3,"reports":[{"type":"token"},{"type":"token","ordinal":3}]}`, 422, "REQUEST_VALIDATION_ERROR", "ordinal@1"},
		"an ordinal over the limit":      {"reports", `{"firstOrdinal":3,"reports":[{"type":"token"},{"type":"token","ordinal":9007199254740992},{"type":"token"}]}`, 422, "REQUEST_VALIDATION_ERROR", "ordinal@1"},
		"an ordinal of an end":           {"reports", `{"firstOrdinal":3,"reports":[{"type":"complete","ordinal":4}]}`, 422, "REQUEST_VALIDATION_ERROR", "ordinal@0"},
		"an unknown verification":        {"reports", `{"firstOrdinal":1,"reports":[{"type":"message","verify":"perhaps"}]}`, 422, "REQUEST_VALIDATION_ERROR", "verify@0"},
		"since alone":                    {"reports", `{"firstOrdinal":1,"reports":[{"type":"message","since":1}]}`, 422, "REQUEST_VALIDATION_ERROR", "since@0"},
		"a negative since":               {"reports", `{"firstOrdinal":1,"reports":[{"type":"message","verify":"always","since":-1}]}`, 422, "REQUEST_VALIDATION_ERROR", "since@0"},
		"an end that is verified":        {"reports", `{"firstOrdinal":1,"reports":[{"type":"complete","verify":"always"}]}`, 422, "REQUEST_VALIDATION_ERROR", "verify@0"},
		"no reports":                     {"reports", `{"firstOrdinal":1,"reports":[]}`, 422, "REQUEST_VALIDATION_ERROR", "reports"},
		"too many reports":               {"reports", many, 422, "REQUEST_VALIDATION_ERROR", "reports"},
		"no ordinal":                     {"reports", `{"reports":[{"type":"token"}]}`, 422, "REQUEST_VALIDATION_ERROR", "firstOrdinal"},
		"a high ordinal":                 {"reports", `{"firstOrdinal":9007199254740991,"reports":[{"type":"token"}]}`, 422, "REQUEST_VALIDATION_ERROR", "firstOrdinal"},
		"no type":                        {"reports", `{"firstOrdinal":1,"reports":[{}]}`, 422, "REQUEST_VALIDATION_ERROR", "type@0"},
		"another type's field":           {"reports", `{"firstOrdinal":1,"reports":[{"type":"message","text":"x"}]}`, 422, "REQUEST_VALIDATION_ERROR", "text@0"},
		"progress without it":            {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","text":"a"},{"type":"progress","stage":"s"}]}`, 422, "REQUEST_VALIDATION_ERROR", "progress@1"},
		"progress over 100":              {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","text":"a"},{"type":"progress","progress":101}]}`, 422, "REQUEST_VALIDATION_ERROR", "progress@1"},
		"a level that is none":           {"reports", `{"firstOrdinal":1,"reports":[{"type":"message","level":"loud"}]}`, 422, "REQUEST_VALIDATION_ERROR", "level@0"},
		"a long message":                 {"reports", workerapi.ReportsRequest{FirstOrdinal: 1, Reports: []workerapi.Report{token("a"), message(long)}}, 413, "PAYLOAD_TOO_LARGE", "payload@1"},
		"an end before the last":         {"reports", `{"firstOrdinal":1,"reports":[{"type":"cancelled"},{"type":"token"}]}`, 422, "REQUEST_VALIDATION_ERROR", "report@0"},
		"a failure without code":         {"reports", `{"firstOrdinal":1,"reports":[{"type":"fail","message":"m"}]}`, 422, "REQUEST_VALIDATION_ERROR", "code@0"},
		"no suspension":                  {"reports", `{"firstOrdinal":1,"reports":[{"type":"suspend"}]}`, 422, "REQUEST_VALIDATION_ERROR", "suspension@0"},
		"half a suspension":              {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","text":"a"},{"type":"suspend","suspension":{"suspendId":"s"}}]}`, 422, "REQUEST_VALIDATION_ERROR", "kind@1"},
		"an unknown suspension":          {"reports", `{"firstOrdinal":1,"reports":[{"type":"suspend","suspension":{"suspendID":"s"}}]}`, 422, "REQUEST_VALIDATION_ERROR", "suspension@0"},
		"a large body":                   {"reports", `{"firstOrdinal":1,"reports":[{"type":"token","text":"` + strings.Repeat("x", 100_000) + `"}]}`, 413, "PAYLOAD_TOO_LARGE", ""},
		"a notice's level":               {"notices", `{"message":"m","level":"loud"}`, 422, "REQUEST_VALIDATION_ERROR", "level"},
		"a long notice":                  {"notices", workerapi.NoticeRequest{Message: long}, 413, "PAYLOAD_TOO_LARGE", "payload"},
		"no outcome":                     {"settle", `{}`, 422, "REQUEST_VALIDATION_ERROR", "outcome"},
		"an outcome that is none":        {"settle", `{"outcome":{"type":"progress","progress":1}}`, 422, "REQUEST_VALIDATION_ERROR", "type"},
		"an outcome's ordinal":           {"settle", `{"outcome":{"type":"complete","ordinal":1}}`, 422, "REQUEST_VALIDATION_ERROR", "ordinal"},
		"an unknown outcome":             {"settle", `{"outcome":{"type":"complete","more":1}}`, 400, "INVALID_REQUEST", ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{"start": l.submission(id), "reports": attempt}[c.route]
			if header == "" {
				header = hostKey
			}
			before := fmt.Sprint(l.row(id), l.stream(id))
			r := l.post(id, c.route, header, c.body)
			r.t = t
			details := r.problem(c.status, c.code)
			field, index, indexed := strings.Cut(c.detail, "@")
			if got, _ := details["field"].(string); got != field {
				t.Errorf("the field is %q: %s", got, r.body)
			}
			if got, there := details["index"].(float64); there != indexed || indexed && fmt.Sprint(got) != index {
				t.Errorf("the index is %v: %s", details["index"], r.body)
			}
			if _, there := details["limit"]; there != (c.status == 413) {
				t.Errorf("the limit is not told: %s", r.body)
			}
			if after := fmt.Sprint(l.row(id), l.stream(id)); after != before {
				t.Errorf("it left something behind:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func TestRoutesMethodsAndContentTypesAreTakenToTheLetter(t *testing.T) {
	l := newLab(t)
	id, attempt := l.running()
	for _, path := range []string{
		"/", "/api/v1/worker/tasks", workerapi.BasePath, workerapi.BasePath + id, workerapi.BasePath + id + "/", workerapi.BasePath + id + "/attempts",
		workerapi.BasePath + id + "/attempt/", workerapi.BasePath + "a/" + id + "/attempt", "/elsewhere/" + id + "/attempt",
	} {
		l.serve(l.request("GET", path, attempt, nil)).problem(404, "NOT_FOUND")
	}
	for _, route := range routes {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if method == route.method {
				continue
			}
			r := l.serve(l.request(method, workerapi.BasePath+id+"/"+route.name, "", route.body))
			r.problem(405, "METHOD_NOT_ALLOWED")
			if got := r.header.Get("Allow"); got != route.method {
				t.Errorf("%s %s: Allow is %q", method, route.name, got)
			}
		}
		if route.body == nil {
			continue
		}
		header := map[string]string{"start": l.submission(id), "reports": attempt}[route.name]
		if header == "" {
			header = hostKey
		}
		for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"} {
			request := l.request(route.method, workerapi.BasePath+id+"/"+route.name, header, route.body)
			request.Header.Set("Content-Type", contentType)
			l.serve(request).problem(400, "INVALID_REQUEST")
		}
	}
	for _, bad := range []string{"-x", "a b", "a..b", "ü", strings.Repeat("a", 256), ""} {
		request := l.request("POST", "/", hostKey, workerapi.NoticeRequest{Message: "m"})
		request.URL.Path = workerapi.BasePath + bad + "/notices"
		l.serve(request).problem(404, "TASK_NOT_FOUND")
	}
	for _, query := range []string{"waitTimeoutMs=-1", "waitTimeoutMs=60001", "waitTimeoutMs=1s", "waitTimeoutMs=", "cancellationKnown=1"} {
		l.get(id, "attempt?"+query, attempt).problem(422, "REQUEST_VALIDATION_ERROR")
	}
	for _, suffix := range []string{"application/json", "Application/JSON;charset=utf-8", `application/json; profile="x"`} {
		request := l.request("POST", workerapi.BasePath+id+"/reports", attempt, workerapi.ReportsRequest{FirstOrdinal: 1, Reports: []workerapi.Report{token("")}})
		request.Header.Set("Content-Type", suffix)
		if r := l.serve(request); r.status != http.StatusOK {
			t.Errorf("%s: %d %s", suffix, r.status, r.body)
		}
	}
	l.wantStream(id, "TASK_STARTED {}")
}

// TestEachRouteAnswersForTheStateOfTheTask goes through what may have happened to
// an attempt since its token was made.
func TestEachRouteAnswersForTheStateOfTheTask(t *testing.T) {
	const fine = "200"
	for name, c := range map[string]struct {
		happens func(l *lab, id string)
		want    map[string]string // route to code
	}{
		"nothing": {func(*lab, string) {}, map[string]string{
			"start": fine, "reports": fine, "attempt": fine, "input": fine, "notices": fine, "settle": fine,
		}},
		"a cancellation was requested": {func(l *lab, id string) { l.requestCancel(id) }, map[string]string{
			"start": fine, "reports": fine, "attempt": fine, "input": fine, "notices": fine, "settle": fine,
		}},
		"another claim has started": {func(l *lab, id string) { l.start(id, "newer") }, map[string]string{
			"start": "STALE_ATTEMPT", "reports": "STALE_ATTEMPT", "attempt": "STALE_ATTEMPT", "input": "STALE_ATTEMPT", "notices": fine, "settle": fine,
		}},
		"the same claim has started again and reported": {func(l *lab, id string) {
			l.report(id, bearer(l.start(id, "claim").Token), 1, message("newer"))
		}, map[string]string{
			"start": fine, "reports": "STALE_PRODUCER", "attempt": fine, "input": fine, "notices": fine, "settle": fine,
		}},
		"it was settled": {func(l *lab, id string) {
			l.must(l.lifecycle.Settle(l.t.Context(), id, taskbridge.Outcome{Status: taskbridge.StatusFailed, Failure: taskbridge.Failure{Code: "C"}}))
		}, map[string]string{
			"start": "NOT_RUNNABLE", "reports": "TASK_FINISHED", "attempt": "TASK_FINISHED", "input": "TASK_FINISHED", "notices": "TASK_FINISHED", "settle": "TASK_FINISHED",
		}},
		"it has disappeared": {func(l *lab, id string) {
			l.must(l.lifecycle.Settle(l.t.Context(), id, taskbridge.Outcome{Status: taskbridge.StatusCancelled}))
			l.must(l.stores.Tasks.RetireTask(l.t.Context(), l.row(id), time.Now()))
		}, map[string]string{
			"start": "TASK_NOT_FOUND", "reports": "TASK_NOT_FOUND", "attempt": "TASK_NOT_FOUND", "input": "TASK_NOT_FOUND", "notices": "TASK_NOT_FOUND", "settle": "TASK_NOT_FOUND",
		}},
		"a newer history was lost": {func(l *lab, id string) {
			l.edit(id, func(row *taskbridge.Task) { row.Starts = 0 })
		}, map[string]string{
			"start": fine, "reports": "STALE_PRODUCER", "attempt": "STALE_PRODUCER", "input": "STALE_PRODUCER", "notices": fine, "settle": fine,
		}},
	} {
		for _, route := range routes {
			l := newLab(t)
			id, attempt := l.running()
			c.happens(l, id)
			header := map[string]string{"start": l.submission(id), "notices": hostKey, "settle": hostKey}[route.name]
			if header == "" {
				header = attempt
			}
			r := l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, header, route.body))
			switch want := c.want[route.name]; {
			case want != fine && r.status == http.StatusOK:
				t.Errorf("%s, %s: %s, want %s", name, route.name, r.body, want)
			case want != fine:
				status := http.StatusConflict
				if want == "TASK_NOT_FOUND" {
					status = http.StatusNotFound
				}
				r.problem(status, want)
			case r.status != http.StatusOK:
				t.Errorf("%s, %s: %d %s", name, route.name, r.status, r.body)
			case route.name == "input":
				if string(r.body) != `{"some":"<input>"}`+"\n" {
					t.Errorf("the input is %s", r.body)
				}
			case route.name == "notices" || route.name == "settle":
				if string(r.body) != "{}\n" {
					t.Errorf("%s answers %s", route.name, r.body)
				}
			}
		}
	}
}

func TestATaskThatMustNotRunIsNotStarted(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*taskbridge.Task)
		want taskbridge.TaskStatus
	}{
		"barred":             {func(row *taskbridge.Task) { row.Submission.Barred = true }, taskbridge.StatusAccepted},
		"another instance's": {func(row *taskbridge.Task) { row.Instance = "server-1" }, taskbridge.StatusAccepted},
		"cancelled meanwhile": {func(row *taskbridge.Task) {
			row.Cancellation = taskbridge.Cancellation{RequestedAt: row.UpdatedAt, Reason: "enough"}
		}, taskbridge.StatusCancelled},
	} {
		l := newLab(t)
		id := l.task()
		l.edit(id, c.edit)
		for range 2 {
			l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "c"}).problem(409, "NOT_RUNNABLE")
		}
		if row := l.row(id); row.Status != c.want {
			t.Errorf("%s: the row is %s", name, row.Status)
		}
	}
}

func TestAFullStreamRefusesReportsOneByOneAndTheRestGoesOn(t *testing.T) {
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Limits.StreamEvents = 3 })
	id, attempt := l.running()
	reports := []workerapi.Report{message("a"), token("b"), token("c"), token("d"), message("e"), progress(1), complete(`1`)}
	for range 2 { // and again, as if the answer had been lost
		answer := decode[workerapi.AttemptResponse](l.report(id, attempt, 10, reports...))
		var refused []string
		for _, r := range answer.Refused {
			refused = append(refused, fmt.Sprint(r.Ordinal))
			if (r.Code != workerapi.CodeStreamFull && r.Code != workerapi.CodeTaskFinished) || r.Message == "" {
				t.Errorf("refused: %+v", r)
			}
		}
		if answer.Status != "COMPLETED" || strings.Join(refused, " ") != "14 15" {
			t.Errorf("%+v", answer)
		}
	}
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"bcd"}`, `TASK_COMPLETED {"result":1}`)

	id, attempt = l.running()
	l.report(id, attempt, 1, message("a"), message("b"))
	answer := decode[workerapi.AttemptResponse](l.report(id, attempt, 3, token("c"), token("d"), suspend("s")))
	if len(answer.Refused) != 2 || answer.Refused[1].Ordinal != 4 || answer.Refused[1].Code != workerapi.CodeStreamFull {
		t.Errorf("%+v", answer.Refused)
	}
	if stream := l.stream(id); len(stream) != 4 || !strings.HasPrefix(stream[3], "TASK_SUSPENDED") {
		t.Errorf("%q", stream)
	}
	l.post(id, "notices", hostKey, workerapi.NoticeRequest{Message: "m"}).problem(409, "STREAM_FULL")
}

// wordy is a store that says more about its errors than workers are to know.
type wordy struct{ taskbridge.EventStore }

func (s wordy) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	result, err := s.EventStore.AppendEvent(ctx, event)
	if event.Producer.Name == "odd" {
		err = &taskbridge.ArgumentError{Field: "producer", Reason: "is odd"}
	}
	if err != nil {
		err = fmt.Errorf("table of 192.0.2.1: %w: at most %d", err, event.MaxSequence)
	}
	return result, err
}

func TestWhatAStoreSaysOfItselfIsNotTold(t *testing.T) {
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) {
		o.Limits.StreamEvents = 1
		o.Stores.Events = wordy{o.Stores.Events}
	})
	id, attempt := l.running()
	const want = "event stream is full: at most 1"
	answer := decode[workerapi.AttemptResponse](l.report(id, attempt, 1, message("a")))
	if len(answer.Refused) != 1 || answer.Refused[0].Code != workerapi.CodeStreamFull || answer.Refused[0].Message != want {
		t.Errorf("%+v", answer.Refused)
	}
	notice := l.post(id, "notices", hostKey, workerapi.NoticeRequest{Message: "m"})
	notice.problem(409, workerapi.CodeStreamFull)
	if !strings.Contains(string(notice.body), `"message":"`+want+`"`) {
		t.Errorf("%s", notice.body)
	}
	odd := decode[workerapi.StartResponse](l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", Producer: "odd"}))
	refusal := l.report(id, bearer(odd.Token), 1, message("a"))
	refusal.problem(422, "REQUEST_VALIDATION_ERROR")
	if !strings.Contains(string(refusal.body), `"message":"producer is odd"`) {
		t.Errorf("%s", refusal.body)
	}
}

func suspend(id string) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportSuspend, Suspension: json.RawMessage(
		`{"suspendId":"` + id + `","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["GO"],"schemaVersion":1}`)}
}

func TestASuspensionWhoseIDWasUsedRecordsNothingOfItsRequest(t *testing.T) {
	l := newLab(t)
	id, attempt := l.running()
	l.report(id, attempt, 1, suspend("one"))
	l.report(id, attempt, 2, suspend("two"))
	before := len(l.stream(id))
	details := l.report(id, attempt, 3, message("a"), suspend("one")).problem(422, "REQUEST_VALIDATION_ERROR")
	if details["field"] != "suspendId" || details["index"] != float64(1) {
		t.Errorf("%v", details)
	}
	if got := len(l.stream(id)); got != before {
		t.Errorf("%d events, there were %d", got, before)
	}
	decode[workerapi.AttemptResponse](l.report(id, attempt, 3, message("a")))
}

func TestASuspensionTooManyIsRefusedAndTheTaskGoesOn(t *testing.T) {
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) { o.Limits.Suspensions = 1 })
	id, attempt := l.running()
	decode[workerapi.AttemptResponse](l.report(id, attempt, 1, suspend("one")))
	answer := decode[workerapi.AttemptResponse](l.report(id, attempt, 2, message("a"), suspend("two")))
	if len(answer.Refused) != 1 || answer.Refused[0].Ordinal != 3 || answer.Refused[0].Code != workerapi.CodeStreamFull {
		t.Errorf("%+v", answer.Refused)
	}
	decode[workerapi.AttemptResponse](l.report(id, attempt, 4, complete(`null`)))
}

func TestAStoreThatIsAwayIsSaidToBeAndLogged(t *testing.T) {
	store := memory.NewStore(memory.Options{})
	l := newLab(t, func(o *taskbridge.LifecycleOptions, _ *workerapi.Options) {
		o.Stores = taskbridge.Stores{Tasks: store, Events: store}
	})
	id, attempt := l.running()
	l.must(store.Close())
	for _, route := range routes {
		header := map[string]string{"start": l.submission(id), "notices": hostKey, "settle": hostKey}[route.name]
		if header == "" {
			header = attempt
		}
		r := l.serve(l.request(route.method, workerapi.BasePath+id+"/"+route.name, header, route.body))
		if details := r.problem(503, "UNAVAILABLE"); len(details) != 0 || strings.Contains(string(r.body), "closed") {
			t.Errorf("it tells %s", r.body)
		}
	}
	if logs := l.logs.String(); strings.Count(logs, id) < len(routes) || !strings.Contains(logs, "closed") || strings.Contains(logs, "tba1.") {
		t.Errorf("the log is\n%s", logs)
	}
}
