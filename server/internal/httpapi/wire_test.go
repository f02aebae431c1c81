package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var eventID = regexp.MustCompile(`^[1-9][0-9]*-[0-9a-f]{8}$`)

// checkEnvelope checks that an event has the five fields and nothing else.
func checkEnvelope(t *testing.T, event map[string]any, taskID, eventType string) {
	t.Helper()
	checkKeys(t, event, "type", "taskId", "eventId", "createdAt", "payload")
	if event["type"] != eventType || event["taskId"] != taskID {
		t.Errorf("event %v, want a %s of %s", event, eventType, taskID)
	}
	if id, _ := event["eventId"].(string); !eventID.MatchString(id) {
		t.Errorf("event id %v", event["eventId"])
	}
	if _, ok := event["payload"].(map[string]any); !ok {
		t.Errorf("payload %v", event["payload"])
	}
	checkTime(t, event["createdAt"])
}

func TestCreationAnswersWithTheFourFields(t *testing.T) {
	f := serve(t)
	const body = `{"clientRequestId":"k","taskType":"scripted","unheardOf":[1,{}]}`
	created := f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body, "Content-Type: application/json; charset=utf-8; x=y")
	checkKeys(t, created, "taskId", "status", "clientRequestId", "deduplicated")
	if created["status"] != "ACCEPTED" || created["clientRequestId"] != "k" || created["deduplicated"] != false ||
		!taskbridge.ValidTaskID(created["taskId"].(string)) {
		t.Errorf("created %v", created)
	}
	again := f.expect(http.StatusOK, "POST", "/api/v1/tasks", body)
	checkKeys(t, again, "taskId", "status", "clientRequestId", "deduplicated")
	if again["taskId"] != created["taskId"] || again["deduplicated"] != true {
		t.Errorf("again %v, at first %v", again, created)
	}
}

func TestARowHasItsFieldsAndTheOthersOnlyWhereTheyAreThere(t *testing.T) {
	required := []string{
		"taskId", "clientRequestId", "taskType", "status", "input", "metadata", "createdAt", "updatedAt", "attempt", "cancellationRequested",
	}
	with := func(more ...string) []string { return append(append([]string{}, required...), more...) }
	ctx := context.Background()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	suspension := taskbridge.Suspension{
		SuspendID: "s1", Kind: taskbridge.SuspendUserAction, ReasonCode: "CONFIRM", AllowedActions: []string{"yes", "no"},
		SchemaVersion: 1, ExpiresAt: &expires,
	}
	for _, test := range []struct {
		name   string
		steps  func(f *fixture, task string)
		status string
		keys   []string
		check  func(row map[string]any) bool
	}{
		{"accepted", func(*fixture, string) {}, "ACCEPTED", required,
			func(row map[string]any) bool { return row["attempt"] == 0.0 && row["cancellationRequested"] == false }},
		{"running", func(f *fixture, task string) { f.start(task) }, "RUNNING", with("startedAt"),
			func(row map[string]any) bool { return row["attempt"] == 1.0 }},
		{"suspended", func(f *fixture, task string) { must(f.T, f.start(task).Suspend(ctx, suspension)) }, "RUNNING", with("startedAt", "suspension"),
			func(row map[string]any) bool {
				s := row["suspension"].(map[string]any)
				return len(s) == 6 && s["suspendId"] == "s1" && s["expiresAt"] == expires.Format(time.RFC3339Nano)
			}},
		{"completed", func(f *fixture, task string) { f.complete(f.start(task), `{"a":"<&>"}`) }, "COMPLETED", with("startedAt", "finishedAt", "result"),
			func(row map[string]any) bool { return row["result"].(map[string]any)["a"] == "<&>" }},
		{"completed without a result", func(f *fixture, task string) { f.complete(f.start(task), `null`) }, "COMPLETED", with("startedAt", "finishedAt", "result"),
			func(row map[string]any) bool { return row["result"] == nil }},
		{"failed", func(f *fixture, task string) {
			must(f.T, f.start(task).Fail(ctx, taskbridge.Failure{Code: "BAD", Message: "so bad", Retryable: true}))
		}, "FAILED", with("startedAt", "finishedAt", "failure"),
			func(row map[string]any) bool {
				failure := row["failure"].(map[string]any)
				return len(failure) == 3 && failure["code"] == "BAD" && failure["message"] == "so bad" && failure["retryable"] == true
			}},
		{"cancellation requested", func(f *fixture, task string) {
			f.start(task)
			f.expect(http.StatusAccepted, "POST", "/api/v1/tasks/"+task+"/cancel", `{"reason":"enough"}`)
		}, "RUNNING", with("startedAt", "cancelReason"),
			func(row map[string]any) bool {
				return row["cancellationRequested"] == true && row["cancelReason"] == "enough"
			}},
		{"cancelled", func(f *fixture, task string) {
			run := f.start(task)
			f.expect(http.StatusAccepted, "POST", "/api/v1/tasks/"+task+"/cancel", "")
			must(f.T, run.Cancelled(ctx, ""))
		}, "CANCELLED", with("startedAt", "finishedAt", "cancelReason"),
			func(row map[string]any) bool { return row["cancelReason"] == "cancelled by client" }},
		{"cancelled from outside", func(f *fixture, task string) {
			must(f.T, f.lifecycle.Settle(ctx, task, taskbridge.Outcome{Status: taskbridge.StatusCancelled}))
		}, "CANCELLED", with("finishedAt", "cancelReason"),
			func(row map[string]any) bool { return row["cancellationRequested"] == false }},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := serve(t)
			f.T = t
			task := f.create()
			test.steps(f, task)
			row := f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task, "")
			checkKeys(t, row, test.keys...)
			if row["taskId"] != task || row["status"] != test.status || row["taskType"] != scripted || !test.check(row) {
				t.Errorf("row %v", row)
			}
			if input, _ := row["input"].(map[string]any); input["n"] != 1.0 {
				t.Errorf("input %v", row["input"])
			}
			if metadata, _ := row["metadata"].(map[string]any); metadata["m"] != 2.0 {
				t.Errorf("metadata %v", row["metadata"])
			}
			for _, key := range []string{"createdAt", "updatedAt", "startedAt", "finishedAt"} {
				if value, ok := row[key]; ok {
					checkTime(t, value)
				}
			}

			// In a list it is the same row without input and result.
			list := f.expect(http.StatusOK, "GET", "/api/v1/tasks", "")
			checkKeys(t, list, "tasks")
			listed := list["tasks"].([]any)[0].(map[string]any)
			delete(row, "input")
			delete(row, "result")
			if want, got := fmt.Sprint(row), fmt.Sprint(listed); got != want {
				t.Errorf("listed %s\nwant   %s", got, want)
			}
		})
	}
}

