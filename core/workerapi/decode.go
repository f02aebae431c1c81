package workerapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// body reads the request's body, which is to be one JSON object.
func (h *handler) body(c *call) ([]byte, error) {
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || mediaType != "application/json" {
		return nil, invalidRequest("the content type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, h.opts.BodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &problem{
			status: http.StatusRequestEntityTooLarge, code: codePayloadTooLarge,
			message: fmt.Sprintf("the body is over the limit of %d bytes", tooLarge.Limit),
			details: map[string]any{"limit": tooLarge.Limit},
		}
	case err != nil:
		return nil, invalidRequest("the body cannot be read")
	case !utf8.Valid(body):
		return nil, invalidRequest("the body is not UTF-8")
	}
	return body, nil
}

// names are the members that an object may have, each with a bit of its own.
type names map[string]uint32

// namesOf returns the names of a struct's members on the wire, of which there
// may be 32.
func namesOf[T any]() names {
	all := make(names)
	bit := uint32(1)
	for field := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		all[name] = bit
		bit <<= 1
	}
	return all
}

var (
	startNames      = namesOf[StartRequest]()
	reportsNames    = namesOf[ReportsRequest]()
	reportNames     = namesOf[Report]()
	noticeNames     = namesOf[NoticeRequest]()
	settleNames     = namesOf[SettleRequest]()
	suspensionNames = namesOf[taskbridge.Suspension]()
)

// unmarshal decodes one JSON object and nothing besides. Package json takes a
// member whose name differs in case, and the last of several: neither is meant.
func unmarshal(data []byte, allowed names, value any) error {
	if err := json.Unmarshal(data, value); err != nil {
		return errNoObject(err)
	}
	return allowed.check(data)
}

// check goes through the members of a JSON value, which is valid and must be an
// object.
func (n names) check(data []byte) error {
	data = bytes.TrimLeft(data, whitespace)
	if data[0] != '{' {
		return errors.New("it must be a JSON object")
	}
	var seen uint32
	for data = bytes.TrimLeft(data[1:], whitespace); data[0] == '"'; data = bytes.TrimLeft(data, whitespace) {
		name := data[1 : stringEnd(data)-1]
		bit := n[string(name)]
		switch {
		case bit == 0:
			return fmt.Errorf("%q is not known", name)
		case seen&bit != 0:
			return fmt.Errorf("%q is there twice", name)
		}
		seen |= bit
		data = data[valueEnd(data):]
		if data[0] == ',' {
			data = data[1:]
		}
	}
	return nil
}

const whitespace = " \t\r\n"

