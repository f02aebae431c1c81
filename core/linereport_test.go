package taskbridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseLineReportReadsEachKind(t *testing.T) {
	for _, test := range []struct {
		text string
		want LineReport
	}{
		{`{"progress":0}`, LineReport{Progress: &Progress{}}},
		{`{"progress":100}`, LineReport{Progress: &Progress{Percent: 100}}},
		{`{"progress":12.5e0,"stage":"hash","message":"half"}`, LineReport{Progress: &Progress{Percent: 12.5, Stage: "hash", Message: "half"}}},
		{"  {\t\"progress\" : 1 }  \r", LineReport{Progress: &Progress{Percent: 1}}},
		{`{"message":""}`, LineReport{Message: &Message{Level: LevelInfo}}},
		{`{"message":"a\nb\u00e9","level":"warning"}`, LineReport{Message: &Message{Text: "a\nbé", Level: LevelWarning}}},
		{`{"level":"debug","message":"x"}`, LineReport{Message: &Message{Text: "x", Level: LevelDebug}}},
		{`{"result":null}`, LineReport{Result: json.RawMessage(`null`)}},
		{`{"result":{"a": [1, 2.50, "x"], "A": null}}`, LineReport{Result: json.RawMessage(`{"a":[1,2.50,"x"],"A":null}`)}},
		{`{"result":"$(rm -rf /)"}`, LineReport{Result: json.RawMessage(`"$(rm -rf /)"`)}},
		{`{"fail":{"code":"DISK_FULL","message":"no room"}}`, LineReport{Fail: &Failure{Code: "DISK_FULL", Message: "no room"}}},
		{`{"fail":{"retryable":true,"code":"BUSY","message":""}}`, LineReport{Fail: &Failure{Code: "BUSY", Retryable: true}}},
		{`{"fail":{"retryable":false,"code":"BUSY","message":"m"}}`, LineReport{Fail: &Failure{Code: "BUSY", Message: "m"}}},
	} {
		report, isReport, err := ParseLineReport([]byte(LineReportPrefix + test.text))
		if err != nil || !isReport {
			t.Errorf("%s: isReport %v, %v", test.text, isReport, err)
			continue
		}
		if !reflect.DeepEqual(report, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.text, report, test.want)
		}
	}
}

func TestParseLineReportMakesNegativeZeroPositive(t *testing.T) {
	report, _, err := ParseLineReport([]byte(LineReportPrefix + `{"progress":-0.0}`))
	if err != nil || math.Signbit(report.Progress.Percent) {
		t.Fatalf("got %v, %v", report.Progress, err)
	}
}

func TestParseLineReportLeavesOrdinaryLinesAlone(t *testing.T) {
	for _, line := range []string{
		"", "hello", "::taskbridge", "::taskbridge\t{}", " ::taskbridge {}", "::TASKBRIDGE {}",
		"::taskbridge{\"progress\":1}", `{"progress":1}`, "\xff\xfe",
	} {
		report, isReport, err := ParseLineReport([]byte(line))
		if isReport || err != nil || !reflect.DeepEqual(report, LineReport{}) {
			t.Errorf("%q: got %+v, %v, %v", line, report, isReport, err)
		}
	}
}

func TestParseLineReportSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ text, field, reason string }{
		{``, "report", "the line ends"},
		{`   `, "report", "the line ends"},
		{`{`, "report", "the line ends"},
		{`{"progress":`, "report", "the line ends"},
		{`{"progress":1`, "report", "the line ends"},
		{`progress 10`, "report", "must be a JSON object"},
		{`null`, "report", "must be a JSON object"},
		{`[1]`, "report", "must be a JSON object"},
		{`{"progress":1,}`, "report", "must be a JSON object"},
		{`{1:2}`, "report", "must be a JSON object"},
		{`{'progress':1}`, "report", "must be a JSON object"},
		{`{"progress":NaN}`, "report", "must be a JSON object"},
		{`{"progress":01}`, "report", "must be a JSON object"},
		{`{"progress":+1}`, "report", "must be a JSON object"},
		{`{"progress":1} {"progress":2}`, "report", "nothing after it"},
		{`{"progress":1} x`, "report", "nothing after it"},
		{`{"progress":1}}`, "report", "nothing after it"},
		{"{\"message\":\"\xff\"}", "report", "must be UTF-8"},
		{"{\"message\":\"a\tb\"}", "report", "must be a JSON object"},
		{`{}`, "report", "must have one of"},
		{`{"level":"info"}`, "report", "must have one of"},
		{`{"Progress":1}`, "report", "must have one of"},
		{`{"progress":1,"result":2}`, "report", "only one of"},
		{`{"result":1,"fail":{"code":"A","message":"b"}}`, "report", "only one of"},
		{`{"progress":1,"progress":2}`, "report", "twice"},
		{`{"progress":1,"extra":2,"another":3}`, "report", `the key "another"`},
		{`{"progress":1,"level":"info"}`, "report", `the key "level"`},
		{`{"message":"m","stage":"s"}`, "report", `the key "stage"`},
		{`{"result":1,"message":"m"}`, "report", `the key "message"`},
		{`{"fail":{"code":"A","message":"b"},"message":"m"}`, "report", `the key "message"`},
		{`{"progress":"50"}`, "progress", "must be a number"},
		{`{"progress":null}`, "progress", "must be a number"},
		{`{"progress":true}`, "progress", "must be a number"},
		{`{"progress":[1]}`, "progress", "must be a number"},
		{`{"progress":-1}`, "progress", "from 0 to 100"},
		{`{"progress":100.0001}`, "progress", "from 0 to 100"},
		{`{"progress":1e999}`, "progress", "from 0 to 100"},
		{`{"progress":-1e999}`, "progress", "from 0 to 100"},
		{`{"progress":1,"stage":null}`, "stage", "must be a string"},
		{`{"progress":1,"message":5}`, "message", "must be a string"},
		{`{"message":null}`, "message", "must be a string"},
		{`{"message":{}}`, "message", "must be a string"},
		{`{"message":"m","level":"error"}`, "level", `must be "info"`},
		{`{"message":"m","level":""}`, "level", `must be "info"`},
		{`{"message":"m","level":1}`, "level", "must be a string"},
		{`{"fail":"broken"}`, "fail", "must be a JSON object"},
		{`{"fail":null}`, "fail", "must be a JSON object"},
		{`{"fail":{}}`, "fail", `must have "code"`},
		{`{"fail":{"code":"A"}}`, "fail", `must have "message"`},
		{`{"fail":{"code":"","message":"m"}}`, "fail.code", "must not be empty"},
		{`{"fail":{"code":"A\u0000","message":"m"}}`, "fail.code", "control characters"},
		{`{"fail":{"code":5,"message":"m"}}`, "fail.code", "must be a string"},
		{`{"fail":{"code":"A","message":null}}`, "fail.message", "must be a string"},
		{`{"fail":{"code":"A","message":"m","retryable":"yes"}}`, "fail.retryable", "must be true or false"},
		{`{"fail":{"code":"A","message":"m","retryable":null}}`, "fail.retryable", "must be true or false"},
		{`{"fail":{"code":"A","message":"m","exit":1}}`, "fail", `the key "exit"`},
		{`{"fail":{"code":"A","code":"B","message":"m"}}`, "fail", "twice"},
	} {
		report, isReport, err := ParseLineReport([]byte(LineReportPrefix + test.text))
		var argument *ArgumentError
		if !isReport || !errors.As(err, &argument) {
			t.Errorf("%s: isReport %v, %v", test.text, isReport, err)
			continue
		}
		if argument.Field != test.field || !strings.Contains(argument.Reason, test.reason) {
			t.Errorf("%s: got %q %q, want %q and %q", test.text, argument.Field, argument.Reason, test.field, test.reason)
		}
		if !reflect.DeepEqual(report, LineReport{}) {
			t.Errorf("%s: an error with a report %+v", test.text, report)
		}
	}
}

