package taskbridge

import "context"

// TaskCancellationService records that a client wants a task to stop. Safe for
// concurrent use.
type TaskCancellationService struct{ *base }

// CancelTask records the intent and asks the executor; it does not wait for
// the work. A task that nobody has begun to submit ends CANCELLED at once. The
// first reason counts; an empty one means "cancelled by client". The row as it
// is after the call is returned; Status.Terminal() on it together with
// alreadyTerminal false means that the call ended the task.
//
// Errors: [ErrTaskNotFound], [*ArgumentError], [*SizeError] (a reason over the
// event limit). That the executor cannot be reached is no error: the
// [Reconciler] asks again.
func (s *TaskCancellationService) CancelTask(ctx context.Context, principal Principal, taskID, reason string) (task Task, alreadyTerminal bool, err error) {
	panic("not yet")
}
