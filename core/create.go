package taskbridge

import (
	"context"
	"encoding/json"
)

// TaskCreationService creates tasks, once each. Safe for concurrent use.
type TaskCreationService struct{ *base }

// CreateTaskRequest is a client's wish for a task.
type CreateTaskRequest struct {
	// ClientRequestID is the idempotency key: 1 to 255 bytes of UTF-8 without
	// control characters.
	ClientRequestID string
	TaskType        string
	// Input and Metadata are JSON objects; nil means {}.
	Input, Metadata json.RawMessage
	// AttachmentDigests identifies the attachments' contents, in order; it
	// counts for idempotency.
	AttachmentDigests []string
}

// CreateTaskResult is the answer to [TaskCreationService.CreateTask].
type CreateTaskResult struct {
	// Task is the row as it is now.
	Task Task
	// Deduplicated: the task was there already.
	Deduplicated bool
}

// CreateTask makes the task durable and hands it to its executor, or returns
// the one that the same key made before. Once the row is durable, the work goes
// on even if ctx ends.
//
// Errors: [*ArgumentError], [*SizeError], [ErrForbidden], [ErrUnknownTaskType],
// [ErrIdempotencyConflict]; [*RejectionError] with the TaskID of the task, which
// is FAILED then. An executor whose answer is not known is no error: the task
// stays ACCEPTED and the [Reconciler] goes on with it.
func (s *TaskCreationService) CreateTask(ctx context.Context, principal Principal, request CreateTaskRequest) (CreateTaskResult, error) {
	panic("not yet")
}
