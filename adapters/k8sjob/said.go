package k8sjob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/internal/podlog"
)

// said is what a pod's output said beside its reports.
type said struct {
	Result   json.RawMessage     // of the last line with one; nil: there was none
	Fail     *taskbridge.Failure // the same
	Tail     string              // the last lines that were no reports
	Lost     bool                // something may be missing
	Complete bool                // the container has ended, and its output was read to the end
	// Unproven: it is complete if the container is known to have ended, else something
	// may be missing. Its pod was gone before it could be asked.
	Unproven bool
}

// listener takes the lines of a pod's output. Its reports depend on the lines alone,
// so that whoever reads the output again repeats them.
type listener struct {
	said
	outbox    *outbox
	plain     bool
	tail      tail
	malformed int
}

// maxMalformed is how many malformed reports of a pod are told one by one.
const maxMalformed = 20

// line takes the next line. It waits while there is much to be recorded.
func (l *listener) line(ctx context.Context, line podlog.Line) error {
	if line.Lost {
		if err := l.lose(ctx); err != nil {
			return err
		}
	}
	report, isReport, err := taskbridge.ParseLineReport(line.Text)
	if isReport && line.Size > len(line.Text) {
		err = fmt.Errorf("it has %d bytes, at most %d are read", line.Size, len(line.Text))
	}
	switch {
	case !isReport:
		return l.plainLine(ctx, line)
	case err != nil:
		return l.warn(ctx, line.Ordinal, err)
	case report.Result != nil:
		l.Result = report.Result
	case report.Fail != nil:
		l.Fail = report.Fail
	case report.Progress != nil, report.Message != nil:
		return l.outbox.put(ctx, item{
			report: taskbridge.Report{Ordinal: line.Ordinal, Progress: report.Progress, Message: report.Message}, bytes: len(line.Text),
		})
	}
	return nil
}

// plainLine takes a line that is no report.
func (l *listener) plainLine(ctx context.Context, line podlog.Line) error {
	text := strings.ToValidUTF8(string(line.Text), "\uFFFD")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	l.tail.add(text)
	if !l.plain {
		return nil
	}
	return l.outbox.put(ctx, item{
		report: taskbridge.Report{Ordinal: line.Ordinal, Message: plainMessage(text, line.Size > len(line.Text))},
		plain:  text, bytes: len(text),
	})
}

// plainMessage is the message that a plain line makes.
func plainMessage(text string, cut bool) *taskbridge.Message {
	if cut {
		text += " … (cut)"
	}
	return &taskbridge.Message{Text: text, Level: taskbridge.LevelInfo}
}

// warn tells the client of a report that is none.
func (l *listener) warn(ctx context.Context, ordinal int64, reason error) error {
	l.malformed++
	if l.malformed > maxMalformed {
		return nil
	}
	message := ignoredReport(reason)
	if l.malformed == maxMalformed {
		message.Text += "; further ones are ignored without a word"
	}
	return l.outbox.put(ctx, item{report: taskbridge.Report{Ordinal: ordinal, Message: message}, bytes: len(message.Text)})
}

// ignoredReport is what a client is told in the place of a report.
func ignoredReport(reason error) *taskbridge.Message {
	return &taskbridge.Message{Text: "a report of the container was ignored: " + reason.Error(), Level: taskbridge.LevelWarning}
}

// missingOutput is what a client is told, once a pod.
const missingOutput = "Some of the pod's output may be missing: it was gone before it could be read."

// lose tells the client that something may be missing, once.
func (l *listener) lose(ctx context.Context) error {
	if l.Lost {
		return nil
	}
	l.Lost = true
	return l.outbox.put(ctx, item{notice: missingOutput})
}

// end takes how far the output was read.
func (l *listener) end(ctx context.Context, end podlog.End) error {
	l.Complete, l.Unproven = end.Complete, end.Closed && !end.Lost
	if end.Lost || !end.Complete && !end.Closed {
		return l.lose(ctx)
	}
	return nil
}

// tail keeps the last lines of a text.
type tail struct {
	limit int // lines
	kept  []string
	bytes int
}

func (t *tail) add(line string) {
	if t.limit <= 0 {
		return
	}
	line = cutText(strings.ReplaceAll(line, "\x00", ""), maxTailBytes)
	t.kept = append(t.kept, line)
	t.bytes += len(line) + 1
	for len(t.kept) > t.limit || t.bytes > maxTailBytes+1 && len(t.kept) > 1 {
		t.bytes -= len(t.kept[0]) + 1
		t.kept = t.kept[1:]
	}
}

func (t *tail) String() string { return strings.Join(t.kept, "\n") }

// cutText returns the longest prefix of at most limit bytes that ends with a whole
// rune.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
