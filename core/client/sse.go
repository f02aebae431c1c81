package client

import (
	"bytes"
	"errors"
	"io"
)

// errEventTooLarge: a line or an event of a stream is over the limit.
var errEventTooLarge = errors.New("an event of the stream is over the client's limit")

// block is one event as the stream's format has it.
type block struct {
	id    string
	hasID bool // an id field was there
	event string
	data  []byte // valid until the next call
}

// blockReader reads server-sent events as the HTML standard defines them. What
// it holds is bounded, and it never waits for more than it needs: an event is
// there with the line end that completes it.
type blockReader struct {
	source     io.Reader
	limit      int // of a line and of an event's data
	buf        []byte
	start, end int
	line       []byte // the part of a line that came before buf
	data       []byte
	begun      bool // the first line has been read
	afterCR    bool // a line feed that follows belongs to the line before
	err        error
}

func newBlockReader(source io.Reader, limit int) *blockReader {
	return &blockReader{source: source, limit: limit, buf: make([]byte, 8<<10)}
}

// next returns the next event that has data. io.EOF: the stream has ended in good
// form; what was not complete by then is dropped.
func (r *blockReader) next() (block, error) {
	var b block
	r.data = r.data[:0]
	lines := 0 // of data
	for {
		line, err := r.readLine()
		switch {
		case err != nil:
			return block{}, err
		case len(line) == 0 && lines > 0:
			b.data = r.data
			return b, nil
		case len(line) == 0:
			b = block{} // an event without data is none
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if len(r.data)+len(value)+1 > r.limit {
				return block{}, errEventTooLarge
			}
			if lines > 0 {
				r.data = append(r.data, '\n')
			}
			r.data = append(r.data, value...)
			lines++
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				b.id, b.hasID = string(value), true
			}
		case "event":
			b.event = string(value)
		}
		// Everything else is a comment (no name), the field retry, whose work the
		// back-off does, or a field that nobody has defined.
	}
}

// readLine returns a line without its end, valid until the next call.
func (r *blockReader) readLine() ([]byte, error) {
	r.line = r.line[:0]
	for {
		if r.start == r.end {
			if err := r.fill(); err != nil {
				return nil, err
			}
			continue
		}
		if r.afterCR {
			r.afterCR = false
			if r.buf[r.start] == '\n' {
				r.start++
				continue
			}
		}
		rest := r.buf[r.start:r.end]
		i := bytes.IndexAny(rest, "\r\n")
		part := rest
		if i >= 0 {
			part = rest[:i]
		}
		if len(r.line)+len(part) > r.limit {
			return nil, errEventTooLarge
		}
		r.line = append(r.line, part...)
		if i < 0 {
			r.start = r.end
			continue
		}
		r.start += i + 1
		r.afterCR = rest[i] == '\r'
		line := r.line
		if !r.begun {
			r.begun = true
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		return line, nil
	}
}

func (r *blockReader) fill() error {
	if r.err != nil {
		return r.err
	}
	for range 100 {
		n, err := r.source.Read(r.buf)
		r.start, r.end, r.err = 0, n, err
		switch {
		case n > 0:
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}
