package openapitest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/openapi"
)

func load(t testing.TB) *Contract {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheDocumentIsOpenAPI(t *testing.T) {
	load(t)
	for name, broken := range map[string][2]string{
		"a reference to nothing":   {`#/components/schemas/CreatedTask"`, `#/components/schemas/Created"`},
		"an invented member":       {"summary: Create a task, once", "summery: Create a task, once"},
		"an unknown type":          {"additionalProperties: {enum: [ok", "type: map\n      additionalProperties: {enum: [ok"},
		"an undeclared parameter":  {"/api/v1/tasks/{taskId}/cancel:", "/api/v1/tasks/{task}/cancel:"},
		"two operations of a name": {"operationId: listTasks", "operationId: createTask"},
		"an older version":         {"openapi: 3.1.0", "openapi: 3.0.3"},
		"a broken example":         {"taskType: report, input: {month: 11}", "taskType: 3"},
	} {
		document := bytes.Replace(openapi.Document(), []byte(broken[0]), []byte(broken[1]), 1)
		if bytes.Equal(document, openapi.Document()) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Parse(document); err == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

func TestEverySchemaCompilesAndEveryResponseHasOne(t *testing.T) {
	c := load(t)
	for name := range c.doc.Components.Schemas {
		if _, err := c.schemas.compile([]string{"components", "schemas", name}); err != nil {
			t.Error(err)
		}
	}
	for path, item := range c.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				if response.Ref != "" || response.Value.Content[mediaJSON] == nil {
					continue
				}
				if _, err := c.schemas.compile([]string{"paths", path, strings.ToLower(method), "responses", status, "content", mediaJSON, "schema"}); err != nil {
					t.Errorf("%s %s %s: %v", method, path, status, err)
				}
			}
		}
	}
}

// eventTypes are core's; one that is added there is to be added here.
var eventTypes = []taskbridge.EventType{
	taskbridge.EventStarted, taskbridge.EventProgress, taskbridge.EventMessage, taskbridge.EventSuspended,
	taskbridge.EventActionAccepted, taskbridge.EventCompleted, taskbridge.EventFailed, taskbridge.EventCancelled,
}

// payloads are examples, right and wrong ones, of each type. What core lets into
// a stream and what the document describes must be the same.
var payloads = []string{
	`{}`, `{"message":"m"}`, `{"message":3}`, `{"message":"m","level":"info"}`, `{"message":"m","level":"loud"}`, `{"message":null}`,
	`{"progress":0}`, `{"progress":100}`, `{"progress":100.5}`, `{"progress":-1}`, `{"progress":"3"}`, `{"progress":null}`,
	`{"progress":33.3,"stage":"s","message":"m"}`, `{"progress":3,"more":1}`, `{"stage":"s"}`,
	`{"suspendId":"s","kind":"USER_ACTION_REQUIRED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a","b"],"schemaVersion":2,"expiresAt":null,"uiHints":{},"interaction":{"x":1}}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1,"expiresAt":"2026-01-02T03:04:05.123456Z"}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1,"expiresAt":"tomorrow"}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1,"uiHints":"x"}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":[],"schemaVersion":1}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":[""],"schemaVersion":1}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":0}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1.5}`,
	`{"suspendId":"s","kind":"COFFEE","reasonCode":"R","allowedActions":["a"],"schemaVersion":1}`,
	`{"suspendId":"","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["a"],"schemaVersion":1}`,
	`{"suspendId":"s","kind":"SYSTEM_PAUSED","allowedActions":["a"],"schemaVersion":1}`,
	`{"suspendId":"s","clientActionId":"c","actionType":"a","acceptedAt":"2026-01-02T03:04:05Z"}`,
	`{"suspendId":"s","clientActionId":"c","actionType":"a","acceptedAt":"2026-01-02T03:04:05Z","message":"m"}`,
	`{"suspendId":"s","clientActionId":"c","actionType":"a","acceptedAt":"now"}`,
	`{"suspendId":"s","clientActionId":"","actionType":"a","acceptedAt":"2026-01-02T03:04:05Z"}`,
	`{"result":null}`, `{"result":{"a":[1]}}`, `{"result":"x","message":"m"}`, `{"result":1,"more":{"x":1}}`,
	`{"result":null,"resultOmitted":{"bytes":2,"limit":1}}`,
	`{"code":"C","message":"m","retryable":true}`, `{"code":"","message":"m","retryable":true}`,
	`{"code":"C","message":"m","retryable":"yes"}`, `{"code":"C","message":"m"}`, `{"code":"C","message":"m","retryable":true,"exit":3}`,
	`{"reason":"r"}`, `{"reason":"r","message":"m"}`, `{"reason":null}`, `{"reason":"r","more":1}`,
	`[]`, `null`, `"x"`,
}

