package telemetry

import (
	"context"
	"errors"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// outcome is how an operation ended.
type outcome int

const (
	outcomeOK        outcome = iota
	outcomeRefused           // an answer that the contract foresees: nothing is wrong with the server
	outcomeCancelled         // nobody waits for it any more
	outcomeFault             // a store or a runtime that could not be used, or took too long
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "refused", "cancelled", "fault"}

// refusals are the sentinels of core, [taskbridge.ErrClosed] apart.
var refusals = []error{
	taskbridge.ErrTaskNotFound, taskbridge.ErrRevisionConflict, taskbridge.ErrIllegalTransition,
	taskbridge.ErrTaskFinished, taskbridge.ErrNotRunnable, taskbridge.ErrStaleAttempt,
	taskbridge.ErrStaleProducer, taskbridge.ErrOrdinalReused, taskbridge.ErrStreamFull, taskbridge.ErrPayloadTooLarge,
	taskbridge.ErrInvalidArgument, taskbridge.ErrInvalidCursor, taskbridge.ErrEventGap,
	taskbridge.ErrIdempotencyConflict, taskbridge.ErrUnknownTaskType, taskbridge.ErrForbidden,
	taskbridge.ErrSubmissionRejected, taskbridge.ErrSlowConsumer,
}

func outcomeOf(err error) outcome {
	if err == nil {
		return outcomeOK
	}
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return outcomeRefused
		}
	}
	// What is closed is closed because the server stops.
	if errors.Is(err, context.Canceled) || errors.Is(err, taskbridge.ErrClosed) {
		return outcomeCancelled
	}
	return outcomeFault
}
