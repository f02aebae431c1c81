package taskbridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// LineReportPrefix begins a line of output that carries a report.
const LineReportPrefix = "::taskbridge "

// LineReport is a report that work makes by printing a line: [LineReportPrefix]
// and a JSON object, with "progress" (and optional "stage", "message"), or
// "message" (and optional "level"), or "result" (any JSON), or "fail" (an object
// of "code", "message", "retryable"). Exactly one field is set.
type LineReport struct {
	Progress *Progress
	Message  *Message
	Result   json.RawMessage
	Fail     *Failure
}

// ParseLineReport reads one line without its line end. isReport is false for a
// line without the prefix: ordinary output. With the prefix and anything that
// is no report, err is an [*ArgumentError] that says why.
//
// Keys are matched exactly; unknown and repeated ones, null (but for a result)
// and text that is not UTF-8 are refused. Of a failure "code" and "message" are
// required; "retryable" is false where it is absent. A result is compact and
// shares no memory with line.
func ParseLineReport(line []byte) (report LineReport, isReport bool, err error) {
	text, isReport := bytes.CutPrefix(line, []byte(LineReportPrefix))
	if !isReport {
		return LineReport{}, false, nil
	}
	fields, err := parseReportObject("report", text)
	if err != nil {
		return LineReport{}, true, err
	}
	report, err = newLineReport(fields)
	if err != nil {
		return LineReport{}, true, err
	}
	return report, true, nil
}

// newLineReport picks the kind by the key that only it has; "message" is one
// only where there is no other.
func newLineReport(fields map[string]json.RawMessage) (report LineReport, err error) {
	kinds := 0
	for _, key := range []string{"progress", "result", "fail"} {
		if _, ok := fields[key]; ok {
			kinds++
		}
	}
	if kinds > 1 {
		return LineReport{}, argumentErrorf("report", `must have only one of "progress", "result", "fail"`)
	}
	switch {
	case fields["progress"] != nil:
		report.Progress, err = newProgressReport(fields)
	case fields["result"] != nil:
		if err = onlyReportKeys("report", fields, "result"); err == nil {
			report.Result, err = compactReportValue(fields["result"])
		}
	case fields["fail"] != nil:
		report.Fail, err = newFailReport(fields)
	case fields["message"] != nil:
		report.Message, err = newMessageReport(fields)
	default:
		err = argumentErrorf("report", `must have one of "progress", "message", "result", "fail"`)
	}
	return report, err
}

func newProgressReport(fields map[string]json.RawMessage) (*Progress, error) {
	if err := onlyReportKeys("report", fields, "progress", "stage", "message"); err != nil {
		return nil, err
	}
	number := fields["progress"]
	// The value is valid JSON, so that its first byte tells its kind.
	if c := number[0]; c != '-' && (c < '0' || c > '9') {
		return nil, argumentErrorf("progress", "must be a number")
	}
	percent, err := strconv.ParseFloat(string(number), 64)
	// A number too great for a float64 is an error with an infinite value.
	if err != nil || percent < 0 || percent > 100 {
		return nil, argumentErrorf("progress", "must be from 0 to 100")
	}
	stage, err := reportString("stage", fields["stage"])
	if err != nil {
		return nil, err
	}
	message, err := reportString("message", fields["message"])
	if err != nil {
		return nil, err
	}
	// Adding zero makes a negative zero positive.
	return &Progress{Percent: percent + 0, Stage: stage, Message: message}, nil
}

func newMessageReport(fields map[string]json.RawMessage) (*Message, error) {
	if err := onlyReportKeys("report", fields, "message", "level"); err != nil {
		return nil, err
	}
	text, err := reportString("message", fields["message"])
	if err != nil {
		return nil, err
	}
	message := &Message{Text: text, Level: LevelInfo}
	if fields["level"] == nil {
		return message, nil
	}
	level, err := reportString("level", fields["level"])
	if err != nil {
		return nil, err
	}
	message.Level = MessageLevel(level)
	switch message.Level {
	case LevelInfo, LevelWarning, LevelDebug:
		return message, nil
	}
	return nil, argumentErrorf("level", `must be "info", "warning" or "debug"`)
}

func newFailReport(fields map[string]json.RawMessage) (*Failure, error) {
	if err := onlyReportKeys("report", fields, "fail"); err != nil {
		return nil, err
	}
	inner, err := parseReportObject("fail", fields["fail"])
	if err != nil {
		return nil, err
	}
	if err := onlyReportKeys("fail", inner, "code", "message", "retryable"); err != nil {
		return nil, err
	}
	for _, key := range []string{"code", "message"} {
		if inner[key] == nil {
			return nil, argumentErrorf("fail", "must have %q", key)
		}
	}
	var failure Failure
	if failure.Code, err = reportString("fail.code", inner["code"]); err != nil {
		return nil, err
	}
	if err := validateName("fail.code", failure.Code, maxNameBytes); err != nil {
		return nil, err
	}
	if failure.Message, err = reportString("fail.message", inner["message"]); err != nil {
		return nil, err
	}
	switch string(inner["retryable"]) {
	case "", "false":
	case "true":
		failure.Retryable = true
	default:
		return nil, argumentErrorf("fail.retryable", "must be true or false")
	}
	return &failure, nil
}

// parseReportObject reads text as one JSON object, a key once. Values are valid
// JSON, not decoded, without the space around them.
func parseReportObject(field string, text []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(text) {
		return nil, argumentErrorf(field, "must be UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	token, err := decoder.Token()
	if err != nil {
		return nil, notJSON(field, err)
	}
	if token != json.Delim('{') {
		return nil, argumentErrorf(field, "must be a JSON object")
	}
	fields := make(map[string]json.RawMessage)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, notJSON(field, err)
		}
		key, ok := token.(string)
		if !ok {
			return nil, argumentErrorf(field, "must be a JSON object")
		}
		if _, ok := fields[key]; ok {
			return nil, argumentErrorf(field, "has the key %.40q twice", key)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, notJSON(field, err)
		}
		fields[key] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, notJSON(field, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, argumentErrorf(field, "must be one JSON object and nothing after it")
	}
	return fields, nil
}

func notJSON(field string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return argumentErrorf(field, "must be a whole JSON object: the line ends within it")
	}
	return argumentErrorf(field, "must be a JSON object: %v", err)
}

func onlyReportKeys(field string, fields map[string]json.RawMessage, keys ...string) error {
	// The smallest, so that the same line gives the same error every time.
	unknown, found := "", false
	for key := range fields {
		if !slices.Contains(keys, key) && (!found || key < unknown) {
			unknown, found = key, true
		}
	}
	if found {
		return argumentErrorf(field, "must not have the key %.40q beside %q", unknown, keys[0])
	}
	return nil
}

// reportString decodes a JSON string; an absent value is empty.
func reportString(field string, value json.RawMessage) (string, error) {
	if value == nil {
		return "", nil
	}
	if value[0] != '"' {
		return "", argumentErrorf(field, "must be a string")
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return "", argumentErrorf(field, "must be a string: %v", err)
	}
	return text, nil
}

func compactReportValue(value json.RawMessage) (json.RawMessage, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, value); err != nil {
		return nil, argumentErrorf("result", "must be JSON: %v", err)
	}
	return compact.Bytes(), nil
}
