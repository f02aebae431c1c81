package taskbridge

import "encoding/json"

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
func ParseLineReport(line []byte) (report LineReport, isReport bool, err error) {
	panic("not yet")
}
