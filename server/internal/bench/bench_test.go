package bench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskbridge/taskbridge/server/internal/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryFigureIsMeasuredBesideItsCeiling(t *testing.T) {
	dir := t.TempDir()
	report, err := bench.Run(t.Context(), bench.Options{
		Dir: dir, Duration: 50 * time.Millisecond, Samples: 2, Callers: 4, Events: 600, Progress: t.Logf,
		Only: []string{"append", "create", "replay"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Figures) != 3 {
		t.Errorf("%d figures, want 3", len(report.Figures))
	}
	for _, f := range report.Figures {
		if len(f.Samples) != 2 || len(f.CeilingSamples) != 2 || f.Measured <= 0 || f.Ceiling <= 0 || f.Ratio <= 0 || f.Aim <= 0 {
			t.Errorf("the figure is %+v", f)
		}
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil || strings.Count(table.String(), "met")+strings.Count(table.String(), "missed") != 3 {
		t.Errorf("the table is %s, %v", table.String(), err)
	}
	path := filepath.Join(dir, "results", "bench.json")
	if err := report.WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read bench.Report
	if err := json.Unmarshal(text, &read); err != nil || len(read.Figures) != 3 || read.Figures[0].Ratio != report.Figures[0].Ratio {
		t.Errorf("the file has %s, %v", text, err)
	}
	// What was measured has left nothing.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v is left, %v", entries, err)
	}
}

func TestAFigureThatIsNotThereIsRefused(t *testing.T) {
	if _, err := bench.Run(t.Context(), bench.Options{Dir: t.TempDir(), Only: []string{"no such"}}); err == nil {
		t.Error("it was not refused")
	}
}
