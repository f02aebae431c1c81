package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// The codes of the protocol's error table, and of the routes' own.
const (
	codeInvalidRequest    = "INVALID_REQUEST"
	codeAuthentication    = "AUTHENTICATION_ERROR"
	codeOwnership         = "TASK_OWNERSHIP_ERROR"
	codeTaskNotFound      = "TASK_NOT_FOUND"
	codeNotFound          = "NOT_FOUND"
	codeMethodNotAllowed  = "METHOD_NOT_ALLOWED"
	codeConflict          = "IDEMPOTENCY_CONFLICT"
	codeEventGap          = "EVENT_GAP"
	codePayloadTooLarge   = "PAYLOAD_TOO_LARGE"
	codeRequestValidation = "REQUEST_VALIDATION_ERROR"
	codeUnknownTaskType   = "UNKNOWN_TASK_TYPE"
	codeRateLimited       = "RATE_LIMITED"
	codeSubmission        = "TASK_SUBMISSION_ERROR"
	codeUnavailable       = "UNAVAILABLE"
	codeInternal          = "INTERNAL_ERROR"
)

// problem is an error as it is answered.
type problem struct {
	status     int
	code       string
	message    string
	details    map[string]any
	retryAfter bool
	seconds    int    // of Retry-After; 0: one
	challenge  string // the WWW-Authenticate header; "" for none
}

func (p *problem) Error() string { return p.code + ": " + p.message }

func invalidRequest(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeInvalidRequest, message: message}
}

// missingField is a required field that is not there, or is empty.
func missingField(field, message string) *problem {
	p := invalidRequest(field + " " + message)
	p.details = map[string]any{"field": field}
	return p
}

// outOfRange is a value that is well-formed and not allowed.
func outOfRange(field, message string) *problem {
	return &problem{
		status:  http.StatusUnprocessableEntity,
		code:    codeRequestValidation,
		message: field + " " + message,
		details: map[string]any{"field": field},
	}
}

func internalError(requestID string) *problem {
	return &problem{
		status:  http.StatusInternalServerError,
		code:    codeInternal,
		message: "an error inside the server",
		details: map[string]any{"requestId": requestID},
	}
}

func unavailable(message string) *problem {
	return &problem{status: http.StatusServiceUnavailable, code: codeUnavailable, message: message, retryAfter: true}
}

var errDraining = unavailable("the server is shutting down")

// errCut makes fail close the connection without an answer.
var errCut = errors.New("connection is to be cut")

// problemOf says how a service's error is answered. Errors that match no
// sentinel come from a store that could not be used.
func problemOf(err error, requestID string) *problem {
	var (
		known    *problem
		argument *taskbridge.ArgumentError
		size     *taskbridge.SizeError
		gap      *taskbridge.GapError
		rejected *taskbridge.RejectionError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &argument):
		return outOfRange(argument.Field, argument.Reason)
	case errors.As(err, &size):
		return &problem{
			status: http.StatusRequestEntityTooLarge, code: codePayloadTooLarge, message: size.Error(),
			details: map[string]any{"field": size.Field, "bytes": size.Bytes, "limit": size.Limit},
		}
	case errors.As(err, &gap):
		return &problem{
			status: http.StatusGone, code: codeEventGap, message: gap.Error(),
			details: map[string]any{"firstEventId": gap.FirstEventID, "lastEventId": gap.LastEventID},
		}
	case errors.As(err, &rejected):
		return &problem{
			status: http.StatusServiceUnavailable, code: codeSubmission, message: rejected.Failure.Message,
			details: map[string]any{
				"taskId": rejected.TaskID, "failureCode": rejected.Failure.Code, "retryable": rejected.Failure.Retryable,
			},
		}
	case errors.Is(err, taskbridge.ErrTaskNotFound):
		return &problem{status: http.StatusNotFound, code: codeTaskNotFound, message: "there is no such task"}
	case errors.Is(err, taskbridge.ErrInvalidCursor):
		return invalidRequest("the cursor is none of this server's")
	case errors.Is(err, taskbridge.ErrForbidden):
		return &problem{status: http.StatusForbidden, code: codeOwnership, message: "the caller may not do this"}
	case errors.Is(err, taskbridge.ErrIdempotencyConflict):
		return &problem{status: http.StatusConflict, code: codeConflict, message: "this clientRequestId was used with another payload"}
	case errors.Is(err, taskbridge.ErrUnknownTaskType):
		return &problem{
			status: http.StatusUnprocessableEntity, code: codeUnknownTaskType, message: err.Error(),
			details: map[string]any{"field": "taskType"},
		}
	case errors.Is(err, taskbridge.ErrInvalidArgument):
		return &problem{status: http.StatusUnprocessableEntity, code: codeRequestValidation, message: err.Error()}
	case errors.Is(err, taskbridge.ErrPayloadTooLarge):
		return &problem{status: http.StatusRequestEntityTooLarge, code: codePayloadTooLarge, message: err.Error()}
	case errors.Is(err, taskbridge.ErrRevisionConflict), errors.Is(err, taskbridge.ErrIllegalTransition),
		errors.Is(err, taskbridge.ErrTaskFinished), errors.Is(err, taskbridge.ErrNotRunnable),
		errors.Is(err, taskbridge.ErrStaleAttempt), errors.Is(err, taskbridge.ErrStaleProducer),
		errors.Is(err, taskbridge.ErrStreamFull):
		return internalError(requestID) // no service lets these out
	}
	return unavailable("the store cannot be used at the moment")
}

// fail answers the call with the error. Faults are logged here and nowhere else.
func (a *API) fail(c *call, err error) {
	id := requestID(c.r.Context())
	if errors.Is(err, errCut) || c.r.Context().Err() != nil {
		a.logger.Debug("a request was cut", "requestId", id, "taskId", c.taskID, "error", err)
		panic(http.ErrAbortHandler) // there is nobody to answer, or nothing to say
	}
	p := problemOf(err, id)
	if p.status >= 500 && !errors.Is(err, errDraining) && p.code != codeSubmission && p.seconds == 0 {
		a.logger.Error("a request failed", "requestId", id, "taskId", c.taskID, "code", p.code, "error", err)
	}
	if p.retryAfter {
		c.w.Header().Set("Retry-After", strconv.Itoa(max(1, p.seconds)))
	}
	if p.challenge != "" {
		c.w.Header().Set("WWW-Authenticate", p.challenge)
	}
	a.write(c.w, c.r, a.encodeProblem(p), p.status)
}

// encodeProblem makes the body of an error's answer.
func (a *API) encodeProblem(p *problem) []byte {
	details := p.details
	if details == nil {
		details = map[string]any{}
	}
	body, err := json.Marshal(struct {
		Code      string         `json:"code"`
		Message   string         `json:"message"`
		Details   map[string]any `json:"details"`
		Timestamp time.Time      `json:"timestamp"`
	}{p.code, p.message, details, timestamp(a.opts.Clock.Now())})
	if err != nil { // strings, numbers and a time always encode
		panic(err)
	}
	return body
}
