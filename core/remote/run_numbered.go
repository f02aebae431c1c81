package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// numberedRun is a run whose reports have ordinals of the caller's. What goes
// through its sender are suspensions and ends alone.
type numberedRun struct {
	*run
	turn chan struct{} // capacity 1: full while somebody reports
}

var _ taskbridge.NumberedRun = (*numberedRun)(nil)

func errUnnumbered() error {
	return &taskbridge.ArgumentError{Field: "report", Reason: "must be made by Report, under an ordinal, since the claim has an epoch"}
}

func (r *numberedRun) Progress(context.Context, taskbridge.Progress) error { return errUnnumbered() }
func (r *numberedRun) Message(context.Context, taskbridge.Message) error   { return errUnnumbered() }
func (r *numberedRun) Token(context.Context, string) error                 { return errUnnumbered() }

func (r *numberedRun) takeTurn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *numberedRun) giveTurn() { <-r.turn }

// inTurn makes a call of the run's after the reports before it.
func (r *numberedRun) inTurn(ctx context.Context, call func() error) error {
	if err := r.takeTurn(ctx); err != nil {
		return err
	}
	defer r.giveTurn()
	return call()
}

func (r *numberedRun) Suspend(ctx context.Context, suspension taskbridge.Suspension) error {
	return r.inTurn(ctx, func() error { return r.run.Suspend(ctx, suspension) })
}

func (r *numberedRun) Complete(ctx context.Context, completion taskbridge.Completion) error {
	return r.inTurn(ctx, func() error { return r.run.Complete(ctx, completion) })
}

func (r *numberedRun) Fail(ctx context.Context, failure taskbridge.Failure) error {
	return r.inTurn(ctx, func() error { return r.run.Fail(ctx, failure) })
}

func (r *numberedRun) Cancelled(ctx context.Context, message string) error {
	return r.inTurn(ctx, func() error { return r.run.Cancelled(ctx, message) })
}

// Close waits for the report that is under way, for 10 s at the most; see
// [taskbridge.Run].
func (r *numberedRun) Close() error {
	limit := r.lifecycle.opts.Clock.NewTimer(closeTimeout)
	defer limit.Stop()
	select {
	case r.turn <- struct{}{}:
		defer r.giveTurn()
	case <-limit.C():
	case <-r.Done():
	}
	return r.run.Close()
}

// Report records reports under their ordinals, over passing failures until ctx
// ends; see [taskbridge.NumberedRun]. What is more than one request can carry goes
// in several.
func (r *numberedRun) Report(ctx context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	content, err := r.lifecycle.numbered(reports)
	if err != nil {
		return taskbridge.Reported{}, err
	}
	if err := r.takeTurn(ctx); err != nil {
		return taskbridge.Reported{}, err
	}
	defer r.giveTurn()
	n := len(reports)
	ends := n > 0 && reports[n-1].Outcome != nil
	r.mu.Lock()
	err = r.refusal()
	r.mu.Unlock()
	if err != nil && !(ends && errors.Is(err, taskbridge.ErrTaskFinished)) {
		return taskbridge.Reported{}, err
	}
	if !ends { // whether an end is the one that is recorded is the server's to say
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.life, cancel)()
	}
	var all taskbridge.Reported
	err = r.deliverNumbered(ctx, content, 0, &all)
	switch {
	case err == nil && ends:
		r.over(taskbridge.ErrTaskFinished)
		r.workers.Wait()
	case err != nil && !ends && r.life.Err() != nil:
		err = r.Err()
	}
	return all, err
}

// numbered checks the reports and makes what is sent of them.
func (l *Lifecycle) numbered(reports []taskbridge.Report) ([]workerapi.Report, error) {
	content := make([]workerapi.Report, len(reports))
	var rest []byte // the first bytes of a rune that the next token has the others of
	before := int64(0)
	for i, report := range reports {
		err := taskbridge.CheckReport(report, l.opts.Limits)
		switch {
		case report.Ordinal <= before || report.Ordinal > taskbridge.MaxReportOrdinal:
			err = &taskbridge.ArgumentError{Field: "ordinal", Reason: fmt.Sprintf("must be %d to %d", before+1, int64(taskbridge.MaxReportOrdinal))}
		case err == nil && i < len(reports)-1 && (report.Suspension != nil || report.Outcome != nil):
			err = &taskbridge.ArgumentError{Field: "report", Reason: "must be the last where it is a suspension or an end"}
		}
		wire := &content[i]
		switch {
		case err != nil:
		case report.Progress != nil:
			*wire = progressReport(*report.Progress)
		case report.Message != nil:
			*wire = messageReport(*report.Message)
		case report.Suspension != nil:
			*wire, err = suspendReport(*report.Suspension)
		case report.Outcome != nil:
			*wire = l.end(*report.Outcome)
		default:
			text := slices.Concat(rest, []byte(*report.Token))
			rest = nil
			if i+1 < len(reports) && reports[i+1].Token != nil {
				whole := len(text) - incompleteRune(text)
				text, rest = text[:whole:whole], text[whole:]
			}
			*wire = workerapi.Report{Type: workerapi.ReportToken, Text: string(text)}
		}
		if err != nil {
			return nil, &taskbridge.ReportError{Index: i, Err: err}
		}
		wire.Ordinal, wire.Verify, wire.Since = report.Ordinal, string(report.Verify), report.Since
		before = report.Ordinal
	}
	return content, nil
}

