package fakes

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Script is what a [DeterministicFakeExecutor] does for one task: Ticks times
// it waits for TickInterval and reports progress, then it completes. Tick i of
// n reports 100*i/n percent, rounded to hundredths.
type Script struct {
	Ticks        int
	TickInterval time.Duration
	// Reports are what the run says besides, in this order.
	Reports []Report
	// Failure, unless nil, is how the run ends, right after FailAfterTicks
	// ticks (0 to Ticks) and what is reported after them.
	Failure        *taskbridge.Failure
	FailAfterTicks int
	// Result is the result of a run that does not fail; nil means null.
	Result json.RawMessage
	// Message goes with the completion; optional.
	Message string
}

// Report is one more thing that a run says: exactly one of Message, Token and
// Suspension is set.
type Report struct {
	// AfterTicks places the report right after that tick's progress; 0: before
	// the first wait.
	AfterTicks int
	Message    *taskbridge.Message
	Token      string
	// Suspension is recorded; the run does not wait for an answer.
	Suspension *taskbridge.Suspension
}

// Always returns a function for [Options.Script] that gives every task the
// same script.
func Always(script Script) func(taskbridge.Task) (Script, error) {
	return func(taskbridge.Task) (Script, error) { return script, nil }
}

func (s Script) validate() error {
	switch {
	case s.Ticks < 0:
		return errors.New("ticks must not be negative")
	case s.TickInterval < 0:
		return errors.New("tick interval must not be negative")
	case s.Failure != nil && (s.FailAfterTicks < 0 || s.FailAfterTicks > s.Ticks):
		return fmt.Errorf("failure must come after 0 to %d ticks, not %d", s.Ticks, s.FailAfterTicks)
	case s.Failure != nil && s.Failure.Code == "":
		return errors.New("failure needs a code")
	case s.Result != nil && !json.Valid(s.Result):
		return errors.New("result must be JSON")
	}
	for _, r := range s.Reports {
		said := 0
		for _, is := range []bool{r.Message != nil, r.Token != "", r.Suspension != nil} {
			if is {
				said++
			}
		}
		if said != 1 {
			return errors.New("a report must be exactly one of message, token and suspension")
		}
		if r.AfterTicks < 0 || r.AfterTicks > s.Ticks {
			return fmt.Errorf("a report must come after 0 to %d ticks, not %d", s.Ticks, r.AfterTicks)
		}
	}
	return nil
}

// percent is the progress after tick i of n.
func percent(i, n int) float64 {
	return math.Round(float64(i)/float64(n)*10_000) / 100
}

// Bounds and defaults of [DemoScript].
const (
	DemoTicks         = 10
	DemoTickMillis    = 200
	MaxDemoTicks      = 100_000
	MaxDemoTickMillis = 3_600_000
	// CodeDemoFailed is the failure code of a demo task that was asked to fail.
	CodeDemoFailed = "DEMO_FAILED"
)

// DemoScript makes the script of a demo task from its input:
//
//	{"ticks": 10, "tickMillis": 200, "failAfterTicks": null, "result": null}
//
// All four are optional and have these defaults. ticks is 0 to [MaxDemoTicks],
// tickMillis 0 to [MaxDemoTickMillis], failAfterTicks 0 to ticks or null,
// result any JSON, which the completion echoes. Anything else is refused. It is
// meant for [Options.Script].
func DemoScript(task taskbridge.Task) (Script, error) {
	var input map[string]json.RawMessage
	if len(task.Input) > 0 {
		if err := json.Unmarshal(task.Input, &input); err != nil || input == nil {
			return Script{}, errors.New("input must be a JSON object")
		}
	}
	ticks, tickMillis, failAfter := DemoTicks, DemoTickMillis, -1
	var err error
	if raw, ok := input["ticks"]; ok {
		if ticks, err = demoNumber("ticks", raw, MaxDemoTicks); err != nil {
			return Script{}, err
		}
	}
	if raw, ok := input["tickMillis"]; ok {
		if tickMillis, err = demoNumber("tickMillis", raw, MaxDemoTickMillis); err != nil {
			return Script{}, err
		}
	}
	if raw, ok := input["failAfterTicks"]; ok && string(raw) != "null" {
		if failAfter, err = demoNumber("failAfterTicks", raw, ticks); err != nil {
			return Script{}, err
		}
	}
	for key := range input {
		switch key {
		case "ticks", "tickMillis", "failAfterTicks", "result":
		default:
			return Script{}, fmt.Errorf("input has an unknown key %q; a demo task takes ticks, tickMillis, failAfterTicks and result", key)
		}
	}
	script := Script{
		Ticks:        ticks,
		TickInterval: time.Duration(tickMillis) * time.Millisecond,
		Result:       input["result"],
	}
	if failAfter >= 0 {
		script.Failure = &taskbridge.Failure{
			Code:    CodeDemoFailed,
			Message: fmt.Sprintf("failed after %d of %d ticks, as the input asks", failAfter, ticks),
		}
		script.FailAfterTicks = failAfter
	}
	return script, nil
}

func demoNumber(key string, raw json.RawMessage, most int) (int, error) {
	// strconv and not encoding/json: that takes null for 0.
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 || n > most || raw[0] == '+' {
		return 0, fmt.Errorf("%s must be an integer from 0 to %d", key, most)
	}
	return n, nil
}
