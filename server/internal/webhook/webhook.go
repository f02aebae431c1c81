// Package webhook hands tasks to workers over HTTP: a task is posted to an
// address, and whoever answers there works on it and reports over the worker
// API. It is the runtime of those who have none: one worker, or what stands
// before many.
//
// Messages are signed as Standard Webhooks are (https://www.standardwebhooks.com):
// webhook-id, webhook-timestamp and webhook-signature over "id.timestamp.body".
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Codes of failures.
const (
	// CodeRejected: the worker turned the task down.
	CodeRejected = "WORKER_REJECTED"
	// CodeDeadline: the task did not end within its type's deadline.
	CodeDeadline = "DEADLINE_EXCEEDED"
)

// Options configures [New]. URL, Tokens and WorkerURL are required.
type Options struct {
	// URL is where messages are posted to.
	URL string
	// Secret signs them; empty: they are not signed.
	Secret []byte
	// Tokens makes the submission tokens, and WorkerURL is where the worker API
	// is: what a worker needs to report.
	Tokens    taskbridge.SubmissionTokens
	WorkerURL string
	// Deadlines are how long after its creation a task that has not ended fails,
	// by its type; none: it may take for ever.
	Deadlines map[string]time.Duration
	Client    *http.Client     // nil: the default one; redirects are not followed
	Clock     taskbridge.Clock // nil: the system's
}

// Executor is a [taskbridge.TaskExecutor] and [taskbridge.TaskInspector]. Safe
// for concurrent use.
type Executor struct {
	opts   Options
	server string // of the URL; the rest may be a secret, and stays out of errors
	client http.Client
}

var (
	_ taskbridge.TaskExecutor  = (*Executor)(nil)
	_ taskbridge.TaskInspector = (*Executor)(nil)
)

// New makes an executor.
func New(opts Options) (*Executor, error) {
	u, err := url.Parse(opts.URL)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("webhook: Options.URL must be http://host or https://host, maybe with more behind it")
	case opts.Tokens == nil || opts.WorkerURL == "":
		return nil, errors.New("webhook: Options.Tokens and WorkerURL must be set")
	}
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	e := &Executor{opts: opts, server: u.Scheme + "://" + u.Host}
	if opts.Client != nil {
		e.client = *opts.Client
	}
	// What is posted has a token in it: it goes where the operator said.
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return e, nil
}

