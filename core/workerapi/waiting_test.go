package workerapi_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// TestAWaitForTheAttemptIsOverWhenThereIsNews begins a wait of a minute and has
// something happen after ten seconds.
func TestAWaitForTheAttemptIsOverWhenThereIsNews(t *testing.T) {
	const minute = "attempt?waitTimeoutMs=60000"
	for name, c := range map[string]struct {
		route   string
		before  func(l *lab, id string)
		happens func(l *lab, id string)
		after   time.Duration
		code    string // "" for 200
	}{
		"nothing":                            {minute, nil, nil, time.Minute, ""},
		"no wait":                            {"attempt", nil, nil, 0, ""},
		"a cancellation":                     {minute, nil, (*lab).requestCancel, 10 * time.Second, ""},
		"a cancellation from before":         {minute, (*lab).requestCancel, nil, 0, ""},
		"a cancellation from before, known":  {minute + "&cancellationKnown=true", (*lab).requestCancel, nil, time.Minute, ""},
		"the end, the cancellation is known": {minute + "&cancellationKnown=true", (*lab).requestCancel, settled, 10 * time.Second, "TASK_FINISHED"},
		"the end":                            {minute, nil, settled, 10 * time.Second, "TASK_FINISHED"},
		"a newer attempt":                    {minute, nil, func(l *lab, id string) { l.start(id, "newer") }, 10 * time.Second, "STALE_ATTEMPT"},
		"another change of the row": {minute, nil, func(l *lab, id string) {
			l.edit(id, func(row *taskbridge.Task) { row.Due.Inspection = row.UpdatedAt })
		}, time.Minute, ""},
		"the server drains":       {minute, nil, func(l *lab, _ string) { close(l.draining) }, 10 * time.Second, ""},
		"the server drained long": {minute, func(l *lab, _ string) { close(l.draining) }, nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				id, attempt := l.running()
				if c.before != nil {
					c.before(l, id)
				}
				if c.happens != nil {
					timer := time.AfterFunc(10*time.Second, func() { c.happens(l, id) })
					defer timer.Stop()
				}
				begin := time.Now()
				r := l.get(id, c.route, attempt)
				if took := time.Since(begin); took != c.after {
					t.Errorf("it took %s, want %s", took, c.after)
				}
				if c.code != "" {
					r.problem(409, c.code)
					return
				}
				state := decode[workerapi.AttemptResponse](r)
				row := l.row(id)
				if state.CancellationRequested == row.Cancellation.RequestedAt.IsZero() || state.CancelReason != row.Cancellation.Reason || state.Token == "" {
					t.Errorf("%+v", state)
				}
			})
		})
	}
}

func settled(l *lab, id string) {
	l.must(l.lifecycle.Settle(l.t.Context(), id, taskbridge.Outcome{Status: taskbridge.StatusCancelled}))
}

func TestAWaitEndsWithItsRequestAndLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		l := newLab(t)
		id, attempt := l.running()
		request := l.request("GET", workerapi.BasePath+id+"/attempt?waitTimeoutMs=60000", attempt, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		begin := time.Now()
		l.handler.ServeHTTP(httptest.NewRecorder(), request.WithContext(ctx))
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestACancellationIsToldInTheAnswerToAReport(t *testing.T) {
	l := newLab(t)
	id, attempt := l.running()
	if state := decode[workerapi.AttemptResponse](l.report(id, attempt, 1, message("a"))); state.CancellationRequested || state.CancelReason != "" {
		t.Errorf("%+v", state)
	}
	l.requestCancel(id)
	if state := decode[workerapi.AttemptResponse](l.report(id, attempt, 2, message("b"))); !state.CancellationRequested || state.CancelReason != "enough" {
		t.Errorf("%+v", state)
	}
	started := l.start(id, "claim") // the same work again
	if !started.CancellationRequested || started.CancelReason != "enough" {
		t.Errorf("%+v", started)
	}
	decode[workerapi.AttemptResponse](l.report(id, bearer(started.Token), 1, workerapi.Report{Type: workerapi.ReportCancelled, Message: "gladly"}))
	l.wantStream(id, `TASK_STARTED {}`, `TASK_MESSAGE {"message":"a"}`, `TASK_MESSAGE {"message":"b"}`,
		`TASK_CANCELLED {"reason":"enough","message":"gladly"}`)
}
