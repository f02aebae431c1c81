// Package workerapi is the worker API: how a worker in any language, on any
// machine, reports over HTTP. It has the wire's types, the tokens, and the
// server's side as an [http.Handler] over a [taskbridge.WorkerService]; package
// core/remote is the worker's side in Go.
//
// # Routes
//
// All bodies are JSON in UTF-8, camelCase; times are RFC 3339 in UTC. A request
// is authorised by a bearer token, see [Signer], or by whatever the host lets
// stand for the scope worker (an API key, say).
//
//	POST /api/v1/worker/tasks/{taskId}/start    StartRequest   -> StartResponse
//	POST /api/v1/worker/tasks/{taskId}/reports  ReportsRequest -> AttemptResponse
//	GET  /api/v1/worker/tasks/{taskId}/attempt?waitTimeoutMs=0..60000&cancellationKnown=false|true -> AttemptResponse
//	GET  /api/v1/worker/tasks/{taskId}/input    -> the input, a JSON object
//	POST /api/v1/worker/tasks/{taskId}/notices  NoticeRequest  -> {}
//	POST /api/v1/worker/tasks/{taskId}/settle   SettleRequest  -> {}
//
// start takes a submission token or the scope; reports, attempt and input take
// an attempt token; notices and settle take the scope alone.
//
// A wait for the attempt is over as soon as a cancellation is requested. A worker
// that knows of it says so with cancellationKnown=true, and then waits for the
// end of its attempt alone: the answer is TASK_FINISHED or STALE_ATTEMPT.
//
// Every answer to an attempt that is alive, but for its input, has a new token.
//
// # Exactly once
//
// Reports carry ordinals that rise within a start. A request whose outcome is
// not known is sent again as it was, with the same reports under the same
// ordinals, and before any later report: the server recognises each event. There
// is one request with reports under way at a time.
//
// A request that was cut off in the middle has recorded some of its reports, in
// their order and without a hole. The answer to a request with reports tells of a
// cancellation as of when the request came in, or later.
//
// A start may bring an epoch of its own. Then the ordinals are those of the
// epoch, whoever starts under it and how often: a source that is read again from
// its beginning is recognised. What is taken for a repetition can be verified.
//
// # Errors
//
// As in the protocol: {code, message, details, timestamp}. Besides the codes of
// the client's API: 401 AUTHENTICATION_ERROR for a token that is expired, forged
// or missing; 403 TASK_OWNERSHIP_ERROR for one that does not reach this far; 409
// NOT_RUNNABLE (do not run the work), STALE_ATTEMPT and STALE_PRODUCER (stop: it
// runs elsewhere), TASK_FINISHED, ORDINAL_REUSED for a
// report that is no repetition, and STREAM_FULL for a notice.
//
// 422 REQUEST_VALIDATION_ERROR has details.field and details.reason, 413
// PAYLOAD_TOO_LARGE has details.field, details.bytes and details.limit (of a body
// that is too large: limit alone); where one report of several is meant there is
// details.index, counted from 0. 400 INVALID_REQUEST is what is no JSON of the
// wire's form: a field that is not known or of another kind, something behind the
// value, another content type. 503 UNAVAILABLE, with Retry-After, may pass: the
// outcome is unknown, and the request is sent again as it was. So it is after 429
// RATE_LIMITED, with Retry-After as the least time to wait: nothing has been done.
package workerapi

import (
	"encoding/json"
	"time"
)

// BasePath is the path below which the routes lie, behind the server's URL.
const BasePath = "/api/v1/worker/tasks/"

// Codes of errors that the client's API does not have.
const (
	CodeNotRunnable   = "NOT_RUNNABLE"
	CodeStaleAttempt  = "STALE_ATTEMPT"
	CodeStaleProducer = "STALE_PRODUCER"
	CodeTaskFinished  = "TASK_FINISHED"
	// CodeOrdinalReused: the stream has a report's ordinal for another one. The
	// reports before details.index are recorded; details.sequence is
	// [AttemptResponse].Sequence.
	CodeOrdinalReused = "ORDINAL_REUSED"
	// CodeStreamFull is the code of a refused report, or of the answer to a notice.
	CodeStreamFull = "STREAM_FULL"
)

// Limits of one request.
const (
	// MaxReports is how many reports a request may have.
	MaxReports = 1000
	// MaxWait is the longest that a request for the attempt may wait.
	MaxWait = 60 * time.Second
)

// StartRequest begins, or joins, an attempt.
type StartRequest struct {
	// Claim is the identity of this execution of the work; 1 to 255 bytes.
	Claim string `json:"claim"`
	// Producer is optional, see taskbridge.Claim.
	Producer string `json:"producer,omitempty"`
	// Epoch is optional, 1 to 2^53-1, and goes with a producer: see
	// taskbridge.Claim. Starts under the same one number their reports together.
	Epoch *int64 `json:"epoch,omitempty"`
	// Replaces is optional: claims that this one came after, at most 100. They may
	// not start any more. It changes nothing beside an attempt token.
	Replaces []string `json:"replaces,omitempty"`
	// AttemptToken is optional: an attempt token of this claim that may have
	// expired. If its attempt is still the task's, the start is that one again:
	// same epoch (which is repeated here where it was given), and ordinals go on. So a worker that was held up for longer than
	// its token can send what it has without doubling anything. If it is not (409
	// STALE_ATTEMPT), or the token is of another claim (422), nothing is started. A
	// task that has ended meanwhile is no error here: see the answer's status.
	AttemptToken string `json:"attemptToken,omitempty"`
}

