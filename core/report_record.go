package taskbridge

import (
	"bytes"
	"context"
	"errors"
	"slices"
)

// record makes the planned reports of an attempt, in their order, and returns the
// row as it was last seen. The row that is given may be behind.
func (l *LocalLifecycle) record(ctx context.Context, row Task, ref AttemptRef, reports []Report, plan *workerPlan) (Task, Reported, error) {
	var reported Reported
	if plan.suspension != nil && slices.Contains(row.SuspendIDs, plan.suspension.SuspendID) {
		if err := l.suspendedAs(row, plan.suspension.SuspendID, plan.suspendPayload); err != nil {
			return row, reported, &ReportError{Index: plan.last, Err: err}
		}
	}
	recording := recording{lifecycle: l, task: row, search: search{events: l.journal.events, taskID: ref.TaskID}}
	for _, event := range plan.events {
		sequence, err := recording.make(ctx, event, l.report(ref.TaskID, ref.Attempt, ref.Producer, event.ordinal, event.kind, event.payload))
		switch {
		case err == nil:
			reported.Sequence = max(reported.Sequence, sequence)
		case errors.Is(err, ErrStreamFull), errors.Is(err, ErrTaskFinished) && plan.outcome != nil:
			reported.Refused = refuse(reported.Refused, reports[event.first:event.last+1], err)
		default:
			return row, reported, err
		}
	}
	var err error
	switch {
	case plan.suspension != nil:
		row, err = l.suspend(ctx, row, ref.Attempt, *plan.suspension)
		if errors.Is(err, ErrStreamFull) {
			reported.Refused = refuse(reported.Refused, reports[plan.last:], err)
			return row, reported, nil
		}
		if errors.Is(err, ErrInvalidArgument) {
			err = &ReportError{Index: plan.last, Err: err}
		}
	case plan.outcome != nil:
		row, err = l.end(ctx, row, ref.Attempt, plan.outcome.Status, plan.terminal)
	}
	return row, reported, err
}

// refuse adds the reports to the refused ones. Those of a text that is more than
// one event may be among them already.
func refuse(refused []RefusedReport, reports []Report, err error) []RefusedReport {
	for _, report := range reports {
		if n := len(refused); n == 0 || refused[n-1].Ordinal < report.Ordinal {
			refused = append(refused, RefusedReport{report.Ordinal, err})
		}
	}
	return refused
}

// recording is one call's.
type recording struct {
	lifecycle *LocalLifecycle
	task      Task
	search    search
	// missing: a report was not there before. Then no later one was, and the stream
	// is not searched again for each.
	missing bool
}

// make appends the event, or recognises it, and returns its sequence number, 0
// where it is not known.
func (r *recording) make(ctx context.Context, event workerEvent, wanted EventAppend) (int64, error) {
	r.search.pass(event.since)
	if event.verify == VerifyAlways && !r.missing {
		if sequence, err := r.search.find(ctx, wanted); sequence > 0 || err != nil {
			return sequence, err
		}
		r.missing = true
	}
	result, err := r.lifecycle.append(ctx, r.task, wanted)
	if err != nil {
		return 0, err
	}
	if result.Duplicate && event.verify != "" {
		sequence, err := r.search.confirm(ctx, wanted, result.Sequence)
		if err == nil && sequence == 0 {
			err = &ReportError{Index: event.first, Err: ErrOrdinalReused}
		}
		return sequence, err
	}
	r.missing = r.missing || !result.Duplicate
	r.search.pass(result.Sequence)
	return result.Sequence, nil
}

// search looks for the events of successive reports in a stream, each behind the
// one before.
type search struct {
	events EventStore
	taskID string
	after  int64   // the search is past this event
	page   []Event // read already; all of it is behind after
}

// searchPage is how many events are read at a time.
const searchPage = 100

// pass has the search go on behind the event, if it is not there yet.
func (s *search) pass(sequence int64) {
	if sequence <= s.after {
		return
	}
	s.after = sequence
	for len(s.page) > 0 && s.page[0].Sequence <= sequence {
		s.page = s.page[1:]
	}
}

// find returns the sequence number of the first event that is the wanted one, and
// goes on behind it; 0: there is none.
func (s *search) find(ctx context.Context, wanted EventAppend) (int64, error) {
	page, after := s.page, s.after
	for {
		for i, e := range page {
			if after = e.Sequence; isOf(e, wanted) {
				s.page, s.after = page[i+1:], after
				return after, nil
			}
		}
		var err error
		if page, err = s.events.ReadEvents(ctx, s.taskID, after, searchPage); err != nil || len(page) == 0 {
			s.page = nil // it would be read again at the next event's
			return 0, err
		}
	}
}

// confirm is find for an event that the store has taken for a repetition, of the
// event with the sequence number if that is above 0.
func (s *search) confirm(ctx context.Context, wanted EventAppend, sequence int64) (int64, error) {
	if sequence == 0 {
		return s.find(ctx, wanted)
	}
	there, err := s.events.ReadEvents(ctx, s.taskID, sequence-1, 1)
	if err != nil || len(there) == 0 || there[0].Sequence != sequence || !isOf(there[0], wanted) {
		return 0, err
	}
	s.pass(sequence)
	return sequence, nil
}

// isOf reports whether the event is what the append has made, or one like it.
func isOf(event Event, wanted EventAppend) bool {
	return event.Type == wanted.Type && event.Attempt == wanted.Attempt && bytes.Equal(event.Payload, wanted.Payload)
}