func TestAListIsNewestFirstAndPaged(t *testing.T) {
	f := serve(t)
	if list := f.do("GET", "/api/v1/tasks", ""); string(list.body) != "{\"tasks\":[]}\n" {
		t.Errorf("an empty list: %s", list.body)
	}
	var want []string
	for range 5 {
		want = append([]string{f.create()}, want...)
	}
	var got []string
	for cursor, pages := "", 1; ; pages++ {
		page := f.expect(http.StatusOK, "GET", "/api/v1/tasks?limit=2&cursor="+cursor, "")
		for _, row := range page["tasks"].([]any) {
			got = append(got, row.(map[string]any)["taskId"].(string))
		}
		next, more := page["nextCursor"]
		if !more {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		cursor = next.(string)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	f.start(want[0])
	list := f.expect(http.StatusOK, "GET", "/api/v1/tasks?status=RUNNING&taskType=scripted", "")
	if rows := list["tasks"].([]any); len(rows) != 1 || rows[0].(map[string]any)["taskId"] != want[0] {
		t.Errorf("running: %v", list)
	}
}

func TestAPollAnswersWithEnvelopesAndTheNextCursor(t *testing.T) {
	f := serve(t)
	task := f.create()
	path := "/api/v1/tasks/" + task + "/events"

	empty := f.do("GET", path, "")
	if want := fmt.Sprintf(`{"taskId":%q,"status":"ACCEPTED","events":[],"nextAfterEventId":null,"hasMore":false}`, task); string(empty.body) != want {
		t.Errorf("an empty poll:\n%s\nwant\n%s", empty.body, want)
	}
	for _, given := range []string{"0", "0-0"} {
		page := f.expect(http.StatusOK, "GET", path+"?afterEventId="+given, "")
		if page["nextAfterEventId"] != given {
			t.Errorf("a poll after %q: %v", given, page)
		}
	}

	run := f.start(task)
	f.progress(run, 10, 20.5)
	f.complete(run, `{"text":"a<b>&c\u2028"}`)

	first := f.expect(http.StatusOK, "GET", path+"?maxEvents=3", "")
	checkKeys(t, first, "taskId", "status", "events", "nextAfterEventId", "hasMore")
	events := first["events"].([]any)
	if len(events) != 3 || first["hasMore"] != true || first["taskId"] != task {
		t.Fatalf("first page %v", first)
	}
	for i, eventType := range []string{"TASK_STARTED", "TASK_PROGRESS", "TASK_PROGRESS"} {
		checkEnvelope(t, events[i].(map[string]any), task, eventType)
	}
	last := events[2].(map[string]any)
	if first["nextAfterEventId"] != last["eventId"] {
		t.Errorf("next %v, last %v", first["nextAfterEventId"], last["eventId"])
	}
	if payload := last["payload"].(map[string]any); len(payload) != 1 || payload["progress"] != 20.5 {
		t.Errorf("payload %v", payload)
	}

	raw := f.do("GET", path+"?afterEventId="+first["nextAfterEventId"].(string), "")
	second := raw.object(t)
	events = second["events"].([]any)
	if len(events) != 1 || second["hasMore"] != false || second["status"] != "COMPLETED" {
		t.Fatalf("second page %v", second)
	}
	checkEnvelope(t, events[0].(map[string]any), task, "TASK_COMPLETED")
	if !bytes.Contains(raw.body, []byte(`{"text":"a<b>&c`)) {
		t.Errorf("the work's JSON has been rewritten: %s", raw.body)
	}

	end := second["nextAfterEventId"].(string)
	behind := f.expect(http.StatusOK, "GET", path+"?afterEventId="+end, "")
	if len(behind["events"].([]any)) != 0 || behind["nextAfterEventId"] != end || behind["status"] != "COMPLETED" {
		t.Errorf("behind the end: %v", behind)
	}
}

func TestACursorThatCannotBeHonouredIsToldInTheStreamWhereNoErrorIsAskedFor(t *testing.T) {
	f := serve(t)
	task := f.finished()
	all := f.events(task)
	page := f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task+"/events?afterEventId=2-00000000", "")
	events := page["events"].([]any)
	if len(events) != len(all)+1 {
		t.Fatalf("%d events after a gap, the stream has %d", len(events), len(all))
	}
	warning := events[0].(map[string]any)
	if warning["type"] != "TASK_MESSAGE" || warning["eventId"] != "0-0" || warning["payload"].(map[string]any)["level"] != "warning" {
		t.Errorf("warning %v", warning)
	}
	if fmt.Sprint(events[1]) != fmt.Sprint(any(all[0])) {
		t.Errorf("after the warning: %v", events[1])
	}

	r := f.do("GET", "/api/v1/tasks/"+task+"/events?afterEventId=2-00000000&gap=error", "")
	details := r.checkProblem(t, http.StatusGone, codeEventGap)
	if details["firstEventId"] != all[0]["eventId"] || details["lastEventId"] != all[len(all)-1]["eventId"] {
		t.Errorf("details %v", details)
	}
}

func TestCancellationAnswersWhetherTheTaskHadEnded(t *testing.T) {
	f := serve(t)
	for i, test := range []struct {
		body   string
		header string
		reason string
	}{
		{"", "", "cancelled by client"},
		{"", "Content-Type: text/plain", "cancelled by client"},
		{" \n", "", "cancelled by client"},
		{"{}", "", "cancelled by client"},
		{`{"reason":null}`, "", "cancelled by client"},
		{`{"reason":""}`, "", "cancelled by client"},
		{`{"reason":"no more","other":1}`, "Content-Type: application/json; charset=utf-8", "no more"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			task := f.create()
			run := f.start(task)
			answer := f.expect(http.StatusAccepted, "POST", "/api/v1/tasks/"+task+"/cancel", test.body, test.header)
			checkKeys(t, answer, "taskId", "status")
			if answer["taskId"] != task || answer["status"] != "CANCELLATION_REQUESTED" {
				t.Errorf("answer %v", answer)
			}
			<-run.CancelRequested()
			must(t, run.Cancelled(context.Background(), ""))
			events := f.events(task)
			last := events[len(events)-1]
			if last["type"] != "TASK_CANCELLED" || last["payload"].(map[string]any)["reason"] != test.reason {
				t.Errorf("end %v", last)
			}
			answer = f.expect(http.StatusAccepted, "POST", "/api/v1/tasks/"+task+"/cancel", test.body, test.header)
			if answer["status"] != "ALREADY_TERMINAL" {
				t.Errorf("a second time: %v", answer)
			}
		})
	}
}