// deliverNumbered sends the reports, which are those from the index of a call, in
// as many requests as it takes, and adds the answers to all.
func (r *numberedRun) deliverNumbered(ctx context.Context, content []workerapi.Report, index int, all *taskbridge.Reported) error {
	for len(content) > 0 {
		n := 1
		for size := wireBytes(content[0]); n < min(len(content), workerapi.MaxReports); n++ {
			if size += wireBytes(content[n]); size > maxBatchBytes {
				break
			}
		}
		answer, err := r.postNumbered(ctx, content[:n])
		if err != nil {
			return r.refusedNumbered(ctx, content[:n], content[n:], index, err, all)
		}
		r.observe(&answer.AttemptResponse)
		all.Sequence = max(all.Sequence, answer.Sequence)
		for _, refusal := range answer.Refused {
			all.Refused = append(all.Refused, taskbridge.RefusedReport{Ordinal: refusal.Ordinal, Err: refusedReport(refusal)})
		}
		content, index = content[n:], index+n
	}
	return nil
}

// wireBytes is what a report is counted for in a request.
func wireBytes(report workerapi.Report) int {
	return (&entry{report: report, text: []byte(report.Text)}).bytes()
}

// postNumbered makes one request until it has an answer or ctx ends.
func (r *numberedRun) postNumbered(ctx context.Context, content []workerapi.Report) (*attemptAnswer, error) {
	request := workerapi.ReportsRequest{FirstOrdinal: content[0].Ordinal, Reports: slices.Clone(content)}
	next := request.FirstOrdinal
	for i, report := range content {
		if report.Ordinal == next || (&entry{report: report}).last() {
			request.Reports[i].Ordinal = 0 // said by those before it, or of no account
		}
		next = report.Ordinal + 1
	}
	body, err := encode(request)
	if err != nil {
		return nil, err
	}
	var answer *attemptAnswer
	broken := 0
	again := func(err error) bool { return isPassingOrForeign(err) && !divisible(err) }
	err = r.lifecycle.persist(ctx, "reports of task "+r.task.ID, again, func() error {
		token := r.currentToken()
		var err error
		answer, err = r.lifecycle.post(ctx, r.task.ID, token, body)
		refused := new(Error)
		if !errors.As(err, &refused) || refused.foreign() {
			return err
		}
		switch {
		case refused.Status == http.StatusUnauthorized:
			if err := r.renew(ctx, token); err != nil {
				return err
			}
			return &passing{err: err}
		case refused.Status == http.StatusBadRequest && refused.index < 0 && broken < mostBroken:
			broken++ // it did not arrive as it was sent
			return &passing{err: err}
		}
		return err
	})
	return answer, err
}

// refusedNumbered is what becomes of a request that the server will not have as it
// is, and of what is behind it.
func (r *numberedRun) refusedNumbered(ctx context.Context, content, behind []workerapi.Report, index int, err error, all *taskbridge.Reported) error {
	refused := new(Error)
	switch {
	case !errors.As(err, &refused):
		return err
	case fences(err):
		r.over(err)
		return err
	case errors.Is(err, taskbridge.ErrOrdinalReused):
		all.Sequence = max(all.Sequence, refused.sequence)
		return &taskbridge.ReportError{Index: index + max(0, refused.index), Err: err}
	case divisible(err) && refused.index >= 0:
		if refused.means != nil {
			err = refused.means
		}
		return &taskbridge.ReportError{Index: index + refused.index, Err: err}
	case divisible(err) && len(content) > 1:
		half := len(content) / 2
		if err := r.deliverNumbered(ctx, content[:half], index, all); err != nil {
			return err
		}
		if err := r.deliverNumbered(ctx, content[half:], index+half, all); err != nil {
			return err
		}
	case divisible(err) && content[0].Type == workerapi.ReportComplete && content[0].Result != nil:
		omitResult(&content[0])
		if err := r.deliverNumbered(ctx, content, index, all); err != nil {
			return err
		}
	case divisible(err):
		if refused.means != nil {
			err = refused.means
		}
		return &taskbridge.ReportError{Index: index, Err: err}
	default:
		err = fmt.Errorf("report on task %s: %w", r.task.ID, err)
		r.over(err)
		return err
	}
	return r.deliverNumbered(ctx, behind, index+len(content), all)
}