func envelope(eventType taskbridge.EventType, payload string) []byte {
	return fmt.Appendf(nil, `{"type":%q,"taskId":"3f1-abc","eventId":"7-0a1b2c3d","createdAt":"2026-01-02T03:04:05.6Z","payload":%s}`, eventType, payload)
}

func TestAPayloadIsRightForTheDocumentWhereItIsForCore(t *testing.T) {
	c := load(t)
	good := map[taskbridge.EventType]int{}
	for _, eventType := range eventTypes {
		for _, payload := range payloads {
			core := taskbridge.ValidatePayload(eventType, []byte(payload))
			document := c.CheckData(envelope(eventType, payload))
			if (core == nil) != (document == nil) {
				t.Errorf("%s %s: core says %v, the document %v", eventType, payload, core, document)
			}
			if core == nil {
				good[eventType]++
			}
			if frame := c.CheckFrame(envelope(eventType, payload)); (frame == nil) != (document == nil) {
				t.Errorf("%s %s: as a frame %v, as data %v", eventType, payload, frame, document)
			}
		}
		if good[eventType] == 0 {
			t.Errorf("no payload here is right for %s", eventType)
		}
	}
}

func TestAnEnvelopeHasItsFiveMembersAndNoOther(t *testing.T) {
	c := load(t)
	right := string(envelope(taskbridge.EventProgress, `{"progress":3}`))
	if err := c.CheckData([]byte(right)); err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]string{
		"another member":     strings.Replace(right, `{"type"`, `{"sequence":7,"type"`, 1),
		"no id":              strings.Replace(right, `"eventId":"7-0a1b2c3d",`, ``, 1),
		"an empty id":        strings.Replace(right, `7-0a1b2c3d`, ``, 1),
		"no payload":         strings.Replace(right, `,"payload":{"progress":3}`, ``, 1),
		"an unknown type":    strings.Replace(right, `TASK_PROGRESS`, `TASK_PAUSED`, 1),
		"a task id too many": strings.Replace(right, `3f1-abc`, `../abc`, 1),
		"dots in the id":     strings.Replace(right, `3f1-abc`, `3f1..abc`, 1),
		"nanoseconds":        strings.Replace(right, `05.6Z`, `05.1234567Z`, 1),
		"another zone":       strings.Replace(right, `05.6Z`, `05.6+01:00`, 1),
		"no such day":        strings.Replace(right, `2026-01-02`, `2026-02-31`, 1),
		"two values":         right + right,
		"no JSON":            right[1:],
	} {
		if c.CheckData([]byte(wrong)) == nil {
			t.Errorf("%s is not noticed: %s", name, wrong)
		}
	}
}

const (
	tasks   = "/api/v1/tasks"
	aTask   = tasks + "/3f1-abc"
	row     = `{"taskId":"3f1-abc","clientRequestId":"k","taskType":"demo","status":"RUNNING","input":{},"metadata":{},"createdAt":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:05Z","attempt":1,"cancellationRequested":false,"startedAt":"2026-01-02T03:04:05Z"}`
	created = `{"taskId":"3f1-abc","status":"ACCEPTED","clientRequestId":"k","deduplicated":false}`
)

func problem(code, details string) string {
	return fmt.Sprintf(`{"code":%q,"message":"m","details":%s,"timestamp":"2026-01-02T03:04:05.000001Z"}`, code, details)
}

