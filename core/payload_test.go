package taskbridge

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestValidatePayloadIsTheProtocolsTable(t *testing.T) {
	cases := []struct {
		event   EventType
		payload string
		field   string // of the complaint; "" for none
	}{
		{EventStarted, `{}`, ""},
		{EventStarted, `{"message":"x"}`, ""},
		{EventStarted, `{"message":1}`, "payload.message"},
		{EventStarted, `{"other":1}`, "payload.other"},
		{EventProgress, `{"progress":0}`, ""},
		{EventProgress, `{"progress":100.0,"stage":"s","message":"m"}`, ""},
		{EventProgress, `{}`, "payload.progress"},
		{EventProgress, `{"progress":100.1}`, "payload.progress"},
		{EventProgress, `{"progress":-1}`, "payload.progress"},
		{EventProgress, `{"progress":null}`, "payload.progress"},
		{EventProgress, `{"progress":"50"}`, "payload.progress"},
		{EventProgress, `{"progress":1e999}`, "payload.progress"},
		{EventMessage, `{"message":""}`, ""},
		{EventMessage, `{"message":"m","level":"warning"}`, ""},
		{EventMessage, `{"message":"m","level":"error"}`, "payload.level"},
		{EventMessage, `{"level":"info"}`, "payload.message"},
		{EventSuspended, `{"suspendId":"s","kind":"USER_ACTION_REQUIRED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":1}`, ""},
		{EventSuspended, `{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":1,"expiresAt":null,"uiHints":{},"interaction":{"a":[1]}}`, ""},
		{EventSuspended, `{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":1.5}`, "payload.schemaVersion"},
		{EventSuspended, `{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":0}`, "payload.schemaVersion"},
		{EventSuspended, `{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":[],"schemaVersion":1}`, "payload.allowedActions"},
		{EventSuspended, `{"suspendId":"s","kind":"PAUSED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":1}`, "payload.kind"},
		{EventSuspended, `{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["OK"],"schemaVersion":1,"expiresAt":"tomorrow"}`, "payload.expiresAt"},
		{EventActionAccepted, `{"suspendId":"s","clientActionId":"c","actionType":"OK","acceptedAt":"2026-01-02T03:04:05Z"}`, ""},
		{EventActionAccepted, `{"suspendId":"s","clientActionId":"c","actionType":"OK"}`, "payload.acceptedAt"},
		{EventCompleted, `{"result":null}`, ""},
		{EventCompleted, `{"result":[1],"anything":{"goes":true}}`, ""},
		{EventCompleted, `{}`, "payload.result"},
		{EventFailed, `{"code":"C","message":"m","retryable":false}`, ""},
		{EventFailed, `{"code":"C","message":"m"}`, "payload.retryable"},
		{EventFailed, `{"code":"C","message":"m","retryable":true,"exitStatus":3}`, "payload.exitStatus"},
		{EventCancelled, `{"reason":"r","message":"m"}`, ""},
		{EventCancelled, `{}`, "payload.reason"},
		{"TASK_OTHER", `{}`, "type"},
		{EventStarted, `[]`, "payload"},
		{EventStarted, `null`, "payload"},
		{EventStarted, ``, "payload"},
		{EventStarted, `{ }`, "payload"},
		{EventStarted, "{}\n", "payload"},
		{EventStarted, "{\"message\":\"\xff\"}", "payload"},
	}
	for _, c := range cases {
		err := ValidatePayload(c.event, json.RawMessage(c.payload))
		var arg *ArgumentError
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s %s: %v", c.event, c.payload, err)
		case c.field != "" && (!errors.As(err, &arg) || arg.Field != c.field):
			t.Errorf("%s %s: %v, want a complaint about %s", c.event, c.payload, err, c.field)
		}
	}
}

func TestWhatTheLifecycleBuildsIsValid(t *testing.T) {
	at := time.Now()
	limits := DefaultLimits()
	hostile := "quote \" back \\ line\n\r\t nul \x00 bad \xff\xfe sep \u2028 <html> ü 🎉"
	must := func(p json.RawMessage, err error) json.RawMessage {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		event   EventType
		payload json.RawMessage
	}{
		"progress": {EventProgress, must(Progress{33.3333, hostile, hostile}.payload())},
		"message":  {EventMessage, must(Message{hostile, LevelDebug}.payload())},
		"complete": {EventCompleted, must(Completion{json.RawMessage("{ \"a\" : [1, 2.50] }"), hostile}.payload(limits.TerminalPayload))},
		"null":     {EventCompleted, must(Completion{}.payload(limits.TerminalPayload))},
		"failed":   {EventFailed, Failure{"", hostile, true}.payload(limits.TerminalPayload)},
		"cancel":   {EventCancelled, cancelled("", hostile, limits.TerminalPayload)},
		"suspend": {EventSuspended, must(Suspension{
			SuspendID: "s", Kind: SuspendSystemPaused, ReasonCode: "R", AllowedActions: []string{"A"}, SchemaVersion: 1,
			ExpiresAt: &at, UIHints: json.RawMessage("{ }"), Interaction: json.RawMessage(`{"a":"<b>"}`),
		}.payload(limits.EventPayload))},
	} {
		if err := ValidatePayload(c.event, c.payload); err != nil {
			t.Errorf("%s: %v in %s", name, err, c.payload)
		}
	}
}

