package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// reporter turns the lines of a command's standard output into reports. It is
// used by one goroutine; result and failure may be read after its last line.
type reporter struct {
	ctx    context.Context
	run    taskbridge.Run
	clock  taskbridge.Clock
	logger *slog.Logger
	plain  bool

	result  json.RawMessage
	failure *taskbridge.Failure

	closed    bool // nothing more can be recorded: stream full, or run over
	logged    bool // that a report was not recorded
	malformed int
}

const (
	// reportTimeout bounds how long the command may have to wait for one report.
	reportTimeout = 10 * time.Second
	// maxMalformed is how many malformed reports of a task are told one by one.
	maxMalformed = 20
)

// line handles one line, of which text may be the beginning only.
func (r *reporter) line(text []byte, size int) {
	report, isReport, err := taskbridge.ParseLineReport(text)
	if isReport && size > len(text) {
		err = fmt.Errorf("it has %d bytes, at most %d are read", size, len(text))
	}
	switch {
	case !isReport:
		r.plainLine(text, size)
	case err != nil:
		r.warn(err)
	case report.Result != nil:
		r.result = report.Result
	case report.Fail != nil:
		r.failure = report.Fail
	case report.Progress != nil:
		r.record(func(ctx context.Context) error { return r.run.Progress(ctx, *report.Progress) })
	case report.Message != nil:
		r.record(func(ctx context.Context) error { return r.run.Message(ctx, *report.Message) })
	}
}

// plainLine records a line that is no report, if the command wants that.
func (r *reporter) plainLine(text []byte, size int) {
	if !r.plain || r.closed {
		return
	}
	line := strings.ToValidUTF8(string(text), "\uFFFD")
	if strings.TrimSpace(line) == "" {
		return
	}
	whole := size == len(text)
	r.record(func(ctx context.Context) error {
		for {
			message := line
			if !whole {
				message += " … (cut)"
			}
			err := r.run.Message(ctx, taskbridge.Message{Text: message, Level: taskbridge.LevelInfo})
			// How long a line may be depends on what it looks like in JSON.
			if !errors.Is(err, taskbridge.ErrPayloadTooLarge) || len(line) < 64 {
				return err
			}
			line, whole = cutText(line, len(line)/2), false
		}
	})
}

// warn tells the client of a report that is none.
func (r *reporter) warn(reason error) {
	r.malformed++
	if r.malformed > maxMalformed {
		return
	}
	text := "a report of the command was ignored: " + reason.Error()
	if r.malformed == maxMalformed {
		text += "; further ones are ignored without a word"
	}
	r.record(func(ctx context.Context) error {
		return r.run.Message(ctx, taskbridge.Message{Text: text, Level: taskbridge.LevelWarning})
	})
}

// record makes a report and repeats it while its outcome is not known. One that
// cannot be recorded is dropped: it is never a reason to stop the work.
func (r *reporter) record(report func(context.Context) error) {
	if r.closed {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, reportTimeout)
	defer cancel()
	const first, longest = 50 * time.Millisecond, time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		err := report(ctx)
		switch {
		case err == nil:
			return
		case isAny(err, taskbridge.ErrStaleAttempt, taskbridge.ErrStaleProducer, taskbridge.ErrTaskFinished, taskbridge.ErrClosed):
			r.closed = true
			return
		case errors.Is(err, taskbridge.ErrStreamFull):
			r.closed = true
			r.dropped(err)
			return
		case isAny(err, taskbridge.ErrInvalidArgument, taskbridge.ErrPayloadTooLarge):
			r.dropped(err)
			return
		}
		if sleep(ctx, r.clock, pause) != nil {
			r.dropped(err)
			return
		}
	}
}

func (r *reporter) dropped(err error) {
	if !r.logged {
		r.logged = true
		r.logger.Warn("report of a command not recorded; further ones are not logged", "error", err)
	}
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// sleep waits for d and returns ctx's error if it ends before.
func sleep(ctx context.Context, clock taskbridge.Clock, d time.Duration) error {
	timer := clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
