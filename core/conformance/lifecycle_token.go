package conformance

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var tokenChecks = []check[LifecycleHarness]{
	{"consecutive tokens are one message, recorded before the next report", tokensJoin},
	{"tokens are recorded before suspensions, ends and the close of a run", tokensBeforeOthers},
	{"tokens are recorded after a short delay", tokensAfterDelay},
	{"long text is split at the limit, at the ends of runes, and nothing is lost", tokensSplit},
	{"messages are never joined", messagesStayApart},
}

// never is a delay that no check lives to see.
const never = 1000 * time.Hour

func tokensJoin(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	id, run := s.running()
	for _, token := range []string{"One ", "", "two,\n", `"three" <`, "雪", "\xe9\x9b", "\xaa>"} {
		s.must("Token", run.Token(s.ctx, token))
	}
	s.must("Progress", run.Progress(s.ctx, taskbridge.Progress{Percent: 50}))
	s.must("Token", run.Token(s.ctx, "four"))
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "five"}))
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"One two,\n\"three\" <雪雪>"}`, "TASK_PROGRESS",
		`TASK_MESSAGE {"message":"four"}`, `TASK_MESSAGE {"message":"five"}`)
}

func tokensBeforeOthers(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	for _, c := range []struct {
		next string
		do   func(run taskbridge.Run) error
	}{
		{"TASK_SUSPENDED", func(run taskbridge.Run) error { return run.Suspend(s.ctx, suspension("one")) }},
		{"TASK_COMPLETED", func(run taskbridge.Run) error { return run.Complete(s.ctx, taskbridge.Completion{}) }},
		{"TASK_FAILED", func(run taskbridge.Run) error { return run.Fail(s.ctx, taskbridge.Failure{Code: "CODE"}) }},
		{"TASK_CANCELLED", func(run taskbridge.Run) error { return run.Cancelled(s.ctx, "") }},
		{"", taskbridge.Run.Close},
	} {
		id, run := s.running()
		s.must("Token", run.Token(s.ctx, "last "))
		s.must("Token", run.Token(s.ctx, "words"))
		s.must("what comes after the tokens", c.do(run))
		want := []string{"TASK_STARTED", `TASK_MESSAGE {"message":"last words"}`}
		if c.next != "" {
			want = append(want, c.next)
		}
		s.expect(id, want...)
	}
}

func tokensAfterDelay(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: time.Millisecond})
	id, run := s.running()
	for _, want := range []string{"One", "OneTwo", "OneTwoThree"} {
		before := texts(t, s.events(id))
		s.must("Token", run.Token(s.ctx, strings.TrimPrefix(want, before)))
		s.awaitStream("the token", id, func(events []taskbridge.Event) bool { return texts(t, events) == want })
	}
	s.live(run)
	s.agree(id)
}

// texts joins the texts of all messages.
func texts(t *testing.T, events []taskbridge.Event) string {
	t.Helper()
	var all strings.Builder
	for _, e := range events {
		if e.Type != taskbridge.EventMessage {
			continue
		}
		var payload struct{ Message string }
		if err := json.Unmarshal(e.Payload, &payload); err != nil {
			t.Fatalf("the message is %s: %v", e.Payload, err)
		}
		if !utf8.Valid(e.Payload) {
			t.Errorf("the message is not UTF-8: %q", e.Payload)
		}
		all.WriteString(payload.Message)
	}
	return all.String()
}

func tokensSplit(t *testing.T, h LifecycleHarness) {
	const limit = 100
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: never, Limits: taskbridge.Limits{EventPayload: limit}})
	for name, text := range map[string]string{
		"one byte a rune":       strings.Repeat("abcdefg ", 60),
		"three bytes a rune":    strings.Repeat("雪が降る", 40),
		"four bytes a rune":     strings.Repeat("\U0001F642", 120),
		"mixed":                 strings.Repeat("aé雪\U0001F642", 50),
		"escaped":               strings.Repeat("\"\\\n\t\u2028<&>\x01", 40),
		"shorter than a letter": "x",
	} {
		for _, size := range []int{1, 3, 7, 99, 100, 101, len(text)} { // of a token, runes cut or not
			id, run := s.running()
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				s.must("Token", run.Token(s.ctx, rest[:n]))
				rest = rest[n:]
			}
			if held := len(text) - len(texts(t, s.events(id))); held >= limit {
				t.Errorf("%s, tokens of %d bytes: %d bytes were held back, the limit is %d", name, size, held, limit)
			}
			s.must("Close", run.Close())
			events := s.events(id)
			if got := texts(t, events); got != text {
				t.Errorf("%s, tokens of %d bytes: the text is\n\t%q, want\n\t%q", name, size, got, text)
			}
			for _, e := range events {
				if len(e.Payload) > limit {
					t.Errorf("%s, tokens of %d bytes: a payload has %d bytes, the limit is %d", name, size, len(e.Payload), limit)
				}
			}
			// Well filled: not a message a token.
			if most := 2 + len(text)*6/(limit/2); len(events) > most {
				t.Errorf("%s, tokens of %d bytes: %d bytes of text are %d events", name, size, len(text), len(events))
			}
			s.agree(id)
		}
	}
}

func messagesStayApart(t *testing.T, h LifecycleHarness) {
	s := set(t, h, taskbridge.LifecycleOptions{TokenDelay: never})
	id, run := s.running()
	for range 3 {
		s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "same"}))
	}
	s.must("Token", run.Token(s.ctx, "token"))
	s.must("Message", run.Message(s.ctx, taskbridge.Message{Text: "same"}))
	s.expect(id, "TASK_STARTED", `TASK_MESSAGE {"message":"same"}`, `TASK_MESSAGE {"message":"same"}`, `TASK_MESSAGE {"message":"same"}`,
		`TASK_MESSAGE {"message":"token"}`, `TASK_MESSAGE {"message":"same"}`)
}
