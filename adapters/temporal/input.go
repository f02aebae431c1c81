package temporaladapter

import (
	"encoding/json"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Input is what work is handed unless [TypeOptions.Input] says otherwise: one JSON
// object, for workers in any language.
type Input struct {
	TaskID   string          `json:"taskId"`
	TaskType string          `json:"taskType"`
	Input    json.RawMessage `json:"input"`
	Metadata json.RawMessage `json:"metadata"`
	Owner    string          `json:"owner"`
	// Token is the submission token and URL the server's address, where the
	// executor has them.
	Token string `json:"token,omitempty"`
	URL   string `json:"url,omitempty"`
	// Traceparent is the W3C trace context of the task's creation.
	Traceparent string `json:"traceparent,omitempty"`
	// MaxAttempts is how often an activity that stands alone is tried, 0 without
	// a limit.
	MaxAttempts int32 `json:"maxAttempts,omitempty"`
}

// TaskInput returns the input itself: what embeds an Input has it too.
func (i Input) TaskInput() Input { return i }

// tasked is what an Input and whatever embeds one can do.
type tasked interface{ TaskInput() Input }

// tagKey is the key of the adapter's own in memos and headers.
const tagKey = "taskbridge"

// tagVersion is the version of the tag that this package writes, and the newest
// that it reads.
const tagVersion = 1

// tag marks a workflow as a task's, in its memo, and goes along with activities
// and children in a header. The memo lasts through continue-as-new, retry and
// reset.
type tag struct {
	Version int    `json:"version"`
	TaskID  string `json:"taskId"`
	Token   string `json:"token,omitempty"`
	// Claim is set in headers: that of the workflow that is the task.
	Claim string `json:"claim,omitempty"`
}

// readTag finds the tag; ok is false where there is none that this package knows.
func readTag(fields map[string]*commonpb.Payload, dc converter.DataConverter) (t tag, ok bool) {
	payload := fields[tagKey]
	if payload == nil {
		return t, false
	}
	if err := dc.FromPayload(payload, &t); err != nil {
		return t, false
	}
	return t, t.Version == tagVersion && taskbridge.ValidTaskID(t.TaskID)
}

func converterOrDefault(dc converter.DataConverter) converter.DataConverter {
	if dc == nil {
		return converter.GetDefaultDataConverter()
	}
	return dc
}
