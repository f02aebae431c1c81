package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// texts is a site with the texts by their paths.
func texts(t *testing.T, byPath map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := byPath[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if !strings.HasSuffix(r.URL.Path, ".gz") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		} else {
			w.Header().Set("Content-Type", "application/gzip")
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// work runs the task and returns what it prints, a line an element.
func work(ctx context.Context, t *testing.T, input string) (lines []string, status int, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input.json")
	if err := os.WriteFile(path, []byte(input), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	status, err = run(ctx, path, reporter{&out})
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), status, err
}

func TestTheWordsOfAllTextsAreCounted(t *testing.T) {
	site := texts(t, map[string]string{"/1": "One fish, two fish;\nred fish", "/2": "Blue fish – zwölf Fische, ZWÖLF!"})
	lines, _, err := work(t.Context(), t, `{"urls":["`+site+`/1","`+site+`/2"],"top":3}`)
	want := []string{
		`::taskbridge {"message":"1 of 2 texts","progress":50}`,
		`::taskbridge {"message":"2 of 2 texts","progress":100}`,
		`::taskbridge {"result":{"documents":2,"words":11,"distinct":7,"top":[{"word":"fish","count":4},{"word":"zwölf","count":2},{"word":"blue","count":1}]}}`,
	}
	if err != nil || strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("%v, printed\n%s", err, strings.Join(lines, "\n"))
	}
}

func TestAFailureIsPrintedAndSaysWhetherAnotherPodMayDoBetter(t *testing.T) {
	site := texts(t, map[string]string{"/a.gz": "x", "/long": strings.Repeat("x", 1<<17)})
	for _, test := range []struct {
		name, input, code string
		retryable         bool
		status            int
	}{
		{"no object", `[]`, codeInvalidInput, false, exitFinal},
		{"no addresses", `{}`, codeInvalidInput, false, exitFinal},
		{"an address of a file", `{"urls":["file:///etc/passwd"]}`, codeInvalidInput, false, exitFinal},
		{"too many words asked for", `{"urls":["` + site + `/1"],"top":101}`, codeInvalidInput, false, exitFinal},
		{"no text", `{"urls":["` + site + `/a.gz"]}`, codeNoText, false, exitFinal},
		{"a word without an end", `{"urls":["` + site + `/long"]}`, codeNoText, false, exitFinal},
		{"not there", `{"urls":["` + site + `/none"]}`, codeUnavailable, true, exitRetryable},
		{"nobody answers", `{"urls":["http://127.0.0.1:1/"]}`, codeUnavailable, true, exitRetryable},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines, status, err := work(t.Context(), t, test.input)
			var report struct {
				Fail struct {
					Code, Message string
					Retryable     bool
				}
			}
			text, isReport := strings.CutPrefix(lines[len(lines)-1], "::taskbridge ")
			if problem := json.Unmarshal([]byte(text), &report); problem != nil || !isReport || err == nil || report.Fail.Message == "" {
				t.Fatalf("%v, printed %q", err, lines)
			}
			if report.Fail.Code != test.code || report.Fail.Retryable != test.retryable || status != test.status {
				t.Errorf("exit status %d, %+v", status, report.Fail)
			}
		})
	}
}

func TestWhatIsToldToStopStopsWithoutAnEndOfItsOwn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(asked.Close)
	lines, status, err := work(ctx, t, `{"urls":["`+asked.URL+`"]}`)
	if err == nil || status != exitRetryable || lines[0] != "" {
		t.Errorf("%v, exit status %d, printed %q", err, status, lines)
	}
}

func TestWordsAreTheSameHoweverTheyArrive(t *testing.T) {
	const text = "añb  ç—x1 \xff tail"
	whole := newCounter()
	if err := whole.count(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	pieces := newCounter()
	if err := pieces.count(oneByte{strings.NewReader(text)}); err != nil {
		t.Fatal(err)
	}
	for word, count := range map[string]int{"añb": 1, "ç": 1, "x1": 1, "tail": 1} {
		if whole.counts[word] != count || pieces.counts[word] != count {
			t.Errorf("%q: %d and %d", word, whole.counts[word], pieces.counts[word])
		}
	}
	if whole.words != 4 || pieces.words != 4 {
		t.Errorf("%v and %v", whole.counts, pieces.counts)
	}
}

// oneByte reads a byte at a time.
type oneByte struct{ *strings.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }
