package podlog

import (
	"hash/maphash"
	"time"
)

// identity tells a line from others: when it was written, and what it says.
type identity struct {
	nanos int64
	size  int
	hash  uint64
}

var seed = maphash.MakeSeed()

func identify(t time.Time, text []byte, size int) identity {
	return identity{t.UnixNano(), size, maphash.Bytes(seed, text)}
}

// second is what is kept of the lines that were written in the same second.
type second struct {
	first identity
	at    int64 // the number of the first line
	lines int64
}

// position is how far a log has been read. It knows again what comes twice when the
// log is asked for from a whole second on.
//
// Timestamps need not rise: two streams are written side by side, and a node's clock
// may be set back.
type position struct {
	base    time.Time // of ordinals
	lines   int64     // how many were passed on
	last    identity
	ordinal int64 // of the last line
	seconds map[int64]second
	// blurred: seconds has not all lines that may come again.
	blurred bool
}

const (
	// margin is by how much the clock of a node may be set back while nothing is
	// read, so that nothing is overlooked.
	margin = time.Second
	// skew is by how much the clock of a node may be behind that of the API server.
	skew = 24 * time.Hour
	// maxSeconds bounds what is kept when the clock of a node was set back by much.
	maxSeconds = 10_000
	// maxOrdinal leaves room under 2^53 for lines that come after it.
	maxOrdinal = 1<<53 - 1<<40
)

func newPosition(created time.Time) *position {
	return &position{base: created.Add(-skew), seconds: make(map[int64]second)}
}

// since is the time from which the log is to be asked for; false: from its beginning.
func (p *position) since() (time.Time, bool) {
	if p.lines == 0 {
		return time.Time{}, false
	}
	return time.Unix(0, p.last.nanos).Truncate(time.Second).Add(-margin), true
}

// rank is the ordinal that a line written at that time has if it is later than all
// before it. A nanosecond is too fine for the numbers that there are.
func (p *position) rank(nanos int64) int64 {
	return min(time.Unix(0, nanos).Sub(p.base).Nanoseconds()>>3, maxOrdinal)
}

// add counts a line that is passed on and returns its ordinal.
func (p *position) add(id identity) int64 {
	p.ordinal = max(p.ordinal+1, p.rank(id.nanos))
	p.lines++
	before := p.last.nanos / int64(time.Second)
	p.last = id
	now := id.nanos / int64(time.Second)
	s, ok := p.seconds[now]
	if !ok {
		s = second{first: id, at: p.lines}
	}
	s.lines++
	p.seconds[now] = s
	if now != before {
		p.forget()
	}
	return p.ordinal
}

// forget drops the seconds that will not be asked for again.
func (p *position) forget() {
	since, _ := p.since()
	for at := range p.seconds {
		if at < since.Unix() {
			delete(p.seconds, at)
		}
	}
	if len(p.seconds) > maxSeconds {
		clear(p.seconds)
		p.blurred = true
	}
}

// matcher goes over a log that was asked for once more, up to where it was read to.
type matcher struct {
	*position
	// left is how many lines come again, if the first of them does.
	left  int64
	first identity
	begun bool
	// searching: the beginning of what comes again is not there, so that the lines
	// can't be counted. What is not later than the last line is taken for read.
	searching bool
	// found: what follows is new.
	found bool
}

func (p *position) match() *matcher {
	m := &matcher{position: p, found: p.lines == 0, searching: p.blurred}
	since, _ := p.since()
	earliest := p.lines + 1
	for at, s := range p.seconds {
		if at < since.Unix() {
			continue
		}
		m.left += s.lines
		if s.at < earliest {
			earliest, m.first = s.at, s.first
		}
	}
	return m
}

// known takes the next line of the log, which is not counted yet, and says whether it
// was passed on before. lost: it was not, and of what was written before it something
// may be missing.
func (m *matcher) known(id identity) (known, lost bool) {
	if m.found {
		return false, false
	}
	if !m.begun {
		m.begun = true
		m.searching = m.searching || id != m.first
	}
	m.left--
	switch {
	case id == m.last && (m.searching || m.left == 0):
		m.found = true
		return true, false
	case !m.searching && m.left > 0:
		return true, false
	case m.rank(id.nanos) <= m.ordinal:
		m.searching = true
		return true, false
	}
	m.found = true
	clear(m.seconds)
	return false, true
}
