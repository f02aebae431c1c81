package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

type (
	eventStore    = taskbridge.EventStore
	eventsHarness = Harness[eventStore]
)

// RunEventStore checks every obligation of [taskbridge.EventStore].
func RunEventStore[S taskbridge.EventStore](t *testing.T, h Harness[S]) {
	runChecks(t, through(t, h, func(s S) eventStore { return s }),
		appendChecks, ruleChecks, readChecks, stateChecks, deleteChecks, concurrencyChecks, eventWatchChecks, eventObligationChecks)
}

// message returns the append of a TASK_MESSAGE without an attempt. Its content
// names producer and ordinal, so that no two are alike.
func message(taskID, producer string, epoch, ordinal int64) taskbridge.EventAppend {
	return tagged(taskbridge.EventAppend{
		TaskID:    taskID,
		Type:      taskbridge.EventMessage,
		CreatedAt: at(ordinal),
		Payload:   mustJSON(map[string]string{"message": fmt.Sprintf("%s/%d/%d", producer, epoch, ordinal)}),
		Producer:  taskbridge.Producer{Name: producer, Epoch: epoch},
		Ordinal:   ordinal,
	})
}

// control returns the append of a control event.
func control(taskID string, eventType taskbridge.EventType, ordinal int64) taskbridge.EventAppend {
	e := message(taskID, taskbridge.ControlProducer, 1, ordinal)
	e.Type = eventType
	switch eventType {
	case taskbridge.EventStarted:
		e.Payload = json.RawMessage(`{}`)
	case taskbridge.EventCompleted:
		e.Payload = json.RawMessage(`{"result":null}`)
	case taskbridge.EventFailed:
		e.Payload = json.RawMessage(`{"code":"CODE","message":"m","retryable":true}`)
	case taskbridge.EventCancelled:
		e.Payload = json.RawMessage(`{"reason":"r"}`)
	}
	return tagged(e)
}

// tagged returns the append with the tag of its content.
func tagged(e taskbridge.EventAppend) taskbridge.EventAppend {
	e.Tag = taskbridge.EventTag(e.Type, e.CreatedAt, e.Attempt, e.Payload)
	return e
}

func mustJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// stored returns the event that an append leaves in the stream.
func stored(e taskbridge.EventAppend, sequence int64) taskbridge.Event {
	return taskbridge.Event{
		TaskID: e.TaskID, Sequence: sequence, Tag: e.Tag, Type: e.Type,
		CreatedAt: e.CreatedAt, Attempt: e.Attempt, Payload: e.Payload,
	}
}

// appendNew appends an event that must be new, and returns it as stored.
func appendNew(ctx context.Context, t *testing.T, events eventStore, e taskbridge.EventAppend) taskbridge.Event {
	t.Helper()
	result, err := events.AppendEvent(ctx, e)
	if err != nil || result.Duplicate {
		t.Fatalf("AppendEvent of %s, producer %v, ordinal %d: %+v, %v; want a new event", e.Type, e.Producer, e.Ordinal, result, err)
	}
	return stored(e, result.Sequence)
}

// readAll reads the whole stream, some events at a time, and fails where it is
// not dense.
func readAll(ctx context.Context, t *testing.T, events eventStore, taskID string) []taskbridge.Event {
	t.Helper()
	var all []taskbridge.Event
	for {
		const limit = 97
		page, err := events.ReadEvents(ctx, taskID, int64(len(all)), limit)
		if err != nil {
			t.Fatalf("ReadEvents after %d: %v", len(all), err)
		}
		for _, e := range page {
			if all = append(all, e); e.Sequence != int64(len(all)) {
				t.Fatalf("the event at place %d has the sequence number %d", len(all), e.Sequence)
			}
		}
		if len(page) < limit {
			return all
		}
	}
}

func streamState(ctx context.Context, t *testing.T, events eventStore, taskID string) taskbridge.StreamState {
	t.Helper()
	state, err := events.StreamState(ctx, taskID)
	if err != nil {
		t.Fatalf("StreamState: %v", err)
	}
	return state
}