// done is the row with another status, which other members go with.
func done(status, more string) string {
	return strings.Replace(row, `"status":"RUNNING"`, `"status":"`+status+`","finishedAt":"2026-01-02T03:04:05Z"`+more, 1)
}

func TestAnswersAreCheckedAgainstTheDocument(t *testing.T) {
	c := load(t)
	without := func(member string) string {
		return regexp.MustCompile(`"`+member+`":("[^"]*"|\{\}|[0-9a-z]+),`).ReplaceAllString(row, "")
	}
	page := `{"taskId":"3f1-abc","status":"RUNNING","events":[` + string(envelope("TASK_PROGRESS", `{"progress":3}`)) + `],"nextAfterEventId":"7-0a1b2c3d","hasMore":false}`
	for _, test := range []struct {
		name, method, path string
		status             int
		header             string // further ones, "Name: value", by lines
		body               string
		right              bool
	}{
		{"created", "POST", tasks, 201, "", created, true},
		{"deduplicated", "POST", tasks, 200, "", strings.Replace(created, "false", "true", 1), true},
		{"created, with a status of another route", "POST", tasks, 202, "", created, false},
		{"created, with an unknown status", "POST", tasks, 201, "", strings.Replace(created, "ACCEPTED", "QUEUED", 1), false},
		{"created, with a member that nobody knows", "POST", tasks, 201, "", strings.Replace(created, "{", `{"x":1,`, 1), false},
		{"created, without an id", "POST", tasks, 201, "", `{"status":"ACCEPTED","clientRequestId":"k","deduplicated":false}`, false},
		{"created, as text", "POST", tasks, 201, "Content-Type: text/plain", created, false},
		{"created, cut", "POST", tasks, 201, "", created[:20], false},
		{"created, without the request's id", "POST", tasks, 201, "X-Request-Id:", created, false},

		{"the row", "GET", aTask, 200, "", row, true},
		{"the row, waited for", "GET", aTask, 200, "Preference-Applied: wait=60", row, true},
		{"the row, waited for too long", "GET", aTask, 200, "Preference-Applied: wait=61", row, false},
		{"the row, kept by a proxy", "GET", aTask, 200, "Cache-Control: public", row, false},
		{"the row without input", "GET", aTask, 200, "", without("input"), false},
		{"the row without metadata", "GET", aTask, 200, "", without("metadata"), false},
		{"the row without attempt", "GET", aTask, 200, "", without("attempt"), false},
		{"a null in the row", "GET", aTask, 200, "", strings.Replace(row, `"input":{}`, `"input":{},"failure":null`, 1), false},
		{"an undocumented member of the row", "GET", aTask, 200, "", strings.Replace(row, `{"taskId"`, `{"owner":"me","taskId"`, 1), false},
		{"completed", "GET", aTask, 200, "", done("COMPLETED", `,"result":null`), true},
		{"completed without a result", "GET", aTask, 200, "", done("COMPLETED", ``), false},
		{"running with a result", "GET", aTask, 200, "", strings.Replace(row, "{", `{"result":1,`, 1), false},
		{"failed", "GET", aTask, 200, "", done("FAILED", `,"failure":{"code":"C","message":"m","retryable":false}`), true},
		{"failed without a failure", "GET", aTask, 200, "", done("FAILED", ``), false},
		{"cancelled", "GET", aTask, 200, "", done("CANCELLED", `,"cancelReason":"r"`), true},
		{"an end without a time", "GET", aTask, 200, "", strings.Replace(row, "RUNNING", "CANCELLED", 1), false},

		{"a list", "GET", tasks + "?limit=2&status=RUNNING", 200, "", `{"tasks":[` + without("input") + `],"nextCursor":"c"}`, true},
		{"the last page", "GET", tasks, 200, "", `{"tasks":[]}`, true},
		{"a list with null for empty", "GET", tasks, 200, "", `{"tasks":null}`, false},
		{"a list with inputs", "GET", tasks, 200, "", `{"tasks":[` + row + `]}`, false},
		{"a list with an undocumented member", "GET", tasks, 200, "", `{"tasks":[` + strings.Replace(without("input"), "{", `{"owner":"me",`, 1) + `]}`, false},

		{"cancelled", "POST", aTask + "/cancel", 202, "", `{"taskId":"3f1-abc","status":"CANCELLATION_REQUESTED"}`, true},
		{"cancelled with a status of tasks", "POST", aTask + "/cancel", 202, "", `{"taskId":"3f1-abc","status":"CANCELLED"}`, false},
		{"cancelled without a body", "POST", aTask + "/cancel", 204, "", ``, false},

		{"a page", "GET", aTask + "/events?maxEvents=1", 200, "", page, true},
		{"an empty page from the start", "GET", aTask + "/events", 200, "", `{"taskId":"3f1-abc","status":"ACCEPTED","events":[],"nextAfterEventId":null,"hasMore":false}`, true},
		{"a page without the status", "GET", aTask + "/events", 200, "", strings.Replace(page, `"status":"RUNNING",`, ``, 1), false},
		{"a page with a heartbeat", "GET", aTask + "/events", 200, "", strings.Replace(strings.Replace(page, "TASK_PROGRESS", "HEARTBEAT", 1), `{"progress":3}`, `{"live":true}`, 1), false},
		{"a gap", "GET", aTask + "/events?gap=error", 410, "", problem("EVENT_GAP", `{"firstEventId":"1-00000000","lastEventId":"9-00000000"}`), true},
		{"a gap that does not say what there is", "GET", aTask + "/events?gap=error", 410, "", problem("EVENT_GAP", `{}`), false},

		{"a stream", "GET", aTask + "/events/stream", 200, "Content-Type: text/event-stream\nCache-Control: no-cache, no-transform\nX-Accel-Buffering: no", ``, true},
		{"a stream that nginx holds back", "GET", aTask + "/events/stream", 200, "Content-Type: text/event-stream\nCache-Control: no-cache, no-transform", ``, false},
		{"a stream at its end", "GET", aTask + "/events/stream", 204, "Content-Type:", ``, true},
		{"a WebSocket", "GET", tasks + "/ws", 101, "Content-Type:", ``, true},
		{"a WebSocket without credentials", "GET", tasks + "/ws", 401, "WWW-Authenticate: Bearer", problem("AUTHENTICATION_ERROR", `{}`), true},
		{"a WebSocket taken for a task", "GET", tasks + "/ws", 404, "", problem("TASK_NOT_FOUND", `{}`), false},

		{"not found", "GET", aTask, 404, "", problem("TASK_NOT_FOUND", `{}`), true},
		{"not found, without details", "GET", aTask, 404, "", `{"code":"TASK_NOT_FOUND","message":"m","timestamp":"2026-01-02T03:04:05Z"}`, false},
		{"not found, with more to tell", "GET", aTask, 404, "", strings.Replace(problem("TASK_NOT_FOUND", `{}`), "{", `{"owner":"somebody",`, 1), false},
		{"not found, with the code of another status", "GET", aTask, 404, "", problem("INVALID_REQUEST", `{}`), false},
		{"not found, with a code of nobody's", "GET", aTask, 404, "", problem("GONE_FISHING", `{}`), false},
		{"no credentials, no challenge", "GET", aTask, 401, "", problem("AUTHENTICATION_ERROR", `{}`), false},
		{"a conflict", "POST", tasks, 409, "", problem("IDEMPOTENCY_CONFLICT", `{}`), true},
		{"a conflict where there is none", "GET", tasks, 409, "", problem("IDEMPOTENCY_CONFLICT", `{}`), false},
		{"an unknown type", "POST", tasks, 422, "", problem("UNKNOWN_TASK_TYPE", `{"field":"taskType"}`), true},
		{"an unknown type in a list", "GET", tasks, 422, "", problem("UNKNOWN_TASK_TYPE", `{}`), false},
		{"limited", "GET", tasks, 429, "Retry-After: 1", problem("RATE_LIMITED", `{}`), true},
		{"limited for nobody knows how long", "GET", tasks, 429, "", problem("RATE_LIMITED", `{}`), false},
		{"limited for no time", "GET", tasks, 429, "Retry-After: 0", problem("RATE_LIMITED", `{}`), false},
		{"limited for half a second", "GET", tasks, 429, "Retry-After: 0.5", problem("RATE_LIMITED", `{}`), false},
		{"a fault", "GET", tasks, 500, "", problem("INTERNAL_ERROR", `{"requestId":"r"}`), true},
		{"a fault without the request's id", "GET", tasks, 500, "", problem("INTERNAL_ERROR", `{}`), false},
		{"away", "GET", tasks, 503, "Retry-After: 1", problem("UNAVAILABLE", `{}`), true},
		{"away for nobody knows how long", "GET", tasks, 503, "", problem("UNAVAILABLE", `{}`), false},
		{"rejected", "POST", tasks, 503, "", problem("TASK_SUBMISSION_ERROR", `{"taskId":"3f1-abc","failureCode":"C","retryable":false}`), true},
		{"rejected, whichever task", "POST", tasks, 503, "", problem("TASK_SUBMISSION_ERROR", `{}`), false},

		{"no such route", "GET", "/api/v2/tasks", 404, "", problem("NOT_FOUND", `{}`), true},
		{"no such route below a task", "GET", aTask + "/nothing", 404, "", problem("NOT_FOUND", `{}`), true},
		{"no such route, answered like a task", "GET", aTask + "/nothing", 404, "", problem("TASK_NOT_FOUND", `{}`), false},
		{"a path that is not clean", "GET", tasks + "/..", 404, "", problem("TASK_NOT_FOUND", `{}`), true},
		{"an empty task id", "GET", tasks + "/", 404, "", problem("NOT_FOUND", `{}`), true},
		{"a route of nobody's", "GET", "/admin", 200, "", `{}`, false},
		{"no such method", "DELETE", aTask, 405, "Allow: GET", problem("METHOD_NOT_ALLOWED", `{}`), true},
		{"no such method, and no other told", "DELETE", aTask, 405, "", problem("METHOD_NOT_ALLOWED", `{}`), false},
		{"no such method, which has no body", "HEAD", aTask, 405, "Allow: GET", ``, true},
		{"a method of nobody's, which has no body", "HEAD", aTask, 200, "", ``, false},
		{"a foreign host at no such route", "GET", "/nothing", 400, "", problem("INVALID_REQUEST", `{}`), true},

		{"healthy", "GET", "/health", 200, "", `{"status":"ok"}`, true},
		{"healthy, without a body", "HEAD", "/health", 200, "", ``, true},
		{"healthy, with more to tell", "GET", "/health", 200, "", `{"status":"ok","version":"1"}`, false},
		{"ready", "GET", "/ready", 200, "", `{"status":"ready","details":{"store":"ok","taskTypes":"ok"}}`, true},
		{"not ready", "GET", "/ready", 503, "", `{"status":"not_ready","details":{"store":"unavailable","server":"shutting down"}}`, true},
		{"not ready, but 200", "GET", "/ready", 200, "", `{"status":"not_ready","details":{}}`, false},
		{"not ready, with the reason", "GET", "/ready", 503, "", `{"status":"not_ready","details":{"store":"disk full at /var"}}`, false},
		{"metrics", "GET", "/metrics", 200, "Content-Type: text/plain; version=0.0.4; charset=utf-8", "x 1\n", true},
		{"the document", "GET", "/openapi.yaml", 200, "Content-Type: application/yaml\nETag: \"x\"", "openapi: 3.1.0\n", true},
	} {
		header := http.Header{"Content-Type": {mediaJSON}, "X-Request-Id": {"r-1"}, "Cache-Control": {"no-store"}}
		for line := range strings.Lines(test.header) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			header.Set(name, strings.TrimSpace(value))
			if strings.TrimSpace(value) == "" {
				header.Del(name)
			}
		}
		err := c.CheckAnswer(httptest.NewRequest(test.method, test.path, nil), test.status, header, []byte(test.body))
		switch {
		case err != nil && test.right:
			t.Errorf("%s: %v", test.name, err)
		case err == nil && !test.right:
			t.Errorf("%s: nothing is noticed", test.name)
		}
	}
}

