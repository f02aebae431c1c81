package podlog

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// maxPrefix is more than a timestamp and the space after it take.
const maxPrefix = 64

// split calls line for each line of r, without its line end and with at most limit
// bytes of it; size is how many it has. whole is false for what follows the last line
// end. The text is valid during the call only. split returns nil at the end of r, or
// the error of line. An error of r comes after the lines before it; what is not whole
// is not passed on then.
func split(r io.Reader, limit int, line func(text []byte, size int, whole bool) error) error {
	buf := make([]byte, 32<<10)
	var held []byte // one byte over the limit, for a carriage return
	size := 0
	emit := func(whole bool) error {
		if size == len(held) && bytes.HasSuffix(held, []byte{'\r'}) {
			held = held[:size-1]
			size--
		}
		err := line(held[:min(len(held), limit)], size, whole)
		held, size = held[:0], 0
		return err
	}
	for {
		n, err := r.Read(buf)
		for chunk := buf[:n]; len(chunk) > 0; {
			part, rest, found := bytes.Cut(chunk, []byte{'\n'})
			held = append(held, part[:min(len(part), limit+1-len(held))]...)
			size += len(part)
			if found {
				if err := emit(true); err != nil {
					return err
				}
			}
			chunk = rest
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return err
		case size > 0:
			return emit(false)
		default:
			return nil
		}
	}
}

// cutTime takes the timestamp off a line as the API writes it. ok is false for what
// is no line of a container.
func cutTime(line []byte) (t time.Time, text []byte, ok bool) {
	space := bytes.IndexByte(line[:min(len(line), maxPrefix)], ' ')
	if space < 0 {
		return time.Time{}, nil, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(line[:space]))
	return t, line[space+1:], err == nil
}