func TestNumbersThatAreNoPercentAreRefused(t *testing.T) {
	for _, n := range []float64{-0.001, 100.001, math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := (Progress{Percent: n}).payload(); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v: %v", n, err)
		}
	}
}

func TestALongEndIsCutToItsLimitAndSaysSo(t *testing.T) {
	const limit = 1000
	for _, text := range []string{strings.Repeat("x", 5000), strings.Repeat("🎉", 2000), strings.Repeat("\"\n", 2000), strings.Repeat("\x01", 5000), strings.Repeat("\u2028", 5000)} {
		for event, payload := range map[EventType]json.RawMessage{
			EventFailed:    Failure{"CODE", text, true}.payload(limit),
			EventCancelled: cancelled("why", text, limit),
		} {
			if len(payload) > limit || len(payload) < limit*9/10 {
				t.Errorf("%s: %d bytes, want just under %d", event, len(payload), limit)
			}
			if err := ValidatePayload(event, payload); err != nil {
				t.Errorf("%s: %v", event, err)
			}
			if !strings.Contains(string(payload), "(cut)") {
				t.Errorf("%s does not say that it is cut", event)
			}
		}
	}
}

func TestAResultOverTheLimitIsOmittedLoudly(t *testing.T) {
	big, _ := json.Marshal(strings.Repeat("x", 2000))
	payload, err := Completion{Result: big, Message: "done"}.payload(1000)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"result":null,"message":"done","resultOmitted":{"bytes":2002,"limit":1000}}`
	if string(payload) != want {
		t.Errorf("got %s, want %s", payload, want)
	}
	payload, err = Completion{Result: big[:len(big)-100], Message: strings.Repeat("y", 5000)}.payload(1000)
	if err == nil {
		t.Errorf("broken JSON became %s", payload)
	}
	payload, err = Completion{Message: strings.Repeat("y", 5000)}.payload(1000)
	if err != nil || len(payload) > 1000 || strings.Contains(string(payload), "resultOmitted") {
		t.Errorf("%v, %d bytes: %s", err, len(payload), payload)
	}
}

func TestFittingEndsAtARuneAndNeverExceedsTheRoom(t *testing.T) {
	const s = "a\"\\\n\x01ü🎉\xff\u2028end"
	for room := range 60 {
		n := fitting([]byte(s), room)
		encoded := mustMarshal(text(s[:n]))
		if len(encoded)-2 > room {
			t.Errorf("room %d: %q takes %d", room, s[:n], len(encoded)-2)
		}
		if n < len(s) && s[n] != '\xff' && !utf8.RuneStart(s[n]) {
			t.Errorf("room %d: cut inside a rune", room)
		}
	}
	if n := fitting([]byte(s), 60); n != len(s) {
		t.Errorf("everything fits into 60, but %d of %d bytes are taken", n, len(s))
	}
}

func TestIncompleteRunesAreKeptForTheNextToken(t *testing.T) {
	for _, c := range []struct {
		s    string
		want int
	}{
		{"", 0}, {"abc", 0}, {"ü", 0}, {"\xc3", 1}, {"a\xf0\x9f\x8e", 3}, {"a\xf0\x9f", 2}, {"🎉", 0}, {"\xff", 0}, {"\x80\x80\x80\x80", 0},
	} {
		if got := incompleteRune([]byte(c.s)); got != c.want {
			t.Errorf("%q: %d, want %d", c.s, got, c.want)
		}
	}
}

func TestWhatComesFromOutsideMayNotBeNestedTooDeep(t *testing.T) {
	nested := func(depth int) json.RawMessage {
		return json.RawMessage(`{"a":` + strings.Repeat("[", depth-1) + `"[{\\\"["` + strings.Repeat("]", depth-1) + "}")
	}
	for _, test := range []struct {
		depth int
		taken bool
	}{{1, true}, {1000, true}, {1001, false}, {9000, false}} {
		if _, err := compactObject("input", nested(test.depth)); (err == nil) != test.taken || err != nil && !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%d deep: %v", test.depth, err)
		}
	}
	if _, err := (Completion{Result: nested(1001)}).payload(1 << 20); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a result: %v", err)
	}
}
