package workerapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Codes that the client's API has as well.
const (
	codeInvalidRequest    = "INVALID_REQUEST"
	codeAuthentication    = "AUTHENTICATION_ERROR"
	codeOwnership         = "TASK_OWNERSHIP_ERROR"
	codeTaskNotFound      = "TASK_NOT_FOUND"
	codeNotFound          = "NOT_FOUND"
	codeMethodNotAllowed  = "METHOD_NOT_ALLOWED"
	codePayloadTooLarge   = "PAYLOAD_TOO_LARGE"
	codeRequestValidation = "REQUEST_VALIDATION_ERROR"
	codeRateLimited       = "RATE_LIMITED"
	codeUnavailable       = "UNAVAILABLE"
)

// problem is an error as it is answered.
type problem struct {
	status  int
	code    string
	message string
	details map[string]any
	after   int // the Retry-After header; 0 for none
}

func (p *problem) Error() string { return p.code + ": " + p.message }

func invalidRequest(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeInvalidRequest, message: message}
}

// unauthenticated says the same of every credential that is bad.
func unauthenticated() *problem {
	return &problem{status: http.StatusUnauthorized, code: codeAuthentication, message: "a valid token is needed"}
}

// forbidden says the same of every good credential that does not reach so far.
func forbidden() *problem {
	return &problem{status: http.StatusForbidden, code: codeOwnership, message: "the credentials do not allow this"}
}

// sentinels are the errors of core that are answers to a worker.
var sentinels = []struct {
	err    error
	status int
	code   string
}{
	{taskbridge.ErrTaskNotFound, http.StatusNotFound, codeTaskNotFound},
	{taskbridge.ErrNotRunnable, http.StatusConflict, CodeNotRunnable},
	{taskbridge.ErrStaleAttempt, http.StatusConflict, CodeStaleAttempt},
	{taskbridge.ErrStaleProducer, http.StatusConflict, CodeStaleProducer},
	{taskbridge.ErrOrdinalReused, http.StatusConflict, CodeOrdinalReused},
	{taskbridge.ErrTaskFinished, http.StatusConflict, CodeTaskFinished},
	{taskbridge.ErrStreamFull, http.StatusConflict, CodeStreamFull},
	{taskbridge.ErrInvalidArgument, http.StatusUnprocessableEntity, codeRequestValidation},
	{taskbridge.ErrPayloadTooLarge, http.StatusRequestEntityTooLarge, codePayloadTooLarge},
}

// messageOf is what a worker reads of an error: the sentinel and what is said
// behind it. What a store puts before it is for the log.
func messageOf(err, sentinel error) string {
	text := err.Error()
	return text[max(0, strings.Index(text, sentinel.Error())):]
}

// problemOf says how an error is answered. One that matches no sentinel comes
// from a store that could not be used.
func problemOf(err error) *problem {
	var (
		known    *problem
		report   *taskbridge.ReportError
		argument *taskbridge.ArgumentError
		size     *taskbridge.SizeError
		limit    *LimitError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &limit):
		return &problem{status: http.StatusTooManyRequests, code: codeRateLimited, message: limit.Message, after: limit.retryAfter()}
	}
	p := &problem{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "this cannot be done at the moment", after: 1}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			p = &problem{status: s.status, code: s.code, message: messageOf(err, s.err)}
			break
		}
	}
	p.details = map[string]any{}
	switch {
	case errors.As(err, &argument):
		p.message = argument.Error()
		p.details["field"], p.details["reason"] = argument.Field, argument.Reason
	case errors.As(err, &size):
		p.message = size.Error()
		p.details["field"], p.details["bytes"], p.details["limit"] = size.Field, size.Bytes, size.Limit
	}
	if errors.As(err, &report) {
		p.details["index"] = report.Index
	}
	return p
}

// fail answers with the error. Faults are logged here and nowhere else.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, taskID string, err error) {
	p := problemOf(err)
	if p.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.after))
	}
	switch p.status {
	case http.StatusServiceUnavailable:
		if r.Context().Err() == nil { // else the client has gone, and nothing is wrong
			h.opts.Logger.Error("a worker's request failed", "taskId", taskID, "path", r.URL.Path, "error", err)
		}
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	details := p.details
	if details == nil {
		details = map[string]any{}
	}
	h.write(w, p.status, Problem{
		Code: p.code, Message: p.message, Details: details,
		Timestamp: h.opts.Clock.Now().UTC().Truncate(time.Microsecond),
	})
}

func (h *handler) write(w http.ResponseWriter, status int, answer any) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(answer); err != nil { // a row that is not JSON
		h.opts.Logger.Error("an answer cannot be encoded", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}
