package remote

import (
	"unicode/utf8"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// maxBatchBytes is how much of what reports say goes into one request, unless
// one report alone has more. Escaped as JSON it may be six times as much.
const maxBatchBytes = 128 << 10

// entryBytes is what an entry is counted for beside its text.
const entryBytes = 128

// entry is a report that the server is not known to have.
type entry struct {
	report workerapi.Report
	text   []byte // of a token, consecutive ones joined

	urgent  bool // somebody waits: it goes out as soon as it can
	waiting int  // calls that will be told of err
	// withdrawn: the call that waited has given it up. It is not sent again.
	withdrawn bool
	// answered: err is the server's word on this very report.
	answered bool
	decided  chan struct{} // closed once the outcome is known
	err      error         // of the outcome
}

func newEntry(report workerapi.Report) *entry {
	return &entry{report: report, decided: make(chan struct{})}
}

func newToken(text []byte) *entry {
	e := newEntry(workerapi.Report{Type: workerapi.ReportToken})
	e.text = text
	return e
}

func (e *entry) kind() workerapi.ReportType { return e.report.Type }

// last reports whether nothing may follow the report in its request.
func (e *entry) last() bool { return e.kind() == workerapi.ReportSuspend || e.ends() }

func (e *entry) ends() bool {
	switch e.kind() {
	case workerapi.ReportComplete, workerapi.ReportFail, workerapi.ReportCancelled:
		return true
	}
	return false
}

func (e *entry) bytes() int {
	r := &e.report
	return entryBytes + len(e.text) + len(r.Stage) + len(r.Message) + len(r.Suspension) + len(r.Result)
}

func (e *entry) isDecided() bool {
	select {
	case <-e.decided:
		return true
	default:
		return false
	}
}

// batch is what one request carries: made once, and sent as it is until its
// outcome is known.
type batch struct {
	first   int64 // ordinal; the others follow densely
	entries []*entry
	body    []byte
}

func newBatch(first int64, entries []*entry) (*batch, error) {
	content := workerapi.ReportsRequest{FirstOrdinal: first, Reports: make([]workerapi.Report, len(entries))}
	for i, e := range entries {
		content.Reports[i] = e.report
		content.Reports[i].Text = string(e.text)
	}
	body, err := encode(content)
	return &batch{first, entries, body}, err
}

// queue holds what a run was given and the server is not known to have: first
// the batches whose cut is fixed, then what is still open. The run's lock is held
// by whoever uses it.
type queue struct {
	maxBytes, maxCount int

	sealed []*batch
	open   []*entry

	count, size int // of all entries
	openBytes   int
	urgent      int // open entries for which somebody waits
	starved     int // calls that wait for room
	// changed is closed, and replaced, when something leaves.
	changed chan struct{}
}

func newQueue(maxBytes, maxCount int) queue {
	return queue{maxBytes: maxBytes, maxCount: maxCount, changed: make(chan struct{})}
}

// latest returns the last open entry, nil without one.
func (q *queue) latest() *entry {
	if len(q.open) == 0 {
		return nil
	}
	return q.open[len(q.open)-1]
}

// put adds an entry at the end, whatever the bounds.
func (q *queue) put(e *entry) {
	q.open = append(q.open, e)
	q.account(e, 1)
}

// account counts an open entry in (1) or out (-1).
func (q *queue) account(e *entry, sign int) {
	q.count += sign
	q.size += sign * e.bytes()
	q.openBytes += sign * e.bytes()
	if e.urgent {
		q.urgent += sign
	}
}

// hurry marks an open entry as one for which somebody waits.
func (q *queue) hurry(e *entry) {
	if !e.urgent {
		e.urgent = true
		q.urgent++
	}
}

// room reports whether so much more may be kept. What newer progress has
// overtaken gives way.
func (q *queue) room(bytes, count int, forProgress bool) bool {
	fits := func() bool {
		return q.count == 0 || q.count+count <= q.maxCount && q.size+bytes <= q.maxBytes
	}
	if fits() {
		return true
	}
	overtaken := forProgress
	for i := len(q.open) - 1; i >= 0 && !fits(); i-- {
		if e := q.open[i]; e.kind() == workerapi.ReportProgress {
			if overtaken && e.waiting == 0 {
				q.remove(i)
				close(e.decided)
			}
			overtaken = true
		}
	}
	return fits()
}

// remove takes an open entry out.
func (q *queue) remove(i int) {
	q.account(q.open[i], -1)
	q.open = append(q.open[:i], q.open[i+1:]...)
	q.signal()
}

// signal wakes those who wait for a change.
func (q *queue) signal() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// addToken appends text; false: there is no room. The entry is the one that has
// the text.
func (q *queue) addToken(text string) (*entry, bool) {
	if last := q.latest(); last != nil && last.kind() == workerapi.ReportToken {
		if !q.room(len(text), 0, false) {
			return nil, false
		}
		if last == q.latest() { // room is made by taking out progress alone
			last.text = append(last.text, text...)
			q.size += len(text)
			q.openBytes += len(text)
			return last, true
		}
	}
	if !q.room(entryBytes+len(text), 1, false) {
		return nil, false
	}
	e := newToken([]byte(text))
	q.put(e)
	return e, true
}

// addProgress adds progress; with coalesce it replaces progress that nothing has
// followed yet. false: there is no room.
func (q *queue) addProgress(e *entry, coalesce bool) (*entry, bool) {
	if last := q.latest(); coalesce && last != nil && last.kind() == workerapi.ReportProgress && last.waiting == 0 {
		q.account(last, -1)
		last.report = e.report
		q.account(last, 1)
		return last, true
	}
	if !q.room(e.bytes(), 1, coalesce) {
		return nil, false
	}
	q.put(e)
	return e, true
}

// addMessage adds a message; false: there is no room.
func (q *queue) addMessage(e *entry) (*entry, bool) {
	if !q.room(e.bytes(), 1, false) {
		return nil, false
	}
	q.put(e)
	return e, true
}

// sendable returns the last open entry that can be sent, nil without one: with
// the first bytes of a rune alone there is nothing to send until the rest comes,
// or forced.
func (q *queue) sendable(forced bool) *entry {
	last := q.latest()
	if last == nil || forced || last.kind() != workerapi.ReportToken || incompleteRune(last.text) < len(last.text) {
		return last
	}
	if len(q.open) == 1 {
		return nil
	}
	return q.open[len(q.open)-2]
}

// full reports whether there is enough for a request.
func (q *queue) full() bool {
	return q.openBytes >= maxBatchBytes || len(q.open) >= workerapi.MaxReports || q.starved > 0
}

// seal takes what goes into the next request, under the ordinals from first on,
// and returns how many that are. An incomplete rune at the end stays, unless
// forced.
func (q *queue) seal(first int64, forced bool) (*batch, error) {
	var taken []*entry
	size := 0
	for len(q.open) > 0 && len(taken) < workerapi.MaxReports {
		e := q.open[0]
		if e.kind() == workerapi.ReportToken {
			if e = q.cutToken(maxBatchBytes-size, forced); e == nil {
				break
			}
		} else if size > 0 && size+e.bytes() > maxBatchBytes {
			break
		}
		q.account(e, -1)
		q.open[0] = nil
		q.open = q.open[1:]
		taken = append(taken, e)
		if size += e.bytes(); e.last() {
			break
		}
	}
	b, err := newBatch(first, taken)
	if err != nil {
		return nil, err
	}
	for _, e := range taken { // they are kept until the server has them
		q.count++
		q.size += e.bytes()
	}
	q.sealed = append(q.sealed, b)
	return b, nil
}

// cutToken makes the first open entry one that fits into room bytes and, where
// nothing follows, ends at a rune, and returns it. nil: nothing of it can go out
// now.
func (q *queue) cutToken(room int, forced bool) *entry {
	e := q.open[0]
	n := len(e.text)
	if len(q.open) == 1 && !forced {
		n -= incompleteRune(e.text)
	}
	if room -= entryBytes; n > room {
		if n = room; n < 16*utf8.UTFMax {
			return nil // the next request has room
		}
		for back := 0; back < utf8.UTFMax && !utf8.RuneStart(e.text[n]); back++ {
			n--
		}
		// Whoever waits for the text waits for its end.
		q.account(e, -1)
		head := newToken(e.text[:n:n])
		e.text = e.text[n:]
		q.open = append([]*entry{head}, q.open...)
		q.account(e, 1)
		q.account(head, 1)
		return head
	}
	if n == 0 {
		return nil
	}
	if n < len(e.text) {
		q.account(e, -1)
		rest := newToken(e.text[n:])
		e.text = e.text[:n:n]
		q.open = append(q.open, rest)
		q.account(e, 1)
		q.account(rest, 1)
	}
	return e
}

// settle takes off the first batch, which has an outcome.
func (q *queue) settle() {
	for _, e := range q.sealed[0].entries {
		q.count--
		q.size -= e.bytes()
	}
	q.sealed = q.sealed[1:]
	q.signal()
}

// resend puts batches before all others.
func (q *queue) resend(batches []*batch) {
	for _, b := range batches {
		for _, e := range b.entries {
			q.count++
			q.size += e.bytes()
		}
	}
	q.sealed = append(batches, q.sealed...)
}
