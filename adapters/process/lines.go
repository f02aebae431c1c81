package process

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// readLines calls line for each line of r, without its line end and at most
// limit bytes of it; size is how many it had. The text is valid during the call
// only. It returns nil at the end of r.
func readLines(r io.Reader, limit int, line func(text []byte, size int)) error {
	buf := make([]byte, 32<<10)
	var held []byte // one byte over the limit, for a carriage return
	size := 0
	emit := func() {
		if size == len(held) && bytes.HasSuffix(held, []byte{'\r'}) {
			held = held[:size-1]
			size--
		}
		line(held[:min(len(held), limit)], size)
		held, size = held[:0], 0
	}
	for {
		n, err := r.Read(buf)
		for chunk := buf[:n]; len(chunk) > 0; {
			part, rest, found := bytes.Cut(chunk, []byte{'\n'})
			held = append(held, part[:min(len(part), limit+1-len(held))]...)
			size += len(part)
			if found {
				emit()
			}
			chunk = rest
		}
		switch {
		case err == nil:
			continue
		case size > 0:
			emit()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	kept  []byte
	cut   bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - t.limit; excess > 0 {
		t.cut = true
		if excess >= t.limit { // seldom, so that each byte is moved once on average
			t.kept = append(t.kept[:0], t.kept[excess:]...)
		}
	}
	return len(p), nil
}

// String returns the tail as valid UTF-8 without the space around it.
func (t *tail) String() string {
	kept := t.kept[max(0, len(t.kept)-t.limit):]
	for t.cut && len(kept) > 0 && !utf8.RuneStart(kept[0]) {
		kept = kept[1:]
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(kept), "\uFFFD"))
	if t.cut && text != "" {
		return "… " + text
	}
	return text
}

// cutText returns the longest prefix of at most limit bytes that ends with a
// whole rune.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// pipeReader reads a pipe to its end or, once the pipe's deadline has passed, to
// the end of what it holds at that time: somebody may keep it open for ever.
type pipeReader struct {
	pipe     *os.File
	draining bool
	left     int
}

// maxPipe is the most that a pipe holds, as Linux lets an ordinary user set it.
const maxPipe = 1 << 20

func (r *pipeReader) Read(p []byte) (int, error) {
	if r.draining {
		return r.drain(p)
	}
	n, err := r.pipe.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// A reader that was busy when the deadline passed has not seen what
		// came before it.
		r.draining, r.left = true, maxPipe
		return r.drain(p)
	}
	return n, err
}

func (r *pipeReader) drain(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	if err := r.pipe.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := r.pipe.Read(p)
	r.left -= n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}
