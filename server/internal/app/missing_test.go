package app

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTasksWhoseTypeIsNotConfiguredAnyMoreAreReportedAndEnd(t *testing.T) {
	data := t.TempDir()
	w := openWorkshop(t, openStore, "--store", "sqlite", "--data", data, "--submission-silence", "50ms")
	lost, unwanted := w.submit().Data.TaskID, w.submit().Data.TaskID
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	// restart starts the server without the type, but for the arguments as it was.
	restart := func(args ...string) {
		w.instance = startServer(t, load(t, append([]string{
			"--data", data, "--metrics-listen", "127.0.0.1:0", "--submission-silence", "50ms", "--submission-unknown-limit", "1ms",
			"--auth-modes", "apikey", "--auth-api-keys-file", w.ring.file,
			"--rate-limit-requests-per-second", "0", "--rate-limit-creates-per-second", "0",
		}, args...)...), openStore)
	}
	// until asks for the task until its row says so.
	until := func(task, want string) {
		t.Helper()
		for limit := time.Now().Add(waitLimit); !strings.Contains(w.row(task), want); {
			if time.Now().After(limit) {
				t.Fatalf("%s never has %s", w.row(task), want)
			}
		}
	}
	restart("--submission-missing-executor-limit=never")
	w.untilMetric(`taskbridge_ready{part="taskTypes"} 0`)
	if body := w.request("GET", "/ready", "", http.StatusOK); !strings.Contains(body, `"status":"ready"`) || !strings.Contains(body, `"taskTypes":"`) {
		t.Errorf("%s", body)
	}
	if !strings.Contains(w.log.String(), `of a type that has no executor`) || !strings.Contains(w.log.String(), "taskType=work") {
		t.Errorf("the log does not name the type:\n%s", w.log)
	}
	if got := w.send("POST", "/api/v1/tasks/"+unwanted+"/cancel", w.ring.keys["client"], `{"reason":"enough"}`); got.Status != http.StatusAccepted {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	until(unwanted, `"CANCELLED"`)
	if row := w.row(lost); !strings.Contains(row, `"ACCEPTED"`) {
		t.Errorf("%s", row)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}

	restart("--submission-missing-executor-limit=1s")
	until(lost, `"EXECUTOR_LOST"`)
	w.untilMetric(`taskbridge_ready{part="taskTypes"} 1`)
	if err := w.end(); err != nil {
		t.Error(err)
	}
}