// message is what is posted.
type message struct {
	// Type is task.submitted or task.cancel.
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

// data is the task. A worker that knows the task id already answers 2xx and does
// nothing.
type data struct {
	TaskID      string          `json:"taskId"`
	TaskType    string          `json:"taskType"`
	Owner       string          `json:"owner,omitempty"`
	Input       json.RawMessage `json:"input,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	CreatedAt   *time.Time      `json:"createdAt,omitempty"`
	Traceparent string          `json:"traceparent,omitempty"`
	// URL is the server of the worker API, and Token lets its holder start the
	// task there.
	URL   string `json:"url"`
	Token string `json:"token"`
	// Reason goes with task.cancel.
	Reason string `json:"reason,omitempty"`
}

// SubmitTask posts the task. 2xx: the worker has it. 410 and 422: it will never
// take it. Any other answer, and none: the outcome is unknown.
func (e *Executor) SubmitTask(ctx context.Context, task taskbridge.Task) error {
	created := task.CreatedAt.UTC()
	status, reason, err := e.post(ctx, task, "task.submitted", data{
		TaskID: task.ID, TaskType: task.Type, Owner: task.Owner, Input: task.Input, Metadata: task.Metadata,
		CreatedAt: &created, Traceparent: task.Traceparent,
	})
	switch {
	case err != nil:
		return err
	case status == http.StatusGone || status == http.StatusUnprocessableEntity:
		return taskbridge.Reject(CodeRejected, reason, false)
	case status < 200 || status > 299:
		return fmt.Errorf("webhook: %s answered %d", e.server, status)
	}
	return nil
}

// RequestCancellation posts the wish. A worker that has begun learns of it over
// the worker API too; one that has not begins, is told that it may not, and the
// task is CANCELLED by that.
func (e *Executor) RequestCancellation(ctx context.Context, task taskbridge.Task, reason string) error {
	status, _, err := e.post(ctx, task, "task.cancel", data{TaskID: task.ID, TaskType: task.Type, Reason: reason})
	if err == nil && (status < 200 || status > 299) && status != http.StatusNotFound && status != http.StatusGone {
		err = fmt.Errorf("webhook: %s answered %d", e.server, status)
	}
	return err
}

// InspectTask knows what the row says, since a worker cannot be asked: what is
// not recorded as submitted is to be posted again, and what is past its deadline
// has failed. A worker may have what is called absent here, since the answer to
// a message can be lost. That does no harm: it knows the task when it comes
// again, and what was given up meanwhile it may not start.
func (e *Executor) InspectTask(_ context.Context, task taskbridge.Task) (taskbridge.Inspection, error) {
	deadline := e.opts.Deadlines[task.Type]
	switch {
	case deadline > 0 && !e.opts.Clock.Now().Before(task.CreatedAt.Add(deadline)):
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionFinished, Outcome: taskbridge.Outcome{
			Status: taskbridge.StatusFailed,
			Failure: taskbridge.Failure{
				Code: CodeDeadline, Message: fmt.Sprintf("the task did not end within %s", deadline), Retryable: true,
			},
		}}, nil
	case task.Attempt > 0:
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionRunning}, nil
	case task.Submission.State == taskbridge.SubmissionRecorded:
		return taskbridge.Inspection{Knowledge: taskbridge.InspectionWaiting}, nil
	}
	return taskbridge.Inspection{Knowledge: taskbridge.InspectionAbsent}, nil
}

// maxAnswer bounds what is read of an answer: the reason of a rejection.
const maxAnswer = 4096

// post sends one message and returns the answer's status and text.
func (e *Executor) post(ctx context.Context, task taskbridge.Task, kind string, d data) (status int, answer string, err error) {
	d.URL = e.opts.WorkerURL
	if d.Token, err = e.opts.Tokens.SubmissionToken(task.ID); err != nil {
		return 0, "", fmt.Errorf("webhook: submission token: %w", err)
	}
	now := e.opts.Clock.Now().UTC()
	body, err := json.Marshal(message{kind, now.Truncate(time.Microsecond), d})
	if err != nil {
		return 0, "", fmt.Errorf("webhook: encode: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.opts.URL, bytes.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("webhook: %w", err)
	}
	// The same for each repetition, so that a receiver can tell.
	id := kind + "/" + task.ID
	seconds := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "taskbridge")
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", seconds)
	if len(e.opts.Secret) > 0 {
		r.Header.Set("Webhook-Signature", Sign(e.opts.Secret, id, seconds, body))
	}
	if task.Traceparent != "" {
		r.Header.Set("Traceparent", task.Traceparent)
	}
	response, err := e.client.Do(r)
	if err != nil {
		if quoting := new(url.Error); errors.As(err, &quoting) {
			err = quoting.Err
		}
		return 0, "", fmt.Errorf("webhook: post to %s: %w", e.server, err)
	}
	// The status is the answer. Text that does not come, or breaks off, changes
	// nothing about it.
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	_ = response.Body.Close()
	return response.StatusCode, reason(response.StatusCode, text), nil
}

// reason is what a client is told of a rejection: the message of a JSON answer,
// or the status.
func reason(status int, body []byte) string {
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) == nil && said.Message != "" {
		return said.Message
	}
	return fmt.Sprintf("the worker answered %d %s", status, http.StatusText(status))
}

// Sign returns the value of webhook-signature: "v1," and the base64 of the
// HMAC-SHA256 over "id.timestamp.body".
func Sign(secret []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	for _, part := range []string{id, ".", timestamp, "."} {
		_, _ = io.WriteString(mac, part) // a hash never fails
	}
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
