package workerapi_test

import (
	"encoding/json"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func TestAWorkerStartsReportsAndEnds(t *testing.T) {
	l := newLab(t)
	id := l.task()
	started := l.start(id, "claim")
	if started.Attempt != 1 || started.Status != "RUNNING" || started.TaskID != id || started.CancellationRequested ||
		started.TokenExpiresAt.Sub(l.clock.Now()).Minutes() != 5 {
		t.Errorf("started: %+v", started)
	}
	task := started.Task
	if task.TaskID != id || task.TaskType != "work" || task.Owner != "owner" || string(task.Input) != `{"some":"<input>"}` ||
		string(task.Metadata) != `{"k":1}` || !task.StartedAt.Equal(l.row(id).StartedAt) || task.CreatedAt.IsZero() {
		t.Errorf("task: %+v", task)
	}
	state := decode[workerapi.AttemptResponse](l.report(id, bearer(started.Token), 1,
		progress(0), token("hel"), token("lo"), message("a"), message("b"), token(""), token("x"),
		workerapi.Report{Type: workerapi.ReportSuspend, Suspension: json.RawMessage(
			`{"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["GO"],"schemaVersion":1,"expiresAt":null}`)}))
	if state.Status != "RUNNING" || len(state.Refused) != 0 {
		t.Errorf("state: %+v", state)
	}
	end := decode[workerapi.AttemptResponse](l.report(id, bearer(state.Token), 20, token("last words"), complete(`{"n":[1.50]}`)))
	if end.Status != "COMPLETED" {
		t.Errorf("end: %+v", end)
	}
	l.wantStream(id, `TASK_STARTED {}`, `TASK_PROGRESS {"progress":0}`, `TASK_MESSAGE {"message":"hello"}`,
		`TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`, `TASK_MESSAGE {"message":"x"}`,
		`TASK_SUSPENDED {"suspendId":"s","kind":"SYSTEM_PAUSED","reasonCode":"R","allowedActions":["GO"],"schemaVersion":1}`,
		`TASK_MESSAGE {"message":"last words"}`, `TASK_COMPLETED {"result":{"n":[1.50]}}`)
	if row := l.row(id); row.Status != taskbridge.StatusCompleted {
		t.Errorf("the row is %s", row.Status)
	}
}
