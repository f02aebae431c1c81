package podlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// FuzzLines compares the reader of lines with a simple one, whatever the pieces in
// which the bytes come.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n\rc"), uint8(3), uint8(1))
	f.Add([]byte("\r\r\n\x00\n"), uint8(0), uint8(2))
	f.Add(bytes.Repeat([]byte("x"), 100), uint8(10), uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, limit, piece uint8) {
		var want []string
		lines := bytes.Split(data, []byte{'\n'})
		for i, line := range lines {
			whole := i < len(lines)-1
			if !whole && len(line) == 0 {
				break
			}
			line = bytes.TrimSuffix(line, []byte{'\r'})
			if size := len(bytes.TrimSuffix(lines[i], []byte{'\r'})); len(lines[i]) > int(limit)+1 {
				// The end of a line that is cut is not kept, a carriage return neither.
				want = append(want, fmt.Sprintf("%q %d %v", lines[i][:limit], len(lines[i]), whole))
			} else {
				want = append(want, fmt.Sprintf("%q %d %v", line[:min(len(line), int(limit))], size, whole))
			}
		}
		var got []string
		r := &pieces{data, int(piece) + 1}
		err := split(r, int(limit), func(text []byte, size int, whole bool) error {
			if len(text) > int(limit) {
				t.Fatalf("%d bytes of a line are kept", len(text))
			}
			got = append(got, fmt.Sprintf("%q %d %v", text, size, whole))
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("the lines of %q are %q, want %q, %v", data, got, want, err)
		}
	})
}

type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func TestWhatIsNotWholeIsNotPassedOnWhenReadingFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var got []string
	err := split(io.MultiReader(bytes.NewReader([]byte("a\nb")), iotest.ErrReader(broken)), 10, func(text []byte, _ int, _ bool) error {
		got = append(got, string(text))
		return nil
	})
	if !errors.Is(err, broken) || !slices.Equal(got, []string{"a"}) {
		t.Errorf("the lines are %q, %v", got, err)
	}
}

// FuzzPosition: whatever the timestamps of a file, and wherever reading it was cut,
// what comes again is known, and nothing else is.
func FuzzPosition(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(100), uint32(2_000_000))
		f.Add(seed, uint16(40), uint32(4_000_000_000))
	}
	f.Fuzz(func(t *testing.T, seed uint64, count uint16, most uint32) {
		random := rand.New(rand.NewPCG(seed, 3))
		type line struct {
			id identity
			n  int
		}
		var file []line
		at := created
		for i := range int(count % 500) {
			at = at.Add(time.Duration(random.Int64N(int64(most) + 1)))
			switch random.IntN(30) {
			case 0:
				at = at.Add(-time.Duration(random.Int64N(int64(time.Hour)))) // the clock is set back
			case 1:
				at = at.Truncate(time.Second)
			}
			file = append(file, line{identify(at, []byte(fmt.Sprint(random.IntN(3))), 1), i})
		}
		p := newPosition(created)
		read := 0
		for read < len(file) {
			since, resumed := p.since()
			m := p.match()
			stop := read + 1 + random.IntN(len(file)-read)
			var missed []int
			for _, l := range file[:stop] {
				if resumed && l.id.nanos < since.UnixNano() {
					if l.n >= read {
						missed = append(missed, l.n) // set back while nothing was read
					}
					continue
				}
				known, lost := m.known(l.id)
				if known != (l.n < read) || lost {
					t.Fatalf("line %d of %d read is known: %v, lost: %v", l.n, read, known, lost)
				}
				if !known {
					p.add(l.id)
				}
			}
			if len(missed) > 0 {
				return // which Follow's comment tells of
			}
			read = stop
		}
	})
}
