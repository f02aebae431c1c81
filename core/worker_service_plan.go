package taskbridge

import "encoding/json"

// Some text that a worker reports is more than one event, and all events of a
// producer have ordinals of their own. So what the store sees is not the
// report's ordinal but that times 1,024, plus the event's number among those
// that end within the same report. As the same reports make the same events
// under the same limits, a call that is repeated is recognised event by event.
const eventsPerReport = 1 << 10

// workerEvent is one event that a call's reports are to make.
type workerEvent struct {
	kind    EventType
	payload json.RawMessage
	ordinal int64
	// first and last are the indices of the reports that it was made from.
	first, last int
	verify      Verification
	since       int64
}

// workerPlan is what a call's reports come to.
type workerPlan struct {
	events []workerEvent
	last   int // the index of the call's last report

	suspension     *Suspension
	suspendPayload []byte
	outcome        *Outcome
	terminal       func(Task) []byte
}

// plan checks the reports and makes the events from them. The error is a
// [*ReportError].
func (l *LocalLifecycle) plan(reports []Report) (*workerPlan, error) {
	p := &workerPlan{last: len(reports) - 1}
	var text workerText
	before := int64(0)
	for i, r := range reports {
		if r.Token == nil {
			if err := p.flush(&text, l.limits.EventPayload); err != nil {
				return nil, err
			}
		}
		err := checkOrdinal(r.Ordinal, before)
		if err == nil {
			err = l.planReport(p, i, r, &text)
		}
		if err != nil {
			return nil, &ReportError{Index: i, Err: err}
		}
		before = r.Ordinal
	}
	return p, p.flush(&text, l.limits.EventPayload)
}

func checkOrdinal(ordinal, before int64) error {
	if ordinal <= before || ordinal > MaxReportOrdinal {
		return argumentErrorf("ordinal", "must be %d to %d", before+1, int64(MaxReportOrdinal))
	}
	return nil
}

// planReport adds one report to the plan, a token to the text.
func (l *LocalLifecycle) planReport(p *workerPlan, i int, r Report, text *workerText) error {
	set := 0
	for _, is := range []bool{r.Progress != nil, r.Message != nil, r.Token != nil, r.Suspension != nil, r.Outcome != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return argumentErrorf("report", "must be exactly one of progress, message, token, suspension and outcome")
	}
	if err := r.checkVerify(); err != nil {
		return err
	}
	if i < p.last && (r.Suspension != nil || r.Outcome != nil) {
		return argumentErrorf("report", "must be the last where it is a suspension or an end")
	}
	var err error
	var payload json.RawMessage
	event := EventMessage
	switch {
	case r.Token != nil:
		begin := len(text.bytes)
		text.bytes = append(text.bytes, *r.Token...)
		text.tokens = append(text.tokens, workerToken{i, r.Ordinal, begin, len(text.bytes), r.Verify, r.Since})
		return nil
	case r.Suspension != nil:
		p.suspension = r.Suspension
		p.suspendPayload, err = r.Suspension.payload(l.limits.EventPayload)
		return err
	case r.Outcome != nil:
		p.outcome = r.Outcome
		p.terminal, err = r.Outcome.payload(l.limits.TerminalPayload)
		return err
	case r.Progress != nil:
		event = EventProgress
		payload, err = r.Progress.payload()
	default:
		payload, err = r.Message.payload()
	}
	if err == nil {
		err = checkSize("payload", payload, l.limits.EventPayload)
	}
	if err != nil {
		return err
	}
	p.events = append(p.events, workerEvent{event, payload, r.Ordinal * eventsPerReport, i, i, r.Verify, r.Since})
	return nil
}

// workerText is the text of consecutive tokens.
type workerText struct {
	bytes  []byte
	tokens []workerToken
}

// workerToken is one report of the text.
type workerToken struct {
	index      int
	ordinal    int64
	begin, end int // of its bytes in the text
	verify     Verification
	since      int64
}

// flush makes events of the text and empties it. An event's ordinal is that of
// the last token that it has anything of.
func (p *workerPlan) flush(text *workerText, limit int) error {
	rest, tokens, room := text.bytes, text.tokens, messageRoom(limit)
	*text = workerText{}
	begin, number := 0, int64(0)
	for len(rest) > 0 {
		n := fitting(rest, room)
		for tokens[0].end <= begin {
			tokens, number = tokens[1:], 0
		}
		first := tokens[0]
		verify, since := first.verify, first.since
		for tokens[0].end < begin+n {
			tokens, number = tokens[1:], 0
			verify, since = stronger(verify, tokens[0].verify), max(since, tokens[0].since)
		}
		last := tokens[0]
		if n == 0 || number == eventsPerReport {
			return &ReportError{Index: last.index, Err: &SizeError{Field: "text", Bytes: last.end - last.begin, Limit: eventsPerReport * max(0, room)}}
		}
		payload, err := Message{Text: string(rest[:n])}.payload()
		if err != nil {
			return &ReportError{Index: last.index, Err: err}
		}
		p.events = append(p.events, workerEvent{EventMessage, payload, last.ordinal*eventsPerReport + number, first.index, last.index, verify, since})
		rest, begin, number = rest[n:], begin+n, number+1
	}
	return nil
}
