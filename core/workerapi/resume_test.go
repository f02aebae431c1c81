package workerapi_test

import (
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func TestAWorkerThatWasPausedForLongerThanItsTokenGoesOnWithoutDoublingAnything(t *testing.T) {
	l := newLab(t)
	id := l.task()
	first := l.start(id, "claim")
	decode[workerapi.AttemptResponse](l.report(id, bearer(first.Token), 1, message("a"), message("b"))) // the answer is lost
	l.clock.advance(time.Hour)
	l.report(id, bearer(first.Token), 1, message("a"), message("b")).problem(401, "AUTHENTICATION_ERROR")
	again := decode[workerapi.StartResponse](l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", AttemptToken: first.Token}))
	if row := l.row(id); again.Attempt != 1 || row.Starts != 1 || again.Task.TaskID != id {
		t.Errorf("%+v, %d starts", again, row.Starts)
	}
	decode[workerapi.AttemptResponse](l.report(id, bearer(again.Token), 1, message("a"), message("b")))
	decode[workerapi.AttemptResponse](l.report(id, bearer(again.Token), 3, message("c"), complete(`1`))) // and lost again
	l.clock.advance(time.Hour)
	ended := decode[workerapi.StartResponse](l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", AttemptToken: again.Token}))
	if ended.Status != "COMPLETED" {
		t.Errorf("%+v", ended)
	}
	// It learns that its own end has been recorded, and that another's has not.
	decode[workerapi.AttemptResponse](l.report(id, bearer(ended.Token), 3, message("c"), complete(`1`)))
	l.report(id, bearer(ended.Token), 3, message("c"), complete(`2`)).problem(409, "TASK_FINISHED")
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`,
		`TASK_MESSAGE {"message":"c"}`, `TASK_COMPLETED {"result":1}`)
}

func TestAnAttemptTokenThatDoesNotFitStartsNothing(t *testing.T) {
	l := newLab(t)
	id := l.task()
	mine := l.start(id, "claim").Token
	otherTask := l.start(l.task(), "claim").Token
	for name, c := range map[string]struct {
		request workerapi.StartRequest
		status  int
		code    string
	}{
		"forged":             {workerapi.StartRequest{Claim: "claim", AttemptToken: forge(mine)}, 401, "AUTHENTICATION_ERROR"},
		"a submission token": {workerapi.StartRequest{Claim: "claim", AttemptToken: l.submission(id)[len("Bearer "):]}, 401, "AUTHENTICATION_ERROR"},
		"another task's":     {workerapi.StartRequest{Claim: "claim", AttemptToken: otherTask}, 403, "TASK_OWNERSHIP_ERROR"},
		"another claim's":    {workerapi.StartRequest{Claim: "newer", AttemptToken: mine}, 422, "REQUEST_VALIDATION_ERROR"},
		"another producer's": {workerapi.StartRequest{Claim: "claim", Producer: "p", AttemptToken: mine}, 422, "REQUEST_VALIDATION_ERROR"},
	} {
		l.post(id, "start", l.submission(id), c.request).problem(c.status, c.code)
		if row := l.row(id); row.Starts != 1 || row.Attempt != 1 {
			t.Errorf("%s: %d starts, attempt %d", name, row.Starts, row.Attempt)
		}
	}
	// Under the host's own credentials as well, and by its producer's name.
	decode[workerapi.StartResponse](l.post(id, "start", hostKey, workerapi.StartRequest{Claim: "claim", Producer: "worker", AttemptToken: mine}))
	l.start(id, "newer")
	l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", AttemptToken: mine}).problem(409, "STALE_ATTEMPT")
}

func TestAWorkerThatStartsElsewhereFencesTheOneBefore(t *testing.T) {
	l := newLab(t)
	id := l.task()
	first, second := l.start(id, "first"), l.start(id, "second")
	l.report(id, bearer(first.Token), 1, message("late")).problem(409, "STALE_ATTEMPT")
	l.report(id, bearer(first.Token), 1, complete(`"late"`)).problem(409, "STALE_ATTEMPT")
	l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "first"}).problem(409, "STALE_ATTEMPT")
	decode[workerapi.AttemptResponse](l.report(id, bearer(second.Token), 1, complete(`"done"`)))
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"attempt 2 has started, the one before it did not finish","level":"warning"}`,
		`TASK_COMPLETED {"result":"done"}`)
	if row := l.row(id); row.Attempt != 2 || row.Status != taskbridge.StatusCompleted {
		t.Errorf("attempt %d is %s", row.Attempt, row.Status)
	}
}
