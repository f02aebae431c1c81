package e2e

import (
	"strings"
	"testing"
)

func TestAWorkerInGoDoesCancelsAndGoesOnWithTasks(t *testing.T) {
	// The server's address is not known yet: the worker begins with another and is
	// started again with the right one.
	b := openWorkerBridge(t, "remote-worker", "words", remoteWorkerCommand)
	b.command = append(b.command, "--server", b.server.url)
	b.restartWorker(t)

	task := b.create(t, "short", `{"text":"To be or not to be"}`)
	events := b.follow(t, task, func(event) {})
	checkStream(t, task, events)
	if count(events, `TASK_COMPLETED {"result":{"be":2,"not":1,"or":1,"to":2}}`) != 1 || count(events, "TASK_PROGRESS") == 0 {
		t.Error(rawOf(events))
	}

	task = b.create(t, "cancelled", `{"text":"a b c","pauseMillis":60000}`)
	events = b.cancelInTheMiddle(t, task)
	checkStream(t, task, events)
	if last := events[len(events)-1]; last.Type != "TASK_CANCELLED" || !strings.Contains(string(last.Payload), `"after 1 of 3 words"`) {
		t.Error(rawOf(events))
	}

	task = b.create(t, "killed", `{"text":"a b c a b c","pauseMillis":500}`)
	events = b.killInTheMiddle(t, task)
	checkStream(t, task, events)
	if count(events, "TASK_STARTED") != 1 || count(events, `"level":"warning"`) != 1 || count(events, `{"a":2,"b":2,"c":2}`) != 1 {
		t.Error(rawOf(events))
	}

	if _, err := b.client.create(b.server.url, "bad", "words", `{}`); err == nil || !strings.Contains(err.Error(), "TASK_SUBMISSION_ERROR") {
		t.Errorf("%v", err)
	}
	b.end(t)
}