// stringEnd returns where the JSON string at the beginning of data ends.
func stringEnd(data []byte) int {
	for i := 1; ; i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// valueEnd returns where the member at the beginning of data ends: at the comma
// or brace behind it.
func valueEnd(data []byte) int {
	for i, depth := 0, 0; ; i++ {
		switch data[i] {
		case '"':
			i += stringEnd(data[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}

// errNoObject says what is wrong without the names of Go's types.
func errNoObject(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &kind):
		return err
	case kind.Field == "":
		return errors.New("it must be a JSON object")
	}
	return fmt.Errorf("%s is of the wrong kind: %s", kind.Field, kind.Value)
}

// wrongForm is the answer to a body that is no JSON of the wire's form.
func wrongForm(err error) *problem {
	return invalidRequest("the body is not what the route takes: " + err.Error())
}

// decode reads a body that is one object.
func (h *handler) decode(c *call, allowed names, request any) error {
	body, err := h.body(c)
	if err != nil {
		return err
	}
	if err := unmarshal(body, allowed, request); err != nil {
		return wrongForm(err)
	}
	return nil
}

// decodeReports reads the body of a request with reports, and returns them as
// the service takes them.
func (h *handler) decodeReports(c *call) ([]taskbridge.Report, error) {
	var request struct {
		FirstOrdinal int64             `json:"firstOrdinal"`
		Reports      []json.RawMessage `json:"reports"`
	}
	if err := h.decode(c, reportsNames, &request); err != nil {
		return nil, err
	}
	if n := len(request.Reports); n == 0 || n > MaxReports {
		return nil, &taskbridge.ArgumentError{Field: "reports", Reason: fmt.Sprintf("must be 1 to %d", MaxReports)}
	}
	if most := int64(taskbridge.MaxReportOrdinal - MaxReports); request.FirstOrdinal < 1 || request.FirstOrdinal > most {
		return nil, &taskbridge.ArgumentError{Field: "firstOrdinal", Reason: fmt.Sprintf("must be 1 to %d", most)}
	}
	all := make([]taskbridge.Report, len(request.Reports))
	ordinal := request.FirstOrdinal
	for i, raw := range request.Reports {
		var report Report
		if err := unmarshal(raw, reportNames, &report); err != nil {
			p := wrongForm(fmt.Errorf("report %d: %w", i, err))
			p.details = map[string]any{"index": i}
			return nil, p
		}
		var err error
		if all[i], err = report.report(); err != nil {
			return nil, &taskbridge.ReportError{Index: i, Err: err}
		}
		if report.Ordinal != 0 {
			if report.Ordinal < ordinal {
				return nil, &taskbridge.ReportError{Index: i, Err: &taskbridge.ArgumentError{Field: "ordinal", Reason: fmt.Sprintf("must be %d or more", ordinal)}}
			}
			ordinal = report.Ordinal
		}
		all[i].Ordinal, all[i].Verify, all[i].Since = ordinal, taskbridge.Verification(report.Verify), report.Since
		ordinal++
	}
	return all, nil
}

// decodeSettle reads the body of a settlement.
func (h *handler) decodeSettle(c *call) (taskbridge.Outcome, error) {
	var request struct {
		Outcome json.RawMessage `json:"outcome"`
	}
	if err := h.decode(c, settleNames, &request); err != nil {
		return taskbridge.Outcome{}, err
	}
	if request.Outcome == nil {
		return taskbridge.Outcome{}, &taskbridge.ArgumentError{Field: "outcome", Reason: "is required"}
	}
	var report Report
	if err := unmarshal(request.Outcome, reportNames, &report); err != nil {
		return taskbridge.Outcome{}, wrongForm(fmt.Errorf("outcome: %w", err))
	}
	return report.outcome()
}

// fieldsOf says which fields count for which type.
var fieldsOf = map[ReportType][]string{
	ReportProgress:  {"progress", "stage", "message", "ordinal", "verify", "since"},
	ReportMessage:   {"message", "level", "ordinal", "verify", "since"},
	ReportToken:     {"text", "ordinal", "verify", "since"},
	ReportSuspend:   {"suspension"},
	ReportComplete:  {"result", "message"},
	ReportFail:      {"code", "message", "retryable"},
	ReportCancelled: {"message"},
}

// requiredOf is the field that must be there; the others that count may be empty.
var requiredOf = map[ReportType]string{
	ReportProgress: "progress", ReportSuspend: "suspension", ReportFail: "code",
}

// check says what is wrong with the choice of fields.
func (r Report) check() error {
	fields, ok := fieldsOf[r.Type]
	if !ok {
		return &taskbridge.ArgumentError{Field: "type", Reason: "must be progress, message, token, suspend, complete, fail or cancelled"}
	}
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"progress", r.Progress != nil},
		{"stage", r.Stage != ""},
		{"message", r.Message != ""},
		{"level", r.Level != ""},
		{"text", r.Text != ""},
		{"suspension", r.Suspension != nil},
		{"result", r.Result != nil},
		{"code", r.Code != ""},
		{"retryable", r.Retryable},
		{"ordinal", r.Ordinal != 0},
		{"verify", r.Verify != ""},
		{"since", r.Since != 0},
	} {
		if field.set && !slices.Contains(fields, field.name) {
			return &taskbridge.ArgumentError{Field: field.name, Reason: "does not go with " + string(r.Type)}
		}
		if !field.set && requiredOf[r.Type] == field.name {
			return &taskbridge.ArgumentError{Field: field.name, Reason: "is required with " + string(r.Type)}
		}
	}
	return nil
}

func (r Report) report() (taskbridge.Report, error) {
	if err := r.check(); err != nil {
		return taskbridge.Report{}, err
	}
	switch r.Type {
	case ReportProgress:
		return taskbridge.Report{Progress: &taskbridge.Progress{Percent: *r.Progress, Stage: r.Stage, Message: r.Message}}, nil
	case ReportMessage:
		return taskbridge.Report{Message: &taskbridge.Message{Text: r.Message, Level: taskbridge.MessageLevel(r.Level)}}, nil
	case ReportToken:
		return taskbridge.Report{Token: &r.Text}, nil
	case ReportSuspend:
		var suspension taskbridge.Suspension
		if err := unmarshal(r.Suspension, suspensionNames, &suspension); err != nil {
			return taskbridge.Report{}, &taskbridge.ArgumentError{Field: "suspension", Reason: "cannot be read: " + err.Error()}
		}
		return taskbridge.Report{Suspension: &suspension}, nil
	}
	outcome, err := r.outcome()
	return taskbridge.Report{Outcome: &outcome}, err
}

// outcome returns a report that must be an end.
func (r Report) outcome() (taskbridge.Outcome, error) {
	if err := r.check(); err != nil {
		return taskbridge.Outcome{}, err
	}
	switch r.Type {
	case ReportComplete:
		return taskbridge.Outcome{
			Status:     taskbridge.StatusCompleted,
			Completion: taskbridge.Completion{Result: r.Result, Message: r.Message},
		}, nil
	case ReportFail:
		return taskbridge.Outcome{
			Status:  taskbridge.StatusFailed,
			Failure: taskbridge.Failure{Code: r.Code, Message: r.Message, Retryable: r.Retryable},
		}, nil
	case ReportCancelled:
		return taskbridge.Outcome{Status: taskbridge.StatusCancelled, Message: r.Message}, nil
	}
	return taskbridge.Outcome{}, &taskbridge.ArgumentError{Field: "type", Reason: "must be complete, fail or cancelled"}
}