func TestParseLineReportBoundsWhatItSaysOfAHugeKey(t *testing.T) {
	line := LineReportPrefix + `{"progress":1,"` + strings.Repeat("k", 1<<20) + `":1}`
	_, _, err := ParseLineReport([]byte(line))
	if err == nil || len(err.Error()) > 200 {
		t.Fatalf("an error of %d bytes", len(err.Error()))
	}
}

func TestParseLineReportRefusesNestingWithoutBottom(t *testing.T) {
	line := LineReportPrefix + `{"result":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`
	if _, _, err := ParseLineReport([]byte(line)); !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("got %v", err)
	}
}

func TestParseLineReportDoesNotKeepTheLine(t *testing.T) {
	line := []byte(LineReportPrefix + `{"result":{"a":1}}`)
	report, _, err := ParseLineReport(line)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		line[i] = 'x'
	}
	if string(report.Result) != `{"a":1}` {
		t.Fatalf("got %s", report.Result)
	}
}

func FuzzParseLineReport(f *testing.F) {
	for _, seed := range []string{
		"", "hello", "::taskbridge", "::taskbridge ", "::taskbridge {}",
		`::taskbridge {"progress":50,"stage":"s","message":"m"}`,
		`::taskbridge {"progress":1e999}`,
		`::taskbridge {"message":"m","level":"debug"}`,
		`::taskbridge {"result":[1,{"a":null}," "]}`,
		`::taskbridge {"result":1}{"result":2}`,
		`::taskbridge {"fail":{"code":"A","message":"b","retryable":true}}`,
		`::taskbridge {"fail":{"code":"A","message":"b","message":"c"}}`,
		"::taskbridge {\"message\":\"\xff\"}",
		`::taskbridge {"message":"\ud800"}`,
		`::taskbridge {"":1}`,
		`::taskbridge [[[[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		report, isReport, err := ParseLineReport(line)
		if isReport != bytes.HasPrefix(line, []byte(LineReportPrefix)) {
			t.Fatalf("isReport is %v", isReport)
		}
		kinds := 0
		for _, set := range []bool{report.Progress != nil, report.Message != nil, report.Result != nil, report.Fail != nil} {
			if set {
				kinds++
			}
		}
		if !isReport || err != nil {
			if err != nil && !errors.Is(err, ErrInvalidArgument) {
				t.Fatalf("an error of another kind: %v", err)
			}
			if kinds != 0 || err != nil && !isReport {
				t.Fatalf("got %+v, %v, %v", report, isReport, err)
			}
			return
		}
		if kinds != 1 {
			t.Fatalf("%d kinds in %+v", kinds, report)
		}
		switch {
		case report.Progress != nil:
			if p := report.Progress.Percent; !(p >= 0 && p <= 100) || !utf8.ValidString(report.Progress.Stage) || !utf8.ValidString(report.Progress.Message) {
				t.Fatalf("progress %+v", report.Progress)
			}
		case report.Message != nil:
			if l := report.Message.Level; l != LevelInfo && l != LevelWarning && l != LevelDebug || !utf8.ValidString(report.Message.Text) {
				t.Fatalf("message %+v", report.Message)
			}
		case report.Result != nil:
			if !json.Valid(report.Result) {
				t.Fatalf("result %q", report.Result)
			}
		case report.Fail != nil:
			if report.Fail.Code == "" || !utf8.ValidString(report.Fail.Message) {
				t.Fatalf("fail %+v", report.Fail)
			}
		}
	})
}