func TestRequestsAreCheckedAgainstTheDocument(t *testing.T) {
	c := load(t)
	for _, test := range []struct {
		name, method, target, body string
		right                      bool
	}{
		{"create", "POST", tasks, `{"clientRequestId":"k","taskType":"demo","input":{"a":1},"metadata":{}}`, true},
		{"create by the header's key", "POST", tasks, `{"taskType":"demo"}`, true},
		{"create nothing", "POST", tasks, `{"clientRequestId":"k"}`, false},
		{"create with a list for input", "POST", tasks, `{"clientRequestId":"k","taskType":"demo","input":[]}`, false},
		{"create without a body", "POST", tasks, ``, false},
		{"list", "GET", tasks + "?limit=200&status=FAILED&status=CANCELLED&taskType=demo", ``, true},
		{"list too much", "GET", tasks + "?limit=201", ``, false},
		{"list what is not there", "GET", tasks + "?status=DONE", ``, false},
		{"poll", "GET", aTask + "/events?afterEventId=1-00000000&waitTimeoutMs=60000&maxEvents=500&gap=error", ``, true},
		{"poll for too long", "GET", aTask + "/events?waitTimeoutMs=60001", ``, false},
		{"poll for nothing", "GET", aTask + "/events?maxEvents=0", ``, false},
		{"poll with a gap of its own", "GET", aTask + "/events?gap=mind", ``, false},
		{"cancel", "POST", aTask + "/cancel", `{"reason":"r"}`, true},
		{"cancel without a reason", "POST", aTask + "/cancel", `{"reason":null}`, true},
		{"cancel without a body", "POST", aTask + "/cancel", ``, true},
		{"cancel for three reasons", "POST", aTask + "/cancel", `{"reason":3}`, false},
		{"a task of that name can't be", "GET", tasks + "/-abc", ``, false},
	} {
		r := httptest.NewRequest(test.method, test.target, nil)
		if test.body != "" {
			r.Header.Set("Content-Type", mediaJSON)
		}
		switch err := c.CheckRequest(r, []byte(test.body)); {
		case err != nil && test.right:
			t.Errorf("%s: %v", test.name, err)
		case err == nil && !test.right:
			t.Errorf("%s: nothing is noticed", test.name)
		}
	}
}

