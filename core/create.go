package taskbridge

import (
	"context"
	"encoding/json"
	"errors"
	"time"
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
	// Traceparent is the W3C trace context of the request; optional. One that is
	// malformed is dropped.
	Traceparent string
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
	if !s.ownership.Allows(principal, PermissionCreate) {
		return CreateTaskResult{}, ErrForbidden
	}
	task, executor, err := s.newTask(principal, request)
	if err != nil {
		return CreateTaskResult{}, err
	}
	ctx, done := begin(ctx, s.observer, Operation{Kind: OperationCreate, TaskType: task.Type, Traceparent: task.Traceparent})
	result, err := s.insert(ctx, task, executor)
	done(err)
	return result, err
}

// insert makes the row durable and, if it is new, submits it.
func (s *TaskCreationService) insert(ctx context.Context, task Task, executor TaskExecutor) (CreateTaskResult, error) {
	row, created, err := s.journal.tasks.CreateTask(ctx, task)
	switch {
	case err != nil:
		return CreateTaskResult{}, err
	case !created && row.Fingerprint != task.Fingerprint:
		return CreateTaskResult{}, ErrIdempotencyConflict
	case !created:
		return CreateTaskResult{Task: row, Deduplicated: true}, nil
	}
	row, err = s.submit(context.WithoutCancel(ctx), row, executor)
	return CreateTaskResult{Task: row}, err
}

// newTask makes the row of a request. Its submission is claimed from the start:
// whoever inserts the row submits it, in one write instead of two.
func (s *TaskCreationService) newTask(principal Principal, request CreateTaskRequest) (Task, TaskExecutor, error) {
	if err := validateName("clientRequestId", request.ClientRequestID, maxNameBytes); err != nil {
		return Task{}, nil, err
	}
	if err := validateName("taskType", request.TaskType, maxNameBytes); err != nil {
		return Task{}, nil, err
	}
	input, err := compactObject("input", request.Input)
	if err != nil {
		return Task{}, nil, err
	}
	metadata, err := compactObject("metadata", request.Metadata)
	if err != nil {
		return Task{}, nil, err
	}
	if err := checkSize("input", input, s.limits.Input); err != nil {
		return Task{}, nil, err
	}
	if err := checkSize("metadata", metadata, s.limits.Metadata); err != nil {
		return Task{}, nil, err
	}
	executor, err := s.executors.Executor(request.TaskType)
	if err != nil {
		return Task{}, nil, err
	}
	fingerprint, err := Fingerprint(request.TaskType, input, request.AttachmentDigests)
	if err != nil {
		return Task{}, nil, err
	}
	now := s.journal.now()
	task := Task{
		ID:              NewTaskID(principal.Subject, request.ClientRequestID),
		Owner:           principal.Subject,
		ClientRequestID: request.ClientRequestID,
		Fingerprint:     fingerprint,
		Type:            request.TaskType,
		Input:           input,
		Metadata:        metadata,
		Traceparent:     validTraceparent(request.Traceparent),
		CreatedAt:       now,
		UpdatedAt:       now,
		Status:          StatusAccepted,
	}
	task.Submission.Deadline = now.Add(s.submission.Deadline)
	return s.claimed(task, executor, now), executor, nil
}

// claimed returns the row as it is to be while this process submits it.
func (b *base) claimed(row Task, executor TaskExecutor, now time.Time) Task {
	row.Instance = ""
	if bound, ok := executor.(InstanceBound); ok {
		row.Instance = bound.InstanceID()
	}
	row.Submission.State = SubmissionClaimed
	row.Submission.LeaseUntil = now.Add(b.submission.Lease)
	row.Submission.Tries++
	row.Due.Submission = row.Submission.LeaseUntil
	row.Due.Inspection = time.Time{} // until the executor has it there is nothing to ask
	return row
}

// submit hands a claimed row to its executor and records what came of it. Only
// a rejection is an error: whatever else goes wrong, the task is accepted and
// the reconciler owes it the rest.
func (b *base) submit(ctx context.Context, row Task, executor TaskExecutor) (Task, error) {
	submitCtx, cancel := context.WithTimeout(ctx, b.submission.Timeout)
	submitCtx, done := begin(submitCtx, b.observer, row.operation(OperationSubmit))
	submitErr := executor.SubmitTask(submitCtx, row)
	done(submitErr)
	cancel()

	var rejection *RejectionError
	if errors.As(submitErr, &rejection) {
		ended, stands, err := b.reject(ctx, row, rejection)
		switch {
		case err != nil:
			// What is not recorded is not told: the task is accepted still, and
			// the next try may be taken.
			b.logger.Error("rejection not recorded, the reconciler will submit again", "taskId", row.ID, "error", err)
			return row, nil
		case !stands:
			return ended, nil
		}
		return ended, &RejectionError{TaskID: row.ID, Failure: rejection.Failure}
	}
	if submitErr != nil {
		b.logger.Warn("outcome of submission unknown", "taskId", row.ID, "tries", row.Submission.Tries, "error", submitErr)
	}
	claim := row
	updated, err := b.journal.change(ctx, row, func(row Task) (Task, bool) {
		if row.Status.Terminal() || row.Submission.State == SubmissionRecorded {
			return row, false // it started, or even ended, in the meantime
		}
		now := b.journal.now()
		switch {
		case submitErr == nil && row.Instance == claim.Instance:
			return submitted(row, now.Add(b.submission.Silence)), true
		case submitErr == nil || !sameClaim(row, claim):
			return row, false // somebody else is at it, and looks after it
		}
		// Still claimed, as the runtime may have it, but nobody is at it.
		row.Submission.LeaseUntil = now
		row.Due.Submission = now.Add(b.backOff(row.Submission.Tries))
		return row, true
	})
	if err != nil {
		b.logger.Error("submission not recorded, the reconciler will find out", "taskId", row.ID, "error", err)
		return row, nil
	}
	// A cancellation that came while the submission was under way was not passed
	// on then: "not found" would have proved nothing.
	if !updated.Status.Terminal() && !updated.Cancellation.RequestedAt.IsZero() {
		b.askToCancel(ctx, updated, b.submission.Timeout)
	}
	return updated, nil
}

// sameClaim reports whether the row still has the claim that a submission was
// begun under. It has not if this process was held up for longer than its lease
// and somebody else has gone on.
func sameClaim(row, claim Task) bool {
	return row.Submission.State == SubmissionClaimed && row.Submission.Tries == claim.Submission.Tries && row.Instance == claim.Instance
}

// reject ends a task that its executor turned down. The rejection stands unless
// the task has been submitted by somebody else since.
func (b *base) reject(ctx context.Context, claim Task, rejection *RejectionError) (row Task, stands bool, err error) {
	payload := rejection.Failure.payload(b.limits.TerminalPayload)
	row, err = b.journal.change(ctx, claim, func(row Task) (Task, bool) {
		stands = row.Status.Terminal() || sameClaim(row, claim)
		if row.Status.Terminal() || !stands {
			return row, false
		}
		return finished(row, StatusFailed, payload, b.journal.now()), true
	})
	return row, stands, err
}

// backOff returns how long to wait after the given number of tries.
func (b *base) backOff(tries int) time.Duration {
	d := b.submission.RetryMin
	for ; tries > 1 && d < b.submission.RetryMax; tries-- {
		d *= 2
	}
	return min(d, b.submission.RetryMax)
}
