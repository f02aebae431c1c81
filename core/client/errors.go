package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Errors of this package, to be matched with [errors.Is].
var (
	// ErrUnauthenticated: the credential is missing, bad or has ended.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrUnexpectedAnswer: what answered does not speak the protocol; a proxy's
	// page, for instance, or a wrong URL.
	ErrUnexpectedAnswer = errors.New("the answer is not one of the protocol's")
	// ErrAnswerTooLarge: an answer or an event is over Options.MaxBytes.
	ErrAnswerTooLarge = errors.New("the answer is over the client's limit")
)

// Error is an answer of the server that is no success. By [errors.Is] and
// [errors.As] it matches the error of package taskbridge that the server had.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code is the protocol's; empty where somebody else has answered, a proxy
	// for instance.
	Code string
	// Message is for people.
	Message string
	// Details depends on the code; it may be nil.
	Details map[string]any
	// TaskID is the task that the error speaks of, else the one that was asked
	// about; empty where there is none.
	TaskID string
	// RetryAfter is how long the server wants to be left alone; 0: it did not say.
	RetryAfter time.Duration

	cause error
}

func (e *Error) Error() string {
	text := strconv.Itoa(e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	return text + ": " + e.Message
}

// Unwrap returns the error that the answer stands for, or nil.
func (e *Error) Unwrap() error { return e.cause }

// maxMessage bounds what is kept of a message.
const maxMessage = 4 << 10

// decodeError makes the error of an answer that is no success.
func decodeError(response *http.Response, body []byte, taskID string, now time.Time) *Error {
	e := &Error{
		Status: response.StatusCode, Message: http.StatusText(response.StatusCode),
		TaskID: taskID, RetryAfter: retryAfter(response.Header, now),
	}
	var answer struct {
		Code    string         `json:"code"`
		Message string         `json:"message"`
		Details map[string]any `json:"details"`
	}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case e.Status >= 300 && e.Status < 400:
		e.Message = "the server redirects, which is not followed"
	case mediaType == "application/json" && json.Unmarshal(body, &answer) == nil && answer.Code != "":
		e.Code, e.Details = answer.Code, answer.Details
		e.Message = strings.ToValidUTF8(answer.Message[:min(len(answer.Message), maxMessage)], "")
		if id := e.text("taskId"); id != "" {
			e.TaskID = id
		}
	}
	e.cause = e.meaning()
	return e
}

// meaning returns the error that the code, or else the status, stands for.
func (e *Error) meaning() error {
	switch e.Code {
	case "TASK_NOT_FOUND":
		return taskbridge.ErrTaskNotFound
	case "IDEMPOTENCY_CONFLICT":
		return taskbridge.ErrIdempotencyConflict
	case "UNKNOWN_TASK_TYPE":
		return taskbridge.ErrUnknownTaskType
	case "EVENT_GAP":
		return &taskbridge.GapError{TaskID: e.TaskID, FirstEventID: e.text("firstEventId"), LastEventID: e.text("lastEventId")}
	case "PAYLOAD_TOO_LARGE":
		return taskbridge.ErrPayloadTooLarge
	case "INVALID_REQUEST", "REQUEST_VALIDATION_ERROR", "UPLOAD_VALIDATION_ERROR":
		return taskbridge.ErrInvalidArgument
	case "TASK_SUBMISSION_ERROR":
		retryable, _ := e.Details["retryable"].(bool)
		return &taskbridge.RejectionError{TaskID: e.TaskID, Failure: taskbridge.Failure{
			Code: e.text("failureCode"), Message: e.Message, Retryable: retryable,
		}}
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return ErrUnauthenticated
	case http.StatusForbidden:
		return taskbridge.ErrForbidden
	}
	if e.Status < 400 {
		return ErrUnexpectedAnswer
	}
	return nil
}

func (e *Error) text(detail string) string {
	text, _ := e.Details[detail].(string)
	return text
}

// unexpected is an answer of a good status that makes no sense.
func unexpected(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...), cause: ErrUnexpectedAnswer}
}

// retryAfter reads the header of that name: seconds, or a time.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// TaskError is the end of a task that has failed or was cancelled.
type TaskError struct {
	TaskID string
	// Status is FAILED or CANCELLED.
	Status taskbridge.TaskStatus
	// Failure is that of a FAILED task.
	Failure taskbridge.Failure
	// Reason is why a CANCELLED task was cancelled.
	Reason string
}

func (e *TaskError) Error() string {
	if e.Status == taskbridge.StatusCancelled {
		return fmt.Sprintf("task %s was cancelled: %s", e.TaskID, e.Reason)
	}
	return fmt.Sprintf("task %s failed: %s: %s", e.TaskID, e.Failure.Code, e.Failure.Message)
}
