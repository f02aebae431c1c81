package k8sjob

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// item is something to be recorded: a report, or a notice where that is set.
type item struct {
	report taskbridge.Report
	// plain is the line that the report's message is made of; it is cut where it is
	// too long. Empty: a warning takes the place of a report that is too long.
	plain  string
	notice string
	told   bool // the report is a warning in the place of one that may not be recorded
	bytes  int
}

// outbox records reports in their order while others are being read: as many at once
// as there are. It holds a bounded number of them.
type outbox struct {
	run     taskbridge.NumberedRun
	notices taskbridge.NumberedNoticer
	ordinal int64 // of a notice
	clock   taskbridge.Clock
	logger  *slog.Logger

	mu      sync.Mutex
	items   []item
	bytes   int
	full    bool // the stream is
	closed  bool
	err     error         // nothing more can be recorded
	changed chan struct{} // closed and replaced when something above changes
	logged  bool          // that a report was not recorded
}

const (
	// What waits to be recorded is bounded by these; one report more than allowed is
	// taken if nothing waits.
	maxItems = 1000
	maxBytes = 256 << 10
	// maxBatch bounds one call.
	maxBatch = 250

	// noticeLog is the source of the notice that output is missing.
	noticeLog = "k8s-log"

	// reportTimeout bounds one try to record.
	reportTimeout = 30 * time.Second
)

func newOutbox(run taskbridge.NumberedRun, notices taskbridge.NumberedNoticer, ordinal int64, clock taskbridge.Clock, logger *slog.Logger) *outbox {
	return &outbox{run: run, notices: notices, ordinal: max(ordinal, 1), clock: clock, logger: logger, changed: make(chan struct{})}
}

// put adds what is to be recorded. It waits for room, and returns an error once
// nothing more can be recorded. After the stream is full what is put is dropped.
func (o *outbox) put(ctx context.Context, add item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && !o.full && len(o.items) > 0 && (len(o.items) >= maxItems || o.bytes+add.bytes > maxBytes) {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	if o.err != nil || o.full {
		return o.err
	}
	o.items = append(o.items, add)
	o.bytes += add.bytes
	o.tell()
	return nil
}

// wait waits for a change. The caller holds mu.
func (o *outbox) wait(ctx context.Context) error {
	changed := o.changed
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *outbox) tell() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// close says that nothing more will be put.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.tell()
}

// failure is why nothing more can be recorded, or nil.
func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// send records until there is nothing more to record, or nothing more can be.
func (o *outbox) send(ctx context.Context) error {
	for {
		batch, ok := o.take(ctx)
		if !ok {
			return o.failure()
		}
		err := o.record(ctx, batch)
		o.mu.Lock()
		o.err = err
		o.tell()
		o.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take waits for what there is to record: reports, or one notice.
func (o *outbox) take(ctx context.Context) (batch []item, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.items) == 0 {
		if o.closed {
			return nil, false
		}
		if err := o.wait(ctx); err != nil {
			o.err = err
			o.tell()
			return nil, false
		}
	}
	n := 0
	for n < min(len(o.items), maxBatch) && o.items[n].notice == "" {
		n++
	}
	n = max(n, 1)
	batch, o.items = o.items[:n:n], o.items[n:]
	for _, it := range batch {
		o.bytes -= it.bytes
	}
	o.tell()
	return batch, true
}

// record records a batch and repeats itself while the outcome is not known. An error
// means that nothing more can be recorded. What alone cannot be recorded is dropped.
func (o *outbox) record(ctx context.Context, batch []item) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; len(batch) > 0; {
		err := o.try(ctx, batch)
		var wrong *taskbridge.ReportError
		switch {
		case err == nil:
			return nil
		case isAny(err, taskbridge.ErrStaleAttempt, taskbridge.ErrStaleProducer, taskbridge.ErrTaskFinished,
			taskbridge.ErrTaskNotFound, taskbridge.ErrClosed):
			return err
		case errors.Is(err, taskbridge.ErrStreamFull):
			o.fill(err)
			return nil
		case errors.As(err, &wrong) && wrong.Index < len(batch):
			batch = o.amend(batch, wrong)
			continue
		case isAny(err, taskbridge.ErrInvalidArgument, taskbridge.ErrPayloadTooLarge, taskbridge.ErrOrdinalReused):
			o.dropped(err)
			return nil
		}
		o.logger.Debug("reports not recorded yet", "error", err)
		if err := sleep(ctx, o.clock, pause); err != nil {
			return err
		}
		pause = min(2*pause, longest)
	}
	return nil
}

func (o *outbox) try(ctx context.Context, batch []item) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if notice := batch[0].notice; notice != "" {
		return o.notices.NoticeOnce(ctx, o.run.Task().ID, noticeLog, o.ordinal, taskbridge.Message{Text: notice, Level: taskbridge.LevelWarning})
	}
	reports := make([]taskbridge.Report, len(batch))
	for i, it := range batch {
		reports[i] = it.report
	}
	reported, err := o.run.Report(ctx, reports)
	if err == nil && len(reported.Refused) > 0 {
		err = reported.Refused[0].Err
	}
	return err
}

// amend shortens the report that may not be recorded, tells of it in its place, or
// takes it out. The same report always makes the same of it.
func (o *outbox) amend(batch []item, wrong *taskbridge.ReportError) []item {
	it := &batch[wrong.Index]
	// How long a line may be depends on what it looks like in JSON.
	if errors.Is(wrong, taskbridge.ErrPayloadTooLarge) && len(it.plain) >= 64 {
		it.plain = cutText(it.plain, len(it.plain)/2)
		it.report.Message = plainMessage(it.plain, true)
		return batch
	}
	if !it.told && it.plain == "" {
		it.told = true
		it.report = taskbridge.Report{Ordinal: it.report.Ordinal, Message: ignoredReport(wrong)}
		return batch
	}
	o.dropped(wrong)
	return append(batch[:wrong.Index], batch[wrong.Index+1:]...)
}

// fill drops what waits, and all that comes.
func (o *outbox) fill(err error) {
	o.mu.Lock()
	o.full, o.items, o.bytes = true, nil, 0
	o.tell()
	o.mu.Unlock()
	o.dropped(err)
}

func (o *outbox) dropped(err error) {
	if !o.logged {
		o.logged = true
		o.logger.Warn("report of a pod not recorded; further ones are not logged", "error", err)
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
