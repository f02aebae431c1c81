package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxTextBytes is the most that is read of one text, maxDistinct the most words that
// are told apart: together they bound the memory.
const (
	maxTextBytes = 64 << 20
	maxDistinct  = 500_000
)

var errNoText = errors.New("is no text that can be counted")

// counter counts the words of texts.
type counter struct {
	client    *http.Client
	counts    map[string]int
	words     int
	documents int
}

func newCounter() *counter {
	return &counter{client: &http.Client{Timeout: time.Minute}, counts: map[string]int{}}
}

// add fetches a text and counts its words.
func (c *counter) add(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // only read from
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", address, response.Status)
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "text/") {
		return fmt.Errorf("%s %w", address, errNoText)
	}
	if err := c.count(response.Body); err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	c.documents++
	return nil
}

// count counts what letters and digits make up, in small letters.
func (c *counter) count(r io.Reader) error {
	limited := &io.LimitedReader{R: r, N: maxTextBytes + 1}
	scanner := bufio.NewScanner(limited)
	scanner.Split(splitWords)
	for scanner.Scan() {
		word := strings.ToLower(scanner.Text())
		if _, known := c.counts[word]; !known && len(c.counts) == maxDistinct {
			return fmt.Errorf("with more than %d different words it %w", maxDistinct, errNoText)
		}
		c.counts[word]++
		c.words++
	}
	switch {
	case errors.Is(scanner.Err(), bufio.ErrTooLong):
		return fmt.Errorf("with a word of more than %d bytes it %w", bufio.MaxScanTokenSize, errNoText)
	case limited.N == 0:
		return fmt.Errorf("with more than %d bytes it %w", maxTextBytes, errNoText)
	}
	return scanner.Err()
}

// splitWords is a bufio.SplitFunc for words of letters and digits.
func splitWords(data []byte, atEOF bool) (advance int, token []byte, err error) {
	start := -1
	for i := 0; i < len(data); {
		if !atEOF && !utf8.FullRune(data[i:]) {
			break
		}
		r, size := utf8.DecodeRune(data[i:])
		inWord := unicode.IsLetter(r) || unicode.IsDigit(r)
		switch {
		case inWord && start < 0:
			start = i
		case !inWord && start >= 0:
			return i + size, data[start:i], nil
		case !inWord:
			advance = i + size
		}
		i += size
	}
	switch {
	case start < 0:
		return advance, nil, nil
	case atEOF:
		return len(data), data[start:], nil
	}
	return start, nil, nil // the rest of the word is still to come
}

// summary is the result of the task.
type summary struct {
	Documents int         `json:"documents"`
	Words     int         `json:"words"`
	Distinct  int         `json:"distinct"`
	Top       []wordCount `json:"top"`
}

type wordCount struct {
	Word  string `json:"word"`
	Count int    `json:"count"`
}

func (c *counter) result(top int) summary {
	all := make([]wordCount, 0, len(c.counts))
	for word, count := range c.counts {
		all = append(all, wordCount{word, count})
	}
	slices.SortFunc(all, func(a, b wordCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Word, b.Word))
	})
	return summary{c.documents, c.words, len(c.counts), all[:min(top, len(all))]}
}
