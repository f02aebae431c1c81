package asynqadapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// envelopeVersion is the version of the payload that this package writes, and
// the newest that it reads.
const envelopeVersion = 1

// Envelope is the payload of an asynq task: a JSON object with the member
// "taskbridge" as its version.
type Envelope struct {
	Version  int             `json:"taskbridge"`
	TaskID   string          `json:"taskId"`
	TaskType string          `json:"taskType"`
	Owner    string          `json:"owner"`
	Input    json.RawMessage `json:"input"`
	Metadata json.RawMessage `json:"metadata"`
	// Traceparent is the W3C trace context of the task's creation.
	Traceparent string `json:"traceparent,omitempty"`
	// Deadline is [TypeOptions.Deadline] as a time.
	Deadline *time.Time `json:"deadline,omitempty"`
	// Token is the submission token and URL the server's address, where the
	// executor has them. The payload comes from Redis: whoever can write there
	// chooses the URL.
	Token string `json:"token,omitempty"`
	URL   string `json:"url,omitempty"`
}

// errNoEnvelope says that a payload was not written by this package.
var errNoEnvelope = errors.New("the payload is no task of TaskBridge")

// OpenEnvelope reads the payload of an asynq task; ok is false for one that was
// not enqueued by an [Executor].
func OpenEnvelope(task *asynq.Task) (envelope Envelope, ok bool) {
	envelope, err := openEnvelope(task.Payload())
	return envelope, err == nil
}

func openEnvelope(payload []byte) (Envelope, error) {
	var envelope Envelope
	if err := json.Unmarshal(payload, &envelope); err != nil || envelope.Version < 1 || !taskbridge.ValidTaskID(envelope.TaskID) {
		return envelope, errNoEnvelope
	}
	if envelope.Version > envelopeVersion {
		return envelope, fmt.Errorf("the payload has version %d, this worker knows up to %d", envelope.Version, envelopeVersion)
	}
	return envelope, nil
}

// skippedResult is what a worker leaves as asynq's result of a task that it took
// off the queue without working on it, so that "completed" is not taken for done.
const skippedResult = `{"taskbridge":"skipped"}`
