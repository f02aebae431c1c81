package workerapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// decode reads the body, which must be one JSON object of the wire's type.
func (h *handler) decode(c *call, request any) error {
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || mediaType != "application/json" {
		return invalidRequest("the content type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, h.opts.BodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &problem{
			status: http.StatusRequestEntityTooLarge, code: codePayloadTooLarge,
			message: fmt.Sprintf("the body is over the limit of %d bytes", tooLarge.Limit),
			details: map[string]any{"limit": tooLarge.Limit},
		}
	case err != nil:
		return invalidRequest("the body cannot be read")
	case !utf8.Valid(body):
		return invalidRequest("the body is not UTF-8")
	}
	if err := unmarshal(body, request); err != nil {
		return invalidRequest("the body is not what the route takes: " + err.Error())
	}
	return nil
}

// unmarshal decodes one JSON value and nothing besides.
func unmarshal(data []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the JSON value")
	}
	return nil
}

// reports returns the request's reports as the service takes them.
func (r ReportsRequest) reports() ([]taskbridge.Report, error) {
	if n := len(r.Reports); n == 0 || n > MaxReports {
		return nil, &taskbridge.ArgumentError{Field: "reports", Reason: fmt.Sprintf("must be 1 to %d", MaxReports)}
	}
	if most := int64(taskbridge.MaxReportOrdinal - MaxReports); r.FirstOrdinal < 1 || r.FirstOrdinal > most {
		return nil, &taskbridge.ArgumentError{Field: "firstOrdinal", Reason: fmt.Sprintf("must be 1 to %d", most)}
	}
	all := make([]taskbridge.Report, len(r.Reports))
	for i, report := range r.Reports {
		var err error
		if all[i], err = report.report(); err != nil {
			return nil, &taskbridge.ReportError{Index: i, Err: err}
		}
		all[i].Ordinal = r.FirstOrdinal + int64(i)
	}
	return all, nil
}

// fieldsOf says which fields count for which type.
var fieldsOf = map[ReportType][]string{
	ReportProgress:  {"progress", "stage", "message"},
	ReportMessage:   {"message", "level"},
	ReportToken:     {"text"},
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
		if err := unmarshal(r.Suspension, &suspension); err != nil {
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
