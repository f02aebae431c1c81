package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// Error is an answer by which the server refused a request for good. It matches
// the error of package taskbridge that it stands for, where there is one.
type Error struct {
	Status int
	// Code and Message are the server's; Code is empty if the answer was not the
	// worker API's, but that of something on the way.
	Code, Message string

	means error // the error of package taskbridge, nil for none
	index int   // of the report that was refused; -1 for none
	// sequence comes with ORDINAL_REUSED.
	sequence int64
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%d %s, which is no answer of the worker API", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("the server refused with %d %s: %s", e.Status, e.Code, e.Message)
}

// Unwrap returns the error of package taskbridge, if any.
func (e *Error) Unwrap() error { return e.means }

// foreign reports whether the answer came from something else than the server.
func (e *Error) foreign() bool { return e.Code == "" }

// passing is a failure after which the request may be sent again.
type passing struct {
	err       error
	after     time.Duration // asked for by the server
	untouched bool          // the request has certainly had no effect
}

func (e *passing) Error() string { return e.err.Error() }
func (e *passing) Unwrap() error { return e.err }

// refusal makes the error of an answer that is no success.
func refusal(r *http.Response, body []byte, now time.Time) error {
	e := &Error{Status: r.StatusCode, index: -1}
	var problem workerapi.Problem
	broken := false
	if isJSON(r) {
		broken = json.Unmarshal(body, &problem) != nil || problem.Code == ""
		e.Code, e.Message = problem.Code, problem.Message
	}
	switch {
	case r.StatusCode == http.StatusTooManyRequests:
		return &passing{err: e, after: retryAfter(r.Header, now), untouched: true}
	case r.StatusCode >= 500, r.StatusCode < 300, broken, // cut short where it does not show
		r.StatusCode == http.StatusRequestTimeout, r.StatusCode == http.StatusTooEarly:
		return &passing{err: e, after: retryAfter(r.Header, now)}
	}
	if index, ok := number(problem.Details, "index"); ok {
		e.index = index
	}
	if sequence, ok := problem.Details["sequence"].(float64); ok {
		e.sequence = int64(sequence)
	}
	e.means = meaning(e, problem.Details)
	return e
}

// meaning is the error of package taskbridge that an answer stands for.
func meaning(e *Error, details map[string]any) error {
	switch e.Code {
	case workerapi.CodeNotRunnable:
		return taskbridge.ErrNotRunnable
	case workerapi.CodeStaleAttempt:
		return taskbridge.ErrStaleAttempt
	case workerapi.CodeStaleProducer:
		return taskbridge.ErrStaleProducer
	case workerapi.CodeTaskFinished:
		return taskbridge.ErrTaskFinished
	case workerapi.CodeOrdinalReused:
		return taskbridge.ErrOrdinalReused
	case workerapi.CodeStreamFull:
		return taskbridge.ErrStreamFull
	case "TASK_NOT_FOUND":
		return taskbridge.ErrTaskNotFound
	case "PAYLOAD_TOO_LARGE":
		field, _ := details["field"].(string)
		size, _ := number(details, "bytes")
		if limit, ok := number(details, "limit"); ok && field != "" {
			return &taskbridge.SizeError{Field: field, Bytes: size, Limit: limit}
		}
		return taskbridge.ErrPayloadTooLarge
	case "REQUEST_VALIDATION_ERROR":
		field, _ := details["field"].(string)
		if reason, _ := details["reason"].(string); field != "" && reason != "" {
			return &taskbridge.ArgumentError{Field: field, Reason: reason}
		}
		return taskbridge.ErrInvalidArgument
	}
	return nil
}

func number(details map[string]any, key string) (int, bool) {
	n, ok := details[key].(float64)
	return int(n), ok
}

// fences reports whether the error says that the run can report nothing more,
// and is the answer to be given for it.
func fences(err error) bool {
	for _, over := range []error{
		taskbridge.ErrStaleAttempt, taskbridge.ErrStaleProducer, taskbridge.ErrTaskFinished,
		taskbridge.ErrTaskNotFound, taskbridge.ErrNotRunnable,
	} {
		if errors.Is(err, over) {
			return true
		}
	}
	return false
}
