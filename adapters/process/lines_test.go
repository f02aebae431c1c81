package process

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestReadLines(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"\n", []string{"0 "}},
		{"a", []string{"1 a"}},
		{"a\n", []string{"1 a"}},
		{"a\r\n\r\nb\r", []string{"1 a", "0 ", "1 b"}},
		{"a\rb\n", []string{"3 a\rb"}},
		{"12345\n", []string{"5 12345"}},
		{"12345\r\n", []string{"5 12345"}},
		{"123456\n", []string{"6 12345"}},
		{"1234567890\nnext\n", []string{"10 12345", "4 next"}},
		{"123456\r\n", []string{"7 12345"}},
		{"\x00\xff\n", []string{"2 \x00\xff"}},
	} {
		for name, reader := range map[string]io.Reader{
			"at once":      strings.NewReader(test.text),
			"byte by byte": iotest.OneByteReader(strings.NewReader(test.text)),
			"with its end": iotest.DataErrReader(strings.NewReader(test.text)),
		} {
			var got []string
			err := readLines(reader, 5, func(text []byte, size int) { got = append(got, fmt.Sprintf("%d %s", size, text)) })
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%q %s: %q, %v, want %q", test.text, name, got, err, test.want)
			}
		}
	}
}

func TestReadLinesTellsWhyItEnds(t *testing.T) {
	broken := errors.New("broken")
	var got []string
	err := readLines(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 5, func(text []byte, _ int) { got = append(got, string(text)) })
	if !errors.Is(err, broken) || !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	for _, test := range []struct {
		limit  int
		writes []string
		want   string
	}{
		{5, nil, ""},
		{5, []string{"abc"}, "abc"},
		{5, []string{"  abc\n"}, "… abc"},
		{5, []string{"abcde"}, "abcde"},
		{5, []string{"abcdef"}, "… bcdef"},
		{5, []string{"ab", "cd", "ef", "gh", "ij", "kl"}, "… hijkl"},
		{5, []string{"ééééé"}, "… éé"},
		{5, []string{"\xff\n"}, "\uFFFD"},
		{0, []string{"abc"}, ""},
	} {
		tail := &tail{limit: test.limit}
		for _, text := range test.writes {
			if n, err := io.WriteString(tail, text); n != len(text) || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		if got := tail.String(); got != test.want {
			t.Errorf("%d of %q: %q, want %q", test.limit, test.writes, got, test.want)
		}
	}
}

func TestTailCostsNoMoreThanTwiceItsLimit(t *testing.T) {
	tail := &tail{limit: 100}
	for range 100_000 {
		if _, err := io.WriteString(tail, "0123456789"); err != nil {
			t.Fatal(err)
		}
	}
	if len(tail.kept) > 200 || cap(tail.kept) > 500 {
		t.Fatalf("%d of %d bytes", len(tail.kept), cap(tail.kept))
	}
}

func FuzzReadLines(f *testing.F) {
	f.Add("a\nb\r\n", 3)
	f.Add("\r\r\n\n", 1)
	f.Add(strings.Repeat("x", 100), 10)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(1, min(limit, 1000))
		sizes := 0
		err := readLines(iotest.HalfReader(strings.NewReader(text)), limit, func(line []byte, size int) {
			sizes += size
			if len(line) > limit || len(line) > size || strings.Contains(string(line), "\n") {
				t.Fatalf("a line %q of %d bytes with the limit %d", line, size, limit)
			}
		})
		// What is missing are line ends.
		if err != nil || sizes > len(text) || sizes < len(text)-2*strings.Count(text, "\n")-1 {
			t.Fatalf("%d of %d bytes, %v", sizes, len(text), err)
		}
	})
}

func FuzzTail(f *testing.F) {
	f.Add("abc\xffé", "def", 4)
	f.Fuzz(func(t *testing.T, a, b string, limit int) {
		tail := &tail{limit: max(0, min(limit, 100))}
		_, _ = io.WriteString(tail, a)
		_, _ = io.WriteString(tail, b)
		if got := tail.String(); !utf8.ValidString(got) || len(got) > 3*tail.limit+len("… ") {
			t.Fatalf("got %q", got)
		}
	})
}