func TestFramesOfAWebSocketAreChecked(t *testing.T) {
	c := load(t)
	for frame, right := range map[string]bool{
		`{"type":"SUBSCRIPTION_CONFIRMED","taskId":"3f1-abc","replayStartedAfterEventId":null,"live":true}`:         true,
		`{"type":"SUBSCRIPTION_CONFIRMED","taskId":"3f1-abc","replayStartedAfterEventId":"7-0a1b2c3d","live":true}`: true,
		`{"type":"SUBSCRIPTION_CONFIRMED","taskId":"3f1-abc","live":true}`:                                          false,
		`{"type":"SUBSCRIPTION_CONFIRMED","taskId":"3f1-abc","replayStartedAfterEventId":null,"live":false}`:        false,
		`{"type":"HEARTBEAT","taskId":"3f1-abc","live":true}`:                                                       true,
		`{"type":"HEARTBEAT","taskId":"3f1-abc","live":true,"at":1}`:                                                false,
		`{"type":"PONG"}`: false,
	} {
		if err := c.CheckFrame([]byte(frame)); (err == nil) != right {
			t.Errorf("%s: %v", frame, err)
		}
	}
	for frame, right := range map[string]bool{
		`{"action":"subscribe","taskId":"3f1-abc"}`:                                       true,
		`{"action":"subscribe","taskId":"3f1-abc","lastEventId":null,"gap":"error"}`:      true,
		`{"action":"subscribe","taskId":"3f1-abc","lastEventId":"7-0a1b2c3d","more":"x"}`: true,
		`{"action":"unsubscribe","taskId":"3f1-abc"}`:                                     false,
		`{"action":"subscribe"}`:                                                          false,
	} {
		if err := c.CheckSchema("Subscribe", []byte(frame)); (err == nil) != right {
			t.Errorf("%s: %v", frame, err)
		}
	}
}
