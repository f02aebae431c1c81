package workerapi_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// under starts the task under an epoch of the producer "log".
func (l *lab) under(id string, epoch int64, attemptToken string) reply {
	l.t.Helper()
	return l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", Producer: "log", Epoch: &epoch, AttemptToken: attemptToken})
}

func TestWhoeverReadsASourceAgainUnderItsEpochRepeatsItsReports(t *testing.T) {
	const epoch = 1 << 52
	l := newLab(t)
	id := l.task()
	for range 3 {
		started := decode[workerapi.StartResponse](l.under(id, epoch, ""))
		for _, reports := range [][]workerapi.Report{{message("a")}, {message("b"), {Type: workerapi.ReportMessage, Message: "c", Ordinal: 9}}} {
			answer := decode[workerapi.AttemptResponse](l.report(id, bearer(started.Token), int64(len(reports)), reports...))
			started.Token = answer.Token
		}
	}
	if row := l.row(id); row.Starts != 1 || row.Attempt != 1 {
		t.Errorf("%d starts, attempt %d", row.Starts, row.Attempt)
	}
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`, `TASK_MESSAGE {"message":"c"}`)

	low := decode[workerapi.StartResponse](l.under(id, epoch, ""))
	high := decode[workerapi.StartResponse](l.under(id, epoch+1, ""))
	decode[workerapi.AttemptResponse](l.report(id, bearer(high.Token), 1, message("d")))
	l.report(id, bearer(low.Token), 10, message("late")).problem(409, "STALE_PRODUCER")
}

func TestAReportThatIsNoRepetitionIsToldWithWhatIsRecordedBeforeIt(t *testing.T) {
	l := newLab(t)
	id := l.task()
	started := decode[workerapi.StartResponse](l.under(id, 7, ""))
	answer := decode[workerapi.AttemptResponse](l.report(id, bearer(started.Token), 1, message("a"), message("b")))
	if answer.Sequence != 3 {
		t.Errorf("event %d, want 3", answer.Sequence)
	}
	repeated := func(text, verify string, since int64) workerapi.Report {
		return workerapi.Report{Type: workerapi.ReportMessage, Message: text, Verify: verify, Since: since}
	}
	details := l.report(id, bearer(started.Token), 1, repeated("a", "duplicate", 1), repeated("other", "duplicate", 1)).problem(409, "ORDINAL_REUSED")
	if details["index"] != 1.0 || details["sequence"] != 2.0 {
		t.Errorf("details %v", details)
	}
	higher := decode[workerapi.StartResponse](l.under(id, 8, ""))
	answer = decode[workerapi.AttemptResponse](l.report(id, bearer(higher.Token), 1, repeated("b", "always", 2), repeated("other", "always", 2)))
	if answer.Sequence != 4 {
		t.Errorf("event %d, want 4", answer.Sequence)
	}
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`, `TASK_MESSAGE {"message":"other"}`)
}

func TestAStartUnderAnEpochIsResumedUnderTheSameAlone(t *testing.T) {
	l := newLab(t)
	id := l.task()
	started := decode[workerapi.StartResponse](l.under(id, 7, ""))
	plain := l.start(id, "claim")
	l.clock.advance(time.Hour)
	l.under(id, 8, started.Token).problem(422, "REQUEST_VALIDATION_ERROR")
	l.under(id, 1, plain.Token).problem(422, "REQUEST_VALIDATION_ERROR")
	l.post(id, "start", l.submission(id), workerapi.StartRequest{Claim: "claim", Producer: "log", AttemptToken: started.Token}).problem(422, "REQUEST_VALIDATION_ERROR")
	again := decode[workerapi.StartResponse](l.under(id, 7, started.Token))
	decode[workerapi.AttemptResponse](l.report(id, bearer(again.Token), 1, message("a")))
	decode[workerapi.AttemptResponse](l.get(id, "attempt", bearer(again.Token)))
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`)
}

// TestAServerOfBeforeTakesNoTokenUnderAnEpochForAnother reads the token's content
// as one that knows no such epochs does.
func TestAServerOfBeforeTakesNoTokenUnderAnEpochForAnother(t *testing.T) {
	l := newLab(t)
	ref := taskbridge.AttemptRef{TaskID: l.task(), Attempt: 1, Producer: taskbridge.Producer{Name: "log", Epoch: 7}, Numbered: true}
	token, _, err := l.newSigner([]byte(strings.Repeat("k", workerapi.MinKeyBytes))).AttemptToken(ref, "claim")
	l.must(err)
	content, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "tba1."))
	l.must(err)
	content = content[:len(content)-32] // its signature
	name := len(content) - len(ref.TaskID) - len("log") - 2
	if length := content[name]; length != 0 || taskbridge.ValidTaskID(string(content[name+1+int(length):])) {
		t.Errorf("the content %q has a name of %d bytes and a task behind it", content, length)
	}
}
