package fakes_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

func TestDemoScriptReadsItsInput(t *testing.T) {
	failure := func(message string) *taskbridge.Failure {
		return &taskbridge.Failure{Code: "DEMO_FAILED", Message: message}
	}
	for _, c := range []struct {
		input string
		want  fakes.Script
	}{
		{``, fakes.Script{Ticks: 10, TickInterval: 200 * time.Millisecond}},
		{`{}`, fakes.Script{Ticks: 10, TickInterval: 200 * time.Millisecond}},
		{`{"ticks":10,"tickMillis":200,"failAfterTicks":null,"result":null}`,
			fakes.Script{Ticks: 10, TickInterval: 200 * time.Millisecond, Result: json.RawMessage("null")}},
		{`{"ticks":0,"tickMillis":0}`, fakes.Script{}},
		{`{"ticks":100000,"tickMillis":3600000}`, fakes.Script{Ticks: 100_000, TickInterval: time.Hour}},
		{`{"result":{"n":[1,"x"]},"ticks":1}`,
			fakes.Script{Ticks: 1, TickInterval: 200 * time.Millisecond, Result: json.RawMessage(`{"n":[1,"x"]}`)}},
		{`{"ticks":3,"tickMillis":1,"failAfterTicks":0}`,
			fakes.Script{Ticks: 3, TickInterval: time.Millisecond, Failure: failure("failed after 0 of 3 ticks, as the input asks")}},
		{`{"failAfterTicks":3,"ticks":3}`,
			fakes.Script{Ticks: 3, TickInterval: 200 * time.Millisecond, FailAfterTicks: 3, Failure: failure("failed after 3 of 3 ticks, as the input asks")}},
	} {
		got, err := fakes.DemoScript(taskbridge.Task{Input: json.RawMessage(c.input)})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.input, got, err, c.want)
		}
	}
}

func TestDemoScriptRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct{ input, says string }{
		{`{"ticks":-1}`, "ticks must be an integer from 0 to 100000"},
		{`{"ticks":100001}`, "ticks must be"},
		{`{"ticks":1.5}`, "ticks must be"},
		{`{"ticks":1e2}`, "ticks must be"},
		{`{"ticks":"7"}`, "ticks must be"},
		{`{"ticks":null}`, "ticks must be"},
		{`{"ticks":99999999999999999999}`, "ticks must be"},
		{`{"tickMillis":3600001}`, "tickMillis must be an integer from 0 to 3600000"},
		{`{"tickMillis":{}}`, "tickMillis must be"},
		{`{"failAfterTicks":11}`, "failAfterTicks must be an integer from 0 to 10"},
		{`{"ticks":2,"failAfterTicks":3}`, "failAfterTicks must be an integer from 0 to 2"},
		{`{"Ticks":2}`, `unknown key "Ticks"`},
		{`{"ticks":2,"tick":3}`, `unknown key "tick"`},
		{`null`, "must be a JSON object"},
		{`[]`, "must be a JSON object"},
		{`{`, "must be a JSON object"},
	} {
		script, err := fakes.DemoScript(taskbridge.Task{Input: json.RawMessage(c.input)})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, error %v; want one with %q", c.input, script, err, c.says)
		}
	}
}

func FuzzDemoScriptNeverGivesMoreThanItsBounds(f *testing.F) {
	for _, seed := range []string{`{}`, `{"ticks":10,"tickMillis":200,"failAfterTicks":4,"result":[1]}`, `{"ticks":-0}`, `null`, `{"x":`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		script, err := fakes.DemoScript(taskbridge.Task{Input: input})
		if err != nil {
			return
		}
		if script.Ticks < 0 || script.Ticks > fakes.MaxDemoTicks ||
			script.TickInterval < 0 || script.TickInterval > time.Hour ||
			script.FailAfterTicks < 0 || script.FailAfterTicks > script.Ticks ||
			script.Result != nil && !json.Valid(script.Result) {
			t.Errorf("%s gives %+v", input, script)
		}
	})
}
