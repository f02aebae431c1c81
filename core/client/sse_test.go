package client

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readBlocks reads all there is, at most step bytes at a time.
func readBlocks(stream string, step, limit int) (blocks []string, err error) {
	r := newBlockReader(&stepReader{strings.NewReader(stream), step}, limit)
	for {
		b, err := r.next()
		if err != nil {
			return blocks, err
		}
		blocks = append(blocks, show(b))
	}
}

func show(b block) string { return fmt.Sprintf("%t %q %q %q", b.hasID, b.id, b.event, b.data) }

type stepReader struct {
	source io.Reader
	step   int
}

func (r *stepReader) Read(p []byte) (int, error) { return r.source.Read(p[:min(len(p), r.step)]) }

func TestAStreamIsReadAsTheStandardSays(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   []block
	}{
		"an event":                            {"id: 1\ndata: x\n\n", []block{{id: "1", hasID: true, data: []byte("x")}}},
		"no space after the colon":            {"id:1\ndata:x\n\n", []block{{id: "1", hasID: true, data: []byte("x")}}},
		"one space of two is the value's":     {"data:  x\n\n", []block{{data: []byte(" x")}}},
		"carriage returns":                    {"data: x\r\rdata: y\r\r", []block{{data: []byte("x")}, {data: []byte("y")}}},
		"both":                                {"data: x\r\n\r\ndata: y\r\n\r\n", []block{{data: []byte("x")}, {data: []byte("y")}}},
		"mixed":                               {"data: x\r\n\ndata: y\n\r\n", []block{{data: []byte("x")}, {data: []byte("y")}}},
		"lines of data are joined":            {"data: x\ndata\ndata: y\n\n", []block{{data: []byte("x\n\ny")}}},
		"empty data is data":                  {"data\n\n", []block{{data: []byte{}}}},
		"comments":                            {": ping\n\n:\ndata: x\n: ping\n\n", []block{{data: []byte("x")}}},
		"unknown fields":                      {"retry: 5\nfoo: bar\nfoo\ndata: x\n\n", []block{{data: []byte("x")}}},
		"names are not trimmed or folded":     {"Data: x\n data: y\n\n", nil},
		"an event's name":                     {"event: add\ndata: x\n\ndata: y\n\n", []block{{event: "add", data: []byte("x")}, {data: []byte("y")}}},
		"no data, no event":                   {"event: add\nid: 1\n\ndata: x\n\n", []block{{data: []byte("x")}}},
		"an empty id is one":                  {"id\ndata: x\n\n", []block{{hasID: true, data: []byte("x")}}},
		"an id with a zero byte is none":      {"id: a\x00b\ndata: x\n\n", []block{{data: []byte("x")}}},
		"a byte order mark":                   {"\ufeffdata: x\n\n", []block{{data: []byte("x")}}},
		"a byte order mark later on":          {"data: x\n\n\ufeffdata: y\n\n", []block{{data: []byte("x")}}},
		"what is not complete is dropped":     {"data: x\n\ndata: y\n", []block{{data: []byte("x")}}},
		"nor is a line without an end a line": {"data: x\n\ndata: y", []block{{data: []byte("x")}}},
		"nothing":                             {"", nil},
	} {
		for step := 1; step <= len(c.stream)+1; step++ {
			var want []string
			for _, b := range c.want {
				want = append(want, show(b))
			}
			got, err := readBlocks(c.stream, step, 1000)
			if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
				t.Errorf("%s, by %d: %q, %v, wanted %q", name, step, got, err, want)
			}
		}
	}
}

func TestAnEventIsThereWithTheByteThatCompletesIt(t *testing.T) {
	for _, end := range []string{"\n\n", "\r\r", "\r\n\r"} {
		source, sink := io.Pipe()
		r := newBlockReader(source, 100)
		written := make(chan error, 1)
		go func() {
			_, err := io.WriteString(sink, "data: x"+end)
			written <- err
		}()
		if b, err := r.next(); err != nil || string(b.data) != "x" {
			t.Errorf("%q: %v, %v", end, b, err)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	}
}

func TestWhatAStreamMakesTheReaderHoldIsBounded(t *testing.T) {
	endless := strings.Repeat("x", 2000)
	for name, stream := range map[string]string{
		"a line":    "data: " + endless,
		"a comment": ":" + endless,
		"an id":     "id: " + endless + "\n",
		"data":      strings.Repeat("data: xxxxxxxxx\n", 200),
		"no data":   strings.Repeat("data\n", 2000),
	} {
		got, err := readBlocks(stream, 64, 1000)
		if !errors.Is(err, errEventTooLarge) || len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := readBlocks("data: "+strings.Repeat("x", 994)+"\n\n", 64, 1000); len(got) != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("at the limit: %d, %v", len(got), err)
	}
}

func TestAnErrorOfTheConnectionIsHandedOn(t *testing.T) {
	broken := errors.New("broken")
	r := newBlockReader(io.MultiReader(strings.NewReader("data: x\n\ndata: y\n"), iotest.ErrReader(broken)), 100)
	if b, err := r.next(); err != nil || string(b.data) != "x" {
		t.Error(b, err)
	}
	for range 2 {
		if _, err := r.next(); !errors.Is(err, broken) {
			t.Error(err)
		}
	}
	r = newBlockReader(&stepReader{strings.NewReader("data: x\n\n"), 0}, 100)
	if _, err := r.next(); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

// plainly reads a whole stream the way the standard describes it, with nothing
// else in mind.
func plainly(stream string) (blocks []string) {
	stream = strings.TrimPrefix(stream, "\ufeff")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	end := strings.LastIndex(stream, "\n")
	if end < 0 {
		return nil
	}
	var b block
	var data []string
	for line := range strings.SplitSeq(stream[:end], "\n") {
		if line == "" {
			if data != nil {
				b.data = []byte(strings.Join(data, "\n"))
				blocks = append(blocks, show(b))
			}
			b, data = block{}, nil
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "data":
			data = append(data, value)
		case name == "event":
			b.event = value
		case name == "id" && !strings.Contains(value, "\x00"):
			b.id, b.hasID = value, true
		}
	}
	return blocks
}

func FuzzReadingAStream(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "\r", "\r\n", "\ufeff", "\ufeff\ufeffdata: x\n\n", "\xef\xbb", "data", "data\n\n", "data:\r\r\n\n",
		"id: 1-00000001\ndata: {\"type\":\"TASK_STARTED\"}\n\n: ping\n\ndata: {}\n\n",
		"id: a\rid: b\r\ndata: x\ndata: y\r\r", "event: e\nid\ndata: x\n\ndata: y\n\n", "id: \x00\ndata: \x00\n\n",
		"data: x\n\n\r\ndata: y\n\n", ":\n:x\n::\n: data: x\n\n", "retry: 1\n\n", "data: \xff\xfe\n\n",
	} {
		f.Add(seed, uint8(1))
		f.Add(seed, uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream string, step uint8) {
		want := plainly(stream)
		got, err := readBlocks(stream, int(step)+1, len(stream)+1)
		if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
			t.Errorf("%q by %d: %q, %v, wanted %q", stream, step, got, err, want)
		}
		// A limit makes it end sooner, never differently.
		got, _ = readBlocks(stream, int(step)+1, 8)
		if !slices.Equal(got, want[:min(len(got), len(want))]) {
			t.Errorf("%q with a limit: %q, wanted a beginning of %q", stream, got, want)
		}
	})
}
