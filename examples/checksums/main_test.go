package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// report is a line of the output, read independently of the program's own types.
type report struct {
	Progress *float64
	Message  string
	Result   *struct {
		Dir    string
		Files  int
		Bytes  int64
		SHA256 string
	}
	Fail *struct {
		Code, Message string
		Retryable     bool
	}
}

func runTask(t *testing.T, input string) ([]report, error) {
	t.Helper()
	var out bytes.Buffer
	runErr := run(strings.NewReader(input), reporter{bufio.NewWriter(&out)})
	var reports []report
	for line := range strings.Lines(out.String()) {
		text, ok := strings.CutPrefix(line, "::taskbridge ")
		if !ok {
			t.Fatalf("not a report: %q", line)
		}
		var r report
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		reports = append(reports, r)
	}
	return reports, runErr
}

func inputFor(t *testing.T, dir string) string {
	t.Helper()
	in, err := json.Marshal(map[string]any{"dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	return string(in)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheResultIsWhatSha256sumComputes(t *testing.T) {
	dir := t.TempDir()
	for i := range 150 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%d", i)), strings.Repeat("x", i))
	}
	for _, name := range []string{"a.b", "a/b", "with space", `back\slash`, "new\nline", "é", "-n", "empty"} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	writeFile(t, filepath.Join(dir, "empty"), "")
	if err := os.Symlink("a.b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}

	reports, err := runTask(t, inputFor(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	last := reports[len(reports)-1].Result
	if last == nil {
		t.Fatalf("the last report is no result: %+v", reports[len(reports)-1])
	}

	command := exec.Command("sh", "-c", `cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`, "sh", dir)
	want, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := last.SHA256; got != strings.Fields(string(want))[0] {
		t.Errorf("sha256 is %s, sha256sum says %s", got, want)
	}
	if last.Files != 158 || last.Dir != dir {
		t.Errorf("result is %+v, want 158 files of %s", last, dir)
	}
}

func TestProgressRisesToAHundredInAtMostAHundredReports(t *testing.T) {
	for _, files := range []int{1, 3, 100, 257} {
		dir := t.TempDir()
		for i := range files {
			writeFile(t, filepath.Join(dir, fmt.Sprint(i)), "")
		}
		reports, err := runTask(t, inputFor(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		progress := reports[:len(reports)-1]
		if len(progress) == 0 || len(progress) > 100 {
			t.Fatalf("%d files: %d progress reports", files, len(progress))
		}
		before := 0.0
		for _, r := range progress {
			if r.Progress == nil || *r.Progress <= before {
				t.Fatalf("%d files: progress does not rise behind %v: %+v", files, before, r)
			}
			before = *r.Progress
		}
		if before != 100 {
			t.Errorf("%d files: progress ends at %v", files, before)
		}
	}
}

func TestAnEmptyFolderHasAResult(t *testing.T) {
	reports, err := runTask(t, inputFor(t, t.TempDir()))
	if err != nil || len(reports) != 1 || reports[0].Result == nil || reports[0].Result.Files != 0 {
		t.Fatalf("got %+v, %v; want one result of no files", reports, err)
	}
}

func TestBadInputFailsTheTaskWithAStableCode(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct{ name, input, code string }{
		{"nothing", ``, codeInvalidInput},
		{"no JSON", `dir`, codeInvalidInput},
		{"no object", `[]`, codeInvalidInput},
		{"no folder", `{}`, codeInvalidInput},
		{"relative folder", `{"dir":"."}`, codeInvalidInput},
		{"unknown field", `{"dir":"/","folder":"/"}`, codeInvalidInput},
		{"negative pace", `{"dir":"/","filesPerSecond":-1}`, codeInvalidInput},
		{"folder that is not there", inputFor(t, missing), codeUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			reports, err := runTask(t, c.input)
			if err == nil {
				t.Error("the exit status says success")
			}
			if len(reports) != 1 || reports[0].Fail == nil || reports[0].Fail.Code != c.code {
				t.Fatalf("reports are %+v, want one failure %s", reports, c.code)
			}
		})
	}
}