// StartResponse is the answer to a start.
type StartResponse struct {
	Task Task `json:"task"`
	AttemptResponse
}

// Task is the row as a worker needs it.
type Task struct {
	TaskID      string          `json:"taskId"`
	TaskType    string          `json:"taskType"`
	Owner       string          `json:"owner"`
	Input       json.RawMessage `json:"input"`
	Metadata    json.RawMessage `json:"metadata"`
	Traceparent string          `json:"traceparent,omitempty"`
	CreatedAt   time.Time       `json:"createdAt"`
	StartedAt   time.Time       `json:"startedAt"`
}

// AttemptResponse is the state of the attempt after the request.
type AttemptResponse struct {
	TaskID  string `json:"taskId"`
	Attempt int64  `json:"attempt"`
	// Status is the task's.
	Status                string `json:"status"`
	CancellationRequested bool   `json:"cancellationRequested"`
	// CancelReason is there where a cancellation was requested.
	CancelReason string `json:"cancelReason,omitempty"`
	// Token is to be used from now on; it is valid until TokenExpiresAt. The one
	// before it stays valid until its own time.
	Token          string    `json:"token"`
	TokenExpiresAt time.Time `json:"tokenExpiresAt"`
	// Refused are the reports of the request that were not recorded and never
	// will be.
	Refused []Refusal `json:"refused,omitempty"`
	// Sequence is the highest known sequence number of the events that the reports
	// of the request are in the stream, see taskbridge.Reported.
	Sequence int64 `json:"sequence,omitempty"`
}

// Refusal says why one report was not recorded. The code is [CodeStreamFull]; or,
// beside an end that had been recorded before, [CodeTaskFinished].
type Refusal struct {
	Ordinal int64  `json:"ordinal"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ReportsRequest has reports in their order, 1 to [MaxReports] of them. Either all
// of them are valid or nothing is recorded (422 or 413, with details.index).
type ReportsRequest struct {
	// FirstOrdinal is the ordinal of the first; each other one's is the next, unless
	// it says otherwise. It is 1 or more, at most 2^53-1001, and, unless the start
	// has an epoch of its own, higher than any ordinal of this start before.
	FirstOrdinal int64    `json:"firstOrdinal"`
	Reports      []Report `json:"reports"`
}

// ReportType says what a report is.
type ReportType string

// The types. A suspension or an end is the last report of its request.
const (
	ReportProgress  ReportType = "progress"
	ReportMessage   ReportType = "message"
	ReportToken     ReportType = "token"
	ReportSuspend   ReportType = "suspend"
	ReportComplete  ReportType = "complete"
	ReportFail      ReportType = "fail"
	ReportCancelled ReportType = "cancelled"
)

// Report is one report. Which fields count is the type's; others must be absent.
type Report struct {
	Type ReportType `json:"type"`
	// Progress is 0 to 100; with progress, required.
	Progress *float64 `json:"progress,omitempty"`
	// Stage goes with progress, optional.
	Stage string `json:"stage,omitempty"`
	// Message goes with message and fail, where absent means empty, and with
	// progress, complete and cancelled, where it is optional.
	Message string `json:"message,omitempty"`
	// Level goes with message: info (none means that), warning, debug.
	Level string `json:"level,omitempty"`
	// Text goes with token. Consecutive tokens of a request become one message, or
	// several where it would be too long.
	Text string `json:"text,omitempty"`
	// Suspension goes with suspend: the payload of TASK_SUSPENDED.
	Suspension json.RawMessage `json:"suspension,omitempty"`
	// Result goes with complete: any JSON; absent means null.
	Result json.RawMessage `json:"result,omitempty"`
	// Ordinal goes with progress, message and token: it leaves a gap behind the
	// report before. Absent means the next one.
	Ordinal int64 `json:"ordinal,omitempty"`
	// Verify, which is duplicate or always, and Since go with progress, message and
	// token, too; see taskbridge.Verification. Absent: the ordinal alone decides.
	Verify string `json:"verify,omitempty"`
	Since  int64  `json:"since,omitempty"`
	// Code and Retryable go with fail; the code is required.
	Code      string `json:"code,omitempty"`
	Retryable bool   `json:"retryable,omitempty"`
}

// NoticeRequest is a message without a claim.
type NoticeRequest struct {
	Message string `json:"message"`
	Level   string `json:"level,omitempty"`
}

// SettleRequest ends a task whose end was seen from outside: a report of type
// complete, fail or cancelled.
type SettleRequest struct {
	Outcome Report `json:"outcome"`
}

// Problem is the body of an error's answer.
type Problem struct {
	Code      string         `json:"code"`
	Message   string         `json:"message"`
	Details   map[string]any `json:"details"`
	Timestamp time.Time      `json:"timestamp"`
}