func TestHealthAndReadiness(t *testing.T) {
	broken := false
	f := serve(t, func(o *Options) {
		o.Ready = map[string]ReadyCheck{
			"store": func(context.Context) error { return nil },
			"executor": func(context.Context) error {
				if broken {
					return fmt.Errorf("secret reason")
				}
				return nil
			},
		}
	})
	if body := f.do("GET", "/health", "").body; string(body) != `{"status":"ok"}` {
		t.Errorf("health: %s", body)
	}
	if r := f.do("HEAD", "/health", ""); r.StatusCode != http.StatusOK || len(r.body) != 0 {
		t.Errorf("HEAD: %d %s", r.StatusCode, r.body)
	}
	for _, step := range []struct {
		change func()
		status int
		body   string
	}{
		{func() {}, 200, `{"status":"ready","details":{"executor":"ok","store":"ok"}}`},
		{func() { broken = true }, 503, `{"status":"not_ready","details":{"executor":"unavailable","store":"ok"}}`},
		{func() { broken = false; f.api.Drain() }, 503, `{"status":"not_ready","details":{"executor":"ok","server":"shutting down","store":"ok"}}`},
	} {
		step.change()
		r := f.do("GET", "/ready", "")
		if r.StatusCode != step.status || string(r.body) != step.body {
			t.Errorf("ready: %d %s, want %d %s", r.StatusCode, r.body, step.status, step.body)
		}
	}
	if !strings.Contains(f.log.String(), "secret reason") {
		t.Error("the reason is not in the log")
	}
}

func TestEveryAnswerIsOneJSONValue(t *testing.T) {
	f := serve(t)
	task := f.finished()
	for _, path := range []string{"/api/v1/tasks", "/api/v1/tasks/" + task, "/api/v1/tasks/" + task + "/events", "/health", "/ready", "/nothing"} {
		if r := f.do("GET", path, ""); !json.Valid(r.body) {
			t.Errorf("%s: %s", path, r.body)
		}
	}
}
