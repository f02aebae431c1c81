package remote

import (
	"bytes"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

func progressReport(p taskbridge.Progress) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportProgress, Progress: &p.Percent, Stage: p.Stage, Message: p.Message}
}

func messageReport(m taskbridge.Message) workerapi.Report {
	return workerapi.Report{Type: workerapi.ReportMessage, Message: m.Text, Level: string(m.Level)}
}

func suspendReport(s taskbridge.Suspension) (workerapi.Report, error) {
	payload, err := encode(s)
	return workerapi.Report{Type: workerapi.ReportSuspend, Suspension: payload}, err
}

// end makes the report of an outcome that was checked.
func (l *Lifecycle) end(o taskbridge.Outcome) workerapi.Report {
	// The server cuts a message to its limit; more than that need not travel.
	limit := l.opts.Limits.TerminalPayload
	if limit == 0 {
		limit = taskbridge.DefaultLimits().TerminalPayload
	}
	switch o.Status {
	case taskbridge.StatusCompleted:
		return workerapi.Report{Type: workerapi.ReportComplete, Result: bytes.Clone(o.Completion.Result), Message: cut(o.Completion.Message, limit)}
	case taskbridge.StatusFailed:
		code := o.Failure.Code
		if code == "" {
			code = "TASK_FAILED" // as locally: an end is never lost for want of a code
		}
		return workerapi.Report{Type: workerapi.ReportFail, Code: code, Message: cut(o.Failure.Message, limit), Retryable: o.Failure.Retryable}
	default:
		return workerapi.Report{Type: workerapi.ReportCancelled, Message: cut(o.Message, limit)}
	}
}

// cut returns the longest prefix of at most limit bytes that ends at a rune.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// incompleteRune returns the length of the beginning of a rune at the end of s.
func incompleteRune(s []byte) int {
	for n := 1; n <= min(len(s), utf8.UTFMax-1); n++ {
		tail := s[len(s)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// task is the row as a worker knows it.
func (a *startAnswer) task(claim taskbridge.Claim) taskbridge.Task {
	return taskbridge.Task{
		ID: a.Task.TaskID, Owner: a.Task.Owner, Type: a.Task.TaskType, Input: a.Task.Input, Metadata: a.Task.Metadata,
		Traceparent: a.Task.Traceparent, CreatedAt: a.Task.CreatedAt, StartedAt: a.Task.StartedAt,
		Status: taskbridge.TaskStatus(a.Status), Attempt: a.Attempt, Claim: claim.ID,
	}
}
